"""PredictionFile: predictions in a .csv or .jsonl file, written row by row and resumable.

Rows are written to `NAME.KEY.partial`, which is renamed to NAME at the end. KEY is a digest of the
model, the options and the images, so that only the same command resumes the file. If the command is
stopped, NAME becomes a hard link to the partial file, so that the rows so far are found there.
"""

import csv
import glob
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING

from xception_cli.console import say, show
from xception_cli.data.lists import PathList
from xception_cli.errors import MachineError, RunBusyError, UsageError
from xception_cli.files import check_new_file, from_cell, partial_path, to_csv, utf8
from xception_cli.numerals import count_of
from xception_cli.regular import open_regular

if TYPE_CHECKING:  # no torch: an unwritable file is reported before it loads
    from xception_cli.inference import Prediction

SUFFIXES = (".csv", ".jsonl")
_SHOWN = 20  # classes in one line


class Tally:
    """Counts of answers.

    Args:
        labels: Labels of the images from a table, in order; empty without a table.

    Attributes:
        labels: See above.
        answers: Number of images by answer: a class, `unknown`, or None for an error.
        agreed: Number of answers that equal the label.
    """

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = [utf8(label) for label in labels]
        self.answers: Counter[str | None] = Counter()
        self.agreed = 0

    @property
    def done(self) -> int:
        """Number of images counted."""
        return self.answers.total()

    @property
    def failed(self) -> int:
        """Number of images that could not be read."""
        return self.answers[None]

    def describe(self) -> list[str]:
        """Describe how often each class was predicted, and how often that equals the label."""
        named = [(n, name) for name, n in self.answers.items() if name is not None]
        named.sort(key=lambda pair: (-pair[0], pair[1]))
        counts = ", ".join(f"{show(name)} {n:,}" for n, name in named[:_SHOWN])
        more = f" and {len(named) - _SHOWN:,} more" if len(named) > _SHOWN else ""
        lines = [f"classes   {counts}{more}"] if named else []
        if self.labels and named:
            answered = self.done - self.failed
            images = count_of(answered, "image")
            share = f"{self.agreed / answered:.1%} ({self.agreed:,} of {images})"
            lines.append(f"labels    predicted as in the table: {share}")
        return lines

    def add(self, answer: str | None) -> None:
        """Count the answer for the next image."""
        if self.labels and answer is not None:
            self.agreed += self.labels[self.done] == utf8(answer)
        self.answers[None if answer is None else utf8(answer)] += 1


class PredictionFile:
    """An open partial file; see `open_predictions`.

    Attributes:
        path: Path of the partial file.
        tally: Counts of its rows.
    """

    def __init__(
        self,
        descriptor: int,
        path: Path,
        images: Sequence[Path] | PathList,
        tally: Tally,
        *,
        as_csv: bool,
    ) -> None:
        self.path = path
        self.tally = tally
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._images = images
        self._as_csv = as_csv
        self._header: list[str] = []

    @property
    def done(self) -> int:
        """Number of rows."""
        return self.tally.done

    @property
    def failed(self) -> int:
        """Number of rows of images that could not be read."""
        return self.tally.failed

    def begin(self, count: int, *, with_unknown: bool) -> None:
        """Read the existing rows, and truncate the file after the last complete one.

        Args:
            count: Number of classes in each row.
            with_unknown: Whether a CSV has a column with the reason of each `unknown`.

        Raises:
            MachineError: The disk is full.
        """
        self._header = ["path", "error", *["unknown"] * with_unknown]
        self._header += ["label"] * bool(self.tally.labels)
        for rank in range(1, count + 1):
            self._header += [f"class_{rank}", f"probability_{rank}"]
        at = 0
        read = self._read_csv if self._as_csv else _read_lines
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            for image, (end, path, answer) in zip(self._images, read(file), strict=False):
                if path != utf8(str(image)):
                    break
                at = end
                self.tally.add(answer)
        with self._errors():
            self._file.truncate(at)
            self._file.seek(at)
        if at == 0 and self._as_csv:
            self._write(to_csv(self._header, []))

    def _read_csv(self, file: IO[bytes]) -> Iterator[tuple[int, str, str | None]]:
        """Yield the same as `_read_lines` from a CSV, where a row may span several lines."""
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
                    cells = dict(zip(self._header, map(from_cell, row), strict=True))
                    answer = "unknown" if cells.get("unknown") else cells.get("class_1", "")
                    yield at, cells["path"], None if cells["error"] else answer

    def add(self, prediction: "Prediction") -> None:
        """Append the row of the next image.

        Raises:
            MachineError: The disk is full; earlier rows are kept.
        """
        if self._as_csv:
            best = zip(prediction.classes, prediction.probabilities, strict=True)
            row: list[object] = [str(prediction.path), prediction.error]
            row += [getattr(prediction, n) for n in ("unknown", "label") if n in self._header]
            row += [cell for pair in best for cell in pair]
            row += [None] * (len(self._header) - len(row))
            content = to_csv(row, [])  # a row by itself
        else:
            content = f"{json.dumps(prediction.to_dict(), allow_nan=False)}\n".encode()
        self._write(content)
        self.tally.add(prediction.answer)

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
                hint=f"free disk space; the same command resumes after image {self.done:,}",
            ) from error

    def finish(self, path: Path) -> None:
        """Rename the complete file to its final path.

        Raises:
            UsageError: Another file was created there in the meantime.
            MachineError: The disk is full.
        """
        if os.path.lexists(path):
            raise UsageError(
                f"{show(path)} was created by another program in the meantime",
                hint=f"the predictions are in {show(self.path)}",
            )
        with self._errors():
            os.fsync(self._file.fileno())
            if os.name == "nt":  # an open file cannot be renamed there
                self._file.close()
            self.path.replace(path)
        self._file.close()

    def stop(self, path: Path) -> None:
        """Close the file; if it has rows, keep them as the output so far."""
        has_begun, has_rows = bool(self._header), self.done > 0
        with suppress(OSError):
            has_rows = has_rows or (not has_begun and os.fstat(self._file.fileno()).st_size > 0)
            os.fsync(self._file.fileno())
        self._file.close()
        if has_rows:
            try:
                os.link(self.path, path)
            except OSError:  # another file is there, or the file system has no hard links
                path = self.path
            rows = count_of(len(self._images), "row")
            count = f"{self.done:,} of {rows}" if has_begun else "unchanged"
            say(f"kept      {show(path)}: {count}; the same command resumes there")
        else:
            with suppress(OSError):
                self.path.unlink()


