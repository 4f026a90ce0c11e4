"""A data check on the terminal: grouped, counted, with the worst examples."""

import os
import textwrap
from collections import Counter
from pathlib import Path

from rich.text import Text

from xception_cli.check.report import CheckReport, Curve, Finding, Problem, count_of
from xception_cli.console import quoted, safe, show

_WIDTH = 80
_INDENT = 10
_STYLES = {"stops": "bold red", "warning": "yellow", "note": "cyan"}
_EXAMPLES = {"stops": 5, "warning": 3, "note": 1}


def report_text(report: CheckReport) -> Text:
    """Write a report for a terminal of 80 columns."""
    text = Text()
    _add(text, "data", _folder(report))
    for problem in report.problems:
        style = _STYLES[problem.severity]
        _add(text, problem.severity, safe(problem.summary), style)
        for line in _examples(problem):
            text.append(f"{line}\n", "dim")
    if report.curve is not None:
        _add_curve(text, report.curve)
    _add(text, "result", verdict(report), "bold")
    text.rstrip()
    return text


def _add(text: Text, label: str, sentence: str, style: str = "") -> None:
    first, *more = textwrap.wrap(
        sentence, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False
    ) or [""]
    text.append(f"{label:{_INDENT}}", style)
    text.append("".join(f"{line}\n" for line in (first, *(" " * _INDENT + line for line in more))))


def _add_curve(text: Text, curve: Curve) -> None:
    """Write a row for each part of the photos, and the classes that would gain by more."""
    _add(text, "photos", "accuracy of the linear probe on left-out photos, by how many it sees")
    for point in curve.points:
        row = (
            f"{point.fraction:5.0%} {point.images:7,}   {100 * point.accuracy:5.1f} %  "
            f"({100 * point.low:.1f} to {100 * point.high:.1f} %)"
        )
        text.append(f"{' ' * _INDENT}{row}\n")
    if curve.untested:
        untested = ", ".join(show(name) for name in curve.untested)
        _add(text, "", f"not tested, because a single group: {untested}")
    for verdict_, label in (("more", "more"), ("enough", "enough")):
        names = sorted(
            (c for c in curve.classes if c.verdict == verdict_), key=lambda c: c.half - c.whole
        )
        if not names:
            continue
        shown = ", ".join(f"{show(c.name)} ({c.half:.0%} to {c.whole:.0%})" for c in names[:12])
        rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
        sentence = {
            "more": "photos would help (recall with half of them, and with all)",
            "enough": "photos for now, for this network",
        }[verdict_]
        _add(text, label, f"{sentence}: {shown}{rest}")


def _folder(report: CheckReport) -> str:
    parts = [count_of(len(report.classes), "class")]
    parts += [f"{sum(n):,} in {split}" for split, n in report.counts.items() if split != "all"]
    total = [sum(column) for column in zip(*report.counts.values(), strict=True)]
    least, most = min(total), max(total)
    spread = f"{least:,}"
    if least < most:
        small, large = (show(report.classes[total.index(n)]) for n in (least, most))
        spread = f"{least:,} ({small}) to {most:,} ({large})"
    parts.append(f"{spread} in each class")
    return f"{show(report.data)}: {count_of(report.images, 'image')}, {', '.join(parts)}"


def _examples(problem: Problem) -> list[str]:
    """Show the first findings, each pair of pictures once, and each reason before the next one."""
    findings = without_mirrored(problem.findings)
    told: Counter[str] = Counter()
    rounds = []
    for finding in findings:
        rounds.append(told[finding.detail])
        told[finding.detail] += 1
    order = sorted(range(len(findings)), key=rounds.__getitem__)
    findings = [findings[at] for at in order]
    lines = []
    for finding in findings[: _EXAMPLES[problem.severity]]:
        path, detail = show(finding.path), show(finding.detail)
        whole = f"{path}: {detail}"
        # A long path stays whole, so that it can be copied.
        lines += [whole] if len(whole) <= _WIDTH - _INDENT else [f"{path}:", f"  {detail}"]
    left = len(findings) - _EXAMPLES[problem.severity]
    if left > 0:
        lines.append(f"and {left:,} more")
    return [" " * _INDENT + line for line in lines]


def without_mirrored(findings: tuple[Finding, ...]) -> list[Finding]:
    """Leave out findings that an earlier one has told from the other side."""
    told: set[str] = set()
    kept = []
    for finding in findings:
        if finding.path not in told or not finding.others:
            kept.append(finding)
            told.update(finding.others)
    return kept


def verdict(report: CheckReport) -> str:
    """Say in one line what the report comes to."""
    stops, warnings = len(report.of("stops")), len(report.of("warning"))
    if stops:
        return f"{count_of(stops, 'problem')} would stop training" + (
            f", and {count_of(warnings, 'warning')}" if warnings else ""
        )
    if warnings:
        return f"nothing would stop training; {count_of(warnings, 'warning')}"
    return "nothing would stop training, and there is no warning"


def next_command(report: CheckReport, *, written: bool) -> str:
    """Choose the next command to type."""
    data = quoted(report.data)
    train = f"xception train --data {data} --classes {len(report.classes)}"
    stops = {problem.name for problem in report.of("stops")}
    if not written and (stops or report.of("warning")):
        return f"xception check {data} --output {quoted(_beside(Path(report.data)))}"
    if stops <= {"broken", "unreadable"}:
        return f"{train} --skip-bad" if stops else train
    return f"xception check {data}"


def _beside(data: Path) -> Path:
    """Name a folder for what a check writes: here, unless here is inside the data."""
    real = Path(os.path.realpath(data))
    name = f"{real.name}-check"
    return real.parent / name if Path(os.path.realpath(".")).is_relative_to(real) else Path(name)
