"""When a model answers `unknown`: low confidence, or an image unlike the training images."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.numerals import count_of

Array = NDArray[Any]

UNSURE = "low confidence"
UNLIKE = "unlike the training images"

# With one neighbour, a second photo of the same object would be enough. Val has many of these, so
# its threshold would be too strict for new images. Chosen by tests/benchmarks/unknown.py.
NEIGHBOURS = 10
# Times the distance that 95% of images like val stay within. New images of blood cells reach 1.06,
# leaves, foods and coins 1.5 to 3.1.
_FAR = 1.2
_MOST = 500  # training images whose features a model file keeps, 2.7 kB each
_LONGEST = 1_000  # largest number that is read from a file


@dataclass(frozen=True)
class Reference:
    """Training images in feature space, to measure the distance of an image from the nearest ones.

    Nearest neighbours by cosine (Sun et al. 2022) assume nothing about the distribution of the
    features; their mean distance (Bergman, Cohen and Hoshen 2020) does not depend on one image.

    Attributes:
        levels: `(images, 2048)`, uint8: each image's features in 255ths of its largest one;
            only their direction is used, and features are never negative.
    """

    levels: Array

    @cached_property
    def _directions(self) -> Array:
        return _unit(self.levels)

    def distances(self, features: Array) -> Array:
        """Return 1 minus the mean cosine to the ten nearest images, `(images,)`, in 0..1.

        Args:
            features: `(images, 2048)`.
        """
        cosines = _unit(features) @ self._directions.T
        count = min(NEIGHBOURS, cosines.shape[1])
        nearest: Array = 1 - np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
        return nearest

    def nearest(self, features: Array, count: int) -> tuple[Array, Array]:
        """Find the nearest images, the nearest first.

        Args:
            features: `(images, 2048)`.
            count: How many to find for each image, at most all.

        Returns:
            Their rows in `levels`, `(images, count)`, and their cosines, float32 of that shape.
        """
        cosines = _unit(features) @ self._directions.T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        return order, np.take_along_axis(cosines, order, axis=1)

    def to_dict(self) -> dict[str, str]:
        """Return JSON data: the levels as base64, and a description of them."""
        return {"holds": self.description, "levels": b64encode(self.levels.tobytes()).decode()}

    @property
    def description(self) -> str:
        """What a file holds about the training images, for people."""
        return f"features of {count_of(len(self.levels), 'training image')}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], features: int) -> "Reference":
        """Rebuild an object from the result of `to_dict`.

        Raises:
            ValueError: It is damaged; also KeyError and TypeError.
        """
        levels = np.frombuffer(b64decode(data["levels"], validate=True), dtype=np.uint8)
        levels = levels.reshape(-1, features)
        if not 1 <= len(levels) <= _LONGEST:
            raise ValueError("the features of the training images are damaged")
        return cls(levels)


def _unit(rows: Array) -> Array:
    rows = rows.astype(np.float32)
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def remember(features: Array, labels: Array) -> Reference:
    """Keep the features of training images; of many, the same number from each class.

    Args:
        features: `(images, 2048)`, not negative.
        labels: `(images,)`.
    """
    features = features[spread(labels)]
    largest = np.maximum(features.max(axis=1, keepdims=True), 1e-12)
    return Reference(np.round(255 * np.clip(features / largest, 0, 1)).astype(np.uint8))


def spread(labels: Array) -> Array:
    """Choose images evenly over each class: neighbours in a folder often show the same moment.

    Args:
        labels: `(images,)`.

    Returns:
        Indices, ascending; all of them if they are few.
    """
    if len(labels) <= _MOST:
        return np.arange(len(labels))
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    each = max(1, _MOST // len(places))
    kept = [of[np.linspace(0, len(of) - 1, min(each, len(of))).astype(int)] for of in places]
    return np.sort(np.concatenate(kept))


@dataclass(frozen=True)
class Thresholds:
    """When a model answers `unknown`; both thresholds were chosen on val.

    Attributes:
        target_precision: Wanted share of correct answers among those that are given.
        confidence: Answers with a lower probability are refused; None if val did not show a
            threshold that reaches the target precision: then only the distance decides.
        distance: Images farther from the training images get no answer.
    """

    target_precision: float
    confidence: float | None
    distance: float

    def judge(self, probability: float, distance: float) -> str | None:
        """Return why an answer is refused; None if it is given.

        Args:
            probability: Probability of the most probable class.
            distance: Distance of the image from the training images.
        """
        if distance > self.distance:
            return UNLIKE
        if self.confidence is not None and probability < self.confidence:
            return UNSURE
        return None

    def is_far(self, distance: float) -> bool:
        """Return whether an image is clearly unlike the training images, as few of val are."""
        return distance > _FAR * self.distance

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Thresholds":
        """Rebuild an object from the result of `to_dict`.

        Raises:
            ValueError: It is damaged; also KeyError and TypeError.
        """
        target, distance = float(data["target_precision"]), float(data["distance"])
        confidence = None if data["confidence"] is None else float(data["confidence"])
        if not (0 <= target <= 1 and 0 <= (confidence or 0) <= 1 and 0 <= distance <= 2):
            raise ValueError("impossible thresholds of `unknown`")
        return cls(target, confidence, distance)


@dataclass(frozen=True)
class UnknownRule:
    """Thresholds, and the reference of the distance; in a file they are one flat object.

    Attributes:
        thresholds: Thresholds of confidence and distance.
        reference: The training images.
    """

    thresholds: Thresholds
    reference: Reference

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return self.thresholds.to_dict() | {"reference": self.reference.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], features: int) -> "UnknownRule":
        """Rebuild an object from the result of `to_dict`.

        Raises:
            ValueError: It is damaged; also KeyError and TypeError.
        """
        return cls(Thresholds.from_dict(data), Reference.from_dict(data["reference"], features))
