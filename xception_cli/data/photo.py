"""Photo: the one record of an image, from the data folder to the report."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Photo:
    """An image, and what is known about it so far.

    Attributes:
        path: Path relative to the data folder.
        label: Index of its class.
        split: `train`, `val` or `test`; `out` if it is left out; None if not decided yet.
        digest: Digest of its content; identical images have equal digests. Empty if unknown.
        unit: Name of its unit: a group, its near-copies, or only itself. The images of a unit are
            one piece of evidence: splits, folds and intervals keep them together.
        reason: Why it is in its split.
        problem: Why it cannot be used; None if it can.
        group: Its group in a table; empty if none.
    """

    path: str
    label: int
    split: str | None = None
    digest: str = ""
    unit: str = ""
    reason: str = ""
    problem: str | None = None
    group: str = ""

    @property
    def is_given(self) -> bool:
        """Whether the data gives its split, instead of chance, a split file or an earlier run."""
        return self.reason.startswith("given")


def count_labels(photos: Sequence[Photo], classes: int) -> list[int]:
    """Count the images of each class."""
    counts = [0] * classes
    for photo in photos:
        counts[photo.label] += 1
    return counts
