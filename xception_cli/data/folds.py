"""Folds of cross-validation that keep units whole: the only home of scikit-learn's splitters."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

Array = NDArray[Any]
Fold = tuple[Array, Array]


def number_units(units: Sequence[str] | Array) -> NDArray[np.int64]:
    """Number units in the order in which they appear: `(images,)`, from 0."""
    _, first, numbers = np.unique(np.asarray(units), return_index=True, return_inverse=True)
    places = np.empty(len(first), np.int64)
    places[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(places[numbers], np.int64)


def unit_folds(
    units: Sequence[str] | Array, *, folds: int, seed: int, labels: Array | None = None
) -> list[Fold]:
    """Split images into folds; no unit is on both sides of one.

    Where each image is a unit, these are scikit-learn's `StratifiedKFold` or `KFold`.

    Args:
        units: Of each image, `(images,)`.
        folds: How many; there are fewer where there are fewer units.
        seed: Of the shuffling.
        labels: `(images,)`; with them, folds have equal shares of the classes.

    Returns:
        Pairs of ascending indices: the images that are fitted, and those that are left out.
    """
    numbers = number_units(units)
    count = int(numbers.max(initial=-1)) + 1
    folds = min(folds, count)
    if folds < 2:
        return []
    state = seed % 2**32
    every = np.arange(len(numbers))
    if labels is None:
        splitter = KFold(folds, shuffle=True, random_state=state)
        left_out = [np.isin(numbers, test) for _, test in splitter.split(every[:count])]
        return [(every[~left], every[left]) for left in left_out]
    alone = count == len(numbers)
    kind = StratifiedKFold if alone else StratifiedGroupKFold
    stratified = kind(folds, shuffle=True, random_state=state)
    with warnings.catch_warnings():
        # A class of fewer images than folds: each of them is left out once all the same.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        found = list(stratified.split(every, labels, None if alone else numbers))
    return [(np.asarray(fitted), np.asarray(left)) for fitted, left in found if len(left)]
