"""Confidence: how well it matches the accuracy, and the precision and coverage of a threshold."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xception_cli.evaluation.intervals import Array, Spread, scaled_intervals

BINS = 15  # Guo et al. 2017


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
    falling = confidences[order]
    ends = last_of_equal(falling)
    answered = ends + 1
    return falling[ends], answered / len(falling), right[order].cumsum()[ends] / answered


def last_of_equal(ordered: Array) -> Array:
    """Return the index of the last one of each group of equal numbers.

    Args:
        ordered: `(n,)`, in ascending or descending order.
    """
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)


class Coverage(NamedTuple):
    """A `coverage_curve` with the 95% interval of each precision, `(thresholds,)` each."""

    thresholds: Array
    coverage: Array
    precision: Array
    low: Array
    high: Array


def coverage_intervals(confidences: Array, right: Array, spread: Spread) -> Coverage:
    """Return `coverage_curve`, with the intervals of the precision."""
    thresholds, coverage, precision = coverage_curve(confidences, right)
    answered = np.round(coverage * len(right))
    ends = scaled_intervals(precision, answered, *spread)
    return Coverage(thresholds, coverage, precision, *ends)
