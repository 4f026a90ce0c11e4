"""What a data check says: findings, grouped into problems, in one report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xception_cli.files import utf8

# What would stop training; what makes its numbers wrong; what is good to know.
SEVERITIES = ("stops", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One file and what is the matter with it.

    Attributes:
        path: Relative to the data folder.
        detail: What was found, in words.
        action: What is suggested: `exclude`, `relabel`, or nothing.
        label: The class it is relabelled to, or could be.
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
        name: What it is called in issues.csv.
        severity: One of `SEVERITIES`.
        summary: A sentence with the count.
        findings: The files, the worst first; empty if it is about the folder as a whole.
    """

    name: str
    severity: str
    summary: str
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return {
            "name": self.name,
            "severity": self.severity,
            "summary": utf8(self.summary),
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True)
class Point:
    """One part of the photos.

    Attributes:
        fraction: In 0..1.
        images: That each probe was fitted to, about.
        accuracy: On left-out photos, by 5-fold cross-validation.
        low: Lower end of its 95 % Wilson interval.
        high: Upper end.
    """

    fraction: float
    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassGain:
    """What the last doubling of the photos brought a class.

    Attributes:
        name: The class.
        half: Recall with half of the photos.
        whole: Recall with all of them.
        verdict: `more`: photos would help; `enough`: they would not; `unclear`.
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
        untested: The other classes: a single unit cannot be left out and known.
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
        data: The folder.
        classes: Class names, in the order of their labels.
        counts: By split (`all` where the folder defines none), the number of images of each class.
        problems: By severity, the worst first.
        curve: Whether more photos would help; None if nobody asked.
    """

    data: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]
    curve: Curve | None = None

    @property
    def images(self) -> int:
        """Image files in all."""
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


def count_of(number: int, thing: str) -> str:
    """Write a count with its noun: `1 image`, `1,200 images`, `2 classes`, `3 copies`."""
    if number != 1:
        thing = (
            f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}{'e' * thing.endswith('s')}s"
        )
    return f"{number:,} {thing}"
