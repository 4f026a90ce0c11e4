"""DataFolder: the classes and image files of a data folder; no image is opened."""

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xception_cli.console import enumerated, quoted, show
from xception_cli.data.formats import HEIF, INSTALL_HEIF, SUFFIXES_OF, suffixes
from xception_cli.data.layout import EXPECTED, recognise
from xception_cli.data.listing import Folder, suffix_of, unreadable
from xception_cli.data.names import plain
from xception_cli.data.photo import Photo, count_labels
from xception_cli.errors import DataError, UsageError
from xception_cli.numerals import count_of

_FEW = 0.05  # share of photos that may be ignored because no decoder is installed


@dataclass(frozen=True)
class DataFolder:
    """The classes and image files of a folder, or of a table.

    Attributes:
        root: Folder that the paths are relative to.
        classes: Class names in code-point order.
        images: Image files, sorted by split, class and path.
        ignored: Number of ignored files by suffix or `no suffix`; `hidden` counts hidden and
            foreign files and folders, `unlabelled` the images of a split folder without class
            folders.
        given_splits: The splits that the folder itself defines.
        by_content: Number of images recognised by content alone, by suffix or `no suffix`.
        unread: Number of HEIC photos ignored because no decoder is installed, by class.
        table: The file that lists the images; None if there is none.
        dates: Names of sub-folders that classes share; accepted because they are dates or numbers.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[Photo, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)
    given_splits: tuple[str, ...] = ()
    by_content: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    table: Path | None = None
    dates: tuple[str, ...] = ()

    @property
    def place(self) -> Path:
        """The path given as the data: the folder or the table."""
        return self.root if self.table is None else self.table

    def counts(self, split: str | None = None) -> list[int]:
        """Count the images of each class, in one given split or in all."""
        images = [i for i in self.images if split is None or i.split == split]
        return count_labels(images, len(self.classes))

    def describe_ignored(self) -> str:
        """Summarize the ignored files, as the function of this name does."""
        return describe_ignored(self.ignored)

    def notes(self) -> list[str]:
        """Return notes on ignored files and on images recognised by content alone."""
        total = sum(self.by_content.values())
        read = f"{count_of(total, 'file')} read as images by content: {_kinds(self.by_content)}"
        return [*filter(None, [self.describe_ignored()]), *([read] if total else [])]


def describe_ignored(ignored: Mapping[str, int]) -> str:
    """Return a summary such as `17 files ignored: 12 .txt, 5 .heic`; empty if there are none.

    Args:
        ignored: Number of files by suffix.
    """
    total, heif = sum(ignored.values()), _heif(ignored)
    if not total:
        return ""
    hint = f"; to read {heif} HEIC: {INSTALL_HEIF}" if heif else ""
    return f"{count_of(total, 'file')} ignored: {_kinds(ignored)}{hint}"


def _kinds(counts: Mapping[str, int]) -> str:
    most = Counter(counts).most_common()
    left = f", {sum(n for _, n in most[5:]):,} of other kinds" if len(most) > 5 else ""
    return ", ".join(f"{n:,} {show(s)}" for s, n in most[:5]) + left


def _heif(ignored: Mapping[str, int]) -> int:
    """Count the photos that need an optional package."""
    return sum(ignored.get(suffix, 0) for suffix in SUFFIXES_OF[HEIF] - suffixes())


def read_folder(root: Path, classes: Sequence[str] = ()) -> DataFolder:
    """List the classes and images of a folder.

    Hidden and foreign folders and files of other kinds are counted, never turned into classes.
    Links are followed; a folder is never entered twice.

    Args:
        root: Holds class folders, or split folders with class folders inside; see the module
            `layout` for what is accepted and refused.
        classes: See `recognise`.

    Raises:
        UsageError: The folder is missing.
        DataError: It cannot be read, holds no class folder, or is ambiguous.
    """
    _check_exists(root)
    folder = Folder(root)
    layout = recognise(folder, classes)
    classes = tuple(sorted({name for _, name, _ in layout.classes}))
    if not classes:
        _raise_flat(folder)
    index = {name: label for label, name in enumerate(classes)}
    ignored: Counter[str] = Counter()
    by_content: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    for around in layout.around:
        ignored.update([*around.ignored, *map(suffix_of, around.images)])
    seen = {f.identity for f in (*layout.around, *(held for _, _, held in layout.classes))}
    images = []
    for split, name, held in layout.classes:
        before = _heif(ignored)
        paths = sorted(_images(held, ignored, seen, by_content))
        images += [Photo(os.path.relpath(path, root), index[name], split) for path in paths]
        unread.update({name: _heif(ignored) - before})
    unlabelled = sum(1 for held in layout.unlabelled for _ in _images(held, ignored, seen))
    ignored.update({"unlabelled": unlabelled} if unlabelled else {})
    return DataFolder(
        root,
        classes,
        tuple(images),
        ignored=dict(ignored),
        given_splits=layout.splits,
        by_content=dict(by_content),
        unread=dict(+unread),
        dates=tuple(layout.dates),
    )


def _check_exists(root: Path) -> None:
    try:
        is_folder, exists = root.is_dir(), root.exists()
    except OSError as error:  # a parent folder is not searchable
        raise unreadable(root, error) from error
    if not is_folder:
        what = "is not a folder" if exists else "does not exist"
        raise UsageError(
            f"the data folder {show(root)} {what}",
            hint="check the path; xception sample DIR creates a data set to try",
        )


def _images(
    folder: Folder,
    ignored: Counter[str],
    seen: set[tuple[int, int]],
    by_content: Counter[str] | None = None,
) -> Iterator[str]:
    """Yield the image files below a folder, at any depth."""
    folders = deque([folder])
    while folders:
        here = folders.popleft()
        ignored.update(here.ignored)
        if by_content is not None:
            by_content.update(here.by_content)
        for name in here.images:
            yield str(here.path / name)
        for inner in here.folders:
            if inner.identity not in seen:
                seen.add(inner.identity)
                folders.append(inner)


def images_below(folder: Path, ignored: Counter[str] | None = None) -> list[Path]:
    """Return the image files below a folder, sorted; link cycles are not followed twice.

    Args:
        folder: The folder.
        ignored: Is updated with the ignored files, by suffix.

    Raises:
        DataError: A folder cannot be read.
    """
    start, left = Folder(folder), Counter() if ignored is None else ignored
    return [Path(path) for path in sorted(_images(start, left, {start.identity}))]


def unread_problem(folder: DataFolder) -> str:
    """Return which photos cannot be read, if they are too many to ignore; else empty.

    A few ignored photos are worth a note; without a class, or without one photo in 20, it is not
    the intended data set.
    """
    unread = sum(folder.unread.values())
    train = "train" if folder.given_splits else None
    missing = [
        name
        for name, count in zip(folder.classes, folder.counts(train), strict=True)
        if not count and folder.unread.get(name)
    ]
    if not missing and unread <= _FEW * (unread + len(folder.images)):
        return ""
    every = count_of(unread + len(folder.images), "image")
    share = f"{unread:,} of {every} in {show(folder.root)} are HEIC"
    without = f", among them all of {enumerated(missing)}" if missing else ""
    return f"{share}{without}; reading them requires pillow-heif: {INSTALL_HEIF}"


def _raise_flat(root: Folder) -> None:
    flat = len(root.images)
    found = f"{count_of(flat, 'image')} but no class folders" if flat else "no class folders"
    raise DataError(f"found {found} in {show(root.path)}", hint=EXPECTED)


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
    _check_spelling(folder)
    names = enumerated(folder.classes, 20)
    found = len(folder.classes)
    if expected_classes is not None and found != expected_classes:
        difference = abs(expected_classes - found)
        more_or_less = "missing" if found < expected_classes else "too many"
        raise UsageError(
            f"expected {expected_classes:,} classes, found {found:,} ({difference:,} "
            f"{more_or_less}) in {show(folder.place)}: {names}",
            hint=_deeper(folder) or f"--classes {found}, or leave it out",
        )
    if found < 2:
        raise DataError(
            f"found only one class in {show(folder.place)}: {names}; need at least 2",
            hint=_deeper(folder) or _expected(folder),
        )
    _check_unicode(folder)
    if folder.given_splits and "train" not in folder.given_splits:
        raise DataError(
            f"{show(folder.place)} has {' and '.join(folder.given_splits)}, but no train"
            + (" folder with class folders" if folder.table is None else " in its column split"),
            hint=_expected(folder),
        )
    train = "train" if folder.given_splits else None
    empty = [name for name, n in zip(folder.classes, folder.counts(train), strict=True) if not n]
    if empty:
        where = " in train" if train else ""
        raise DataError(
            f"no images{where} for: {enumerated(empty)}",
            hint=_how_to_fill(folder),
        )
    if "val" in folder.given_splits and not any(folder.counts("val")):
        raise DataError(
            f"no images in the val split of {show(folder.root)}",
            hint="add images, or remove its folders: some of train are then held out instead",
        )


def _how_to_fill(folder: DataFolder) -> str:
    if folder.unread:
        return f"to read HEIC photos: {INSTALL_HEIF}"
    return "add images, or remove the folder" if folder.table is None else "add rows"


def _expected(folder: DataFolder) -> str:
    return EXPECTED if folder.table is None else "each row names the image's class in column label"


def _check_unicode(folder: DataFolder) -> None:
    same = Counter(unicodedata.normalize("NFC", name) for name in folder.classes)
    for name, count in same.items():
        if count > 1:
            raise DataError(
                f"{count} class{' folders' if folder.table is None else 'es'} look the same "
                f"({show(name)}): their names are the same letters in two Unicode forms",
                hint="merge them into one folder" if folder.table is None else "use one spelling",
            )


def _check_spelling(folder: DataFolder) -> None:
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
            raise DataError(
                f"one class has two names in {show(folder.place)}: {show(ascii(right))} in train, "
                f"{show(ascii(name))} in {image.split}",
                hint=hint,
            )


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
        return f"if its sub-folders are the classes: --data {inside}"
    return f"if its sub-folders are the classes, move them up, out of {inside}"
