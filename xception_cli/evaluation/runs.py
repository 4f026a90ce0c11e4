"""The runs of a folder with their key figures, for `xception runs`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from xception_cli.console import new_table, show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.rundir import RunDir, runs_in
from xception_cli.settings import read_toml


@dataclass(frozen=True)
class RunFigures:
    """What is known of a run; None where it is not.

    Attributes:
        run: Its folder.
        started: When, in UTC.
        state: `finished`, `unfinished` or `damaged`.
        classes: How many it tells apart.
        images: Those it was trained on.
        unfreeze: What was trained.
        kept: Which model it kept.
        val: Accuracy on val, corrected for having selected the model; uncorrected in runs of
            earlier versions.
        test: Accuracy on test.
        seconds: It took.
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return asdict(self)


def list_runs(folder: Path) -> list[RunFigures]:
    """Read the key figures of every run in a folder, the latest first.

    Args:
        folder: Holds run folders.

    Raises:
        UsageError: There is none.
    """
    runs = [_figures(run) for run in runs_in(folder)]
    if not runs:
        raise UsageError(
            f"there is no run in {show(folder)}", hint="xception train --data DIR makes one"
        )
    return sorted(runs, key=lambda run: run.started, reverse=True)


def _figures(run: RunDir) -> RunFigures:
    try:
        info = run.read_info()
        result = run.read_result() if run.is_finished else None
        accuracy = result.evaluation if result else {}
        return RunFigures(
            run=str(run.path),
            started=info.started,
            state="finished" if run.is_finished else "unfinished",
            classes=len(info.classes),
            images=info.images["train"],
            unfreeze=str(read_toml(run.config)["unfreeze"]),
            kept=result.kept if result else None,
            val=accuracy.get("val"),
            test=accuracy.get("test"),
            seconds=sum(result.seconds.values()) if result else None,
        )
    except (ArtifactError, UsageError, KeyError, TypeError, AttributeError, ValueError):
        return RunFigures(str(run.path), "", "damaged")  # it must not hide the others


def runs_table(runs: Sequence[RunFigures]) -> Table:
    """Make the table of the runs."""
    table = new_table("run", "started", ">classes", ">val", ">test", ">time", "kept")
    for run in runs:
        table.add_row(
            show(run.run),
            show(run.started[:10]),
            _text(run.classes),
            _percent(run.val),
            _percent(run.test),
            "" if run.seconds is None else f"{run.seconds / 60:.1f} min",
            show(run.kept) if run.kept else run.state,
        )
    return table


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f} %"
