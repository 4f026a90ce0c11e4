"""DataFolder: what a data folder holds, seen without opening a single image."""

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xception_cli.console import show
from xception_cli.data.photo import Photo, count_labels
from xception_cli.errors import DataError, UsageError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
    | {".ppm", ".pgm", ".pbm"}
)
_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_FOREIGN_FOLDERS = {"__MACOSX", "@eaDir"}
_FOREIGN_FILES = {"Thumbs.db", "desktop.ini"}

_LAYOUT = (
    "make one folder per class, with its images inside:\n"
    "  food/apple/1.jpg\n"
    "  food/pear/1.jpg\n"
    "or the same inside food/train and food/val; xception sample DIR draws an example"
)


@dataclass(frozen=True)
class DataFolder:
    """The classes and image files of a folder.

    Attributes:
        root: The folder.
        classes: Class names in code-point order.
        images: Image files, by split, class and path.
        ignored: How many files were left aside, by suffix or `no suffix`; `hidden` counts files
            and whole folders that are hidden or foreign.
        given_splits: The splits that the folder itself defines.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[Photo, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    given_splits: tuple[str, ...] = ()

    def counts(self, split: str | None = None) -> list[int]:
        """Count the images of each class, of one given split or of all."""
        images = [i for i in self.images if split is None or i.split == split]
        return count_labels(images, len(self.classes))

    def describe_ignored(self) -> str:
        """Say what was left aside: `17 files ignored: 12 .txt, 5 .heic`; empty if nothing was."""
        if not self.ignored:
            return ""
        total = sum(self.ignored.values())
        kinds = ", ".join(f"{n} {show(s)}" for s, n in Counter(self.ignored).most_common(5))
        hint = "; .heic needs converting to .jpg" if ".heic" in self.ignored else ""
        return f"{total} file{'s' * (total > 1)} ignored: {kinds}{hint}"


def read_folder(root: Path) -> DataFolder:
    """List the classes and images of a folder.

    Hidden and foreign folders and files of other kinds are counted, never turned into classes.
    Links are followed; a folder that was seen already is not entered again.

    Args:
        root: Holds class folders, or `train` with `val` (or `valid`, `validation`) or `test`.

    Raises:
        UsageError: The folder is missing.
        DataError: It cannot be read, or holds no class folder.
    """
    try:
        is_folder, exists = root.is_dir(), root.exists()
    except OSError as error:  # a folder above it cannot be searched
        raise _unreadable(root, error) from error
    if not is_folder:
        what = "is not a folder" if exists else "does not exist"
        raise UsageError(
            f"the data folder {show(root)} {what}",
            hint="check the path; xception sample DIR draws a data set to try",
        )
    ignored: Counter[str] = Counter()
    top = _subfolders(root, ignored)
    splits = _split_folders(top)
    class_folders: list[tuple[str | None, Path]]
    if splits:
        class_folders = [
            (split, folder) for split, base in splits for folder in _subfolders(base, ignored)
        ]
    else:
        class_folders = [(None, folder) for folder in top]
    classes = tuple(sorted({folder.name for _, folder in class_folders}))
    if not classes:
        _raise_flat(root)
    index = {name: label for label, name in enumerate(classes)}
    seen = {_identity(folder) for _, folder in (*splits, *class_folders)} | {_identity(root)}
    images = [
        Photo(os.path.relpath(path, root), index[folder.name], split)
        for split, folder in class_folders
        for path in sorted(_images(folder, ignored, seen))
    ]
    return DataFolder(root, classes, tuple(images), dict(ignored), tuple(s for s, _ in splits))


def _split_folders(folders: list[Path]) -> list[tuple[str, Path]]:
    """Return (split, folder), train first, if these folders are splits rather than classes."""
    named = [(_SPLIT_NAMES.get(folder.name.lower()), folder) for folder in folders]
    splits = [(split, folder) for split, folder in named if split is not None]
    # A class may be called `train` or `test`; then it holds images, not folders.
    if not any(_subfolders(folder, Counter()) for _, folder in splits):
        if len(splits) == len(folders) > 1:
            listing = ", ".join(show(folder.name) for _, folder in splits)
            raise DataError(f"{listing} look like splits, but hold no class folders", hint=_LAYOUT)
        return []
    names = [split for split, _ in splits]
    others = [show(folder.name) for split, folder in named if split is None]
    if others and len(names) == 1:
        return []
    if others:
        raise DataError(
            f"beside {', '.join(show(folder.name) for _, folder in splits)} there is "
            f"{', '.join(others)}: are these splits or classes?",
            hint="keep only train, val and test there; or only class folders",
        )
    for split in set(names):
        if names.count(split) > 1:
            both = ", ".join(show(folder.name) for s, folder in splits if s == split)
            raise DataError(f"two folders for the {split} split: {both}", hint="keep one of them")
    return sorted(splits, key=lambda item: ["train", "val", "test"].index(item[0]))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot read the folder {show(folder)}: {error.strerror}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that cannot be searched
        return False


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name in _FOREIGN_FOLDERS or name in _FOREIGN_FILES


def _subfolders(folder: Path, ignored: Counter[str]) -> list[Path]:
    """Return the folders inside, and count as ignored what is beside them."""
    found = []
    for entry in _entries(folder):
        if _is_folder(entry) and not _is_foreign(entry.name):
            found.append(folder / entry.name)
        else:
            ignored[_kind(entry.name)] += 1
    return found


def _images(folder: Path, ignored: Counter[str], seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the image files below a class folder, in sub-folders too, however deep."""
    folders = deque([folder])
    while folders:
        here = folders.popleft()
        for entry in _entries(here):
            path = here / entry.name
            is_folder = _is_folder(entry)
            if _is_foreign(entry.name) or not (is_folder or path.suffix.lower() in SUFFIXES):
                ignored[_kind(entry.name)] += 1
            elif is_folder:
                identity = _identity(path)
                if identity not in seen:
                    seen.add(identity)
                    folders.append(path)
            else:
                yield str(path)


