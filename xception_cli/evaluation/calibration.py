"""Calibration: the temperature, the calibration error, and the thresholds of `unknown`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import beta

from xception_cli.data.units import unit_folds
from xception_cli.evaluation.intervals import design_effect
from xception_cli.model.unknown import Thresholds, UnknownRule, remember

Array = NDArray[Any]

BINS = 15  # Guo et al. 2017
_FOLDS = 5
_COVERAGE = 0.95  # share of images like val's that pass the distance threshold
CONFIDENCE = 0.9  # that `--unknown auto` reaches the target precision on new images
_FIRST = 8  # the first threshold that is tested answers one image in this many
_COLDEST, _HOTTEST = 0.05, 20.0
_SPREAD = math.log(2)  # of the temperature's logarithm, before val is seen


@dataclass(frozen=True)
class Calibration:
    """The calibration of a model on val.

    Attributes:
        images: Number of validation images.
        fitted: The temperature that was fitted to all of them.
        temperature: The temperature of the model: the fitted one, or 1 if cross-validation by unit
            does not show that it helps.
        error_before: Expected calibration error without a temperature.
        error_after: With a temperature that was fitted on other units (5-fold); None with fewer
            than two units.
        unknown: When to answer `unknown`.
        coverage: Share of val that would be answered.
        precision: Share of correct answers among these; None without any.
        needed: Fewest validation images that a threshold requires; None if there is a threshold, or
            if there are enough images but too few correct answers.
    """

    images: int
    fitted: float
    temperature: float
    error_before: float
    error_after: float | None
    unknown: UnknownRule
    coverage: float
    precision: float | None
    needed: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for result.json, without the reference of the distance."""
        return {
            "images": self.images,
            "temperature": self.temperature,
            "fitted_temperature": self.fitted,
            "error_before": self.error_before,
            "error_after": self.error_after,
            **self.unknown.thresholds.to_dict(),
            "coverage": self.coverage,
            "precision": self.precision,
            "precision_confidence": CONFIDENCE,
            "images_needed": self.needed,
        }


