"""Folder: the content of a folder as listed by the file system; no image is decoded."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xception_cli.console import enumerated, quoted, show
from xception_cli.data.formats import (
    HEIF,
    START,
    TABLES,
    WORKBOOKS,
    format_of,
    is_certain,
    is_undecided,
    suffixes,
)
from xception_cli.errors import DataError
from xception_cli.regular import open_regular
from xception_cli.rundir import RunDir

RUN = "run folder"  # what a run is counted as among the ignored files

_FOREIGN = {  # created by file systems, devices, archivers and Python; in lower case
    "lost+found", "found.000", "$recycle.bin", "system volume information",
    "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "__macosx", "__pycache__",
    "network trash folder", "temporary items", "icon\r",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
}  # fmt: skip


_EXPECTED = (
    "make one folder per class, with its images inside:\n"
    "  food/apple/1.jpg\n"
    "  food/pear/1.jpg\n"
    "or the same inside food/train and food/val; xception sample DIR creates an example"
)


@dataclass(frozen=True, eq=False)
class Folder:
    """One folder, listed on first use and never twice.

    Attributes:
        path: Its path.
        folders: Sub-folders by name, without hidden and foreign ones, and without runs.
        images: Names of the image files directly inside, sorted.
        ignored: `hidden`, `RUN`, or what `ignored_as` returns, for each other entry.
        by_content: Suffix, or `no suffix`, of each image recognised by content.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def folders(self) -> Sequence["Folder"]:
        return self._content[0]

    @property
    def images(self) -> Sequence[str]:
        return self._content[1]

    @property
    def ignored(self) -> Sequence[str]:
        return self._content[2]

    @property
    def by_content(self) -> Sequence[str]:
        return self._content[3]

    @cached_property
    def identity(self) -> tuple[int, int]:
        """An identity that all paths to one folder share."""
        try:
            status = self.path.stat()
        except OSError as error:  # for example, a path that is too long
            raise unreadable(self.path, error) from error
        return status.st_dev, status.st_ino

    @cached_property
    def _content(self) -> tuple[list["Folder"], list[str], list[str], list[str]]:
        folders, images, ignored, by_content = [], [], [], []
        try:
            with os.scandir(self.path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise unreadable(self.path, error) from error
        for entry in found:
            if entry.name.startswith(".") or entry.name.casefold() in _FOREIGN:
                ignored.append("hidden")
            elif _is_folder(entry):
                folder = self.path / entry.name
                if RunDir(folder).is_run:  # its images are charts
                    ignored.append(RUN)
                else:
                    folders.append(Folder(folder))
            elif suffix_of(entry.name) in suffixes():
                images.append(entry.name)
            elif (kind := ignored_as(entry.path)) is None:
                images.append(entry.name)
                by_content.append(suffix_of(entry.name))
            else:
                ignored.append(kind)
        return folders, images, ignored, by_content


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a folder that cannot be read."""
    return DataError(f"cannot read the folder {show(path)}: {error.strerror}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that cannot be searched
        return False


def ignored_as(path: str) -> str | None:
    """Return what a file that is no image here is counted as; None for an image.

    Its suffix decides or, if that is undecided, its content. It is counted as its suffix or as
    `no suffix`; and as `.heic` if its content is a photo that only pillow-heif can read.
    """
    suffix = suffix_of(path)
    if suffix in suffixes():
        return None
    if not is_undecided(suffix):
        return suffix
    found = format_of(_start_of(path))
    if is_certain(found):
        return None
    return ".heic" if found == HEIF else suffix


def _start_of(path: str) -> bytes:
    try:
        with os.fdopen(open_regular(Path(path), follow=True), "rb") as file:
            return file.read(START)
    except OSError:  # a pipe, or a file without read permission
        return b""


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, or `no suffix`."""
    return Path(name).suffix.lower() or "no suffix"


def expected(root: Path, *, has_images: bool = False) -> str:
    """Return the hint for a folder without class folders; it names the tables inside.

    Args:
        root: The folder.
        has_images: Whether it has images itself, whose labels may be in a table elsewhere.
    """
    tables = [
        quoted(path)
        for path in sorted(root.iterdir())
        if path.suffix.lower() in {*TABLES, *WORKBOOKS} and path.name[0] not in ".~"
    ]
    if tables:
        instead = f"give a table instead, if it has the labels: {enumerated(tables, 3)}; or "
        return f"{instead}{_EXPECTED}"
    table = f"\nor give the table that has the labels: labels.csv --root {quoted(root)}"
    return f"{_EXPECTED}{table if has_images else ''}"
