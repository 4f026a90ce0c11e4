"""Photo: the one record of an image, from the data folder to the report."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Photo:
    """An image, and what is known of it so far.

    Attributes:
        path: Relative to the data folder.
        label: Index of its class.
        split: `train`, `val` or `test`; `out` where it is left out; None where it is not decided.
        digest: Of its content; images with one digest are identical. Empty if it is not known.
        unit: Names what it belongs to: a group, its near-copies, or it alone. Images of one unit
            are one piece of evidence: splits, folds and intervals keep them together.
        reason: Why it is in its split.
        problem: Why it cannot be used; None if it can.
    """

    path: str
    label: int
    split: str | None = None
    digest: str = ""
    unit: str = ""
    reason: str = ""
    problem: str | None = None


def count_labels(photos: Sequence[Photo], classes: int) -> list[int]:
    """Count the images of each class."""
    counts = [0] * classes
    for photo in photos:
        counts[photo.label] += 1
    return counts
