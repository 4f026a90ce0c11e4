"""PredictionFile: predictions in a .csv or .jsonl file, kept row by row and continued after a stop.

Rows go into `NAME.KEY.partial`, which is renamed when the last one is there. KEY is a digest of the
model, the options and the images, so that only the same command continues the file. Where it is
stopped, the file gets NAME as a second name: the rows so far are where they were asked for.
"""

import csv
import glob
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

from xception_cli.console import say, show
from xception_cli.errors import MachineError, RunBusyError, UsageError
from xception_cli.files import check_new_file, from_cell, partial_path, to_csv, utf8
from xception_cli.inference import Prediction
from xception_cli.regular import open_regular

SUFFIXES = (".csv", ".jsonl")


class PredictionFile:
    """An open partial file; see `open_predictions`.

    Attributes:
        path: Where its rows are until all are there.
        done: Rows that it has.
        failed: Those of images that could not be read.
    """

    def __init__(
        self, descriptor: int, path: Path, images: Sequence[Path], *, as_csv: bool
    ) -> None:
        self.path = path
        self.done = self.failed = 0
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._images = images
        self._as_csv = as_csv
        self._header: list[str] = []

    def begin(self, count: int, *, with_unknown: bool) -> None:
        """Read the rows that are there, and cut off what follows the last whole one.

        Args:
            count: Classes that are named for each image.
            with_unknown: A column of the CSV says why an answer is not given.

        Raises:
            MachineError: The disk is full.
        """
        self._header = ["path", "error", *["unknown"] * with_unknown]
        for rank in range(1, count + 1):
            self._header += [f"class_{rank}", f"probability_{rank}"]
        at = 0
        read = self._read_csv if self._as_csv else _read_lines
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            for end, path, failed in read(file):
                if self.done == len(self._images) or path != utf8(str(self._images[self.done])):
                    break
                at, self.done, self.failed = end, self.done + 1, self.failed + failed
        with self._errors():
            self._file.truncate(at)
            self._file.seek(at)
        if at == 0 and self._as_csv:
            self._write(to_csv(self._header, []))

    def _read_csv(self, file: IO[bytes]) -> Iterator[tuple[int, str, bool]]:
        """Yield the same of a CSV as `_read_lines`; a row may be of several lines."""
        at, is_whole = 0, True

        def lines() -> Iterator[str]:
            nonlocal at, is_whole
            for line in file:
                at += len(line)
                is_whole = line.endswith(b"\n")
                yield line.decode("utf-8")

        start = len(to_csv(self._header, []))
        with suppress(csv.Error, UnicodeDecodeError):
            for row in csv.reader(lines(), strict=True):
                if not is_whole or len(row) != len(self._header):
                    return
                if at > start:
                    yield at, from_cell(row[0]), row[1] != ""

    def add(self, prediction: Prediction) -> None:
        """Append the row of the next image.

        Raises:
            MachineError: The disk is full; the rows before are kept.
        """
        if self._as_csv:
            best = zip(prediction.classes, prediction.probabilities, strict=True)
            judged = [prediction.unknown] if "unknown" in self._header else []
            row: list[object] = [str(prediction.path), prediction.error, *judged]
            row += [cell for pair in best for cell in pair]
            row += [None] * (len(self._header) - len(row))
            content = to_csv(row, [])  # a row by itself
        else:
            content = f"{json.dumps(prediction.to_dict(), allow_nan=False)}\n".encode()
        self._write(content)
        self.done += 1
        self.failed += prediction.error is not None

    def _write(self, content: bytes) -> None:
        with self._errors():
            view = memoryview(content)
            while view:
                view = view[self._file.write(view) or 0 :]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MachineError(
                f"cannot write {show(self.path)}: {error.strerror}",
                hint=f"free some space; the same command resumes after {self.done} images",
            ) from error

    def finish(self, path: Path) -> None:
        """Put the whole file in its place.

        Raises:
            UsageError: Something else has come there.
            MachineError: The disk is full.
        """
        if os.path.lexists(path):
            raise UsageError(
                f"{show(path)} was made by another program in the meantime",
                hint=f"the predictions are in {show(self.path)}",
            )
        with self._errors():
            os.fsync(self._file.fileno())
            self.path.replace(path)
        self._file.close()

    def stop(self, path: Path) -> None:
        """Close the file; if there is anything to continue, it stays, and is the output so far."""
        has_begun, has_rows = bool(self._header), self.done > 0
        with suppress(OSError):
            has_rows = has_rows or (not has_begun and os.fstat(self._file.fileno()).st_size > 0)
            os.fsync(self._file.fileno())
        self._file.close()
        if has_rows:
            try:
                os.link(self.path, path)
            except OSError:  # something else is there, or the file system has no second names
                path = self.path
            count = f"{self.done} of {len(self._images)} rows" if has_begun else "as it was"
            say(f"kept      {show(path)}: {count}; the same command resumes there")
        else:
            with suppress(OSError):
                self.path.unlink()


