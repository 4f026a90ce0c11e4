"""The shape of a data set: its classes, how many images they have, and how they are split."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from xception_cli.check.report import Problem
from xception_cli.check.scan import Look
from xception_cli.console import show
from xception_cli.data.folder import DataFolder, check_trainable
from xception_cli.errors import DataError

FEW = 10  # images of a class under which nothing measured of it can be trusted
_UNEVEN = 3  # times the images of the smallest class: training looks at the recall of each class
_VERY_UNEVEN = 10


def check_shape(folder: DataFolder, looks: Sequence[Look]) -> list[Problem]:
    """Look at a data folder as a whole.

    Args:
        folder: The data folder.
        looks: One for each of its images.
    """
    return [
        *_stopping(folder, looks),
        *_alike(folder.classes),
        *_given_splits(folder),
        *_sizes(folder),
        *_ignored(folder),
    ]


def _stopping(folder: DataFolder, looks: Sequence[Look]) -> list[Problem]:
    """Ask what training asks."""
    try:
        check_trainable(folder)
    except DataError as error:
        return [Problem("folder", "stops", error.message)]
    usable: dict[str, set[str]] = defaultdict(set)
    for image, look in zip(folder.images, looks, strict=True):
        if image.split in {None, "train"} and look.original:
            usable[folder.classes[image.label]].add(look.digest)
    problems = []
    if unusable := [name for name in folder.classes if not usable[name]]:
        sentence = f"no image that can be used for training of {_names(unusable)}"
        problems.append(Problem("folder", "stops", sentence))
    elif "val" not in folder.given_splits and max(map(len, usable.values())) < 2:
        sentence = "no image is left to choose the model with: each class has only one"
        problems.append(Problem("folder", "stops", sentence))
    return problems


def _alike(classes: Iterable[str]) -> list[Problem]:
    """Find names that differ only in case or in characters that look the same."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        same[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    return [
        Problem(
            "alike",
            "warning",
            f"{_names(names)} are {len(names)} classes, but their names hardly differ; on macOS "
            "and Windows they may be one folder",
        )
        for names in same.values()
        if len({unicodedata.normalize("NFC", name) for name in names}) > 1
    ]


def _given_splits(folder: DataFolder) -> list[Problem]:
    if "train" not in folder.given_splits:
        return []
    problems = []
    for split in folder.given_splits[1:]:
        if missing := _classes(folder, split, lambda n: n == 0):
            sentence = f"no images in {split} for {_names(missing)}: nothing is measured there"
            problems.append(Problem("missing in split", "warning", sentence))
    train, val = sum(folder.counts("train")), sum(folder.counts("val"))
    if val > train:
        sentence = f"val ({val:,} images) is larger than train ({train:,}): are the two swapped?"
        problems.append(Problem("large val", "warning", sentence))
    return problems


def _sizes(folder: DataFolder) -> list[Problem]:
    split = "train" if "train" in folder.given_splits else None
    counts = folder.counts(split)
    where = f" in {split}" if split else ""
    problems = []
    few = _classes(folder, split, lambda n: 0 < n < FEW)
    if few:
        listed = ", ".join(f"{show(name)} ({counts[folder.classes.index(name)]})" for name in few)
        alone = _classes(folder, split, lambda n: n == 1) if not folder.given_splits else []
        unmeasured = f"; none is left to measure {_names(alone)}" if alone else ""
        sentence = f"fewer than {FEW} images{where} of {listed}: too few to trust{unmeasured}"
        problems.append(Problem("few images", "warning", sentence))
    some = [count for count in counts if count]
    if len(some) > 1 and max(some) > _UNEVEN * min(some):
        largest, smallest = counts.index(max(some)), counts.index(min(some))
        severity = "warning" if max(some) > _VERY_UNEVEN * min(some) else "note"
        sentence = (
            f"{show(folder.classes[largest])} has {max(some) / min(some):.0f} times the images of "
            f"{show(folder.classes[smallest])}{where}: look at the recall of each class, not at "
            "accuracy"
        )
        problems.append(Problem("uneven classes", severity, sentence))
    return problems


def _ignored(folder: DataFolder) -> list[Problem]:
    return [Problem("ignored", "note", folder.describe_ignored())] if folder.ignored else []


def _classes(folder: DataFolder, split: str | None, wanted: Callable[[int], bool]) -> list[str]:
    counts = folder.counts(split)
    return [name for name, n in zip(folder.classes, counts, strict=True) if wanted(n)]


def _names(names: Iterable[str]) -> str:
    return ", ".join(show(name) for name in names)
