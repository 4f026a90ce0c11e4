"""SortedFolder: images in a folder per predicted class, as hard links or copies; nothing moves."""

import errno
import filecmp
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from xception_cli.console import safe, show
from xception_cli.errors import MachineError, UsageError
from xception_cli.files import LONGEST_NAME, cut_name, partial_path

# What Windows allows in no name, and names that are devices there. A folder may be copied to it.
_FORBIDDEN = str.maketrans(dict.fromkeys('<>:"|?*/\\', "-") | {"\n": " "})
_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[1-9])(?=\.|$)", re.IGNORECASE)
UNKNOWN = "unknown"  # the folder of images whose class the model does not name
_NO_LINKS = {
    *(errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS),
    *(errno.ENOTSUP, errno.EOPNOTSUPP),
}


class SortedFolder:
    """A folder with a folder per class; see `check_sorted`.

    An image that is there already, from an earlier command for instance, is not put there again. Of
    different images of one name, the later get `-2`, `-3`.

    Args:
        path: The folder; is made.
        classes: Names of all classes. What no file system allows in a name is replaced.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path = path
        self.copied = 0  # images that could not be linked
        self._names = _folder_names(classes)
        # By class folder: the files in it by size and time of change, which links and copies keep.
        self._files: dict[Path, dict[tuple[int, int], list[Path]]] = {}
        self._last: dict[Path, int] = {}  # the number of the last image of a name

    def add(self, image: Path, name: str | None) -> None:
        """Put an image into the folder of a class; None: into `unknown`.

        Raises:
            MachineError: The folder cannot be written.
        """
        folder = self.path / (UNKNOWN if name is None else self._names[name])
        source = Path(os.path.realpath(image))  # of a link, the image
        try:
            self._place(source, folder, image.name)
        except OSError as error:
            raise MachineError(
                f"cannot put {show(image)} into {show(folder)}: {error.strerror}",
                hint="free some space, or choose another --sort-into",
            ) from error

    def _place(self, source: Path, folder: Path, name: str) -> None:
        files = self._files_in(folder)
        status = source.stat()
        same = files[status.st_size, status.st_mtime_ns]
        if any(other.samefile(source) for other in same):
            return
        target = self._free(folder, name)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if any(filecmp.cmp(other, source, shallow=False) for other in same):
                return
            _copy(source, target)
            self.copied += 1
        same.append(target)

    def _files_in(self, folder: Path) -> dict[tuple[int, int], list[Path]]:
        if folder not in self._files:
            if folder.is_symlink():
                raise OSError(errno.ELOOP, "it is a link")
            folder.mkdir(parents=True, exist_ok=True)
            self._files[folder] = defaultdict(list)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat()
                        key = status.st_size, status.st_mtime_ns
                        self._files[folder][key].append(Path(entry.path))
        return self._files[folder]

    def _free(self, folder: Path, name: str) -> Path:
        """Return a path in a folder that nothing has."""
        first = folder / name
        if not os.path.lexists(first):
            return first
        for number in count(self._last.get(first, 1) + 1):
            end = f"-{number}{first.suffix}"
            stem = cut_name(first.stem, LONGEST_NAME - len(os.fsencode(end)))
            target = folder / f"{stem}{end}"
            if not os.path.lexists(target):
                self._last[first] = number
                break
        return target


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that a crash leaves all of it or none."""
    partial = partial_path(target, os.urandom(4).hex())
    try:
        shutil.copy2(source, partial)
        partial.rename(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _folder_names(classes: Sequence[str]) -> dict[str, str]:
    """Name the folder of each class; a model may come from anyone, and so its names."""
    names: dict[str, str] = {}
    taken = {UNKNOWN}
    for name in classes:
        plain = safe(name).translate(_FORBIDDEN).lstrip(".").strip()
        plain = _DEVICE.sub(r"\g<0>-", cut_name(plain, LONGEST_NAME - 10).rstrip(". "), count=1)
        plain = plain or "class"
        found = next(
            candidate
            for number in count(1)
            if (candidate := plain if number == 1 else f"{plain}-{number}").casefold() not in taken
        )
        taken.add(found.casefold())  # some file systems do not tell A from a
        names[name] = found
    return names


def check_sorted(folder: Path, inputs: Sequence[str]) -> None:
    """See that images can be sorted into a folder, before anything is predicted.

    Args:
        folder: The folder; may have images of an earlier command.
        inputs: What is predicted: files and folders.

    Raises:
        UsageError: It is no folder, or inside a folder that is predicted.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{show(folder)} is not a folder", hint="choose another --sort-into")
    real = Path(os.path.realpath(folder))
    for given in inputs:
        if os.path.isdir(given) and real.is_relative_to(os.path.realpath(given)):  # noqa: PTH112
            raise UsageError(
                f"--sort-into {show(folder)} is inside {show(given)}, whose images it would sort "
                "again next time",
                hint="choose a folder beside it",
            )
