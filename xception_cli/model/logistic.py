"""Logistic regression by scikit-learn's solver, made fast for features of images."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

Array = np.ndarray[Any, Any]

# Rows up to which features are first rotated into their span; the cost is cubic in them.
_LARGEST_SPAN = 1_500
_TOLERANCE = 1e-4  # of the gradient, scikit-learn's own


class Standardized(NamedTuple):
    """Views of features that were centred and scaled.

    Attributes:
        views: `(views, n, dimensions)`.
        mean: Of the features.
        basis: Maps weights of these views to weights of the features: a factor, or a matrix.
    """

    views: Array
    mean: Array
    basis: Array


def standardize(views: Array) -> Standardized:
    """Centre and scale features, `(views, n, features)`.

    With n rows in more than n dimensions, only their span matters under an L2 penalty: rotated into
    it, the problem is much smaller and has the same solution.
    """
    features = views.reshape(-1, views.shape[-1])
    mean = features.mean(0)
    # One scale for all features: a feature that hardly varies must not be scaled up to unit size.
    scale = float(features.std()) or 1.0
    scaled, basis = (features - mean) / scale, np.array(1 / scale)
    if len(scaled) < min(scaled.shape[1], _LARGEST_SPAN):
        span, rotated = np.linalg.qr(scaled.T)
        scaled, basis = np.ascontiguousarray(rotated.T), span.T / scale
    return Standardized(scaled.reshape(*views.shape[:2], -1), mean, basis)


def stack_views(views: Array, labels: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return the rows of all views, their labels and weights; an image's weights add up to its own.

    Args:
        views: `(views, n, features)`.
        labels: `(n,)`.
        weights: `(n,)`, of the images.
    """
    count = len(views)
    rows = views.reshape(-1, views.shape[-1])
    return rows, np.tile(labels, count), np.tile(weights / count, count)


def new_model() -> LogisticRegression:
    """Make a model whose next fit starts from the weights of the last one."""
    return LogisticRegression(max_iter=1000, warm_start=True)


# A matrix product of a few rows can report an invalid value although all its numbers are finite:
# seen in some trainings of 12 images, with NumPy 2.4 and OpenBLAS 0.3.31 (SkylakeX).
@np.errstate(invalid="ignore")
def fit(
    model: LogisticRegression,
    features: Array,
    labels: Array,
    weights: Array,
    strength: float,
    class_count: int,
) -> tuple[Array, Array]:
    """Return weight `(classes, features)` and bias `(classes,)`."""
    # The weaker the penalty, the flatter the loss around its minimum.
    model.set_params(C=strength, tol=_TOLERANCE / max(1.0, strength))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few images
        model.fit(features, labels, weights)
    weight, bias = model.coef_, model.intercept_
    if class_count == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
