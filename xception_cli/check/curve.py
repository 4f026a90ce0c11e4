"""Would more photos help: the probe's accuracy by the part of the photos that it sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.report import ClassGain, Curve, Point
from xception_cli.evaluation.intervals import wilson_interval
from xception_cli.model.probe import cross_validate

FRACTIONS = (0.12, 0.25, 0.5, 1.0)

_GAIN = 0.03  # of recall by the last doubling, from which more photos are worth the work
_ENOUGH = 0.97  # recall at which nothing is left to gain
_IMAGES = 2  # that a class must gain: one may be chance


def learning_curve(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    strength: float,
    seed: int = 0,
) -> Curve:
    """Measure how the probe's accuracy grows with the photos; each photo is left out once.

    Args:
        features: `(n, 2048)`, pooled.
        labels: `(n,)`.
        classes: Names.
        strength: Inverse regularisation, the best for all of the photos.
        seed: Of folds and parts.
    """
    right: dict[float, NDArray[np.bool_]] = {}
    points = []
    for fraction in FRACTIONS:
        held_out = cross_validate(
            features,
            labels,
            class_count=len(classes),
            seed=seed,
            strength=strength,
            fraction=fraction,
        )
        tested = ~np.isnan(held_out[:, 0])
        right[fraction] = (held_out.argmax(axis=1) == labels) & tested
        correct, total = int(right[fraction].sum()), int(tested.sum())
        seen = round(0.8 * fraction * total)
        points.append(Point(fraction, seen, correct / total, *wilson_interval(correct, total)))
    gains = []
    for label, name in enumerate(classes):
        of_class = tested & (labels == label)
        if n := int(of_class.sum()):
            half, whole = (int(right[f][of_class].sum()) for f in FRACTIONS[-2:])
            gains.append(ClassGain(name, half / n, whole / n, _verdict(half, whole, n)))
    return Curve(tuple(points), tuple(gains))


def _verdict(half: int, whole: int, images: int) -> str:
    if whole - half >= max(_IMAGES, _GAIN * images):
        return "more"
    if whole >= _ENOUGH * images or abs(whole - half) < _GAIN * images / 2:
        return "enough"
    return "unclear"
