"""CheckReport: what a data check found, as problems with their findings; and its text."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from xception_cli.console import enumerated, safe, show
from xception_cli.files import utf8
from xception_cli.numerals import count_of
from xception_cli.terminal import COLUMN, lay_out

# What would stop training; what makes its numbers wrong; other facts.
SEVERITIES = ("stops", "warning", "note")

# Names of problems in issues.csv that several modules use.
UNREADABLE, BROKEN, UNREAD = "unreadable", "broken", "HEIC"
DEEP = "16 bits"
CONFLICTING, LEAK, DUPLICATE, NEAR = "conflicting labels", "leak", "duplicate", "near-copy"
OLD_NEAR = "near duplicate"  # in earlier versions
MISSING, SERIES = "missing in split", "series"
SUSPECT, UNJUDGED, ORIENTATION = "suspect label", "unjudged labels", "orientation"
ROTATE = "--augment rotate90"  # what ORIENTATION suggests
SUSPECTS = {SUSPECT, "doubtful label"}  # the second one: in earlier versions


@dataclass(frozen=True)
class Finding:
    """One file and what is wrong with it.

    Attributes:
        path: Relative to the data folder.
        detail: What was found, in words.
        action: The suggested action: `exclude`, `relabel`, or empty.
        label: The suggested class, if known.
        others: Files that this one is compared with.
    """

    path: str
    detail: str
    action: str = ""
    label: str = ""
    others: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        r"""Return plain data that JSON can hold; names that are not UTF-8 are written `\xNN`."""
        return {
            "path": utf8(self.path),
            "detail": utf8(self.detail),
            "action": self.action,
            "label": utf8(self.label),
            "others": [utf8(path) for path in self.others],
        }


@dataclass(frozen=True)
class Problem:
    """One kind of problem.

    Attributes:
        name: Its name in issues.csv.
        severity: One of `SEVERITIES`.
        summary: A sentence with the count.
        findings: The files, the worst first; empty if it concerns the folder as a whole.
        classes: All its classes, if they are too many for the summary.
    """

    name: str
    severity: str
    summary: str
    findings: tuple[Finding, ...] = ()
    classes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return {
            "name": self.name,
            "severity": self.severity,
            "summary": utf8(self.summary),
            "findings": [finding.to_dict() for finding in self.findings],
        } | ({"classes": [utf8(name) for name in self.classes]} if self.classes else {})


@dataclass(frozen=True)
class Point:
    """The probe's accuracy with a fraction of the images.

    Attributes:
        fraction: In 0..1.
        images: Approximate number of images that each probe was fitted to.
        accuracy: On left-out images, by 5-fold cross-validation.
        low: Lower end of its 95% interval.
        high: Upper end.
    """

    fraction: float
    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassGain:
    """How the recall of a class changed by the last doubling of the images.

    Attributes:
        name: The class.
        half: Recall with half of the images.
        whole: Recall with all of them.
        verdict: `more`: more images would help; `enough`: they would not; `unclear`.
    """

    name: str
    half: float
    whole: float
    verdict: str


@dataclass(frozen=True)
class Curve:
    """A learning curve of the linear probe.

    Attributes:
        points: By fraction, ascending.
        classes: One for each class of two units or more.
        untested: The other classes: their only unit cannot be both held out and fitted to.
    """

    points: tuple[Point, ...]
    classes: tuple[ClassGain, ...]
    untested: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        data = asdict(self)
        data["classes"] = [{**row, "name": utf8(row["name"])} for row in data["classes"]]
        data["untested"] = [utf8(name) for name in self.untested]
        return data


@dataclass(frozen=True)
class CheckReport:
    """What was found in a data folder.

    Attributes:
        data: The folder or table.
        root: The folder that the paths of findings are relative to.
        classes: Class names, in the order of their labels.
        counts: By split (`all` where the folder defines none), the number of images of each class.
        problems: By severity, the worst first.
        curve: Whether more images would help; None if it was not requested.
    """

    data: str
    root: Path
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]
    curve: Curve | None = None

    @property
    def images(self) -> int:
        """Number of image files."""
        return sum(sum(counts) for counts in self.counts.values())

    def of(self, severity: str) -> list[Problem]:
        """Return the problems of one severity."""
        return [problem for problem in self.problems if problem.severity == severity]

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 3 if something would stop training, or with `strict` if there is a warning."""
        return 3 if self.of("stops") or (strict and self.of("warning")) else 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        names = [utf8(name) for name in self.classes]
        return {
            "data": utf8(self.data),
            "images": self.images,
            "classes": {
                split: dict(zip(names, counts, strict=True))
                for split, counts in self.counts.items()
            },
            "problems": [problem.to_dict() for problem in self.problems],
        } | ({} if self.curve is None else {"curve": self.curve.to_dict()})


# The text for a terminal

_WIDTH = 80
_EXAMPLES = {"stops": 5, "warning": 3, "note": 1}


def report_text(report: CheckReport) -> Text:
    """Write a report for a terminal of 80 columns."""
    text = Text()
    _add(text, "data", _folder(report))
    for problem in report.problems:
        _add(text, problem.severity, safe(problem.summary))
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
        row = (
            f"{point.fraction:5.0%} {point.images:7,}   {100 * point.accuracy:5.1f}%  "
            f"({100 * point.low:.1f}-{100 * point.high:.1f}%)"
        )
        text.append(f"{' ' * COLUMN}{row}\n")
    if curve.untested:
        untested = enumerated(curve.untested)
        _add(text, "", f"not tested (not two images are independent): {untested}")
    for verdict_, label in (("more", "more"), ("enough", "enough")):
        names = sorted(
            (c for c in curve.classes if c.verdict == verdict_), key=lambda c: c.half - c.whole
        )
        if not names:
            continue
        shown = ", ".join(f"{show(c.name)} ({c.half:.0%} to {c.whole:.0%})" for c in names[:12])
        rest = f" and {len(names) - 12:,} more" if len(names) > 12 else ""
        sentence = {
            "more": "images would help (recall with half of the images, and with all)",
            "enough": "images for now, for this network",
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


def without_mirrored(findings: tuple[Finding, ...]) -> list[Finding]:
    """Leave out findings that repeat an earlier pair in reverse order."""
    told: set[str] = set()
    kept = []
    for finding in findings:
        if finding.path not in told or not finding.others:
            kept.append(finding)
            told.update(finding.others)
    return kept


def verdict(report: CheckReport) -> str:
    """Summarize the report in one line."""
    stops, warnings = len(report.of("stops")), len(report.of("warning"))
    if stops:
        return f"{count_of(stops, 'problem')} would stop training" + (
            f", and {count_of(warnings, 'warning')}" if warnings else ""
        )
    if warnings:
        return f"nothing would stop training; {count_of(warnings, 'warning')}"
    return "nothing would stop training, and there is no warning"
