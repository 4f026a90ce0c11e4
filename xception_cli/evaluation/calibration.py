"""Probabilities that mean what they say: temperature, calibration error, `unknown` thresholds."""

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
_COVERAGE = 0.95  # of images like val's that the distance lets pass
CONFIDENCE = 0.9  # that the precision of `--unknown auto` on new images is the target or more
_FIRST = 8  # the first threshold that is tested answers one image in so many
_COLDEST, _HOTTEST = 0.05, 20.0
_SPREAD = math.log(2)  # of the temperature's logarithm, before val is seen


@dataclass(frozen=True)
class Calibration:
    """What val says about a model's probabilities.

    Attributes:
        images: It was fitted on.
        fitted: The temperature that was fitted to all of them.
        temperature: The one that the model gets: the fitted one, or 1 where cross-validation by
            unit does not show that it helps.
        error_before: Expected calibration error of the bare network.
        error_after: With a temperature that was fitted on other units (5-fold); None for under
            two units.
        unknown: When to say `unknown`.
        coverage: Share of val that would be answered.
        precision: Share of correct ones among these answers; None without any.
        needed: Validation images that a threshold takes at least; None where there is one, or
            where there are as many but the answers are not right often enough.
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
        """Return plain data for result.json; what the distance is measured with stays out."""
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
    """Fit the number that divides logits, by log loss (Guo et al. 2017).

    Its logarithm has a normal prior around 0, with a factor of two for a standard deviation: else
    a small val split without a mistake would ask for certainty.

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
    """Return the probability of each image's best class, and whether it is the right one.

    Args:
        probabilities: `(images, classes)`.
        labels: `(images,)`.
    """
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


@dataclass(frozen=True)
class Bin:
    """Images whose best class has a probability in one range: what is said, what is true."""

    images: int
    confidence: float
    accuracy: float


def reliability(confidences: Array, right: Array) -> list[Bin]:
    """Sort images into equal ranges of the best class's probability; empty ones are left out.

    Args:
        confidences: `(images,)`, probability of the best class.
        right: `(images,)`, whether it is the right one.
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
    """Return the expected calibration error, see `reliability`: the mean gap of said and true.

    It has no interval, because the bootstrap has none to give: a gap is never negative, so chance
    adds to it, and resampling adds as much again. The middle 95 % of the resamples of a perfectly
    calibrated model never hold its 0 (tests/evaluation/test_intervals.py).
    """
    gaps = [
        entry.images * abs(entry.confidence - entry.accuracy)
        for entry in reliability(confidences, right)
    ]
    return sum(gaps) / len(right)


def coverage_curve(confidences: Array, right: Array) -> tuple[Array, Array, Array]:
    """Return thresholds, falling, and what they leave: coverage, and precision of the answers.

    Args:
        confidences: `(images,)`, probability of the best class.
        right: `(images,)`, whether it is the right one.
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
    """Return the lowest threshold whose answers on new images are right often enough; or None.

    Thresholds are tested from the strictest down, and the last one before the first failure is
    taken, so that no correction for their number is needed (learn then test, Angelopoulos et al.
    2021, with a fixed sequence). A test passes where the exact lower bound of the precision
    (Clopper and Pearson 1934, as Geifman and El-Yaniv 2017 use it) reaches the target. So in at
    least 90% of validation sets, the precision on new images is the target or more.

    The strictest threshold answers one image in eight, and as many as can pass at all: of fewer, a
    single wrong label would decide (for other choices see tests/evaluation/test_simulations.py).

    Args:
        confidences: `(images,)`, probability of the best class.
        right: `(images,)`, whether it is the right one.
        target: Wanted precision, 0..1.
        units: `(images,)`, what each image belongs to; they count as fewer effective images.
        candidates: Models that the answering one was selected among on these images. Each might
            have been: the tests allow for that by the union bound.
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
    # Halfway to the first answer that is not confident enough, so that rounding does not decide.
    return float(f"{(thresholds[lowest] + thresholds[lowest + 1]) / 2:.6g}")


def _lower_bound(images: Array, share: Array, level: float) -> Array:
    """Return the exact lower bound of proportions, of numbers of images that may be broken."""
    right = np.maximum(images * share, 1e-9)
    bound: Array = beta.ppf(level, right, np.maximum(images - right, 0) + 1)
    return bound


def _fewest(target: float, level: float) -> int:
    """Return how many answers, all right, show that a precision is the target or more."""
    if not 0 < target < 1:
        return 1
    return math.ceil(math.log(level) / math.log(target))


def images_needed(
    right: Array, target: float, units: Sequence[str] | Array, candidates: int = 1
) -> int | None:
    """Return how many images a threshold would need at least, where none was found.

    Args:
        right: `(images,)`, whether the answers are right; for the rest see `confidence_threshold`.
        target: Wanted precision.
        units: What each image belongs to.
        candidates: Models that were selected among.

    Returns:
        None where there are as many: then the answers are not right often enough.
    """
    if not len(right) or not 0 < target < 1:
        return None
    fewest = _fewest(target, (1 - CONFIDENCE) / candidates) * design_effect(right, units)
    return math.ceil(fewest) if fewest > len(right) else None


def distance_threshold(distances: Array) -> float:
    """Return the distance that 95 % of images like these keep within (split conformal).

    With n distances the one of rank ⌈0.95 (n + 1)⌉, at most the largest.
    """
    rank = min(len(distances), math.ceil(_COVERAGE * (len(distances) + 1)))
    # A thousandth more, so that rounding does not decide about the image that is at the border.
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
        least = f"; that takes at least {needed:,}" if (needed := calibration.needed) else ""
        return (
            f"no confidence threshold guarantees {target} precision ({CONFIDENCE:.0%} confidence) "
            f"with {calibration.images:,} validation images{least}; --unknown auto refuses only "
            "images unlike the training images"
        )
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
    """Fit temperature and thresholds on val; only what the distance is from is of train.

    Args:
        logits: `(images, classes)` of val.
        labels: `(images,)` of val.
        units: `(images,)` of val, what each image belongs to.
        features: `(images, 2048)` of val.
        train_features: `(images, 2048)`.
        train_labels: `(images,)`.
        target_precision: Wanted share of correct answers, 0..1.
        candidates: Models that this one was selected among on val.
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
    """Return each image's probabilities with the temperature that the other units ask for."""
    folds = unit_folds(units, folds=_FOLDS, seed=seed)
    if not folds:
        return None
    probabilities = np.zeros(logits.shape)
    for fitted, measured in folds:
        temperature = fit_temperature(logits[fitted], labels[fitted])
        probabilities[measured] = softmax(logits[measured] / temperature, axis=1)
    return probabilities


def _helps(before: Array, after: Array, labels: Array) -> bool:
    """Tell whether probabilities are better by log loss, and no worse by calibration error."""
    rows = np.arange(len(labels))
    losses = [-np.log(np.maximum(p[rows, labels], 1e-12)).mean() for p in (before, after)]
    errors = [calibration_error(*best_guesses(p, labels)) for p in (before, after)]
    return bool(losses[1] < losses[0] and errors[1] <= errors[0])
