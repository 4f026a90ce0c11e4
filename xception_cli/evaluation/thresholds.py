"""The thresholds of `unknown`: of the confidence, and of the distance from training images."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import beta

from xception_cli.evaluation.confidence import coverage_curve
from xception_cli.evaluation.intervals import Array, design_effect

_COVERAGE = 0.95  # share of images like val's that pass the distance threshold
CONFIDENCE = 0.9  # that `--unknown auto` reaches the target precision on new images
_FIRST = 8  # the first threshold that is tested answers one image in this many


def confidence_threshold(
    confidences: Array,
    right: Array,
    target: float,
    units: Sequence[str] | Array,
    candidates: int = 1,
) -> float | None:
    """Return the lowest threshold whose answers on new images reach the target precision; or None.

    Thresholds are tested from the strictest down, and the last one before the first failure is
    taken, so no correction for their number is needed (learn then test, Angelopoulos et al. 2021,
    with a fixed sequence). A test passes if the exact lower bound of the precision (Clopper and
    Pearson 1934, as in Geifman and El-Yaniv 2017) reaches the target. So in at least 90% of
    validation sets, the precision on new images reaches the target.

    The strictest threshold answers at least one image in eight, and as many as a test requires:
    with fewer, a single wrong label would decide (see tests/evaluation/test_simulations.py).

    Args:
        confidences: `(images,)`, probability of the most probable class.
        right: `(images,)`, whether it is correct.
        target: Wanted precision, 0..1.
        units: `(images,)`; images of one unit count as fewer effective images.
        candidates: Number of models that this one was selected from on these images; the tests
            correct for it by the union bound.
    """
    if not len(right):
        return None
    effect, level = design_effect(right, units), (1 - CONFIDENCE) / candidates
    thresholds, coverage, precision = coverage_curve(confidences, right)
    answered = np.round(coverage * len(right))
    passed = _lower_bound(answered / effect, precision, level) >= target
    tested = np.flatnonzero(answered >= max(_fewest(target, level) * effect, len(right) / _FIRST))
    if not len(tested) or not passed[tested[0]]:
        return None
    failed = tested[~passed[tested]]
    lowest = failed[0] - 1 if len(failed) else len(thresholds) - 1
    if lowest == len(thresholds) - 1:  # every answer may be given: no reason to refuse any
        return 0.0
    # Halfway to the next lower confidence, so that rounding does not decide.
    above, below = map(float, thresholds[lowest : lowest + 2])
    halfway = (above + below) / 2
    rounded = float(f"{halfway:.6g}")
    return rounded if below < rounded <= above else halfway  # near 1, they may differ by less


def _lower_bound(images: Array, share: Array, level: float) -> Array:
    """Return the exact lower bound of proportions; the numbers of images may be fractional."""
    right = np.maximum(images * share, 1e-9)
    bound: Array = beta.ppf(level, right, np.maximum(images - right, 0) + 1)
    return bound


def _fewest(target: float, level: float) -> int:
    """Return the fewest answers that, all correct, show that the precision reaches the target."""
    if not 0 < target < 1:
        return 1
    return math.ceil(math.log(level) / math.log(target))


def images_needed(
    right: Array, target: float, units: Sequence[str] | Array, candidates: int = 1
) -> int | None:
    """Return the fewest images that a threshold requires, if none was found.

    They include the images that `distance_threshold` refuses; the others must be enough.

    Args:
        right: `(images,)`, whether answers are correct, for the images that are near enough; for
            the rest see `confidence_threshold`.
        target: Wanted precision.
        units: `(images,)`.
        candidates: Number of models that this one was selected from.

    Returns:
        None if there are enough images: then too few answers are correct.
    """
    if not len(right) or not 0 < target < 1:
        return None
    fewest = _fewest(target, (1 - CONFIDENCE) / candidates) * design_effect(right, units)
    if fewest <= len(right):
        return None
    near = math.ceil(fewest)
    return max(near, math.floor((near - 1) / _COVERAGE))  # the least n with ⌈0.95 (n + 1)⌉ near


def distance_threshold(distances: Array) -> float:
    """Return the distance that 95% of images like these stay within (split conformal).

    Of n distances, this is the one of rank ⌈0.95 (n + 1)⌉, at most the largest.
    """
    rank = min(len(distances), math.ceil(_COVERAGE * (len(distances) + 1)))
    # A thousandth more, so that rounding does not decide about an image at the border.
    return float(f"{1.001 * np.sort(distances)[rank - 1]:.6g}")
