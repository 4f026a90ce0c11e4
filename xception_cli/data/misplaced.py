"""Misplaced: where the images of a table are, if they are not where its paths lead."""

import os
import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xception_cli.data.formats import suffixes
from xception_cli.errors import ArtifactError
from xception_cli.rundir import RunDir

Stems = dict[str, dict[str, list[str]]]  # by folder and name without suffix: the image files

_SAMPLE = 20  # paths of a table
_FOUND = 0.9  # share of them below the folder that they seem to be relative to
_ABSOLUTE = re.compile("/|[A-Za-z]:/")
_MOST = 1_000_000  # files that are searched for a name


def find_images(path: str, known: Stems) -> list[str]:
    """Return the file at a path; if there is none, the images there that have a suffix in addition.

    Args:
        path: With or without the suffix of the image: `images/12.jpg` or `images/12`.
        known: What has been listed so far, extended here: a folder is listed once.
    """
    if os.path.isfile(path):  # noqa: PTH113 - odd names
        return [path]
    folder, name = os.path.split(path)
    if folder not in known:
        known[folder] = {}
        with suppress(OSError, ValueError):  # of a name that no folder can have
            for file in sorted(os.listdir(folder or ".")):  # noqa: PTH208
                stem, suffix = os.path.splitext(file)  # noqa: PTH122
                if suffix.lower() in suffixes():
                    known[folder].setdefault(stem, []).append(os.path.join(folder, file))  # noqa: PTH118
    return known[folder].get(name, [])


def foreign_folder(paths: Sequence[str]) -> str:
    r"""Return the folder of absolute paths, such as those of another computer; empty if they vary.

    Args:
        paths: All paths of a table, with `/` between folders: `C:/Users/x/photos/cat/1.jpg`.
    """
    if not paths or not all(map(_ABSOLUTE.match, paths)):
        return ""
    folder = f"{posixpath.commonprefix(paths).rpartition('/')[0]}/"
    return folder if folder.strip("/") else ""


def likely_root(table: Path, paths: Sequence[str], *more: Path) -> Path | None:
    """Return the folder that paths of a table seem to be relative to; None if there is none.

    Args:
        table: The table.
        paths: Its paths.
        more: Folders that are tried first.
    """
    places = [*more, Path(), table.parent.parent]
    if RunDir(table.parent).is_run:  # the split.csv of a run
        with suppress(ArtifactError):  # damaged; it is only for a hint
            info = RunDir(table.parent).read_info()
            places.insert(0, Path(info.root or info.data or ""))
    with suppress(OSError):
        places += sorted(place for place in table.parent.iterdir() if place.is_dir())
    sample = paths[:: -(-len(paths) // _SAMPLE) or 1]
    known: Stems = {}
    for place in places:
        at = [os.path.join(place, path) for path in sample]  # noqa: PTH118
        found = sum(len(find_images(path, known)) == 1 for path in at)
        if found and found >= _FOUND * len(sample):
            return place
    return None


def folder_below(root: Path, names: Sequence[str]) -> tuple[str, str] | None:
    """Return a file name that is exactly once below a folder, and where; None if none is.

    Args:
        root: The folder.
        names: File names without a folder, in order of preference.
    """
    places: dict[str, list[str]] = {name: [] for name in names}
    count = 0
    for folder, _, files in os.walk(root):
        count += len(files)
        if count > _MOST:
            return None
        for name in places.keys() & set(files):
            places[name].append(Path(folder).relative_to(root).as_posix())
    return next(((name, found[0]) for name, found in places.items() if len(found) == 1), None)
