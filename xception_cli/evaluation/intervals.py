"""95% intervals of proportions: Wilson's, for images in units.

Images of one unit are not independent, so effective images count (the design effect of Rao and
Scott 1992). If each image is a unit, these are the usual intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from xception_cli.data.units import number_units
from xception_cli.numerals import count_of, percentage

Array = NDArray[Any]
Interval = tuple[float, float]
Spread = tuple[float, float | None]  # see `spread`
NOT_MEASURED = "n/a"

_TWO_SIDED = float(ndtri(0.975))  # standard deviations of a normal 95% interval


@dataclass(frozen=True)
class Estimate:
    """A measured number and its 95% interval.

    Attributes:
        value: The number.
        low: Lower end of the interval; None if resampling gives none.
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
        """The interval of a proportion, for a sentence: `95% CI 84.6-96.1%`."""
        return f"95% CI {texts(self, percent=True)[1]}"

    def in_percent(self, *counts: str) -> str:
        """Format a proportion: `92.1% (95% CI 84.6-96.1%, 82 of 89 images)`."""
        return f"{percentage(self.value)} ({', '.join([self.interval, *counts])})"


def texts(estimate: Estimate | None, *, percent: bool) -> tuple[str, str]:
    """Format an estimate and its interval: `92.1%`, `84.6-96.1%`, or `0.921`, `0.846-0.961`.

    If the interval begins below 0, it is `-0.046 to 0.161`.

    Args:
        estimate: None if it could not be measured.
        percent: Whether it is a proportion.
    """
    if estimate is None:
        return NOT_MEASURED, NOT_MEASURED
    value, low, high = estimate.value, estimate.low, estimate.high
    text = percentage(value) if percent else f"{value:z.3f}"
    if low is None or high is None:
        return text, NOT_MEASURED
    if percent:  # ends inside of 0 to 1 are not rounded past the value, see `percentage`
        return text, f"{100 * min(low, 0.999):.1f}-{100 * max(high, 0.001):.1f}%"
    return text, f"{low:z.3f}{' to ' if low < 0 else '-'}{high:z.3f}"


def wilson_interval(successes: int, trials: int) -> Interval:
    """Return the 95% Wilson score interval of a proportion (Wilson 1927); `trials` is over 0."""
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
    """Count the different units of images."""
    return len(np.unique(np.asarray(units)))


def evidence(successes: int, images: int, groups: int, *, grouped: bool = True) -> str:
    """Describe the counts of a proportion: `43 of 84 images, 14 groups` or `..., 83 independent`.

    Args:
        successes: Images that count.
        images: All images.
        groups: Their units.
        grouped: Whether the data names some units; else they are copies.
    """
    units = count_of(groups, "group") if grouped else f"{groups:,} independent"
    listed = f", {units}" if groups < images else ""
    return f"{successes:,} of {count_of(images, 'image')}{listed}"


def design_effect(hits: Array, units: Sequence[str] | Array) -> float:
    """Return the factor by which units increase the variance of a proportion.

    This is the variance of a ratio over units, relative to the binomial one (Rao and Scott 1992),
    at least 1. Two units of mean size and half weight, one all correct and one all wrong, are added
    to the estimate: without them, a few units that are all correct would seem not to vary. If a few
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


def _half_width(units: Sequence[str] | Array) -> float | None:
    """Return the half width of an interval in standard deviations; None for the normal one.

    Few units determine their own variance only roughly: Student's t, for the equivalent number of
    units of equal size (Kish 1965).
    """
    sizes = np.bincount(number_units(units)).astype(float)
    if (sizes == 1).all():
        return None
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    return float(stdtrit(max(1.0, effective - 1), 0.975))


def proportion_interval(
    hits: Array, units: Sequence[str] | Array, *, share: float | None = None
) -> Interval:
    """Return the 95% Wilson interval of a proportion of images in units.

    Args:
        hits: `(images,)`, whether each counts; at least one image.
        units: `(images,)`.
        share: The proportion that the interval is for; None for that of the hits.
    """
    share = float(hits.mean()) if share is None else share
    return scaled_interval(share, len(hits), *spread(hits, units))


def spread(hits: Array, units: Sequence[str] | Array) -> Spread:
    """Return how widely a proportion of images in units varies, for `scaled_interval`.

    Args:
        hits: `(images,)`, whether each counts; at least one image.
        units: `(images,)`.

    Returns:
        The design effect, and the half width of an interval in standard deviations; None for the
        normal one.
    """
    return design_effect(hits, units), _half_width(units)


def macro_interval(hits: Array, labels: Array, units: Sequence[str] | Array) -> Interval:
    """Return the 95% interval of macro recall: Wilson's, for an effective number of images.

    Macro recall is a sum of proportions, so its variance is the sum of theirs. Each is computed
    with one hit and one miss more, as in `design_effect`: else a class of one image would seem not
    to vary, and the bootstrap shares that mistake (tests/evaluation/test_simulations.py).

    Args:
        hits: `(images,)`, whether each was classified correctly; at least one image.
        labels: `(images,)`, true classes; those without images do not count.
        units: `(images,)`.
    """
    present, places = np.unique(labels, return_inverse=True)
    images, right = np.bincount(places), np.bincount(places, hits)
    shares = (right + 1) / (images + 2)
    variance = float((shares * (1 - shares) / images).sum()) / len(present) ** 2
    # The images of a unit vary together, across classes too.
    residuals = ((hits - (right / images)[places]) / images[places]).astype(np.float64)
    alone, numbers = float((residuals**2).sum()), number_units(units)
    together = float((np.bincount(numbers, residuals) ** 2).sum())
    effect = max(design_effect(hits, units), together / alone if alone > 0 else 1.0)
    z = _half_width(units) or _TWO_SIDED
    mean = float(shares.mean())
    low, high = _scaled((right / images).mean(), mean * (1 - mean) / (variance * effect), z)
    return float(low), float(high)


def scaled_interval(share: float, images: int, effect: float, z: float | None = None) -> Interval:
    """Return the 95% Wilson interval of a proportion with a known design effect.

    Args:
        share: The proportion.
        images: Number of images.
        effect: See `design_effect`; 1 gives `wilson_interval`.
        z: Half width in standard deviations; None for the normal one.
    """
    low, high = scaled_intervals(share, images, effect, z)
    return float(low), float(high)


def scaled_intervals(
    shares: Any, images: Any, effect: float, z: float | None = None
) -> tuple[Array, Array]:
    """Return the lower and upper ends of `scaled_interval` for many proportions, `(n,)` each.

    Args:
        shares: `(n,)`.
        images: `(n,)`, number of images of each.
        effect: The common design effect.
        z: See `scaled_interval`.
    """
    low, high = _scaled(shares, images / effect, _TWO_SIDED if z is None else z)
    if effect != 1 or z is not None:
        return low, high
    counts = np.round(shares * images)
    are_counts = np.abs(shares * images - counts) < 1e-6
    exact_low, exact_high = _wilson(counts, images)
    return np.where(are_counts, exact_low, low), np.where(are_counts, exact_high, high)


def _scaled(share: Any, effective: Any, z: float) -> tuple[Any, Any]:
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    spread = share * (1 - share) / effective + z**2 / (4 * effective**2)
    half = z / (1 + z**2 / effective) * np.sqrt(spread)
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)
