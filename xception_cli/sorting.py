"""SortedFolder: images in one folder per predicted class, as hard links or copies."""

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
from xception_cli.rundir import RunDir
from xception_cli.runs import RUNS, data_of, runs_in

# Windows forbids these characters and device names. A folder may be copied to it.
_FORBIDDEN = str.maketrans(dict.fromkeys('<>:"|?*/\\', "-") | {"\n": " "})
_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[1-9])(?=\.|$)", re.IGNORECASE)
UNKNOWN = "unknown"  # the folder of rejected images
_NO_LINKS = {
    *(errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS),
    *(errno.ENOTSUP, errno.EOPNOTSUPP),
}


class SortedFolder:
    """A folder with one sub-folder per class; see `check_sorted`.

    An image that is already there, for example from an earlier command, is not added again. Later
    images with the name of a different image get `-2`, `-3`.

    Args:
        path: The folder; is created.
        classes: All class names. Characters that file systems do not allow are replaced.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path = path
        self.copied = 0  # number of images that could not be linked
        self._names = _folder_names(classes)
        # By class folder: its files by size and modification time, which links and copies keep.
        self._files: dict[Path, dict[tuple[int, int], list[Path]]] = {}
        self._last: dict[Path, int] = {}  # the last number used for a name

    def add(self, image: Path, name: str | None) -> None:
        """Add an image to the folder of a class; None: to `unknown`.

        Raises:
            MachineError: The folder cannot be written.
        """
        folder = self.path / (UNKNOWN if name is None else self._names[name])
        source = Path(os.path.realpath(image))  # the target of a link
        try:
            self._place(source, folder, image.name)
        except OSError as error:
            raise MachineError(
                f"cannot put {show(image)} into {show(folder)}: {error.strerror}",
                hint="choose another --sort-into; if its disk is full, free some space",
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
        """Return an unused path in a folder."""
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
    """Copy a file so that a crash leaves either all of it or nothing."""
    partial = partial_path(target, os.urandom(4).hex())
    try:
        shutil.copy2(source, partial)
        partial.rename(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def _folder_names(classes: Sequence[str]) -> dict[str, str]:
    """Name the folder of each class; class names of a model may be untrusted."""
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
        taken.add(found.casefold())  # some file systems ignore case
        names[name] = found
    return names


def check_sorted(folder: Path, inputs: Sequence[str], model: Path) -> None:
    """Check that images can be sorted into a folder, before anything is predicted.

    Args:
        folder: The folder; may contain images of an earlier command.
        inputs: The inputs to predict: files and folders.
        model: The model file, perhaps of a run.

    Raises:
        UsageError: It is not a folder, or is inside an input folder or the data folder of a run.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{show(folder)} is not a folder", hint="choose another --sort-into")
    real = Path(os.path.realpath(folder))
    for given in inputs:
        if os.path.isdir(given) and real.is_relative_to(os.path.realpath(given)):  # noqa: PTH112
            raise UsageError(
                f"--sort-into {show(folder)} is inside {show(given)}, whose images it would sort "
                "again next time",
                hint="choose a folder next to it",
            )
    run = RunDir.of_model(model)
    for one in [*([] if run is None else [run]), *runs_in(RUNS)]:
        if (data := data_of(one)) is not None and real.is_relative_to(os.path.realpath(data)):
            raise UsageError(
                f"--sort-into {show(folder)} is inside {show(data)}, the data of {show(one.path)}: "
                "predicted classes would be mixed with its labels",
                hint="choose another --sort-into, correct its folders by hand, then move the "
                "images",
            )
