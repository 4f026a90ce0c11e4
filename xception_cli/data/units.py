"""Units: groups of images that stay together, and cross-validation folds that keep them whole.

This is the only module that uses scikit-learn's splitters.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from xception_cli.console import show
from xception_cli.data.photo import Photo
from xception_cli.errors import UsageError
from xception_cli.numerals import count_of

REPLACED = "--group-by is used instead of the table's column group"  # a warning
_DIGEST = re.compile("[0-9a-f]{32}")  # see `inspection.content_digest`

Array = NDArray[Any]
Fold = tuple[Array, Array]  # indices of the images to fit, and of those left out


@dataclass(frozen=True)
class Unit:
    """Images that stay together.

    Attributes:
        members: Indices of its images, ascending.
        name: Its name: a group, or the lowest digest. The split is a hash of it.
        about: Description for the reason in split.csv; empty for a single image.
    """

    members: tuple[int, ...]
    name: str
    about: str


def assign_units(
    images: Sequence[Photo], alike: Iterable[Sequence[int]] = (), group_by: str | None = None
) -> tuple[list[Photo], list[str]]:
    """Name the unit of each usable image.

    Args:
        images: Images with their digests and problems.
        alike: Groups of nearly identical images, as indices into these.
        group_by: A regular expression; images whose first group is equal in their paths are one
            unit. None: use the groups of a table.

    Returns:
        The images with their units, and warnings.

    Raises:
        UsageError: No path matches `group_by`.
    """
    usable = [replace(image, split="out") if image.problem else image for image in images]
    units, warnings = find_units(usable, alike, group_by)
    return with_units(images, units), warnings


def with_units(images: Sequence[Photo], units: Iterable[Unit]) -> list[Photo]:
    """Return the images with the names of these units; other images keep theirs."""
    named = list(images)
    for unit in units:
        for i in unit.members:
            named[i] = replace(named[i], unit=unit.name)
    return named


def find_units(
    images: Sequence[Photo], alike: Iterable[Sequence[int]], group_by: str | None
) -> tuple[list[Unit], list[str]]:
    """Join images to units, except those that are left out; see `assign_units`."""
    used = [i for i, image in enumerate(images) if image.split != "out"]
    groups, warnings = name_groups(images, used, group_by)
    together = DisjointSet(used)
    first: dict[str, int] = {}
    for i in used:
        together.merge(i, first.setdefault(images[i].digest, i))
        if i in groups:
            together.merge(i, first.setdefault(f"group {groups[i]}", i))
    for group in alike:
        alive = [i for i in group if images[i].split != "out"]
        for i in alive[1:]:
            together.merge(i, alive[0])
    units = []
    for subset in together.subsets():
        members = tuple(sorted(subset))
        names = sorted({groups[i] for i in members if i in groups})
        digests = sorted({images[i].digest for i in members})
        about = f"group {names[0]}" if names else ""
        if not names and len(digests) > 1:
            about = f"{len(digests)} near-copies"
        units.append(Unit(members, names[0] if names else digests[0], about))
    return sorted(units, key=lambda unit: unit.members), warnings


def name_groups(
    images: Sequence[Photo], used: Sequence[int], group_by: str | None
) -> tuple[dict[int, str], list[str]]:
    """Return the name of each image's group, if it has one, and warnings about the others.

    Args:
        images: The images.
        used: Indices of those that are not left out.
        group_by: See `assign_units`, as for what is raised.
    """
    if group_by is None:
        groups = {i: images[i].group for i in used if images[i].group}
        left = len(used) - len(groups)
        has = "has" if left == 1 else "have"
        sentence = f"{count_of(left, 'image')} {has} no group in the table and will not be grouped"
        return groups, [sentence] * bool(groups and left)
    pattern = re.compile(group_by)
    groups = {}
    for i in used:
        match = pattern.search(Path(images[i].path).as_posix())
        if match and match[1]:
            groups[i] = match[1]
    if used and not groups:
        raise UsageError(
            f"no path matches --group-by {show(group_by)}, for example "
            f"{show(images[used[0]].path)}",
            hint="the pattern is searched for in each path, relative to the data folder",
        )
    left = len(used) - len(groups)
    does = "does" if left == 1 else "do"
    sentence = f"{count_of(left, 'image')} {does} not match --group-by and will not be grouped"
    warnings = [sentence] * bool(left)
    if any(images[i].group for i in used):
        warnings.append(REPLACED)
    return groups, warnings


# Folds of cross-validation


def have_groups(units: Sequence[str] | Array) -> bool:
    """Return whether some units are groups that the data names."""
    return any(is_group(str(name)) for name in np.unique(np.asarray(units)).tolist())


def is_group(unit: str) -> bool:
    """Return whether a unit is a group that the data names, not an image or its near-copies."""
    return _DIGEST.fullmatch(unit) is None


def number_units(units: Sequence[str] | Array) -> NDArray[np.int64]:
    """Number units in order of appearance: `(images,)`, from 0."""
    _, first, numbers = np.unique(np.asarray(units), return_index=True, return_inverse=True)
    places = np.empty(len(first), np.int64)
    places[np.argsort(first, kind="stable")] = np.arange(len(first))
    return np.asarray(places[numbers], np.int64)


def unit_folds(
    units: Sequence[str] | Array, *, folds: int, seed: int, labels: Array | None = None
) -> list[Fold]:
    """Split images into folds that keep units whole.

    If each image is a unit, these are scikit-learn's `StratifiedKFold` or `KFold`.

    Args:
        units: `(images,)`, the unit of each image.
        folds: Number of folds, reduced to the number of units if those are fewer.
        seed: Seed of the shuffling.
        labels: `(images,)`, class indices; if given, folds have equal shares of the classes.

    Returns:
        The folds; indices are ascending.
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
        # In a class of fewer images than folds, each image is still left out once.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        found = list(stratified.split(every, labels, None if alone else numbers))
    return [(np.asarray(fitted), np.asarray(left)) for fitted, left in found if len(left)]
