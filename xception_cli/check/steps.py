"""Steps: what to do after a data check, and the commands to type."""

from dataclasses import dataclass
from pathlib import Path

from xception_cli.check.report import (
    BROKEN,
    CONFLICTING,
    ORIENTATION,
    ROTATE,
    SUSPECT,
    TORN,
    UNREAD,
    UNREADABLE,
    CheckReport,
)
from xception_cli.console import quoted
from xception_cli.data.formats import INSTALL_HEIF
from xception_cli.runs import folder_around, name_after, run_path_beside

_EXCLUDABLE = {BROKEN, UNREADABLE}  # they stop training only until issues.csv excludes them
_UNDECIDED = {CONFLICTING, SUSPECT, TORN}  # only a person can decide them


@dataclass(frozen=True)
class Steps:
    """What to do after a data check; what is empty is not needed.

    Attributes:
        install: The command that makes further images readable.
        folder: What must be changed in the folder, as sentences.
        suggested: Number of rows of issues.csv that have an action already.
        undecided: Number of rows whose action only a person can choose.
        check: The command that checks again.
        train: The command that trains, with `--fixes` if there is anything to fix.
    """

    install: str
    folder: tuple[str, ...]
    suggested: int
    undecided: int
    check: str
    train: str

    @property
    def decides(self) -> bool:
        """Whether the column `action` of issues.csv matters."""
        return self.suggested + self.undecided > 0


def next_steps(report: CheckReport, issues: Path | None = None, again: str = "") -> Steps:
    """Choose what to do after a data check.

    Args:
        report: The data check.
        issues: Where its issues.csv was written; None if it was not.
        again: Options that were given and that the next command needs, each after a space.
    """
    data = quoted(report.data) + again
    train = f"xception train {quoted(report.data)} --classes {len(report.classes)}{again}"
    if any(problem.name == ORIENTATION for problem in report.problems):
        train += f" {ROTATE}"
    if beside := run_path_beside(Path(report.data)):
        train += f" --output {quoted(beside)}"
    stops = report.of("stops")
    found = [(problem, finding) for problem in report.problems for finding in problem.findings]
    suggested = sum(bool(finding.action) for _, finding in found)
    undecided = sum(problem.name in _UNDECIDED and not finding.action for problem, finding in found)
    if issues is not None and suggested + undecided:
        train += f" --fixes {quoted(issues)}"
    elif any(problem.name in _EXCLUDABLE for problem in stops):
        train += " --skip-bad"
    return Steps(
        install=INSTALL_HEIF if any(problem.name == UNREAD for problem in stops) else "",
        folder=tuple(
            f"{p.summary}; {p.hint}" if p.hint else p.summary
            for p in stops
            if p.name not in {UNREAD, *_EXCLUDABLE}
        ),
        suggested=suggested,
        undecided=undecided,
        check=f"xception check {data}",
        train=train,
    )


def next_command(report: CheckReport, issues: Path | None, again: str) -> str:
    """Return the next command to type; the arguments are those of `next_steps`."""
    steps = next_steps(report, issues, again)
    if steps.install:
        return steps.install
    found = (*report.of("stops"), *report.of("warning"))
    if issues is None and any(problem.findings or not problem.hint for problem in found):
        return f"{steps.check} --output {quoted(_beside(Path(report.data)))}"
    return steps.check if steps.folder else steps.train


def _beside(data: Path) -> Path:
    """Name a folder for what a check writes: here, unless here is inside the data."""
    return (folder_around(data) or Path()) / f"{name_after(data)}-check"
