"""The linear probe: logistic regression on pooled features, the baseline and the first head.

It is fitted to several views of each image, which together count as one image. Folds keep groups
whole, so the views of an image are always on one side.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from xception_cli.console import screen
from xception_cli.data.units import number_units, unit_folds
from xception_cli.model.logistic import (
    Standardized,
    fit,
    new_model,
    stack_views,
    standardize,
)

Array = np.ndarray[Any, Any]

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse regularization, on standardized features
_WEAKEST, _STRONGEST = 1e-6, 1e2  # limits of the search beyond the first or the last of these
LARGEST_SEARCH = 5_000  # images; more do not improve the choice of the strength
_FOLDS = 5
# Rows that a probe is fitted to. With more images, each has fewer views, and they matter less.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe.

    Attributes:
        weight: `(classes, features)`, float32; acts on the features as given.
        bias: `(classes,)`, float32.
        strength: Inverse regularization, the best by cross-validated log loss.
        labels: `(n,)`, of the images it was fitted to.
        units: `(n,)`, of these images.
        held_out: `(n, classes)`, log-probabilities of each image by a probe that was fitted without
            its fold, float32; nan for the images of a class that is a single unit.
        averaged: The same for logits averaged over the first two views; equal to `held_out` if
            there is only one.
        folds: Number of folds; 0 with too few units.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float
    labels: Array
    units: Array
    held_out: Array
    averaged: Array
    folds: int

    @property
    def head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias, as `fit_head` returns them."""
        return self.weight, self.bias

    @property
    def tested(self) -> Array:
        """Whether each image was held out once, `(n,)`."""
        tested: Array = ~np.isnan(self.held_out[:, 0])
        return tested

    @property
    def hits(self) -> Array:
        """Whether each held-out image was classified correctly, `(tested,)`."""
        hits: Array = self.held_out[self.tested].argmax(1) == self.labels[self.tested]
        return hits

    @property
    def macro_recall(self) -> float:
        """Mean recall of the classes among the held-out images."""
        labels = self.labels[self.tested]
        return float(np.mean([self.hits[labels == label].mean() for label in np.unique(labels)]))

    def logits(self, features: Array) -> torch.Tensor:
        """Compute logits `(n, classes)` from `(n, features)`."""
        return torch.from_numpy(features) @ self.weight.T + self.bias


def fit_probe(
    features: Array,
    labels: Array,
    units: Array,
    *,
    class_count: int,
    seed: int,
    class_weights: Array | None = None,
) -> Probe:
    """Fit multinomial logistic regression, with regularization chosen by cross-validation.

    Args:
        features: `(n, features)`, or `(views, n, features)` of several views of the same images,
            the evaluation crops first; float32. The strength is chosen on the first view, which
            also evaluates held-out images.
        labels: `(n,)`; every class has at least one image.
        units: `(n,)`; folds keep units whole.
        class_count: Number of classes.
        seed: Seed of the folds.
        class_weights: `(classes,)`, in the loss; None weighs all classes equally.
    """
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    images, views = _Images(labels, units, weights), limit_views(features)
    # One thread: on problems this small, more BLAS threads only wait for each other.
    with threadpool_limits(1, user_api="blas"):
        every = standardize(views)
        first = every if len(views) == 1 else standardize(views[:1])
        strength, held_out, folds = _search(first.views, images, class_count, seed)
        if held_out is None or (len(views) > 1 and folds):
            held_out, folds = _judge(every.views, images, class_count, seed, strength)
        weight, bias = _fit_head(every, images, strength, class_count)
    # Log-probabilities are logits up to a constant for each image.
    averaged = log_softmax(held_out.mean(axis=0), axis=1) if len(held_out) > 1 else held_out[0]
    return Probe(weight, bias, strength, labels, units, held_out[0], averaged, folds)


