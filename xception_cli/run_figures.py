"""RunFigures: the key figures of the runs in a folder, and their table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from xception_cli.console import new_table, show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.numerals import duration, percentage
from xception_cli.rundir import RunDir
from xception_cli.runs import refuse_links, runs_in, state_of
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
        settings: Settings that were not the default, by name, except the data.
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

    Args:
        folder: A folder with run folders.

    Raises:
        UsageError: There is no run in it.
    """
    runs = [_figures(run) for run in runs_in(folder)]
    if not runs:
        hint = "xception train DIR makes one; xception runs DIR lists another folder"
        raise UsageError(f"there is no run in {show(folder)}", hint=hint)
    return sorted(runs, key=lambda run: run.started, reverse=True)


def _figures(run: RunDir) -> RunFigures:
    try:
        refuse_links(run)
        info = run.read_info()
        result = run.read_result() if run.is_finished else None
        accuracy, settings = result.evaluation if result else {}, read_settings(run)
        return RunFigures(
            run=str(run.path),
            started=info.started,
            state=state_of(run),
            classes=len(info.classes),
            images=info.images["train"],
            unfreeze=str(settings["unfreeze"]),
            kept=result.kept if result else None,
            val=accuracy.get("val"),
            test=accuracy.get("test"),
            seconds=sum(result.seconds.values()) if result else None,
            settings=_special(settings),
        )
    except (ArtifactError, UsageError, KeyError, TypeError, AttributeError, ValueError):
        return RunFigures(str(run.path), "", "damaged")  # it must not hide the others


def _special(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that tell a run from others on the same data."""
    chosen = chosen_settings(settings).items()
    return {name: value for name, value in chosen if name not in {"data", "root", "classes"}}


def _described(settings: Mapping[str, Any]) -> str:
    """Describe settings in a few words; of a path, its last two parts."""
    shown = {
        name: str(Path(*Path(value).parts[-2:])) if isinstance(value, str) else value
        for name, value in settings.items()
    }
    return ", ".join(show(f"{name.strip('_')}={value}") for name, value in shown.items())


def runs_table(runs: Sequence[RunFigures]) -> Table:
    """Create the table of runs, with the settings that tell them apart."""
    tests = [">test accuracy"] * any(run.test is not None for run in runs)
    table = new_table("run", "started", ">val accuracy", *tests, ">time", "kept", "settings")
    parts = {run.unfreeze for run in runs if run.unfreeze is not None}
    for run in runs:
        part = {"unfreeze": run.unfreeze} if run.unfreeze and len(parts) > 1 else {}
        table.add_row(
            show(run.run),
            show(run.started[:10]),
            _percent(run.val),
            *[_percent(run.test)] * len(tests),
            "" if run.seconds is None else duration(run.seconds),
            show(run.kept) if run.kept else run.state,
            _described({**part, **run.settings}),
        )
    return table


def _percent(part: float | None) -> str:
    return "" if part is None else percentage(part)
