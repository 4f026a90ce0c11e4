"""The linear probe: logistic regression on pooled features, the baseline and the first head.

It is fitted to several views of each image, which together count as one image. Folds keep groups
whole, so the views of an image are always on one side.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from xception_cli.console import screen
from xception_cli.data.units import number_units, unit_folds

Array = np.ndarray[Any, Any]

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse regularisation, on standardised features
LARGEST_SEARCH = 5_000  # images; the choice of the strength is not better with more
_FOLDS = 5
# Rows up to which features are rotated into their span first, see `_standardize`: finding it takes
# the cube of that.
_LARGEST_SPAN = 1_500
# Rows that a probe is fitted to: with more images there are fewer views of each, which matter less.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe.

    Attributes:
        weight: `(classes, features)`, float32; acts on the features as they were given.
        bias: `(classes,)`, float32.
        strength: Inverse regularisation, the best by cross-validated log loss.
        labels: `(n,)`, of the images it was fitted to.
        units: `(n,)`, what each of them belongs to.
        held_out: `(n, classes)`, log-probabilities of each image by a probe that was fitted without
            its fold, float32; nan for the images of a class that is a single unit.
        averaged: The same of the logits averaged over the first two views, of which there must be
            two; else as `held_out`.
        folds: How many; 0 where there are too few units.
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
    def tested(self) -> Array:
        """Whether each image was left out once, `(n,)`."""
        tested: Array = ~np.isnan(self.held_out[:, 0])
        return tested

    @property
    def hits(self) -> Array:
        """Whether each image that was left out was classified correctly, `(tested,)`."""
        hits: Array = self.held_out[self.tested].argmax(1) == self.labels[self.tested]
        return hits

    @property
    def macro_recall(self) -> float:
        """Mean recall of the classes among the images that were left out."""
        labels = self.labels[self.tested]
        return float(np.mean([self.hits[labels == label].mean() for label in np.unique(labels)]))

    def logits(self, features: Array) -> torch.Tensor:
        """Compute logits `(n, classes)` of `(n, features)`."""
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
    """Fit multinomial logistic regression, its regularisation chosen by cross-validation.

    Args:
        features: `(n, features)`, or `(views, n, features)` of several views of the same images,
            the evaluation crops first; float32. The strength is chosen on the first view, and left
            out images are judged by it.
        labels: `(n,)`; every class has at least one image.
        units: `(n,)`, what each image belongs to; folds keep units whole.
        class_count: Number of classes.
        seed: Of the folds.
        class_weights: `(classes,)`, of each class in the loss; None for equal ones.
    """
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    images, views = _Images(labels, units, weights), limit_views(features)
    # One thread: on problems this small BLAS threads cost more in waiting for each other.
    with threadpool_limits(1, user_api="blas"):
        scaled, _, _ = _standardize(views[:1])
        strength, held_out, folds = _search(scaled, images, class_count, seed)
        if len(views) > 1 and folds:
            scaled, held_out = _standardize(views)[0], None
        if held_out is None:
            held_out, folds = _judge(scaled, images, class_count, seed, strength)
    weight, bias = fit_head(
        features, labels, strength=strength, class_count=class_count, class_weights=class_weights
    )
    # Log-probabilities are logits but for a number that all classes of an image share.
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
        scaled, mean, basis = _standardize(limit_views(features))
        weight, bias = _fit(*_stack(scaled, labels, weights), strength, class_count)
    weight = weight @ basis if basis.ndim == 2 else weight * basis
    bias = bias - weight @ mean
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))


def limit_views(features: Array) -> Array:
    """Return the views that a probe is fitted to, `(views, n, ...)`: fewer of very many images.

    Args:
        features: Of one view or several, see `fit_probe`.
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
    """Return what probes say of left-out images when they see a part of the others only.

    Args:
        features: Of one view or several, see `fit_probe`; the first two are judged.
        labels: `(n,)`.
        units: `(n,)`, what each image belongs to.
        class_count: Number of classes.
        seed: Of the folds and the parts; a larger part holds the smaller ones.
        strength: Inverse regularisation, see `Probe`.
        fraction: Of each class's units, in 0..1.

    Returns:
        `(views, n, classes)`, of each view that is judged as `Probe.held_out`.
    """
    images = _Images(labels, units, np.ones(len(labels)))
    with threadpool_limits(1, user_api="blas"):
        scaled, _, _ = _standardize(limit_views(features))
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
    """Return what probes of one strength say of left-out images, see `_cross_validate`."""
    order = np.random.default_rng(seed).permutation(len(images.labels))
    found, folds = _cross_validate(
        views[:, order], images.at(order), class_count, seed, (strength,), fraction
    )
    held_out = np.empty_like(found[strength])
    held_out[:, order] = found[strength]
    return held_out, folds


