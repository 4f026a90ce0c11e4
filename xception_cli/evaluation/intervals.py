"""95% intervals: Wilson's for proportions, the bootstrap for every other number.

Images of one unit are one piece of evidence. Proportions count effective images (the design effect
of Rao and Scott 1992), and the bootstrap resamples units. Where each image is a unit, both are what
they would be without units.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import ndtri, stdtrit

from xception_cli.data.units import number_units

Array = NDArray[Any]
Interval = tuple[float, float]
NOT_MEASURED = "n/a"

RESAMPLES = 1000
_SEED = 0
_CHUNK = 2_000_000  # image weights in memory at once
_MOST_RANKED = 50_000_000  # scores ranked again for the intervals of average precision, 1 s
FEWEST_UNITS = 10  # resamples of fewer groups say too little about their ends
_FEWEST_RESAMPLES = 100  # fewer say nothing about the ends of an interval
_TWO_SIDED = float(ndtri(0.975))  # standard deviations of a normal 95% interval


@dataclass(frozen=True)
class Estimate:
    """A measured number and its 95% interval.

    Attributes:
        value: The number.
        low: Lower end of the interval; None where resampling says nothing about it.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> list[float] | None:
        """The interval as in metrics.json."""
        return None if self.low is None or self.high is None else [self.low, self.high]

    @property
    def interval(self) -> str:
        """Of a proportion, for a sentence: `95% CI 84.6-96.1%`."""
        return f"95% CI {texts(self, percent=True)[1]}"


def texts(estimate: Estimate | None, *, percent: bool) -> tuple[str, str]:
    """Write an estimate and its interval: `92.1%` and `84.6-96.1%`, or `0.921` and `0.846-0.961`.

    Args:
        estimate: None could not be measured.
        percent: Whether it is a proportion.
    """
    if estimate is None:
        return NOT_MEASURED, NOT_MEASURED
    scale, digits, unit = (100, 1, "%") if percent else (1, 3, "")
    value = f"{scale * estimate.value:.{digits}f}{unit}"
    if estimate.low is None or estimate.high is None:
        return value, NOT_MEASURED
    low, high = scale * estimate.low, scale * estimate.high
    return value, f"{low:.{digits}f}-{high:.{digits}f}{unit}"


def wilson_interval(successes: int, trials: int) -> Interval:
    """Return the 95 % Wilson score interval of a proportion (Wilson 1927); `trials` is over 0."""
    low, high = _wilson(successes, trials)
    return float(low), float(high)


def _wilson(successes: Any, trials: Any) -> tuple[Any, Any]:
    # As SciPy computes it, without the p-value that its `binomtest` computes first.
    share, z = successes / trials, _TWO_SIDED
    scale = 2 * (trials + z**2)
    centre = (2 * trials * share + z**2) / scale
    half = z / scale * np.sqrt(4 * trials * share * (1 - share) + z**2)
    low = np.where(successes == 0, 0.0, centre - half)
    return low, np.where(successes == trials, 1.0, centre + half)


def count_units(units: Sequence[str] | Array) -> int:
    """Count the units that images belong to."""
    return len(np.unique(np.asarray(units)))


def evidence(successes: int, images: int, groups: int) -> str:
    """Describe what a proportion was measured on: `43 of 84 images, 14 groups`.

    Args:
        successes: Images that count.
        images: All of them.
        groups: Units that they belong to.
    """
    listed = f", {groups:,} group{'s' * (groups > 1)}" if groups < images else ""
    return f"{successes:,} of {images:,} images{listed}"


def design_effect(hits: Array, units: Sequence[str] | Array) -> float:
    """Return how many times the variance of a proportion is what it would be without units.

    The variance of a ratio over units, relative to the binomial one (Rao and Scott 1992), at least
    1. Two units of the mean size that weigh half, one all right and one all wrong, are added to the
    estimate: without them a few units that are all right would seem to vary by nothing. Where a few
    units hold most images, their own variation shows little; then Kish's effect of unequal sizes at
    the intra-cluster correlation decides (tests/evaluation/test_simulations.py).

    Args:
        hits: `(images,)`, whether each counts.
        units: `(images,)`.
    """
    numbers = number_units(units)
    sizes = np.bincount(numbers).astype(float)
    if len(sizes) == len(hits):
        return 1.0
    least = 1 + (float((sizes**2).sum() / sizes.sum()) - 1) * _correlation(hits, numbers, sizes)
    mean = sizes.mean()
    successes = np.append(np.bincount(numbers, hits), [0, mean])
    weights = np.append(np.ones(len(sizes)), [0.5, 0.5])
    sizes = np.append(sizes, [mean, mean])
    images, count = (weights * sizes).sum(), weights.sum()
    share = (weights * successes).sum() / images
    residuals = successes - share * sizes
    variance = count / (count - 1) * (weights * residuals**2).sum() / images**2
    return max(1.0, least, float(variance / (share * (1 - share) / images)))