def _read_lines(file: IO[bytes]) -> Iterator[tuple[int, str, bool]]:
    """Yield where each whole row ends, its path, and whether it tells a failure."""
    at = 0
    for line in file:
        at += len(line)
        try:
            row = json.loads(line)
            found = at, row["path"], row["error"] is not None
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if not line.endswith(b"\n"):
            return
        yield found


@contextmanager
def open_predictions(
    path: Path, images: Sequence[Path], options: Iterable[object]
) -> Iterator[PredictionFile]:
    """Open the partial file of predictions, new or of the same command before.

    Args:
        path: A new file, .csv or .jsonl; is made when all images have a row.
        images: In the order of the rows.
        options: What the rows depend on besides: the model's digest and all options.

    Raises:
        UsageError: See `files.check_new_file`.
        MachineError: The folder cannot be written.
        RunBusyError: The same command is running.
    """
    partial = partial_path(path, _key(path, images, options))
    if _is_same_file(path, partial):
        path.unlink()  # the rows stay in the partial file
    for other in sorted(path.parent.glob(f"{glob.escape(path.name)}.*.partial")):
        if _is_same_file(path, other):
            raise UsageError(
                f"{show(path)} has the rows of a stopped command, with another model, other images "
                "or options",
                hint=f"type that command again, remove {show(path)}, or choose another --output",
            )
        if other != partial:
            say(f"note      {show(other)} is of another model, other images or options")
    check_new_file(path, SUFFIXES, "write predictions to")
    try:
        descriptor = open_regular(partial, os.O_RDWR | os.O_CREAT)
        if os.name != "nt" and os.fstat(descriptor).st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(0, "it belongs to another user")
    except OSError as error:
        raise MachineError(
            f"cannot write {show(partial)}: {error.strerror}", hint="choose another --output"
        ) from error
    _lock(descriptor, partial)
    file = PredictionFile(descriptor, partial, images, as_csv=path.suffix.lower() == ".csv")
    try:
        yield file
        file.finish(path)
    except BaseException:
        file.stop(path)
        raise


def _is_same_file(path: Path, partial: Path) -> bool:
    """Tell whether an output is what the same command has left when it was stopped."""
    try:
        status = partial.lstat()
        return os.path.samestat(path.lstat(), status) and stat.S_ISREG(status.st_mode)
    except OSError:
        return False


def _key(path: Path, images: Sequence[Path], options: Iterable[object]) -> str:
    digest = sha256(repr((path.suffix.lower(), *options)).encode())
    for image in images:
        try:
            status = image.stat()
            stamp = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            stamp = (-1, -1)
        digest.update(f"{os.fspath(image)!r} {stamp}\n".encode())
    return digest.hexdigest()[:16]


def _lock(descriptor: int, partial: Path) -> None:
    """Keep the same command from writing the same rows; the kernel lets go if we die."""
    if os.name == "nt":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunBusyError(
            f"another xception predict is writing {show(partial)}", hint="wait for it"
        ) from error
    except OSError:
        pass  # a file system without locks
