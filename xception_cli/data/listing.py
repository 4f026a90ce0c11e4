"""Folder: what the file system lists in a folder, without opening an image."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xception_cli.console import show
from xception_cli.errors import DataError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
    | {".ppm", ".pgm", ".pbm"}
)
_FOREIGN = {  # made by file systems, storage devices, archivers and Python; in lower case
    "lost+found", "found.000", "$recycle.bin", "system volume information",
    "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "__macosx", "__pycache__",
    "network trash folder", "temporary items", "icon\r",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Folder:
    """One folder, listed when its content is first asked for and never twice.

    Attributes:
        path: Where it is.
        folders: The folders inside, by name, without hidden and foreign ones.
        images: Names of the image files directly inside, sorted.
        ignored: A suffix, `no suffix` or `hidden` for each other entry.
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

    @cached_property
    def identity(self) -> tuple[int, int]:
        """What all paths to one folder share."""
        try:
            status = self.path.stat()
        except OSError as error:  # a path that is too long, for one
            raise unreadable(self.path, error) from error
        return status.st_dev, status.st_ino

    @cached_property
    def _content(self) -> tuple[list["Folder"], list[str], list[str]]:
        folders, images, ignored = [], [], []
        try:
            with os.scandir(self.path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise unreadable(self.path, error) from error
        for entry in found:
            if entry.name.startswith(".") or entry.name.casefold() in _FOREIGN:
                ignored.append("hidden")
            elif _is_folder(entry):
                folders.append(Folder(self.path / entry.name))
            elif suffix_of(entry.name) in SUFFIXES:
                images.append(entry.name)
            else:
                ignored.append(suffix_of(entry.name))
        return folders, images, ignored


def unreadable(path: Path, error: OSError) -> DataError:
    """Make the error for a folder that cannot be read."""
    return DataError(f"cannot read the folder {show(path)}: {error.strerror}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that cannot be searched
        return False


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, or `no suffix`."""
    return Path(name).suffix.lower() or "no suffix"
