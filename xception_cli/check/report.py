"""CheckReport: what a data check found, as problems with their findings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xception_cli.files import utf8
from xception_cli.numerals import count_of

# What would stop training; what makes its numbers wrong; other facts.
SEVERITIES = ("stops", "warning", "note")

# Names of problems in issues.csv that several modules use.
UNREADABLE, BROKEN, UNREAD = "unreadable", "broken", "HEIC"
DEEP = "16 bits"
CONFLICTING, LEAK, DUPLICATE, NEAR = "conflicting labels", "leak", "duplicate", "near-copy"
OLD_NEAR = "near duplicate"  # in earlier versions
MISSING, SERIES = "missing in split", "series"
TORN, UNGROUPED = "group in two splits", "ungrouped"
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
        hint: What to do about it, where that needs no look at a file.
    """

    name: str
    severity: str
    summary: str
    findings: tuple[Finding, ...] = ()
    classes: tuple[str, ...] = ()
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return (
            {
                "name": self.name,
                "severity": self.severity,
                "summary": utf8(self.summary),
                "findings": [finding.to_dict() for finding in self.findings],
            }
            | ({"classes": [utf8(name) for name in self.classes]} if self.classes else {})
            | ({"hint": utf8(self.hint)} if self.hint else {})
        )


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
