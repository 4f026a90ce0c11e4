"""The linear probe: logistic regression on pooled features, the baseline and the first head."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from xception_cli.console import screen

Array = np.ndarray[Any, Any]

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse regularisation, on standardised features
_LARGEST_SEARCH = 5_000  # images; the choice of the strength is not better with more
_FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe.

    Attributes:
        weight: `(classes, 2048)`, float32; acts on the plain pooled features.
        bias: `(classes,)`, float32.
        strength: Inverse regularisation, the best by cross-validated log loss.
        correct: Images that were right when their fold was left out; None if a class is too small.
        tested: Images in those folds.
        folds: How many.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float
    correct: int | None
    tested: int
    folds: int

    def logits(self, features: Array) -> torch.Tensor:
        """Compute logits `(n, classes)` of pooled features `(n, 2048)`."""
        return torch.from_numpy(features) @ self.weight.T + self.bias


def fit_probe(features: Array, labels: Array, *, class_count: int, seed: int) -> Probe:
    """Fit multinomial logistic regression, its regularisation chosen by cross-validation.

    Args:
        features: `(n, 2048)`, pooled, float32.
        labels: `(n,)`; every class has at least one image.
        class_count: Number of classes.
        seed: Of the folds.
    """
    mean = features.mean(0)
    # One scale for all features: a feature that hardly varies must not be blown up to unit size.
    scale = float(features.std()) or 1.0
    scaled, basis = (features - mean) / scale, None
    if len(scaled) < scaled.shape[1]:
        # Of n images in more than n dimensions, only their span matters to an L2 penalty: rotating
        # into it first gives the same answer from much smaller problems.
        basis = np.linalg.svd(scaled, full_matrices=False)[2]
        scaled = scaled @ basis.T
    # One thread: on problems this small BLAS threads cost more in waiting for each other.
    with threadpool_limits(1, user_api="blas"):
        strength, correct, tested, folds = _search(scaled, labels, seed)
        weight, bias = _fit(scaled, labels, strength, class_count)
    weight = (weight if basis is None else weight @ basis) / scale
    bias = bias - weight @ mean
    return Probe(
        torch.from_numpy(weight.astype(np.float32)),
        torch.from_numpy(bias.astype(np.float32)),
        strength,
        correct,
        tested,
        folds,
    )


def _search(features: Array, labels: Array, seed: int) -> tuple[float, int | None, int, int]:
    """Return the strength of least log loss, and how many left-out images it had right."""
    order = np.random.default_rng(seed).permutation(len(labels))[:_LARGEST_SEARCH]
    # Numbered anew: a rare class may be missing among the images that were drawn.
    features, labels = features[order], np.unique(labels[order], return_inverse=True)[1]
    counts = np.bincount(labels)
    folds = int(min(_FOLDS, counts.min()))
    if folds < 2 or len(counts) < 2:
        return 1e-2, None, 0, 0
    right, surprise = dict.fromkeys(_STRENGTHS, 0), dict.fromkeys(_STRENGTHS, 0.0)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    with screen.bar("fitting the linear probe", folds * len(_STRENGTHS), "fits") as bar:
        for train, test in splitter.split(features, labels):
            for strength in _STRENGTHS:
                weight, bias = _fit(features[train], labels[train], strength, counts.size)
                logits = features[test] @ weight.T + bias
                right[strength] += int((logits.argmax(1) == labels[test]).sum())
                likelihoods = log_softmax(logits, axis=1)[np.arange(len(test)), labels[test]]
                surprise[strength] -= float(likelihoods.sum())
                bar.advance(1)
    # Log loss, not accuracy: on an easy set all strengths are right, and only the best is sure.
    best = min(_STRENGTHS, key=lambda strength: surprise[strength])
    return best, right[best], len(labels), folds


def _fit(features: Array, labels: Array, strength: float, class_count: int) -> tuple[Array, Array]:
    """Return weight `(classes, features)` and bias `(classes,)`."""
    model = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough to compare and to start
        model.fit(features, labels)
    weight, bias = model.coef_, model.intercept_
    if class_count == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
