"""The learning curve of the linear probe: whether more images would help, and of which classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.labels import Labels, Units
from xception_cli.check.report import ClassGain, Curve, Point
from xception_cli.check.shape import FEW
from xception_cli.data.units import number_units
from xception_cli.evaluation.intervals import proportion_interval
from xception_cli.model.probe import count_fitted, cross_validate

Hits = NDArray[np.bool_]

FRACTIONS = (0.12, 0.25, 0.5, 1.0)

_GAIN = 0.03  # least gain in recall by the last doubling that makes more images worthwhile
_ENOUGH = 0.97  # recall above which more images are not needed
LARGEST_SAMPLE = 5_000  # images sampled after a training, to take seconds rather than minutes
_IMAGES = 2  # least number of images that a class must gain: one may be chance


def learning_curve(
    features: NDArray[np.float32],
    labels: Labels,
    units: Units,
    classes: Sequence[str],
    *,
    strength: float,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
) -> Curve:
    """Measure how the probe's accuracy grows with the number of images, by cross-validation.

    Args:
        features: `(n, 2048)`, pooled.
        labels: `(n,)`, class indices.
        units: `(n,)`, the unit of each image.
        classes: Class names.
        strength: Inverse regularisation that is best for all images.
        seed: Seed of the folds and fractions.
        fractions: Fractions of the images, ascending; classes are compared at the last two.
    """
    points, right = [], []
    for fraction in fractions:
        (held_out,) = cross_validate(
            features,
            labels,
            units,
            class_count=len(classes),
            seed=seed,
            strength=strength,
            fraction=fraction,
        )
        tested = ~np.isnan(held_out[:, 0])  # the same for each fraction
        right.append((held_out.argmax(axis=1) == labels)[tested])
        if tested.any():
            fitted = count_fitted(labels, units, len(classes), fraction)
            ends = proportion_interval(right[-1], units[tested])
            points.append(Point(fraction, fitted, float(right[-1].mean()), *ends))
    half, whole = right[-2:]
    gains = _gains(half, whole, labels[tested], units[tested], classes)
    known = {gain.name for gain in gains}
    present = [classes[label] for label in np.unique(labels)]
    return Curve(tuple(points), tuple(gains), tuple(n for n in present if n not in known))


def _gains(
    half: Hits, whole: Hits, labels: Labels, units: Units, classes: Sequence[str]
) -> list[ClassGain]:
    gains = []
    for label, name in enumerate(classes):
        chosen = labels == label
        if chosen.any():
            gains.append(_gain(name, half[chosen], whole[chosen], units[chosen]))
    return gains


def _gain(name: str, half: Hits, whole: Hits, units: Units) -> ClassGain:
    """Judge a class by its correct images, with half of the training images and with all."""
    images, gained = len(units), int(whole.sum()) - int(half.sum())
    changes = np.bincount(number_units(units), whole.astype(np.int64) - half)  # per unit
    # Some of many classes gain by chance: require two standard errors, paired, by unit.
    is_clear = changes.sum() > 2 * np.sqrt((changes**2).sum())
    verdict = "unclear"
    if gained >= max(_IMAGES, _GAIN * images) and is_clear:
        verdict = "more"
    elif len(changes) >= FEW and (
        whole.sum() >= _ENOUGH * images or abs(gained) < _GAIN * images / 2
    ):
        verdict = "enough"
    return ClassGain(name, int(half.sum()) / images, int(whole.sum()) / images, verdict)


def classes_to_add(
    features: NDArray[np.float32],
    labels: Labels,
    units: Units,
    classes: Sequence[str],
    *,
    strength: float,
    seed: int,
) -> list[ClassGain]:
    """Return the classes that would gain from more images, the largest gain first.

    A random sample is used if there are many images. For the arguments, see `learning_curve`.
    """
    some = np.random.default_rng(seed).permutation(len(labels))[:LARGEST_SAMPLE]
    sample = features[some], labels[some], units[some], classes
    curve = learning_curve(*sample, strength=strength, seed=seed, fractions=FRACTIONS[-2:])
    gains = [gain for gain in curve.classes if gain.verdict == "more"]
    return sorted(gains, key=lambda gain: gain.half - gain.whole)
