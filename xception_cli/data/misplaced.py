"""Misplaced: where the images of a table are, if they are not where its paths lead."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xception_cli.errors import ArtifactError
from xception_cli.rundir import INFO, RunDir

_SAMPLE = 20  # paths of a table
_FOUND = 0.9  # share of them below the folder that they seem to be relative to
_MOST = 1_000_000  # files that are searched for a name


def likely_root(table: Path, paths: Sequence[str]) -> Path | None:
    """Return the folder that paths of a table seem to be relative to; None if there is none."""
    places = [Path(), table.parent.parent]
    if (table.parent / INFO).is_file():  # the split.csv of a run
        with suppress(ArtifactError):  # damaged; it is only for a hint
            info = RunDir(table.parent).read_info()
            places.insert(0, Path(info.root or info.data or ""))
    with suppress(OSError):
        places += sorted(place for place in table.parent.iterdir() if place.is_dir())
    sample = paths[:: -(-len(paths) // _SAMPLE) or 1]
    for place in places:
        found = sum(os.path.isfile(place / path) for path in sample)  # noqa: PTH113 - odd names
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
