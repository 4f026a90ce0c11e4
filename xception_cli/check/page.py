"""What a data check leaves behind: issues.csv, to be edited, and a page with pictures."""

import os
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from xception_cli.check.report import CheckReport, Curve, Finding, Problem, count_of
from xception_cli.check.text import verdict, without_mirrored
from xception_cli.console import safe, screen, show
from xception_cli.data.fixes import ISSUES_HEADER
from xception_cli.data.images import PictureError, read_picture
from xception_cli.errors import MachineError, UsageError
from xception_cli.files import from_csv, to_csv, write_durably

ISSUES = "issues.csv"
PAGE = "check.html"

_CARDS = {"stops": 48, "warning": 24, "note": 12}  # pictures shown of one problem
_SIDE = 176  # of a picture on the page
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    title = f"Check of {_text(report.data)}"
    shown = {problem: _shown(problem) for problem in report.problems}
    total = sum(1 + len(f.others[:2]) for findings in shown.values() for f in findings)
    with screen.bar("drawing the page", total, heartbeat=False) as bar:

        def picture(path: str) -> str:
            bar.advance(1)
            return _picture(Path(report.data) / path, path)

        problems = "".join(
            _problem(problem, (_card(f, map(picture, (f.path, *f.others[:2]))) for f in findings))
            for problem, findings in shown.items()
        )
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{title}</h1>\n<p class=verdict>{_sentence(verdict(report).capitalize())}</p>\n"
        f"{_classes(report)}{_curve(report.curve)}{problems}</body></html>\n"
    )


def _shown(problem: Problem) -> list[Finding]:
    return without_mirrored(problem.findings)[: _CARDS[problem.severity]]


def _text(text: object) -> str:
    return escape(show(text))


def _sentence(text: str) -> str:
    return escape(f"{safe(text)}.")


def _classes(report: CheckReport) -> str:
    splits = list(report.counts)
    most = max([1, *(n for counts in report.counts.values() for n in counts)])
    head = "".join(f"<th>{_text('images' if split == 'all' else split)}</th>" for split in splits)
    rows = []
    for label, name in enumerate(report.classes):
        counts = [report.counts[split][label] for split in splits]
        cells = "".join(
            f'<td><span class=bar style="width:calc((100% - 4rem) * {n / most:.3f})"></span>'
            f"<span class=n>{n:,}</span></td>"
            for n in counts
        )
        rows.append(f"<tr><th scope=row>{_text(name)}</th>{cells}</tr>\n")
    return (
        f"<section><h2>{count_of(report.images, 'image')}, "
        f"{count_of(len(report.classes), 'class')}</h2>\n"
        f"<table><tr><th>class</th>{head}</tr>\n{''.join(rows)}</table></section>\n"
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
        f"<tr><th scope=row>{_text(c.name)}</th><td>{c.half:.0%}</td><td>{c.whole:.0%}</td>"
        f"<td>{words[c.verdict]}</td></tr>\n"
        for c in curve.classes
    )
    return (
        "<section><h2>Would more photos help?</h2>\n<p>Accuracy of a linear probe on left-out "
        "photos, by how many it sees.</p>\n"
        f"<table><tr><th>part</th><th>photos</th><th>accuracy</th></tr>\n{points}</table>\n"
        "<table><tr><th>class</th><th>recall with half</th><th>with all</th><th>photos</th></tr>\n"
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
        f"{_text(problem.name)}</h2>\n<p>{_sentence(problem.summary)}</p>\n{grid}{more}</section>\n"
    )


def _card(finding: Finding, pictures: Iterable[str]) -> str:
    action = f"<span class=action>{_text(finding.action)}</span>" if finding.action else ""
    return (
        f"<figure><div class=pictures>{''.join(pictures)}</div>\n"
        f"<figcaption><b>{_text(finding.path)}</b><br>{_text(finding.detail)} {action}"
        "</figcaption></figure>\n"
    )


def _picture(path: Path, name: str) -> str:
    try:
        picture = read_picture(path, least_side=_SIDE)
    except PictureError:
        return "<span class=none>no picture</span>"
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    data = b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" alt="{_text(name)}" '
        f"width={picture.width} height={picture.height}>"
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6670; --paper: #fff; --card: #f4f5f7;
  --line: #dde0e4; --bar: #9db8e8; --stops: #b3261e; --warning: #8a5a00; --note: #2b5fa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a8; --paper: #16181b;
  --card: #212429; --line: #34383e; --bar: #3f5f96; --stops: #ff8a80; --warning: #f0b95a;
  --note: #8fb6f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.1rem; margin: 0 0 .3rem; }
p { margin: 0 0 .6rem; max-width: 60ch; }
section { border-top: 1px solid var(--line); padding-top: 1.1rem; margin-top: 1.6rem; }
.verdict { font-size: 1.1rem; }
.more { color: var(--soft); margin-top: .6rem; }
.tag { border: 1px solid; border-radius: 1rem; padding: .05rem .6rem; font-size: .8rem;
  vertical-align: .1em; }
.stops { color: var(--stops); } .warning { color: var(--warning); } .note { color: var(--note); }
table { border-collapse: collapse; width: 100%; max-width: 44rem; table-layout: fixed;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; padding: .1rem .8rem .1rem 0; }
table + table { margin-top: 1rem; }
tr:first-child th { color: var(--soft); font-size: .85rem; }
tr th:first-child { width: 30%; }
td { padding: .1rem .8rem .1rem 0; white-space: nowrap; }
.bar { display: inline-block; height: .75rem; background: var(--bar); border-radius: 2px;
  min-width: 1px; }
.n { padding-left: .5rem; }
.cards { display: grid; gap: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(10rem, 100%), 1fr)); }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: .5rem; overflow: hidden; }
.pictures { display: flex; gap: 2px; }
.pictures > * { flex: 1 1 0; min-width: 0; height: 9rem; object-fit: contain; width: auto; }
.pictures > .none { height: auto; padding: .5rem .7rem 0; color: var(--soft); font-size: .85rem; }
figcaption { padding: .5rem .7rem .7rem; font-size: .85rem; color: var(--soft); line-height: 1.35; }
figcaption b { color: var(--ink); font-weight: 600; }
.action { border: 1px solid var(--line); border-radius: .3rem; padding: 0 .3rem; }
"""