def _read_lines(file: IO[bytes]) -> Iterator[tuple[int, str, str | None]]:
    """Yield the end, path and answer of each complete row; the answer is None for an error."""
    at = 0
    for line in file:
        at += len(line)
        try:
            row = json.loads(line)
            answer = "unknown" if row.get("unknown") else "".join(row["classes"][:1])
            found = at, row["path"], None if row["error"] is not None else answer
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if not line.endswith(b"\n"):
            return
        yield found


@contextmanager
def open_predictions(
    path: Path,
    images: Sequence[Path] | PathList,
    options: Iterable[object],
    tally: Tally | None = None,
) -> Iterator[PredictionFile]:
    """Open the partial file of predictions, new or left by the same command when it stopped.

    Args:
        path: A new .csv or .jsonl file, created when all images have a row.
        images: The images, in the order of the rows.
        options: What else the rows depend on: the model's digest and all options.
        tally: Counts the rows; its labels, if any, become a column.

    Raises:
        UsageError: See `files.check_new_file`.
        MachineError: The folder cannot be written.
        RunBusyError: The same command is running.
    """
    tally = tally or Tally()
    partial = partial_path(path, _key(path, images, (*options, tally.labels)))
    if _is_same_file(path, partial):
        path.unlink()  # the rows stay in the partial file
    for other in sorted(path.parent.glob(f"{glob.escape(path.name)}.*.partial")):
        if _is_same_file(path, other):
            raise UsageError(
                f"{show(path)} has the rows of a stopped command with another model, other images "
                "or other options",
                hint=f"run that command again, remove {show(path)}, or choose another --output",
            )
        if other != partial:
            say(f"note      {show(other)} belongs to another model, other images or other options")
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
    as_csv = path.suffix.lower() == ".csv"
    with _lock(descriptor, partial):
        file = PredictionFile(descriptor, partial, images, tally, as_csv=as_csv)
        try:
            yield file
            file.finish(path)
        except BaseException:
            file.stop(path)
            raise


def _is_same_file(path: Path, partial: Path) -> bool:
    """Return whether an output is a link to the partial file, left by a stopped command."""
    try:
        status = partial.lstat()
        return os.path.samestat(path.lstat(), status) and stat.S_ISREG(status.st_mode)
    except OSError:
        return False


def _key(path: Path, images: Iterable[Path], options: Iterable[object]) -> str:
    digest = sha256(repr((path.suffix.lower(), *options)).encode())
    for image in images:
        try:
            status = image.stat()
            stamp = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            stamp = (-1, -1)
        digest.update(f"{os.fspath(image)!r} {stamp}\n".encode())
    return digest.hexdigest()[:16]


def _lock(descriptor: int, partial: Path) -> AbstractContextManager[object]:
    """Lock the file against the same command; the kernel releases the lock if we die."""
    try:
        try:
            import fcntl
        except (
            ImportError
        ):  # Windows, where a lock on the file itself would stop us from reading it
            from filelock import FileLock

            return FileLock(f"{partial}.lock", fallback_to_soft=False).acquire(blocking=False)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, TimeoutError) as error:
        os.close(descriptor)
        raise RunBusyError(
            f"another xception predict is writing {show(partial)}", hint="wait for it"
        ) from error
    except OSError:
        pass  # a file system without locks
    return nullcontext()
