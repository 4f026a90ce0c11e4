"""Calibration: the temperature and the thresholds of `unknown`, fitted on val."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from xception_cli.data.units import unit_folds
from xception_cli.evaluation.confidence import best_guesses, calibration_error
from xception_cli.evaluation.intervals import Array
from xception_cli.evaluation.thresholds import (
    CONFIDENCE,
    confidence_threshold,
    distance_threshold,
    images_needed,
)
from xception_cli.model.unknown import Thresholds, UnknownRule, remember
from xception_cli.numerals import percentage

_FOLDS = 5
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


def calibration_line(calibration: Calibration) -> str:
    """Describe what the calibration changed."""
    before, after = calibration.error_before, calibration.error_after
    if after is None:
        return f"temperature 1, ECE {before:.3f}; too few images to fit a temperature"
    errors = f"ECE {before:.3f} -> {after:.3f} (cross-validated)"
    if calibration.temperature == calibration.fitted:
        return f"temperature {calibration.temperature:.3g}, {errors}"
    fitted = f"{calibration.fitted:.3g}"
    if fitted == "1":
        return f"temperature 1, as fitted; ECE {before:.3f}"
    if after > before:
        return f"temperature 1, because {fitted} would make it worse: {errors}"
    return (
        f"temperature 1, because {fitted} would not lower the log loss (cross-validated); "
        f"ECE {before:.3f}"
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
        f"with --unknown auto, {percentage(calibration.coverage)} of validation images get an "
        f"answer; of such answers on new images, at least {target} are correct ({CONFIDENCE:.0%} "
        "confidence)"
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
