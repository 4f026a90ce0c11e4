"""DataFolder: the classes and image files of a data folder; no image is opened."""

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xception_cli.console import quoted, show
from xception_cli.data.formats import HEIF, INSTALL_HEIF, SUFFIXES_OF, suffixes
from xception_cli.data.layout import recognise
from xception_cli.data.listing import RUN, Folder, expected, suffix_of, unreadable
from xception_cli.data.photo import Photo, count_labels
from xception_cli.errors import DataError, UsageError
from xception_cli.numerals import count_of

if TYPE_CHECKING:  # the decoder is slow to load
    from xception_cli.data.inspection import Inspection

_FEW, _MOST_BEGINNINGS = 3, 20  # images, and classes, by the beginnings of names
_GIVEN = {"", "fb", "frame", "image", "img", "photo", "pic", "scan", "screenshot", "whatsapp"}
_GIVEN |= {"dji", "dsc", "dscf", "dscn", "gopr", "mvimg", "pxl", "vid"}  # by cameras


@dataclass(frozen=True)
class DataFolder:
    """The classes and image files of a folder, or of a table.

    Attributes:
        root: Folder that the paths are relative to.
        classes: Class names in code-point order.
        images: Image files, sorted by split, class and path.
        ignored: Number of ignored files by suffix or `no suffix`; `hidden` counts hidden and
            foreign files and folders, `unlabelled` the images of a split folder without class
            folders, `RUN` the run folders.
        given_splits: The splits that the folder itself defines.
        by_content: Number of images recognised by content alone, by suffix or `no suffix`.
        unread: Number of HEIC photos ignored because no decoder is installed, by class.
        table: The file that lists the images; None if there is none.
        dates: Names of sub-folders that classes share; accepted because they are dates or numbers.
        group_by: A regular expression: its first group names the group of an image, by its path.
            None: the table does, if it has groups.
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
    group_by: str | None = None

    @property
    def place(self) -> Path:
        """The path given as the data: the folder or the table."""
        return self.root if self.table is None else self.table

    def counts(self, split: str | None = None) -> list[int]:
        """Count the images of each class, in one given split or in all."""
        images = [i for i in self.images if split is None or i.split == split]
        return count_labels(images, len(self.classes))

    def inspected(self, found: "Iterable[Inspection]") -> "DataFolder":
        """Return the folder with the digest of each image, and why it cannot be used."""
        images = (
            replace(image, digest=each.digest, unit=each.digest, problem=each.problem)
            for image, each in zip(self.images, found, strict=True)
        )
        return replace(self, images=tuple(images))

    def notes(self) -> list[str]:
        """Return notes on ignored files and on images recognised by content alone."""
        total = sum(self.by_content.values())
        read = f"{count_of(total, 'file')} read as images by content: {_kinds(self.by_content)}"
        return [*filter(None, [describe_ignored(self.ignored)]), *([read] if total else [])]


def describe_ignored(ignored: Mapping[str, int]) -> str:
    """Return a summary such as `17 files ignored: 12 .txt, 5 .heic`; empty if there are none.

    Args:
        ignored: See `DataFolder`.
    """
    files = {kind: number for kind, number in ignored.items() if kind != RUN}
    parts = [f"{count_of(runs, RUN)} ignored"] if (runs := ignored.get(RUN, 0)) else []
    if total := sum(files.values()):
        parts.append(f"{count_of(total, 'file')} ignored: {_kinds(files)}")
    if heif := _heif(files):
        parts.append(f"to read {heif} HEIC: {INSTALL_HEIF}")
    return "; ".join(parts)


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
        is_folder = stat.S_ISDIR(root.stat().st_mode)
        fault = None if is_folder else "is not a folder"
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL in the path
        fault = "does not exist"
    except OSError as error:  # a parent folder is not searchable
        raise unreadable(root, error) from error
    if fault is not None:
        raise UsageError(
            f"the data folder {show(root)} {fault}",
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


def _raise_flat(root: Folder) -> None:
    flat = len(root.images)
    found = f"{count_of(flat, 'image')} but no class folders" if flat else "no class folders"
    hint = _by_names(root) + expected(root.path, has_images=flat > 0)
    raise DataError(f"found {found} in {show(root.path)}", hint=hint)


def _by_names(root: Folder) -> str:
    """Return the hint for images whose names begin with a class: cat.1.jpg, dog.1.jpg."""
    begins = [re.match("[A-Za-z]*(?=[^A-Za-z])", name) for name in root.images]
    count = Counter(begin[0] for begin in begins if begin is not None)
    is_likely = 1 < len(count) <= _MOST_BEGINNINGS and min(count.values()) >= _FEW
    if not is_likely or {name.lower() for name in count} & _GIVEN:
        return ""
    names, place = sorted(count), quoted(root.path)
    # In zsh, `$c[` begins a subscript, and `[!` recalls an earlier command.
    return (
        f"if the names begin with the class ({', '.join(names)}), move the images: for c in "
        f"{' '.join(names)}; do mkdir {place}/$c && mv {place}/${{c}}[^a-zA-Z]* {place}/$c/; done; "
        "or "
    )
