"""Trainable: whether a classifier can be trained on a data folder, before any image is opened."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from xception_cli.console import enumerated, quoted, show
from xception_cli.data.folder import DataFolder
from xception_cli.data.formats import INSTALL_HEIF
from xception_cli.data.listing import expected
from xception_cli.data.names import plain
from xception_cli.errors import DataError, UsageError, XceptionError
from xception_cli.numerals import count_of

_FEW = 0.05  # share of photos that may be ignored because no decoder is installed


def check_trainable(folder: DataFolder, expected_classes: int | None = None) -> None:
    """Check that a classifier can be trained on this folder.

    Args:
        folder: The data folder.
        expected_classes: The number of classes the user asserts.

    Raises:
        UsageError: The number of classes differs; lists the names found.
        DataError: There are fewer than two classes, an empty class, an empty val, names that look
            the same, or classes of val or test that train lacks.
    """
    for error in obstacles(folder, expected_classes):
        raise error


def obstacles(folder: DataFolder, expected_classes: int | None = None) -> Iterator[XceptionError]:
    """Yield each reason why `check_trainable` refuses a folder; the arguments are the same."""
    spelling = _spelling(folder)  # two Unicode forms of a name are two spellings, too
    alike = None if spelling else _unicode(folder)
    found = (spelling, _count(folder, expected_classes), alike)
    causes = [error for error in found if error is not None]
    yield from causes
    if folder.given_splits and "train" not in folder.given_splits:
        yield DataError(
            f"{show(folder.place)} has {' and '.join(folder.given_splits)}, but no train"
            + (" folder with class folders" if folder.table is None else " in its column split"),
            hint=_expected(folder),
        )
        return
    empty = _empty_classes(folder)
    if causes:  # a class that has images under another spelling is among them
        known = {plain(name) for name in folder.classes if name not in empty}
        empty = [name for name in empty if plain(name) not in known]
    if empty:
        where = " in train" if folder.given_splits else ""
        yield DataError(f"no images{where} for: {enumerated(empty)}", hint=_how_to_fill(folder))
    if "val" in folder.given_splits and not any(folder.counts("val")):
        yield DataError(
            f"no images in the val split of {show(folder.root)}",
            hint="add images, or remove its folders: some of train are then held out instead",
        )


def _count(folder: DataFolder, expected: int | None) -> XceptionError | None:
    names = enumerated(folder.classes, 20)
    found = len(folder.classes)
    if expected is not None and found != expected:
        difference = abs(expected - found)
        more_or_less = "missing" if found < expected else "too many"
        return UsageError(
            f"expected {expected:,} classes, found {found:,} ({difference:,} "
            f"{more_or_less}) in {show(folder.place)}: {names}",
            hint=_deeper(folder) or f"--classes {found}, or leave it out",
        )
    if found < 2:
        return DataError(
            f"found only one class in {show(folder.place)}: {names}; need at least 2",
            hint=_deeper(folder) or _expected(folder),
        )
    return None


def _empty_classes(folder: DataFolder) -> list[str]:
    """Return the classes without images, in train if the splits are given."""
    train = "train" if folder.given_splits else None
    counts = folder.counts(train)
    return [name for name, count in zip(folder.classes, counts, strict=True) if not count]


def _how_to_fill(folder: DataFolder) -> str:
    if folder.unread:
        return f"to read HEIC photos: {INSTALL_HEIF}"
    return "add images, or remove the folder" if folder.table is None else "add rows"


def _expected(folder: DataFolder) -> str:
    if folder.table is None:
        return expected(folder.root)
    return "each row names the image's class in column label"


def _unicode(folder: DataFolder) -> XceptionError | None:
    same = Counter(unicodedata.normalize("NFC", name) for name in folder.classes)
    for name, count in same.items():
        if count > 1:
            return DataError(
                f"{count} class{' folders' if folder.table is None else 'es'} look the same "
                f"({show(name)}): their names are the same letters in two Unicode forms",
                hint="merge them into one folder" if folder.table is None else "use one spelling",
            )
    return None


def _spelling(folder: DataFolder) -> XceptionError | None:
    """Refuse Cat in train and cat in val, which would be two classes."""
    trained = {image.label for image in folder.images if image.split == "train"}
    spelled = {plain(folder.classes[label]): folder.classes[label] for label in trained}
    for image in folder.images:
        name = folder.classes[image.label]
        right = spelled.get(plain(name), name)
        if image.split and image.label not in trained and right != name:
            hint = "give it one name in all splits"
            if folder.table is None:
                wrong = next(path for path in Path(image.path).parents if path.name == name)
                hint += f": mv {quoted(folder.root / wrong)} "
                hint += quoted(folder.root / wrong.with_name(right))
            return DataError(
                f"one class has two names in {show(folder.place)}: {show(ascii(right))} in train, "
                f"{show(ascii(name))} in {image.split}",
                hint=hint,
            )
    return None


def _deeper(folder: DataFolder) -> str | None:
    """Return what to type if the only class folder holds the real ones."""
    if len(folder.classes) != 1 or folder.table is not None:
        return None
    holding = {Path(image.path).parent for image in folder.images if image.split in {None, "train"}}
    common = Path(os.path.commonpath(holding or {Path()}))
    if common in holding or common == Path():
        return None
    inside = quoted(folder.root / common)
    if set(folder.given_splits) <= {"train"}:
        return f"if its sub-folders are the classes, give the folder that holds them: {inside}"
    return f"if its sub-folders are the classes, move them up, out of {inside}"


def unread_problem(folder: DataFolder) -> str:
    """Return which photos cannot be read, if they are too many to ignore; else empty.

    A few ignored photos are worth a note; without a class, or without one photo in 20, it is not
    the intended data set.
    """
    unread = sum(folder.unread.values())
    missing = [name for name in _empty_classes(folder) if folder.unread.get(name)]
    if not missing and unread <= _FEW * (unread + len(folder.images)):
        return ""
    every = count_of(unread + len(folder.images), "image")
    share = f"{unread:,} of {every} in {show(folder.root)} are HEIC"
    without = f", among them all of {enumerated(missing)}" if missing else ""
    return f"{share}{without}; reading them requires pillow-heif: {INSTALL_HEIF}"
