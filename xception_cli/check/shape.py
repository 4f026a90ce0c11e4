"""The shape of a data set: its classes, their sizes and splits."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import PurePath

from xception_cli.check.report import MISSING, TORN, UNREAD, Finding, Problem
from xception_cli.check.scan import Look
from xception_cli.console import NAMED, enumerated, quoted, show
from xception_cli.data.folder import DataFolder, describe_ignored
from xception_cli.data.names import is_date
from xception_cli.data.trainable import obstacles, unread_problem
from xception_cli.data.units import is_group
from xception_cli.evaluation.uneven import is_uneven
from xception_cli.numerals import count_of

FEW = 10  # images below which the metrics of a class are not reliable
_VERY_UNEVEN = 10


def check_shape(folder: DataFolder, looks: Sequence[Look], units: Sequence[str]) -> list[Problem]:
    """Check a data folder as a whole."""
    return [
        *_stopping(folder, looks, units),
        *_alike(folder),
        *_sub_folders(folder),
        *_given_splits(folder),
        *_torn_groups(folder, looks, units),
        *_sizes(folder),
        *_ignored(folder),
    ]


def _stopping(folder: DataFolder, looks: Sequence[Look], units: Sequence[str]) -> list[Problem]:
    """Find what training refuses."""
    if refused := [*obstacles(folder)]:
        return [
            Problem("folder", "stops", error.message, hint=error.hint or "") for error in refused
        ]
    usable: dict[str, set[str]] = defaultdict(set)
    for image, look, unit in zip(folder.images, looks, units, strict=True):
        if image.split in {None, "train"} and look.original:
            usable[folder.classes[image.label]].add(unit)
    problems = []
    if unusable := [name for name in folder.classes if not usable[name]]:
        sentence = f"no usable training image for {enumerated(unusable)}"
        problems.append(Problem("folder", "stops", sentence, classes=_all(unusable)))
    elif "val" not in folder.given_splits and max(map(len, usable.values())) < 2:
        sentence = "no image is left for validation: each class is one image or group"
        problems.append(Problem("folder", "stops", sentence))
    return problems


def _alike(folder: DataFolder) -> list[Problem]:
    """Find names that differ only in case or in characters that look alike."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in folder.classes:
        same[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    hardly = [
        names
        for names in same.values()
        if len({unicodedata.normalize("NFC", name) for name in names}) > 1
    ]
    if not hardly:
        return []
    every = [name for names in hardly for name in names]
    if len(hardly) == 1:
        sentence = f"{enumerated(every)} are {len(every)} classes, but their names hardly differ"
    else:
        sentence = (
            f"{count_of(len(every), 'class')} have names that hardly differ from another's "
            f"({enumerated([' and '.join(names) for names in hardly])})"
        )
    sentence += (
        "; on macOS and Windows they may be one folder"
        if folder.table is None
        else "; if they are one class, give it one spelling in the table"
    )
    return [Problem("alike", "warning", sentence, classes=_all(every))]


def _sub_folders(folder: DataFolder) -> list[Problem]:
    """Find sub-folders of classes whose meaning should be confirmed."""
    sentences = []
    if folder.dates:
        sentences.append(
            f"classes hold sub-folders of the same names ({enumerated(folder.dates)}): read as "
            "dates or numbers, so all images below a class folder are of its class"
        )
    if folder.table is None and not folder.given_splits:
        sentences += _too_high(folder)
    return [Problem("sub-folders", "warning", sentence) for sentence in sentences]


def _too_high(folder: DataFolder) -> list[str]:
    """Name a class that may be a data folder: all its images are in sub-folders, none of another's.

    If there are several, it is the one with the most sub-folders.
    """
    holding: dict[int, set[PurePath]] = defaultdict(set)
    for image in folder.images:
        holding[image.label].add(PurePath(image.path).parent)
    if not any({len(path.parts) for path in paths} == {1} for paths in holding.values()):
        return []
    found = []
    for label, paths in holding.items():
        common = PurePath(os.path.commonpath(paths))
        inner = sorted({path.relative_to(common).parts[0] for path in paths - {common}})
        if common not in paths and not all(map(is_date, inner)):
            sentence = (
                f"all images of {show(folder.classes[label])} are in "
                f"{count_of(len(inner), 'sub-folder')} ({enumerated(inner)}); if these are the "
                f"classes, give {quoted(folder.root / common)}"
            )
            found.append((len(inner), sentence))
    return [max(found)[1]] if found else []


def _given_splits(folder: DataFolder) -> list[Problem]:
    if "train" not in folder.given_splits:
        return []
    problems = []
    for split in folder.given_splits[1:]:
        if missing := _classes(folder, split, lambda n: n == 0):
            sentence = f"no images in {split} for {enumerated(missing)}: nothing is measured there"
            problems.append(Problem(MISSING, "warning", sentence, classes=_all(missing)))
    train, val = sum(folder.counts("train")), sum(folder.counts("val"))
    if val > train:
        sentence = (
            f"val ({count_of(val, 'image')}) is larger than train ({train:,}): are the two swapped?"
        )
        problems.append(Problem("large val", "warning", sentence))
    return problems


def _torn_groups(folder: DataFolder, looks: Sequence[Look], units: Sequence[str]) -> list[Problem]:
    """Find groups with images in train and in another split; copies are reported as such."""
    every = zip(folder.images, looks, units, strict=True)
    grouped = [(image, unit) for image, look, unit in every if look.original and is_group(unit)]
    trained = {unit: image.path for image, unit in reversed(grouped) if image.split == "train"}
    findings = [
        Finding(image.path, f"of group {unit}, as is {trained[unit]}", others=(trained[unit],))
        for image, unit in grouped
        if image.split != "train" and unit in trained
    ]
    if not findings:
        return []
    sentence = (
        f"{count_of(len(findings), 'image')} of val or test "
        f"{'is' if len(findings) == 1 else 'are'} of groups in train: metrics measured there will "
        "be too optimistic"
    )
    return [Problem(TORN, "warning", sentence, tuple(findings))]


def _sizes(folder: DataFolder) -> list[Problem]:
    split = "train" if "train" in folder.given_splits else None
    counts = folder.counts(split)
    where = f" in {split}" if split else ""
    problems = []
    few = _classes(folder, split, lambda n: 0 < n < FEW)
    if few:
        number = dict(zip(folder.classes, counts, strict=True))
        listed = enumerated([f"{name} ({number[name]})" for name in few])
        sentence = f"fewer than {FEW} images{where} of {listed}: too few to trust"
        problems.append(Problem("few images", "warning", sentence, classes=_all(few)))
    alone = _classes(folder, split, lambda n: n == 1) if not folder.given_splits else []
    if alone:
        sentence = (
            f"no image is left for validation of {enumerated(alone)}: nothing is measured there"
        )
        problems.append(Problem(MISSING, "warning", sentence, classes=_all(alone)))
    some = [count for count in counts if count]
    if is_uneven(some):
        largest, smallest = counts.index(max(some)), counts.index(min(some))
        severity = "warning" if max(some) > _VERY_UNEVEN * min(some) else "note"
        sentence = (
            f"{show(folder.classes[largest])} has {max(some) / min(some):.0f} times the images of "
            f"{show(folder.classes[smallest])}{where}: compare the recall of each class, not "
            "accuracy"
        )
        problems.append(Problem("uneven classes", severity, sentence))
    return problems


def _ignored(folder: DataFolder) -> list[Problem]:
    unread = unread_problem(folder)
    return [
        *([Problem(UNREAD, "stops", unread)] if unread else []),
        *([Problem("ignored", "note", describe_ignored(folder.ignored))] if folder.ignored else []),
    ]


def _classes(folder: DataFolder, split: str | None, wanted: Callable[[int], bool]) -> list[str]:
    counts = folder.counts(split)
    return [name for name, n in zip(folder.classes, counts, strict=True) if wanted(n)]


def _all(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names if a sentence shows only the first of them."""
    return tuple(names) if len(names) > NAMED + 1 else ()
