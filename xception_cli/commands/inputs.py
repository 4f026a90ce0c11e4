"""Inputs: the images given to `predict`, as files, folders, patterns, a list or a table."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from xception_cli.console import quoted, say, show
from xception_cli.data.folder import describe_ignored, images_below
from xception_cli.data.formats import INSTALL_HEIF, suffixes
from xception_cli.data.listing import RUN, ignored_as
from xception_cli.data.lists import PathList, open_list
from xception_cli.data.source import check_data, refuse_packed, refuse_run
from xception_cli.data.table import is_table, read_rows
from xception_cli.errors import UsageError
from xception_cli.notation import is_url
from xception_cli.rundir import RunDir

_FEW = 3  # arguments that are typed again


@dataclass(frozen=True)
class Inputs:
    """The images given to `predict`.

    Attributes:
        images: The images, in order.
        typed: The arguments that give them, for a command to type next; of many files, the first.
        labels: Label of each image from a table; empty without one.
        are_named: Whether each image was given by its own path.
    """

    images: Sequence[Path] | PathList
    typed: str
    labels: Sequence[str] = ()
    are_named: bool = False


def read_inputs(paths: Sequence[str], listed: str | None, root: Path | None) -> Inputs:
    """Find the images that are given as paths, as a list or as a table.

    Args:
        paths: See `find_images`; or one table.
        listed: A list of paths, see `open_list`; excludes `paths`.
        root: Folder that the paths in a table or list are relative to.

    Raises:
        UsageError: No images are given; or see `find_images` and `open_list`.
        DataError: A table or folder cannot be used.
    """
    if (listed is None) == (not paths):
        raise UsageError(
            "the images are missing" if listed is None else "both images and --from are given",
            hint="give image files, folders or patterns; or a list of them with --from FILE",
        )
    if listed is not None:
        again = f"--root {quoted(root)} " * (root is not None) + f"--from {quoted(listed)}"
        return Inputs(open_list(listed, root), again)
    for path in paths:
        if is_url(path) and not os.path.lexists(path):
            raise UsageError(f"{show(path)} is a URL, not a file", hint="download the image first")
        refuse_packed(Path(path))
    typed = " ".join(map(quoted, paths[:_FEW])) + " ..." * (len(paths) > _FEW)
    if len(paths) == 1 and is_table(Path(paths[0])):
        check_data(Path(paths[0]), root)
        place, rows = read_rows(Path(paths[0]), root, labelled=False)
        typed += f" --root {quoted(root)}" if root is not None else ""
        labels = [row.label for row in rows] if all(row.label for row in rows) else []
        return Inputs([place / row.path for row in rows], typed, labels)
    if root is not None:
        raise UsageError("--root is for the paths in a table or a list", hint="leave --root out")
    images = find_images(paths)
    are_named = images == [Path(path) for path in paths]
    if are_named and not any(map(os.path.lexists, images)):
        raise UsageError(f"there is no image {show(images[0])}", hint="check the path")
    if are_named and len(paths) > _FEW:
        typed = quoted(paths[0])
    return Inputs(images, typed, are_named=are_named)


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Find the images of files, folders and patterns.

    A folder gives all images below it, sorted; a pattern (`*`, `?`, `[..]`, `**`) all images that
    it matches, sorted, unless a file or folder has exactly that name. Both skip hidden files, files
    of other kinds, and runs, whose images are charts. A single file is always kept, even if it is
    missing, so that its row reports the error.

    Returns:
        Paths, in the order of the inputs.

    Raises:
        UsageError: A folder or pattern gives no image, or a folder is a run; the message names it.
        DataError: A folder cannot be read.
    """
    found: list[Path] = []
    ignored: Counter[str] = Counter()
    for given in inputs:
        here: Counter[str] = Counter()
        if given and not os.path.lexists(given) and glob.has_magic(given):
            images = _matching(given, here)
        elif given and not os.path.isdir(given):  # noqa: PTH112 - Path's raises on odd names
            images = [Path(given)]
        else:
            images = _below(Path(given), here) if given else []
        if not images:
            heif = "" if ".heic" in suffixes() else f"; for HEIC: {INSTALL_HEIF}"
            what = describe_ignored(here)
            raise UsageError(
                f"no image matches {show(repr(given))}{f' ({what})' if what else ''}",
                hint="give image files, folders or patterns; images end in "
                f"{', '.join(sorted(suffixes()))}{heif}",
            )
        found += images
        ignored.update(here)
    if ignored:
        say(f"note      {describe_ignored(ignored)}")
    return found


def _below(folder: Path, ignored: Counter[str] | None) -> list[Path]:
    refuse_run(folder, "give one RUN, before the images; with --model, none")
    return images_below(folder, ignored)


def _matching(pattern: str, ignored: Counter[str]) -> list[Path]:
    # `**` matches a folder and what is in it: each file counts once.
    start = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    images: dict[Path, None] = {}
    folders: set[Path] = set()
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (relative or absolute)
        path = Path(match)
        is_counted = not folders.isdisjoint(path.parents)
        if (run := _run_around(path, start)) is not None:
            if not is_counted:
                ignored[RUN] += 1
            folders.add(run)
        elif path.is_dir():
            folders.add(path)
            images |= dict.fromkeys(_below(path, None if is_counted else ignored))
        elif (kind := ignored_as(match)) is None:
            images[path] = None
        elif not is_counted:
            ignored[kind] += 1
    return sorted(images)


def _run_around(path: Path, start: Path) -> Path | None:
    """Return the run below a folder that a path is, or is in; None if there is none."""
    below = path.relative_to(start)
    found = (start / part for part in (below, *below.parents))
    return next((one for one in found if one != start and RunDir(one).is_run), None)