def fit_head(
    features: Array,
    labels: Array,
    *,
    strength: float,
    class_count: int,
    class_weights: Array | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit multinomial logistic regression of a given strength; see `fit_probe`.

    Returns:
        Weight `(classes, features)` and bias `(classes,)`, float32, for the features as given.
    """
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    with threadpool_limits(1, user_api="blas"):
        images = _Images(labels, labels, weights)  # units do not matter here
        return _fit_head(standardize(limit_views(features)), images, strength, class_count)


def _fit_head(
    features: Standardized, images: "_Images", strength: float, class_count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    scaled, mean, basis = features
    rows = stack_views(scaled, images.labels, images.weights)
    weight, bias = fit(new_model(), *rows, strength, class_count)
    weight = weight @ basis if basis.ndim == 2 else weight * basis
    bias = bias - weight @ mean
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))


def limit_views(features: Array) -> Array:
    """Return the views that a probe is fitted to, `(views, n, ...)`: fewer with many images.

    Args:
        features: Features of one view or several, see `fit_probe`.
    """
    views = features if features.ndim == 3 else features[None]
    return views[: max(1, MOST_ROWS // views.shape[1])]


def cross_validate(
    features: Array,
    labels: Array,
    units: Array,
    *,
    class_count: int,
    seed: int,
    strength: float,
    fraction: float = 1.0,
) -> Array:
    """Return the predictions for held-out images of probes fitted to a fraction of the others.

    Args:
        features: Features of one view or several, see `fit_probe`; the first two are evaluated.
        labels: `(n,)`.
        units: `(n,)`.
        class_count: Number of classes.
        seed: Seed of the folds and the samples; a larger sample contains the smaller ones.
        strength: Inverse regularization, see `Probe`.
        fraction: Fraction of each class's units, in 0..1.

    Returns:
        `(views, n, classes)`, for each evaluated view as in `Probe.held_out`.
    """
    images = _Images(labels, units, np.ones(len(labels)))
    with threadpool_limits(1, user_api="blas"):
        scaled = standardize(limit_views(features)).views
        return _judge(scaled, images, class_count, seed, strength, fraction)[0]


class _Images(NamedTuple):
    """The label, the unit and the weight of each image, `(n,)` each."""

    labels: Array
    units: Array
    weights: Array

    def at(self, index: Array) -> "_Images":
        return _Images(*(values[index] for values in self))


def _judge(
    views: Array,
    images: _Images,
    class_count: int,
    seed: int,
    strength: float,
    fraction: float = 1.0,
) -> tuple[Array, int]:
    """Return the held-out predictions of probes of one strength, and the number of folds."""
    order = np.random.default_rng(seed).permutation(len(images.labels))
    found, folds = _cross_validate(
        views[:, order], images.at(order), class_count, seed, (strength,), fraction
    )
    held_out = np.empty_like(found[strength])
    held_out[:, order] = found[strength]
    return held_out, folds


def _search(
    views: Array, images: _Images, class_count: int, seed: int
) -> tuple[float, Array | None, int]:
    """Return the strength of lowest log loss, its held-out predictions, and the number of folds.

    The predictions are None if there are more images than are searched.
    """
    order = np.random.default_rng(seed).permutation(len(images.labels))
    some = order[:LARGEST_SEARCH]
    searched = images.at(some)
    found, folds = _cross_validate(views[:, some], searched, class_count, seed, _STRENGTHS)
    held_out = np.full((len(views), len(order), class_count), np.nan, np.float32)
    if not folds:
        return 1e-2, held_out, 0

    def surprise(strength: float) -> float:
        likelihoods = found[strength][0, np.arange(len(some)), searched.labels]
        return -float((searched.weights * likelihoods)[~np.isnan(likelihoods)].sum())

    # Log loss, not accuracy: on easy data all strengths have the same accuracy.
    best = min(found, key=surprise)
    while further := _beyond(found, best):
        found |= _cross_validate(views[:, some], searched, class_count, seed, (further,))[0]
        best = min(found, key=surprise)
    if len(some) < len(order):
        return best, None, folds
    held_out[:, order] = found[best]
    return best, held_out, folds


def _beyond(tried: Collection[float], best: float) -> float | None:
    """Return the next strength to try, if the best one is the smallest or the largest so far."""
    if best == max(tried) < _STRONGEST:
        return best * 10
    return best / 10 if best == min(tried) > _WEAKEST else None


def _cross_validate(
    views: Array,
    images: _Images,
    class_count: int,
    seed: int,
    strengths: Sequence[float],
    fraction: float = 1.0,
) -> tuple[dict[float, Array], int]:
    """Return the held-out predictions by strength, and the number of folds.

    Predictions are log-probabilities `(views, n, classes)`, for the first two views or the only
    one.

    Each probe sees `fraction` of the units that are not held out, class by class. A class that is a
    single unit cannot be tested: its rows are nan, and no other image is predicted as it.
    """
    labels, units, weights = images
    judged = views[:2]
    shape = (len(judged), len(labels), class_count)
    held_out = {strength: np.full(shape, np.nan, np.float32) for strength in strengths}
    counts = units_of_classes(labels, units, class_count)
    tested = np.flatnonzero(counts[labels] > 1)
    present, numbered = np.unique(labels[tested], return_inverse=True)
    if len(present) < 2:
        return held_out, 0
    folds = int(min(_FOLDS, counts.max()))
    parts = unit_folds(units[tested], folds=folds, seed=seed, labels=numbered)
    with screen.bar("fitting the linear probe", len(parts) * len(strengths), "fits") as bar:
        for others, test in parts:
            train = _first_of_each(numbered, units[tested], others, fraction)
            known = np.unique(numbered[train])
            # By chance, all units of a small class may be held out at once.
            left_out = tested[test[np.isin(numbered[test], known)]]
            seen, targets = tested[train], np.searchsorted(known, numbered[train])
            rows_of, model = stack_views(views[:, seen], targets, weights[seen]), new_model()
            for strength in strengths:
                rows = np.full((len(judged), len(left_out), class_count), -np.inf, np.float32)
                if len(known) > 1:
                    weight, bias = fit(model, *rows_of, strength, len(known))
                    logits = judged[:, left_out] @ weight.T + bias
                    rows[:, :, present[known]] = log_softmax(logits, axis=2)
                    held_out[strength][:, left_out] = rows
                bar.advance(1)
    return held_out, len(parts)


def units_of_classes(labels: Array, units: Array, class_count: int) -> Array:
    """Count the units that each class has images in, `(classes,)`."""
    pairs = np.unique(np.stack([labels, number_units(units)], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=class_count)


def count_fitted(labels: Array, units: Array, class_count: int, fraction: float) -> int:
    """Return about how many images each probe of `cross_validate` is fitted to."""
    counts = units_of_classes(labels, units, class_count)
    images, tested = np.bincount(labels, minlength=class_count), counts > 1
    folds = min(_FOLDS, int(counts.max()))
    # Units of each class in the other folds, then as in `_first_of_each`
    others = np.stack([counts - (counts + fold) // folds for fold in range(folds)])
    fitted = np.ceil(fraction * others).mean(axis=0)
    return round(float((images[tested] / counts[tested] * fitted[tested]).sum()))


def _first_of_each(labels: Array, units: Array, chosen: Array, fraction: float) -> Array:
    """Return the images of the first `fraction` of each class's units, at least one unit each."""
    parts = []
    for label in np.unique(labels[chosen]):
        of_class = chosen[labels[chosen] == label]
        numbers = number_units(units[of_class])
        parts.append(of_class[numbers < math.ceil(fraction * (numbers.max() + 1))])
    return np.sort(np.concatenate(parts))
