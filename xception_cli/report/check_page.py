"""The files of a data check: issues.csv, to be edited, and check.html, with the images."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xception_cli.check.report import (
    CheckReport,
    Curve,
    Finding,
    Problem,
    verdict,
    without_mirrored,
)
from xception_cli.check.steps import next_steps
from xception_cli.console import screen, show
from xception_cli.csv_files import to_csv
from xception_cli.data.fixes import ISSUES_HEADER, read_issues
from xception_cli.evaluation.intervals import Estimate, texts
from xception_cli.files import make_folder, write_durably
from xception_cli.numerals import count_of, percentage
from xception_cli.report.html import Card, Thumbnail, photo, render
from xception_cli.rundir import ISSUES

PAGE = "check.html"

_CARDS = {"stops": 48, "warning": 24, "note": 12}  # cards shown of one problem


def write_check(report: CheckReport, output: Path, again: str) -> None:
    """Write issues.csv and check.html.

    Args:
        report: The data check.
        output: A folder; created if necessary.
        again: See `check.steps.next_steps`.

    Raises:
        MachineError: It cannot be written.
    """
    make_folder(output)
    write_durably(output / PAGE, page_html(report, output / ISSUES, again).encode())
    # Last: a folder with this file is refused, because it may have been edited.
    write_durably(output / ISSUES, issues_csv(report))


def issues_csv(report: CheckReport) -> bytes:
    """List every file with a problem, the worst problems first."""
    return to_csv(ISSUES_HEADER, _issues(report.problems))


def add_issues(path: Path, name: str, problems: Iterable[Problem]) -> None:
    """Append a problem's files to an issues.csv, replacing its earlier rows of that problem.

    Args:
        path: The file; created if it is missing.
        name: Of the problem.
        problems: With that name.

    Raises:
        UsageError: The file cannot be read.
        MachineError: The disk is full or read-only.
    """
    before = read_issues(path) if path.exists() else []
    kept = [row for row in before if row.get("problem") != name]
    rows = [[row.get(column, "") for column in ISSUES_HEADER] for row in kept]
    write_durably(path, to_csv(ISSUES_HEADER, [*rows, *_issues(problems)]))


def _issues(problems: Iterable[Problem]) -> Iterator[Sequence[str]]:
    for problem in problems:
        for finding in problem.findings:
            yield finding.path, problem.name, finding.detail, finding.action, finding.label


def page_html(report: CheckReport, issues: Path, again: str = "") -> str:
    """Render the page: one file that has no scripts and loads nothing.

    Args:
        report: The data check.
        issues: Its issues.csv, in the folder of the page.
        again: See `check.steps.next_steps`.
    """
    shown = {problem: _shown(problem) for problem in report.problems}
    total = sum(1 + len(f.others[:2]) for findings in shown.values() for f in findings)
    with screen.bar("writing the page", total, heartbeat=False) as bar:

        def read(path: str) -> Thumbnail | None:
            bar.advance(1)
            return photo(report.root, path)

        problems = [
            {
                "severity": problem.severity,
                "name": problem.name,
                "summary": problem.summary,
                "classes": problem.classes,
                "cards": [
                    Card(tuple(map(read, (f.path, *f.others[:2]))), f.detail, f.path, f.action)
                    for f in findings
                ],
                "left": len(without_mirrored(problem.findings)) - len(findings),
            }
            for problem, findings in shown.items()
        ]
    classes = count_of(len(report.classes), "class")
    return render(
        "check.html.j2",
        title=f"Data check: {show(report.data)}",
        verdict=verdict(report),
        steps=next_steps(report, issues, again),
        size=f"{count_of(report.images, 'image')}, {classes}",
        splits=["images" if split == "all" else split for split in report.counts],
        most=max([1, *(n for counts in report.counts.values() for n in counts)]),
        classes=[
            {"name": name, "counts": counts}
            for name, *counts in zip(report.classes, *report.counts.values(), strict=True)
        ],
        curve=None if report.curve is None else _curve(report.curve),
        problems=problems,
    )


def _shown(problem: Problem) -> list[Finding]:
    return without_mirrored(problem.findings)[: _CARDS[problem.severity]]


def _curve(curve: Curve) -> dict[str, Any]:
    words = {"more": "more would help", "enough": "enough for now", "unclear": "unclear"}
    return {
        "points": [
            {
                "share": f"{100 * point.fraction:g}%",
                "images": point.images,
                "accuracy": percentage(point.accuracy),
                "interval": texts(Estimate(point.accuracy, point.low, point.high), percent=True)[1],
            }
            for point in curve.points
        ],
        "classes": [
            {
                "name": gain.name,
                "half": f"{gain.half:.0%}",
                "whole": f"{gain.whole:.0%}",
                "verdict": words[gain.verdict],
            }
            for gain in curve.classes
        ],
        "untested": ", ".join(show(name) for name in curve.untested),
    }
