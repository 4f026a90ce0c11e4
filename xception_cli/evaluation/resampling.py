"""The bootstrap: metrics of resampled units, and their 95% intervals.

If each image is a unit, this is the usual bootstrap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from xception_cli.data.units import number_units
from xception_cli.evaluation.confidence import last_of_equal
from xception_cli.evaluation.intervals import Array, Interval

RESAMPLES = 1000
_SEED = 0
_CHUNK = 2_000_000  # image weights in memory at once
_MOST_RANKED = 50_000_000  # scores ranked again for the intervals of average precision, 1 s
FEWEST_UNITS = 10  # with fewer units, resampling gives no useful interval
# Units of a class: with fewer, over 2.5% of the resamples lack it, so the ends of the interval of a
# mean over the classes would be means over fewer classes.
FEWEST_OF_CLASS = 4
_FEWEST_RESAMPLES = 100  # fewer do not determine the ends of an interval


def percentile_interval(draws: Array) -> Interval | None:
    """Return the middle 95% of a metric's values in many resamples (Efron 1979).

    Args:
        draws: `(resamples,)`; nan if undefined.

    Returns:
        The interval; None if all values are equal, or too many are undefined.
    """
    draws = draws[~np.isnan(draws)]
    if len(draws) < _FEWEST_RESAMPLES or np.ptp(draws) < 1e-12:
        return None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class Tallies:
    """The counts from which the metrics of many resamples are computed.

    The formulas are scikit-learn's, for all resamples at once; a test compares them.

    Attributes:
        right: Images of each class that were classified correctly, `(resamples, classes)`.
        true: Images of each class.
        guessed: Images that were predicted as each class.
        log_loss: `(resamples,)`.
    """

    right: Array
    true: Array
    guessed: Array
    log_loss: Array

    @cached_property
    def f1(self) -> Array:
        """F1 of each class, `(resamples, classes)`; nan for a class without images."""
        return _divide(2 * self.right, np.where(self.true > 0, self.true + self.guessed, 0))

    @property
    def macro_f1(self) -> Array:
        """Mean F1 of the classes that have images."""
        return _mean_of_known(self.f1)

    @property
    def weighted_f1(self) -> Array:
        """Mean F1 of the classes, weighted by their images."""
        return _divide(np.nansum(self.f1 * self.true, axis=1), self.true.sum(axis=1))

    @property
    def cohen_kappa(self) -> Array:
        """Agreement beyond chance with the same frequencies of guesses (Cohen 1960)."""
        count = self.true.sum(axis=1)
        expected = (self.true * self.guessed).sum(axis=1) / count
        return _divide(self.right.sum(axis=1) - expected, count - expected)

    @property
    def matthews(self) -> Array:
        """Correlation of classes and guesses (Gorodkin 2004)."""
        count = self.true.sum(axis=1)
        both = self.right.sum(axis=1) * count - (self.true * self.guessed).sum(axis=1)
        spreads = [count**2 - (part**2).sum(axis=1) for part in (self.true, self.guessed)]
        return _divide(both, np.sqrt(spreads[0] * spreads[1]))


def tally(
    labels: Array, guesses: Array, losses: Array, units: Sequence[str] | Array, class_count: int
) -> Tallies:
    """Resample the units with replacement many times, and count their images.

    Args:
        labels: `(images,)`, true classes.
        guesses: `(images,)`, predicted classes.
        losses: `(images,)`, log loss of each.
        units: `(images,)`.
        class_count: Number of classes.
    """
    right, true, guessed = (
        _one_hot(columns, keep, class_count)
        for columns, keep in ((labels, labels == guesses), (labels, None), (guesses, None))
    )
    parts = [
        (w @ right, w @ true, w @ guessed, w @ losses / w.sum(axis=1))
        for w in unit_weights(units, RESAMPLES)
    ]
    return Tallies(*(np.concatenate(column).astype(float) for column in zip(*parts, strict=True)))


def average_precision_draws(
    labels: Array, probabilities: Array, sums: Array, units: Sequence[str] | Array
) -> Array:
    """Compute the average precision of each class in many resamples of the units.

    Args:
        labels: `(images,)`, true classes.
        probabilities: `(images, classes)`.
        sums: `(images,)`, of the probabilities, which are divided by them.
        units: `(images,)`.

    Returns:
        `(resamples, classes)`; nan for a class without images. With many images and classes there
        are fewer resamples, with very many there are none.
    """
    resamples = min(RESAMPLES, _MOST_RANKED // probabilities.size)
    if resamples < _FEWEST_RESAMPLES:
        return np.full((0, probabilities.shape[1]), np.nan)
    parts, exact = [], probabilities / sums[:, None]
    for weights in unit_weights(units, resamples):
        columns = [
            _average_precision(weights, labels == label, scores)
            for label, scores in enumerate(exact.T)
        ]
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def _average_precision(weights: Array, of_class: Array, scores: Array) -> Array:
    """Compute `(resamples,)` as scikit-learn does: precision over the steps of recall."""
    order = np.argsort(-scores, kind="stable")
    ends = last_of_equal(scores[order])
    taken = weights[:, order]
    found = (taken * of_class[order]).cumsum(axis=1)[:, ends]
    precision = _divide(found, taken.cumsum(axis=1)[:, ends])
    steps = np.diff(found, axis=1, prepend=0)
    return _divide(np.nansum(steps * precision, axis=1), found[:, -1])


def unit_weights(units: Sequence[str] | Array, resamples: int) -> Iterator[Array]:
    """Sample how often each unit is in each resample; yields `(some resamples, images)` each."""
    numbers = number_units(units)
    count = int(numbers.max()) + 1
    generator = np.random.default_rng(_SEED)
    size = max(1, _CHUNK // len(numbers))
    for start in range(0, resamples, size):
        drawn = generator.multinomial(
            count, np.full(count, 1 / count), size=min(size, resamples - start)
        )
        yield drawn[:, numbers]


def _one_hot(columns: Array, keep: Array | None, class_count: int) -> Any:
    rows = np.arange(len(columns))
    kept = np.ones(len(columns), dtype=np.int64) if keep is None else keep.astype(np.int64)
    return csr_array((kept, (rows, columns)), shape=(len(columns), class_count))


def _divide(above: Array, below: Array) -> Array:
    """Divide; nan for a divisor of 0."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _mean_of_known(values: Array) -> Array:
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))