def fit_temperature(logits: Array, labels: Array) -> float:
    """Fit the temperature that divides logits, by log loss (Guo et al. 2017).

    Its logarithm has a normal prior around 0 with a standard deviation of a factor of two: else a
    small val split without mistakes would drive all confidences to 100%.

    Args:
        logits: `(images, classes)`.
        labels: `(images,)`.

    Returns:
        From 0.05 to 20, with six significant digits.
    """
    exact, rows = logits.astype(np.float64), np.arange(len(labels))

    def loss(logarithm: float) -> float:
        right = log_softmax(exact / math.exp(logarithm), axis=1)[rows, labels]
        return float((logarithm / _SPREAD) ** 2 / 2 - right.sum())

    bounds = (math.log(_COLDEST), math.log(_HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(f"{math.exp(found.x):.6g}")


def best_guesses(probabilities: Array, labels: Array) -> tuple[Array, Array]:
    """Return the probability of each image's most probable class, and whether it is correct.

    Args:
        probabilities: `(images, classes)`.
        labels: `(images,)`.
    """
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


@dataclass(frozen=True)
class Bin:
    """Images with a confidence in one range: their mean confidence and accuracy."""

    images: int
    confidence: float
    accuracy: float


def reliability(confidences: Array, right: Array) -> list[Bin]:
    """Group images into equal ranges of confidence; empty ranges are omitted.

    Args:
        confidences: `(images,)`, probability of the most probable class.
        right: `(images,)`, whether it is correct.
    """
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    return [
        Bin(
            int(n), float(confidences[places == place].mean()), float(right[places == place].mean())
        )
        for place, n in enumerate(np.bincount(places, minlength=BINS))
        if n
    ]


def calibration_error(confidences: Array, right: Array) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy by bin.

    It has no interval, because the bootstrap gives none: a gap is never negative, so chance adds to
    it, and resampling adds as much again. The middle 95% of the resamples of a perfectly calibrated
    model never contain its 0 (tests/evaluation/test_intervals.py).
    """
    bins = reliability(confidences, right)
    return sum(found.images * abs(found.confidence - found.accuracy) for found in bins) / len(right)


def coverage_curve(confidences: Array, right: Array) -> tuple[Array, Array, Array]:
    """Return thresholds in descending order, and the coverage and precision of each.

    Args:
        confidences: `(images,)`, probability of the most probable class.
        right: `(images,)`, whether it is correct.
    """
    order = np.argsort(-confidences, kind="stable")
    sorted_ = confidences[order]
    ends = np.append(np.flatnonzero(np.diff(sorted_)), len(sorted_) - 1)  # of equal confidences
    answered = ends + 1
    return sorted_[ends], answered / len(sorted_), right[order].cumsum()[ends] / answered


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

    Args:
        right: `(images,)`, whether answers are correct; for the rest see `confidence_threshold`.
        target: Wanted precision.
        units: `(images,)`.
        candidates: Number of models that this one was selected from.

    Returns:
        None if there are enough images: then too few answers are correct.
    """
    if not len(right) or not 0 < target < 1:
        return None
    fewest = _fewest(target, (1 - CONFIDENCE) / candidates) * design_effect(right, units)
    return math.ceil(fewest) if fewest > len(right) else None


def distance_threshold(distances: Array) -> float:
    """Return the distance that 95% of images like these stay within (split conformal).

    Of n distances, this is the one of rank ⌈0.95 (n + 1)⌉, at most the largest.
    """
    rank = min(len(distances), math.ceil(_COVERAGE * (len(distances) + 1)))
    # A thousandth more, so that rounding does not decide about an image at the border.
    return float(f"{1.001 * np.sort(distances)[rank - 1]:.6g}")


def calibration_line(calibration: Calibration) -> str:
    """Describe what the calibration changed."""
    before, after = calibration.error_before, calibration.error_after
    if after is None:
        return f"temperature 1, ECE {before:.3f}; too few images to fit a temperature"
    errors = f"ECE {before:.3f} -> {after:.3f} (cross-validated)"
    if calibration.temperature == calibration.fitted:
        return f"temperature {calibration.temperature:.3g}, {errors}"
    if after > before:
        return f"temperature 1, because {calibration.fitted:.3g} would make it worse: {errors}"
    return (
        f"temperature 1, because {calibration.fitted:.3g} would not lower the log loss "
        f"(cross-validated); ECE {before:.3f}"
    )


def unknown_line(calibration: Calibration) -> str:
    """Describe what `--unknown auto` would do on validation images, and what is guaranteed."""
    rule = calibration.unknown.thresholds
    target = f"{100 * rule.target_precision:g}%"
    if rule.confidence is None:
        why = f"no confidence threshold guarantees {target} precision ({CONFIDENCE:.0%} confidence)"
        if calibration.needed:
            count = f"{calibration.needed:,} validation images, not {calibration.images:,}"
            why = f"a confidence threshold for {target} precision takes at least {count}"
        return f"--unknown auto refuses only images unlike the training images; {why}"
    return (
        f"with --unknown auto, {calibration.coverage:.1%} of validation images get an answer; of "
        f"such answers on new images, at least {target} are correct ({CONFIDENCE:.0%} confidence)"
    )


def calibrate(
    *,
    logits: Array,
    labels: Array,
    units: Array,
    features: Array,
    train_features: Array,
    train_labels: Array,
    target_precision: float,
    candidates: int,
    seed: int,
) -> Calibration:
    """Fit temperature and thresholds on val; only the reference of the distance is from train.

    Args:
        logits: `(images, classes)` of val.
        labels: `(images,)` of val.
        units: `(images,)` of val.
        features: `(images, 2048)` of val.
        train_features: `(images, 2048)`.
        train_labels: `(images,)`.
        target_precision: Wanted share of correct answers, 0..1.
        candidates: Number of models that this one was selected from on val.
        seed: Of the folds that the error after calibration is measured with.
    """
    fitted, after = fit_temperature(logits, labels), _on_other_units(logits, labels, units, seed)
    before = softmax(logits, axis=1)
    temperature = fitted if after is not None and _helps(before, after, labels) else 1.0
    probabilities = softmax(logits / temperature, axis=1)
    confidences, right = best_guesses(probabilities, labels)
    reference = remember(train_features, train_labels)
    distances = reference.distances(features)
    farthest = distance_threshold(distances)
    near = distances <= farthest  # the others get no answer anyway
    alike = (right[near], target_precision, units[near], candidates)
    threshold = confidence_threshold(confidences[near], *alike)
    rule = UnknownRule(Thresholds(target_precision, threshold, farthest), reference)
    answered = near & (confidences >= (threshold or 0.0))
    return Calibration(
        images=len(labels),
        fitted=fitted,
        temperature=temperature,
        error_before=calibration_error(*best_guesses(before, labels)),
        error_after=None if after is None else calibration_error(*best_guesses(after, labels)),
        unknown=rule,
        coverage=float(answered.mean()),
        precision=float(right[answered].mean()) if answered.any() else None,
        needed=images_needed(*alike) if threshold is None else None,
    )


def _on_other_units(logits: Array, labels: Array, units: Array, seed: int) -> Array | None:
    """Return each image's probabilities, with a temperature fitted to other units."""
    folds = unit_folds(units, folds=_FOLDS, seed=seed)
    if not folds:
        return None
    probabilities = np.zeros(logits.shape)
    for fitted, measured in folds:
        temperature = fit_temperature(logits[fitted], labels[fitted])
        probabilities[measured] = softmax(logits[measured] / temperature, axis=1)
    return probabilities


def _helps(before: Array, after: Array, labels: Array) -> bool:
    """Return whether probabilities have a lower log loss and no higher calibration error."""
    rows = np.arange(len(labels))
    losses = [-np.log(np.maximum(p[rows, labels], 1e-12)).mean() for p in (before, after)]
    errors = [calibration_error(*best_guesses(p, labels)) for p in (before, after)]
    return bool(losses[1] < losses[0] and errors[1] <= errors[0])
