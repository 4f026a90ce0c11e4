"""Would more images help: the probe's accuracy by the share of the images that it sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.report import ClassGain, Curve, Point
from xception_cli.data.folds import number_units
from xception_cli.evaluation.intervals import proportion_interval
from xception_cli.model.probe import cross_validate

FRACTIONS = (0.12, 0.25, 0.5, 1.0)

_GAIN = 0.03  # of recall by the last doubling, from which more photos are worth the work
_ENOUGH = 0.97  # recall at which nothing is left to gain
_LARGEST = 5_000  # images that a run asks about: seconds, not minutes
_IMAGES = 2  # that a class must gain: one may be chance


def learning_curve(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    units: NDArray[np.str_],
    classes: Sequence[str],
    *,
    strength: float,
    seed: int = 0,
) -> Curve:
    """Measure how the probe's accuracy grows with the photos; each photo is left out once.

    Args:
        features: `(n, 2048)`, pooled.
        labels: `(n,)`.
        units: `(n,)`, what each image belongs to.
        classes: Names.
        strength: Inverse regularisation, the best for all of the photos.
        seed: Of folds and parts.
    """
    right: dict[float, NDArray[np.bool_]] = {}
    points = []
    for fraction in FRACTIONS:
        right[fraction], tested = _right(
            features, labels, units, len(classes), strength, seed, fraction
        )
        hits = right[fraction][tested]
        seen = round(0.8 * fraction * len(hits))
        ends = proportion_interval(hits, units[tested])
        points.append(Point(fraction, seen, float(hits.mean()), *ends))
    half, whole = (right[fraction] for fraction in FRACTIONS[-2:])
    gains = _gains(half, whole, tested, labels, units, classes)
    known = {gain.name for gain in gains}
    present = [classes[label] for label in np.unique(labels)]
    return Curve(tuple(points), tuple(gains), tuple(n for n in present if n not in known))


def classes_to_add(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    units: NDArray[np.str_],
    classes: Sequence[str],
    *,
    strength: float,
    seed: int,
) -> list[ClassGain]:
    """Return the classes that more images would help, the one that gained most first.

    Of many images, a random part is asked about; for the arguments see `learning_curve`.
    """
    some = np.random.default_rng(seed).permutation(len(labels))[:_LARGEST]
    labels, units = labels[some], units[some]
    (half, tested), (whole, _) = (
        _right(features[some], labels, units, len(classes), strength, seed, fraction)
        for fraction in FRACTIONS[-2:]
    )
    every = _gains(half, whole, tested, labels, units, classes)
    gains = [gain for gain in every if gain.verdict == "more"]
    return sorted(gains, key=lambda gain: gain.half - gain.whole)


def _right(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    units: NDArray[np.str_],
    class_count: int,
    strength: float,
    seed: int,
    fraction: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images probes of a part of the others have right, and which are tested."""
    held_out = cross_validate(
        features,
        labels,
        units,
        class_count=class_count,
        seed=seed,
        strength=strength,
        fraction=fraction,
    )
    tested = ~np.isnan(held_out[:, 0])
    return (held_out.argmax(axis=1) == labels) & tested, tested


def _gains(
    half: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    tested: NDArray[np.bool_],
    labels: NDArray[np.int64],
    units: NDArray[np.str_],
    classes: Sequence[str],
) -> list[ClassGain]:
    """Compare the recall of each tested class with half of the images and with all of them."""
    gains = []
    for label, name in enumerate(classes):
        of_class = tested & (labels == label)
        if n := int(of_class.sum()):
            counts = int(half[of_class].sum()), int(whole[of_class].sum())
            verdict = _verdict(half[of_class], whole[of_class], units[of_class])
            gains.append(ClassGain(name, counts[0] / n, counts[1] / n, verdict))
    return gains


def _verdict(half: NDArray[np.bool_], whole: NDArray[np.bool_], units: NDArray[np.str_]) -> str:
    """Judge a class by its images that are right with half of the images and with all of them."""
    images, gained = len(units), int(whole.sum()) - int(half.sum())
    numbers = number_units(units)
    changes = np.bincount(numbers, whole.astype(np.int64) - half)  # of each unit
    # Of many classes, some gain by chance: two standard errors, paired, by unit.
    is_clear = changes.sum() > 2 * np.sqrt((changes**2).sum())
    if gained >= max(_IMAGES, _GAIN * images) and is_clear:
        return "more"
    if whole.sum() >= _ENOUGH * images or abs(gained) < _GAIN * images / 2:
        return "enough"
    return "unclear"
