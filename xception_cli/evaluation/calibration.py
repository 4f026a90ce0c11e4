"""Probabilities that mean what they say: temperature, calibration error, `unknown` thresholds."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.model_selection import KFold

from xception_cli.model.unknown import UnknownRule, remember

Array = NDArray[Any]

BINS = 15  # Guo et al. 2017
_FOLDS = 5
_COVERAGE = 0.95  # of pictures like val's that the distance lets pass
_COLDEST, _HOTTEST = 0.05, 20.0
_SPREAD = math.log(2)  # of the temperature's logarithm, before val is seen


@dataclass(frozen=True)
class Calibration:
    """What val says about a model's probabilities.

    Attributes:
        images: It was fitted on.
        temperature: Fitted to all of them.
        error_before: Expected calibration error of the bare network.
        error_after: With a temperature that was fitted on other images (5-fold); None for under
            two images.
        unknown: When to say `unknown`.
        coverage: Part of val that would be answered.
        precision: Part of right ones among these answers; None without any.
    """

    images: int
    temperature: float
    error_before: float
    error_after: float | None
    unknown: UnknownRule
    coverage: float
    precision: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for result.json; what the distance is measured with stays out."""
        return {
            "images": self.images,
            "temperature": self.temperature,
            "error_before": self.error_before,
            "error_after": self.error_after,
            "target_precision": self.unknown.target_precision,
            "confidence": self.unknown.confidence,
            "distance": self.unknown.distance,
            "coverage": self.coverage,
            "precision": self.precision,
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


@dataclass(frozen=True)
class Bin:
    """Images whose best class has a probability in one range: what is said, what is true."""

    images: int
    confidence: float
    accuracy: float


def reliability(probabilities: Array, labels: Array) -> list[Bin]:
    """Sort images into equal ranges of the best class's probability; empty ones are left out.

    Args:
        probabilities: `(images, classes)`.
        labels: `(images,)`.
    """
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    return [
        Bin(
            int(n), float(confidences[places == place].mean()), float(right[places == place].mean())
        )
        for place, n in enumerate(np.bincount(places, minlength=BINS))
        if n
    ]


def calibration_error(probabilities: Array, labels: Array) -> float:
    """Return the expected calibration error: the mean gap between what is said and what is true.

    It has no interval, because the bootstrap has none to give: a gap is never negative, so chance
    adds to it, and resampling adds as much again. The middle 95 % of the resamples of a perfectly
    calibrated model never hold its 0 (tests/test_intervals.py).
    """
    gaps = [
        entry.images * abs(entry.confidence - entry.accuracy)
        for entry in reliability(probabilities, labels)
    ]
    return sum(gaps) / len(labels)


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


def confidence_threshold(confidences: Array, right: Array, target: float) -> float | None:
    """Return the smallest threshold whose answers are right often enough; None if none is."""
    thresholds, _, precision = coverage_curve(confidences, right)
    enough = np.flatnonzero(precision >= target)
    if not len(enough):
        return None
    lowest = enough[-1]
    if (
        lowest == len(thresholds) - 1
    ):  # every answer may be given: no reason to refuse less sure ones
        return 0.0
    # Halfway to the first answer that is too unsure, so that rounding does not decide.
    return float(f"{(thresholds[lowest] + thresholds[lowest + 1]) / 2:.6g}")


def distance_threshold(distances: Array) -> float:
    """Return the distance that 95 % of pictures like these keep within (split conformal).

    With n distances the one of rank ⌈0.95 (n + 1)⌉, at most the largest.
    """
    rank = min(len(distances), math.ceil(_COVERAGE * (len(distances) + 1)))
    # A thousandth more, so that rounding does not decide about the picture that is at the border.
    return float(f"{1.001 * np.sort(distances)[rank - 1]:.6g}")


def calibration_line(calibration: Calibration) -> str:
    """Say what the calibration changed."""
    after = calibration.error_after
    errors = f"calibration error {calibration.error_before:.3f}"
    if after is not None:
        errors += f", now {after:.3f} (by cross-validation)"
    return f"temperature {calibration.temperature:.3g}, {errors}"


def unknown_line(calibration: Calibration) -> str:
    """Say what `--unknown auto` would do on val."""
    wanted = f"{100 * calibration.unknown.target_precision:g} %"
    if calibration.precision is None:
        return f"no threshold makes {wanted} of the answers right: --unknown auto gives none"
    return (
        f"--unknown auto answers {100 * calibration.coverage:.1f} % of val, of these "
        f"{100 * calibration.precision:.1f} % right (wanted: {wanted})"
    )


def calibrate(
    *,
    logits: Array,
    labels: Array,
    features: Array,
    train_features: Array,
    train_labels: Array,
    target_precision: float,
    seed: int,
) -> Calibration:
    """Fit temperature and thresholds on val; only what the distance is from is of train.

    Args:
        logits: `(images, classes)` of val.
        labels: `(images,)` of val.
        features: `(images, 2048)` of val.
        train_features: `(pictures, 2048)`.
        train_labels: `(pictures,)`.
        target_precision: Wanted part of right answers, 0..1.
        seed: Of the folds that the error after calibration is measured with.
    """
    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits / temperature, axis=1)
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    threshold = confidence_threshold(confidences, right, target_precision)
    reference = remember(train_features, train_labels)
    distances = reference.distances(features)
    rule = UnknownRule(target_precision, threshold, distance_threshold(distances), reference)
    answered = (confidences >= (math.inf if threshold is None else threshold)) & (
        distances <= rule.distance
    )
    return Calibration(
        images=len(labels),
        temperature=temperature,
        error_before=calibration_error(softmax(logits, axis=1), labels),
        error_after=_error_on_others(logits, labels, seed),
        unknown=rule,
        coverage=float(answered.mean()),
        precision=float(right[answered].mean()) if answered.any() else None,
    )


def _error_on_others(logits: Array, labels: Array, seed: int) -> float | None:
    """Measure each image with the temperature that the others ask for."""
    if len(labels) < 2:
        return None
    probabilities = np.zeros(logits.shape)
    folds = KFold(min(_FOLDS, len(labels)), shuffle=True, random_state=seed % 2**32)
    for fitted, measured in folds.split(logits):
        temperature = fit_temperature(logits[fitted], labels[fitted])
        probabilities[measured] = softmax(logits[measured] / temperature, axis=1)
    return calibration_error(probabilities, labels)
