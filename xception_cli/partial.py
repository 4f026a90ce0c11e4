"""Partial files: what a stopped command has computed, in `NAME.KEY.partial` next to its output.

KEY is a digest of the model, the options and the images, so that only the same command resumes the
file.
"""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any

from xception_cli import __version__
from xception_cli.console import Bar, say, screen, show
from xception_cli.data.lists import PathList
from xception_cli.errors import DataError, MachineError, RunBusyError
from xception_cli.files import partial_path, with_sum
from xception_cli.numerals import count_of
from xception_cli.regular import open_regular, write_all


def partial_of(path: Path, images: Iterable[Path], options: Iterable[object]) -> Path:
    """Return the partial file of an output.

    Args:
        path: The output.
        images: Its images, in order.
        options: What else its rows depend on: the model's digest and all options.
    """
    digest = sha256(repr((path.suffix.lower(), *options)).encode())
    for image in images:
        try:
            status = image.stat()
            stamp = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            stamp = (-1, -1)
        digest.update(f"{os.fspath(image)!r} {stamp}\n".encode())
    return partial_path(path, digest.hexdigest()[:16])


def other_partials(path: Path, partial: Path) -> list[Path]:
    """Return the partial files that other commands have left for the same output, with a note."""
    found = sorted(path.parent.glob(f"{glob.escape(path.name)}.*.partial"))
    others = [other for other in found if other != partial]
    for other in others:
        say(f"note      {show(other)} belongs to another model, other images or other options")
    return others


class PartialFile:
    """An open partial file, whose rows are in the order of the images.

    Attributes:
        path: Its path.
        done: Number of images with a row.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self.path = path
        self.done = 0
        self._file = os.fdopen(descriptor, "r+b", buffering=0)

    def read(self) -> IO[bytes]:
        """Open what a stopped command has written, before anything is appended."""
        return os.fdopen(os.dup(self._file.fileno()), "rb")

    def resume(self, size: int, done: int, images: int) -> None:
        """Keep the first bytes, to which further rows are appended, and remove the others.

        Raises:
            MachineError: The disk is full.
        """
        self.done = done
        with self._errors():
            self._file.truncate(size)
            self._file.seek(size)
        if done:
            whole = count_of(images, "image")
            say(f"resuming  after {done:,} of {whole} ({show(self.path)})")

    def append(self, content: bytes, images: int = 1) -> None:
        """Append the rows of the next images.

        Raises:
            MachineError: The disk is full; earlier rows are kept.
        """
        with self._errors():
            write_all(self._file.fileno(), content)
        self.done += images

    def close(self) -> None:
        """Write the file to the disk and close it, unless it is closed."""
        if self._file.closed:  # by a `rename` that failed
            return
        with suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()

    def rename(self, path: Path) -> None:
        """Write the file to the disk, close it and rename it.

        Raises:
            MachineError: The disk is full.
        """
        with self._errors():
            os.fsync(self._file.fileno())
            if os.name == "nt":  # an open file cannot be renamed there
                self._file.close()
            self.path.replace(path)
        self._file.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MachineError(
                f"cannot write {show(self.path)}: {error.strerror}",
                hint=f"free disk space; the same command resumes after image {self.done:,}",
            ) from error


@contextmanager
def open_partial(partial: Path) -> Iterator[PartialFile]:
    """Open a partial file, new or left by the same command, and lock it.

    Raises:
        MachineError: It cannot be written, or belongs to another user.
        RunBusyError: The same command is running.
    """
    try:
        descriptor = open_regular(partial, os.O_RDWR | os.O_CREAT)
        if os.name != "nt" and os.fstat(descriptor).st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(0, "it belongs to another user")
    except OSError as error:
        raise MachineError(
            f"cannot write {show(partial)}: {error.strerror}", hint="choose another --output"
        ) from error
    with _lock(descriptor, partial):
        yield PartialFile(descriptor, partial)


def _lock(descriptor: int, partial: Path) -> AbstractContextManager[object]:
    """Lock the file against the same command; the kernel releases the lock if we die."""
    try:
        try:
            import fcntl
        except ImportError:  # Windows, where a lock on the file itself would prevent reading it
            from filelock import FileLock

            return FileLock(f"{partial}.lock", fallback_to_soft=False).acquire(blocking=False)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, TimeoutError) as error:
        os.close(descriptor)
        raise RunBusyError(
            f"the same command is writing {show(partial)}", hint="wait for it"
        ) from error
    except OSError:
        pass  # a file system without locks
    return nullcontext()


class Rows:
    """Results of images, in order, of an output that is written when all are known.

    Args:
        file: Its partial file.
        images: The images.
        found: See below.
        bar: Shows the progress.

    Attributes:
        found: The results so far, plain data: those of a stopped command, and those added since.
    """

    def __init__(
        self, file: PartialFile, images: Sequence[Path] | PathList, found: list[Any], bar: Bar
    ) -> None:
        self.found = found
        self._file, self._images, self._bar = file, images, bar

    def left(self) -> Iterator[Path]:
        """Return the images without a result."""
        return islice(self._images, len(self.found), None)

    def add(self, image: Path, result: Any) -> None:
        """Add the result of the next image.

        Raises:
            MachineError: The disk is full; earlier results are kept.
        """
        self._file.append(_line(json.dumps(result).encode(), image))
        self.found.append(result)
        self._bar.advance(1)


def _read_results(file: PartialFile, images: Sequence[Path] | PathList) -> list[Any]:
    """Read the results that a stopped command has left, a line of JSON with a checksum each."""
    found, size = [], 0
    with file.read() as lines:
        for image, line in zip(images, lines, strict=False):
            content, _, _ = line.rpartition(b" ")
            if line != _line(content, image):  # cut by a kill, or damaged
                break
            found.append(json.loads(content))
            size += len(line)
    file.resume(size, len(found), len(images))
    return found


def _line(content: bytes, image: Path) -> bytes:
    return b"%s %s\n" % (content, with_sum(content, image)[len(content) :].hex().encode())


@contextmanager
def open_rows(
    path: Path, images: Sequence[Path] | PathList, options: Iterable[object], doing: str
) -> Iterator[Rows]:
    """Open the results of a command that writes its output at the end, and show its progress.

    They are removed at the end of the block, which writes the output; if it is stopped, they are
    kept, and the same command resumes there.

    Args:
        path: The output.
        images: Its images, in order.
        options: See `partial_of`.
        doing: What the command does, for the progress.

    Raises:
        MachineError: The folder cannot be written, or its disk is full.
        RunBusyError: The same command is running.
    """
    partial = partial_of(path, images, (__version__, *options))
    other_partials(path, partial)
    with open_partial(partial) as file:
        found = _read_results(file, images)
        is_kept = False
        try:
            with screen.bar(doing, len(images)) as bar:
                bar.restart(doing, len(found))
                yield Rows(file, images, found, bar)
        except BaseException as error:
            # The same command would only meet an error in the data again.
            is_kept = bool(found) and not isinstance(error, DataError)
            raise
        finally:
            file.close()
            if is_kept:
                done = f"{len(found):,} of {count_of(len(images), 'image')}"
                say(f"kept      {show(partial)}: {done}; the same command resumes there")
            else:
                with suppress(OSError):
                    partial.unlink()