def images_below(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted; links that lead back are not followed twice.

    Raises:
        DataError: A folder cannot be read.
    """
    return [Path(path) for path in sorted(_images(folder, Counter(), {_identity(folder)}))]


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:  # a path that is too long, for one
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _kind(name: str) -> str:
    return "hidden" if _is_foreign(name) else Path(name).suffix.lower() or "no suffix"


def _raise_flat(root: Path) -> None:
    flat = sum(Path(entry.name).suffix.lower() in SUFFIXES for entry in _entries(root))
    found = f"{flat} images but no class folders" if flat else "no class folders"
    raise DataError(f"found {found} in {show(root)}", hint=_LAYOUT)


def check_trainable(folder: DataFolder, expected_classes: int | None = None) -> None:
    """See that a classifier can be trained on this folder.

    Args:
        folder: The data folder.
        expected_classes: The number of classes the user asserts.

    Raises:
        UsageError: Another number of classes than expected; lists the names found.
        DataError: Fewer than two classes, an empty class, names that look the same, or classes
            of val or test that train lacks.
    """
    names = ", ".join(show(name) for name in folder.classes)
    found = len(folder.classes)
    if expected_classes is not None and found != expected_classes:
        difference = abs(expected_classes - found)
        more_or_less = "missing" if found < expected_classes else "too many"
        raise UsageError(
            f"expected {expected_classes} classes, found {found} ({difference} {more_or_less}) in "
            f"{show(folder.root)}: {names}",
            hint=f"--classes {found}, or leave it out",
        )
    if found < 2:
        raise DataError(
            f"found only one class in {show(folder.root)}: {names}; need at least 2", hint=_LAYOUT
        )
    same = Counter(unicodedata.normalize("NFC", name) for name in folder.classes)
    for name, count in same.items():
        if count > 1:
            raise DataError(
                f"{count} class folders look the same ({show(name)}): their names are the same "
                "letters in two Unicode forms",
                hint="merge them into one folder",
            )
    if folder.given_splits and "train" not in folder.given_splits:
        raise DataError(
            f"{show(folder.root)} has {' and '.join(folder.given_splits)}, but no train folder",
            hint=_LAYOUT,
        )
    train = "train" if folder.given_splits else None
    empty = [name for name, n in zip(folder.classes, folder.counts(train), strict=True) if not n]
    if empty:
        where = " in train" if train else ""
        raise DataError(
            f"no images{where} for: {', '.join(show(name) for name in empty)}",
            hint="add images, or remove the folder",
        )
