"""The text of a CheckReport, for a terminal."""

from collections import Counter

from rich.text import Text

from xception_cli.check.report import CheckReport, Curve, Problem, verdict, without_mirrored
from xception_cli.console import enumerated, safe, show
from xception_cli.evaluation.intervals import Estimate, texts
from xception_cli.numerals import count_of
from xception_cli.terminal import COLUMN, lay_out

_WIDTH = 80
_EXAMPLES = {"stops": 5, "warning": 3, "note": 1}
_GAINS = 12  # classes listed


def report_text(report: CheckReport) -> Text:
    """Write a report for a terminal of 80 columns."""
    text = Text()
    _add(text, "data", _folder(report))
    for problem in report.problems:
        _add(text, problem.severity, safe(problem.summary))
        for line in problem.hint.splitlines():
            _add(text, "", safe(line))
        for line in _examples(problem):
            text.append(f"{line}\n", "dim")
    if report.curve is not None:
        _add_curve(text, report.curve)
    _add(text, "result", verdict(report), "bold")
    text.rstrip()
    return text


def _add(text: Text, label: str, sentence: str, style: str = "") -> None:
    text.append_text(lay_out(f"{label:{COLUMN}}{sentence}", style, _WIDTH)).append("\n")


def _add_curve(text: Text, curve: Curve) -> None:
    """Write a row for each fraction of the images, and the classes that more images would help."""
    _add(text, "images", "accuracy of the linear probe on held-out images, by training-set size")
    for point in curve.points:
        figures = texts(Estimate(point.accuracy, point.low, point.high), percent=True)
        row = f"{point.fraction:5.0%} {point.images:7,}   {figures[0]:>6}  ({figures[1]})"
        text.append(f"{' ' * COLUMN}{row}\n")
    if curve.untested:
        untested = enumerated(curve.untested)
        _add(text, "", f"not tested (not two images are independent): {untested}")
    for judged, sentence in {
        "more": "images would help (recall with half of the images, and with all)",
        "enough": "images for now, for this network",
    }.items():
        found = [gain for gain in curve.classes if gain.verdict == judged]
        found.sort(key=lambda gain: gain.half - gain.whole)
        shown = [f"{show(c.name)} ({c.half:.0%} to {c.whole:.0%})" for c in found[:_GAINS]]
        rest = f" and {len(found) - _GAINS:,} more" if len(found) > _GAINS else ""
        if found:
            _add(text, judged, f"{sentence}: {', '.join(shown)}{rest}")


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
    """Show the first findings: each pair of images once, and each reason before any repeats."""
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
        lines += [whole] if len(whole) <= _WIDTH - COLUMN else [f"{path}:", f"  {detail}"]
    left = len(findings) - _EXAMPLES[problem.severity]
    if left > 0:
        lines.append(f"and {left:,} more")
    return [" " * COLUMN + line for line in lines]
