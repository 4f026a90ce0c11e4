"""What a data check leaves behind: issues.csv, to be edited, and a page with pictures."""

import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from xception_cli.check.report import (
    CheckReport,
    Curve,
    Finding,
    Problem,
    count_of,
    verdict,
    without_mirrored,
)
from xception_cli.console import safe, screen, show
from xception_cli.data.fixes import ISSUES_HEADER
from xception_cli.errors import MachineError, UsageError
from xception_cli.files import from_csv, to_csv, write_durably
from xception_cli.report.html import columns, document, figure, photo, text
from xception_cli.rundir import ISSUES

PAGE = "check.html"

_CARDS = {"stops": 48, "warning": 24, "note": 12}  # pictures shown of one problem


def check_output(data: Path, output: Path) -> None:
    """See that a check may be written there, before it is begun.

    Raises:
        UsageError: It would be inside the data folder, or over an edited issues.csv.
    """
    inside, root = (Path(os.path.realpath(path)) for path in (output, data))
    if inside.is_relative_to(root):
        raise UsageError(
            f"--output {show(output)} is inside the data folder, where nothing is ever written",
            hint="choose a folder beside it",
        )
    if os.path.lexists(output / ISSUES):
        raise UsageError(
            f"{show(output / ISSUES)} is already there, and may have been edited",
            hint="choose another --output, or remove it",
        )


def write_check(report: CheckReport, output: Path) -> None:
    """Write issues.csv and check.html.

    Args:
        report: The data check.
        output: A folder; is made.

    Raises:
        MachineError: It cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make the folder {show(output)}: {error.strerror}") from error
    write_durably(output / ISSUES, issues_csv(report))
    write_durably(output / PAGE, page_html(report).encode())


def issues_csv(report: CheckReport) -> bytes:
    """List every file that something was found of, the worst problems first."""
    return to_csv(ISSUES_HEADER, _issues(report.problems))


def add_issues(path: Path, name: str, problems: Iterable[Problem]) -> None:
    """Put a problem's files at the end of an issues.csv, in the place of what it said of it before.

    Args:
        path: The file; is made if it is missing.
        name: Of the problem.
        problems: With that name.

    Raises:
        ArtifactError: The file is damaged.
        MachineError: The disk is full or read-only.
    """
    before = from_csv(path, ISSUES_HEADER) if path.exists() else []
    rows = [row for row in before if row[ISSUES_HEADER.index("problem")] != name]
    write_durably(path, to_csv(ISSUES_HEADER, [*rows, *_issues(problems)]))


def _issues(problems: Iterable[Problem]) -> Iterator[Sequence[str]]:
    for problem in problems:
        for finding in problem.findings:
            yield finding.path, problem.name, finding.detail, finding.action, finding.label


def page_html(report: CheckReport) -> str:
    """Draw the page: one file without a script, that loads nothing."""
    shown = {problem: _shown(problem) for problem in report.problems}
    total = sum(1 + len(f.others[:2]) for findings in shown.values() for f in findings)
    with screen.bar("drawing the page", total, heartbeat=False) as bar:

        def picture(path: str) -> str:
            bar.advance(1)
            return photo(Path(report.data) / path, path)

        problems = "".join(
            _problem(problem, (_card(f, map(picture, (f.path, *f.others[:2]))) for f in findings))
            for problem, findings in shown.items()
        )
    said = f"<p class=verdict>{_sentence(verdict(report).capitalize())}</p>\n"
    body = f"{said}{_classes(report)}{_curve(report.curve)}{problems}"
    return document(f"Check of {show(report.data)}", body, _STYLE)


def _shown(problem: Problem) -> list[Finding]:
    return without_mirrored(problem.findings)[: _CARDS[problem.severity]]


def _sentence(sentence: str) -> str:
    return escape(f"{safe(sentence)}.")


def _classes(report: CheckReport) -> str:
    splits = list(report.counts)
    most = max([1, *(n for counts in report.counts.values() for n in counts)])
    head = columns("class", *("images" if split == "all" else split for split in splits))
    rows = []
    for label, name in enumerate(report.classes):
        counts = [report.counts[split][label] for split in splits]
        cells = "".join(
            f'<td><span class=bar style="width:calc((100% - 4rem) * {n / most:.3f})"></span>'
            f"<span class=n>{n:,}</span></td>"
            for n in counts
        )
        rows.append(f"<tr><th scope=row>{text(name)}</th>{cells}</tr>\n")
    return (
        f"<section><h2>{count_of(report.images, 'image')}, "
        f"{count_of(len(report.classes), 'class')}</h2>\n"
        f"<table>{head}{''.join(rows)}</table></section>\n"
    )


def _curve(curve: Curve | None) -> str:
    if curve is None:
        return ""
    points = "".join(
        f"<tr><th scope=row>{p.fraction:.0%}</th><td>{p.images:,}</td>"
        f"<td>{100 * p.accuracy:.1f} % ({100 * p.low:.1f} to {100 * p.high:.1f} %)</td></tr>\n"
        for p in curve.points
    )
    words = {"more": "more would help", "enough": "enough for now", "unclear": "unclear"}
    classes = "".join(
        f"<tr><th scope=row>{text(c.name)}</th><td>{c.half:.0%}</td><td>{c.whole:.0%}</td>"
        f"<td>{words[c.verdict]}</td></tr>\n"
        for c in curve.classes
    )
    return (
        "<section><h2>Would more photos help?</h2>\n<p>Accuracy of a linear probe on left-out "
        "photos, by how many it sees.</p>\n"
        f"<table>{columns('part', 'photos', 'accuracy')}{points}</table>\n"
        f"<table>{columns('class', 'recall with half', 'with all', 'photos')}"
        f"{classes}</table></section>\n"
    )


def _problem(problem: Problem, cards: Iterable[str]) -> str:
    inside = "".join(cards)
    kind = "cards wide" if any(finding.others for finding in problem.findings) else "cards"
    grid = f'<div class="{kind}">\n{inside}</div>\n' if inside else ""
    left = len(without_mirrored(problem.findings)) - len(_shown(problem))
    more = f"<p class=more>and {left:,} more, in {ISSUES}</p>\n" if left > 0 else ""
    return (
        f'<section><h2><span class="tag {problem.severity}">{problem.severity}</span> '
        f"{text(problem.name)}</h2>\n<p>{_sentence(problem.summary)}</p>\n{grid}{more}</section>\n"
    )


def _card(finding: Finding, pictures: Iterable[str]) -> str:
    action = f"<span class=action>{text(finding.action)}</span>" if finding.action else ""
    caption = f"<b>{text(finding.path)}</b><br>{text(finding.detail)} {action}"
    return figure("".join(pictures), caption)


_STYLE = """
.verdict { font-size: 1.1rem; }
.tag { border: 1px solid; border-radius: 1rem; padding: .05rem .6rem; font-size: .8rem;
  vertical-align: .1em; }
.stops { color: var(--stops); } .warning { color: var(--warning); } .note { color: var(--note); }
table { width: 100%; max-width: 44rem; table-layout: fixed; }
table + table { margin-top: 1rem; }
tr th:first-child { width: 30%; }
td { white-space: nowrap; }
.n { padding-left: .5rem; }
.action { border: 1px solid var(--line); border-radius: .3rem; padding: 0 .3rem; }
"""