def _standardize(views: Array) -> tuple[Array, Array, Array]:
    """Return scaled views, their mean, and what turns weights of them into the features' own.

    That is a factor, or a matrix: of n images in more than n dimensions, only their span matters
    to an L2 penalty, and rotating into it first gives the same answer from much smaller problems.
    """
    features = views.reshape(-1, views.shape[-1])
    mean = features.mean(0)
    # One scale for all features: a feature that hardly varies must not be blown up to unit size.
    scale = float(features.std()) or 1.0
    scaled, basis = (features - mean) / scale, np.array(1 / scale)
    if len(scaled) < min(scaled.shape[1], _LARGEST_SPAN):
        span = np.linalg.svd(scaled, full_matrices=False)[2]
        scaled, basis = scaled @ span.T, span / scale
    return scaled.reshape(*views.shape[:2], -1), mean, basis


def _stack(views: Array, labels: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return the rows of all views, their labels, and their weights: an image's add up to one."""
    count = len(views)
    rows = views.reshape(-1, views.shape[-1])
    return rows, np.tile(labels, count), np.tile(weights / count, count)


def _search(
    views: Array, images: _Images, class_count: int, seed: int
) -> tuple[float, Array | None, int]:
    """Return the strength of least log loss, what it says of left-out images, and the folds.

    Of more images than are searched, None: they are still to be judged.
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

    # Log loss, not accuracy: on an easy set all strengths are right, and only the best is sure.
    best = min(_STRENGTHS, key=surprise)
    if len(some) < len(order):
        return best, None, folds
    held_out[:, order] = found[best]
    return best, held_out, folds


def _cross_validate(
    views: Array,
    images: _Images,
    class_count: int,
    seed: int,
    strengths: Sequence[float],
    fraction: float = 1.0,
) -> tuple[dict[float, Array], int]:
    """Return what probes say of left-out images by strength, and the folds.

    That is `(views, n, classes)`, the log-probabilities by each of the first two views, or by the
    only one.

    Each probe sees this fraction of the units that are not left out, class by class. A class that
    is a single unit cannot be tested: its rows are nan, and no other image is given that class.
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
            # By chance, all units of a small class may be left out at once.
            left_out = tested[test[np.isin(numbered[test], known)]]
            for strength in strengths:
                rows = np.full((len(judged), len(left_out), class_count), -np.inf, np.float32)
                if len(known) > 1:
                    seen, targets = tested[train], np.searchsorted(known, numbered[train])
                    rows_of = _stack(views[:, seen], targets, weights[seen])
                    fitted = _fit(*rows_of, strength, len(known))
                    logits = judged[:, left_out] @ fitted[0].T + fitted[1]
                    rows[:, :, present[known]] = log_softmax(logits, axis=2)
                    held_out[strength][:, left_out] = rows
                bar.advance(1)
    return held_out, len(parts)


def units_of_classes(labels: Array, units: Array, class_count: int) -> Array:
    """Count the units that each class has images in, `(classes,)`."""
    pairs = np.unique(np.stack([labels, number_units(units)], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=class_count)


def _first_of_each(labels: Array, units: Array, chosen: Array, fraction: float) -> Array:
    """Return the images of the first part of each class's units, at least one of each."""
    parts = []
    for label in np.unique(labels[chosen]):
        of_class = chosen[labels[chosen] == label]
        numbers = number_units(units[of_class])
        parts.append(of_class[numbers < math.ceil(fraction * (numbers.max() + 1))])
    return np.sort(np.concatenate(parts))


def _fit(
    features: Array, labels: Array, weights: Array, strength: float, class_count: int
) -> tuple[Array, Array]:
    """Return weight `(classes, features)` and bias `(classes,)`."""
    model = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough to compare and to start
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few images
        model.fit(features, labels, weights)
    weight, bias = model.coef_, model.intercept_
    if class_count == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
