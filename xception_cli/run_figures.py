"""RunFigures: the key figures of the runs in a folder, and their table."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from xception_cli.config import TrainConfig
from xception_cli.console import new_table, show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.numerals import duration, percentage
from xception_cli.rundir import RunDir
from xception_cli.runs import refuse_links, runs_in
from xception_cli.settings import chosen_settings, read_settings


@dataclass(frozen=True)
class RunFigures:
    """Key figures of a run; None if unknown.

    Attributes:
        run: Its folder.
        started: Start time, in UTC.
        state: `finished`, `running`, `unfinished` or `damaged`.
        classes: Number of classes.
        images: Number of training images.
        unfreeze: Layers that were trained.
        kept: The model that was kept.
        val: Accuracy on val, corrected for having selected the model; uncorrected in runs of
            earlier versions.
        test: Accuracy on test.
        seconds: Duration.
        settings: Settings that were not the default, by name, except the data; of those whose
            default is `auto`, the ones that differ between the runs on this data.
    """

    run: str
    started: str
    state: str
    classes: int | None = None
    images: int | None = None
    unfreeze: str | None = None
    kept: str | None = None
    val: float | None = None
    test: float | None = None
    seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return asdict(self)


def list_runs(folder: Path) -> list[RunFigures]:
    """Read the key figures of every run in a folder, the latest first.

    Raises:
        UsageError: There is no run in it.
    """
    runs = [_figures(run) for run in runs_in(folder)]
    if not runs:
        hint = "xception train DIR makes one; xception runs DIR lists another folder"
        raise UsageError(f"there is no run in {show(folder)}", hint=hint)
    by_data = defaultdict(list)
    for run in runs:
        by_data[run.settings.get("data")].append(run.settings)
    differing = {data: _differing(settings) for data, settings in by_data.items()}
    runs = [
        replace(run, settings=_special(run.settings, differing[run.settings.get("data")]))
        for run in runs
    ]
    return sorted(runs, key=lambda run: run.started, reverse=True)


def _figures(run: RunDir) -> RunFigures:
    """Read the figures of a run, with all of its settings."""
    try:
        refuse_links(run)
        info = run.read_info()
        result = run.read_result() if run.is_finished else None
        accuracy, settings = result.evaluation if result else {}, read_settings(run)
        return RunFigures(
            run=str(run.path),
            started=info.started,
            state=run.state,
            classes=len(info.classes),
            images=info.images["train"],
            unfreeze=str(settings["unfreeze"]),
            kept=result.kept if result else None,
            val=accuracy.get("val"),
            test=accuracy.get("test"),
            seconds=sum(result.seconds.values()) if result else None,
            settings=settings,
        )
    except (ArtifactError, UsageError, KeyError, TypeError, AttributeError, ValueError):
        return RunFigures(str(run.path), "", "damaged")  # it must not hide the others


def _differing(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return which settings with the default `auto` differ, whoever chose their values."""
    undecided = [name for name, default in vars(TrainConfig()).items() if default == "auto"]
    return {
        name for name in undecided if len({each[name] for each in settings if name in each}) > 1
    }


def _special(settings: Mapping[str, Any], differing: AbstractSet[str]) -> dict[str, Any]:
    """Return the settings that tell a run from others on the same data."""
    special = (chosen_settings(settings, None).keys() | differing) - {"data", "root", "classes"}
    return {name: value for name, value in settings.items() if name in special}


def _described(settings: Mapping[str, Any]) -> list[str]:
    """Describe each setting in a few words; of a path, its last two parts."""
    shown = {
        name: str(Path(*Path(value).parts[-2:])) if isinstance(value, str) else value
        for name, value in settings.items()
    }
    return [show(f"{name.strip('_')}={value}") for name, value in shown.items()]


def runs_table(runs: Sequence[RunFigures], width: int) -> Table:
    """Create the table of runs, with the settings that tell them apart.

    Args:
        runs: In their order.
        width: Columns that there are. A table that is wider has no start times, and a setting in
            each line.
    """
    table = _draw(runs, is_narrow=False)
    unlimited = Console(width=1000)
    is_narrow = Measurement.get(unlimited, unlimited.options, table).maximum > width
    return _draw(runs, is_narrow=True) if is_narrow else table


def _draw(runs: Sequence[RunFigures], *, is_narrow: bool) -> Table:
    rows = []
    for run in runs:
        settings, kept = _described(run.settings), show(run.kept or run.state)
        if is_narrow:
            kept = kept.removeprefix("the ").replace(", ", ",\n")
        rows.append(
            {
                "run": show(run.run),
                "started": show(run.started[:10]),
                ">val accuracy": _percent(run.val),
                ">test accuracy": _percent(run.test),
                ">time": "" if run.seconds is None else duration(run.seconds),
                "kept": kept,
                "settings": ("\n" if is_narrow else ", ").join(settings),
            }
        )
    left_out = {"started"} if is_narrow else set()
    if all(run.test is None for run in runs):
        left_out.add(">test accuracy")
    names = [name for name in rows[0] if name not in left_out]
    table = new_table(*[name.replace(" ", "\n") if is_narrow else name for name in names])
    for row in rows:
        table.add_row(*[row[name] for name in names])
    return table


def _percent(part: float | None) -> str:
    return "" if part is None else percentage(part)