def _correlation(hits: Array, numbers: Array, sizes: Array) -> float:
    """Estimate the intra-cluster correlation by analysis of variance, 0..1; a half if unknown."""
    count, images = len(sizes), len(hits)
    if count < 2 or images == count:
        return 0.5
    means = np.bincount(numbers, hits) / sizes
    between = (sizes * (means - hits.mean()) ** 2).sum() / (count - 1)
    within = (sizes * means * (1 - means)).sum() / (images - count)
    usual = (images - (sizes**2).sum() / images) / (count - 1)
    total = between + (usual - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 0.5


def effective_units(units: Sequence[str] | Array) -> float:
    """Return how many units of equal size would count as these do (Kish 1965)."""
    sizes = np.bincount(number_units(units)).astype(float)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def proportion_interval(
    hits: Array, units: Sequence[str] | Array, *, share: float | None = None
) -> Interval:
    """Return the 95% Wilson interval of a proportion whose images come in units.

    Args:
        hits: `(images,)`, whether each counts; at least one image.
        units: `(images,)`, what each belongs to.
        share: The proportion to put the interval around, if it is not that of the hits.
    """
    images, groups = len(hits), count_units(units)
    share = float(hits.mean()) if share is None else share
    # Few units do not say exactly how much they vary.
    z = None if groups == images else float(stdtrit(max(1.0, effective_units(units) - 1), 0.975))
    return scaled_interval(share, images, design_effect(hits, units), z=z)


def scaled_interval(
    share: float, images: int, effect: float, *, z: float | None = None
) -> Interval:
    """Return the 95% Wilson interval of a proportion with a known design effect.

    Args:
        share: The proportion.
        images: It was measured on.
        effect: See `design_effect`; 1 gives `wilson_interval`.
        z: Half width in standard deviations; None for the normal one.
    """
    successes = share * images
    if effect == 1 and z is None and abs(successes - round(successes)) < 1e-6:
        return wilson_interval(round(successes), images)
    low, high = _scaled(share, images / effect, _TWO_SIDED if z is None else z)
    return float(low), float(high)


def _scaled(share: Any, effective: Any, z: float) -> tuple[Any, Any]:
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    spread = share * (1 - share) / effective + z**2 / (4 * effective**2)
    half = z / (1 + z**2 / effective) * np.sqrt(spread)
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)


def scaled_intervals(shares: Array, images: Array, effect: float) -> tuple[Array, Array]:
    """Return the lower and upper ends of `scaled_interval` for many proportions, `(n,)` each.

    Args:
        shares: `(n,)`.
        images: `(n,)`, that each was measured on.
        effect: Of all of them.
    """
    successes = shares * images
    counts = np.round(successes)
    are_counts = (effect == 1) & (np.abs(successes - counts) < 1e-6)
    pairs = zip(_wilson(counts, images), _scaled(shares, images / effect, _TWO_SIDED), strict=True)
    low, high = (np.where(are_counts, exact, scaled) for exact, scaled in pairs)
    return low, high


def percentile_interval(draws: Array) -> Interval | None:
    """Return the middle 95 % of what a number was in many resamples (Efron 1979).

    Args:
        draws: `(resamples,)`; nan where it could not be measured.

    Returns:
        The interval, or None where resampling says nothing: all draws are equal, or undefined.
    """
    draws = draws[~np.isnan(draws)]
    if len(draws) < _FEWEST_RESAMPLES or np.ptp(draws) < 1e-12:
        return None
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class Tallies:
    """What the numbers of many resamples of the images are made of.

    The formulas are scikit-learn's, for all resamples at once; a test compares them.

    Attributes:
        right: Images of each class that were recognised, `(resamples, classes)`.
        true: Images of each class.
        guessed: Images that were given each class.
        log_loss: `(resamples,)`.
    """

    right: Array
    true: Array
    guessed: Array
    log_loss: Array

    @cached_property
    def f1(self) -> Array:
        """Of each class, `(resamples, classes)`; nan for a class without images."""
        return _divide(2 * self.right, np.where(self.true > 0, self.true + self.guessed, 0))

    @property
    def macro_recall(self) -> Array:
        """Mean recall of the classes that have images."""
        return _mean_of_known(_divide(self.right, self.true))

    @property
    def macro_f1(self) -> Array:
        """Mean F1 of the classes that have images."""
        return _mean_of_known(self.f1)

    @property
    def weighted_f1(self) -> Array:
        """F1 of the classes, each as often as it has images."""
        return _divide(np.nansum(self.f1 * self.true, axis=1), self.true.sum(axis=1))

    @property
    def cohen_kappa(self) -> Array:
        """How much better than chance with the same frequencies of guesses (Cohen 1960)."""
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
    """Draw as many units as there are, with replacement, many times, and count their images.

    Args:
        labels: `(images,)`, true classes.
        guesses: `(images,)`, guessed classes.
        losses: `(images,)`, what each adds to the log loss.
        units: `(images,)`, what each belongs to.
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
        sums: `(images,)`, of the probabilities of each, which are divided by these.
        units: `(images,)`, what each belongs to.

    Returns:
        `(resamples, classes)`; nan for a class without images. There are fewer resamples where
        images and classes are many, and none where they are very many.
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
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of equal scores
    taken = weights[:, order]
    found = (taken * of_class[order]).cumsum(axis=1)[:, ends]
    precision = _divide(found, taken.cumsum(axis=1)[:, ends])
    steps = np.diff(found, axis=1, prepend=0)
    return _divide(np.nansum(steps * precision, axis=1), found[:, -1])


def unit_weights(units: Sequence[str] | Array, resamples: int) -> Iterator[Array]:
    """Draw how often each unit is in each resample, `(some resamples, images)` at a time."""
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
    """Divide; nothing by nothing is nan."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _mean_of_known(values: Array) -> Array:
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))
