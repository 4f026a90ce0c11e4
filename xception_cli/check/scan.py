"""The scan of each file of a data folder: whether it is an image, its format and fingerprint."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import PIL

from xception_cli.check.measures import SHARP_SIDE, Fingerprint, Measures, fingerprint, measure
from xception_cli.check.store import Row, Store
from xception_cli.console import screen
from xception_cli.data.folder import DataFolder
from xception_cli.data.images import (
    DECODER,
    ImageError,
    Inspection,
    Original,
    content_digest,
    examine,
    naming,
    read_bytes,
    turn,
)
from xception_cli.data.pixels import fewest_bits, turns
from xception_cli.errors import MachineError

VERSION = f"{DECODER}, Pillow {PIL.__version__}"  # results of another version are dropped

_ALONE = 1.0  # seconds of scanning after which helper processes are started
_PROCESSES = 16  # at most
_CHUNK = 16  # files that a helper gets at a time


@dataclass(frozen=True, slots=True)
class Look:
    """What the scan found about one image file.

    Attributes:
        digest: Digest of its content, see `content_digest`; empty if it could not be read.
        problem: Why it cannot be used; None if it can.
        size: Size in bytes.
        original: Format and mode of the file; None if it cannot be used.
        measures: Measures of the image; None if it cannot be used.
        cells: Mean colours, see `Fingerprint`; empty if it cannot be used.
    """

    digest: str
    problem: str | None = None
    size: int = 0
    original: Original | None = None
    measures: Measures | None = None
    cells: bytes = b""

    @property
    def inspection(self) -> Inspection:
        """What training needs to know about the file."""
        return Inspection(self.digest, self.problem)


Seen = tuple[Look, Fingerprint | None]
_File = tuple[int, str, tuple[int, int] | None]  # its number, path and stamp


def scan_folder(
    folder: DataFolder, store: Store, *, grey_bits: int | None = None
) -> tuple[Look, ...]:
    """Scan every image file, or only those that changed since the last scan.

    Every file is fully decoded, at a reduced size if its format allows, by several processes if
    there are many files. Memory grows only with the results. A 16-bit image is scanned at the scale
    of its own values, and again if all images together need another scale.

    Args:
        folder: The data folder. Nothing is ever written there.
        store: Results of the last scan, which are updated.
        grey_bits: Bits of 16-bit images whose header does not state them; None: see `bits_of`.

    Returns:
        The scan of each image, in order.

    Raises:
        MachineError: A helper process was killed. Earlier results are kept.
    """
    known = store.rows()
    root = os.fspath(folder.root)
    looks: dict[int, Look] = {}
    unseen: list[_File] = []
    for index, image in enumerate(folder.images):
        stamp = _stamp(os.path.join(root, image.path))  # noqa: PTH118 - a tenth of Path's time
        row = known.pop(image.path, None)
        look = _from_row(row) if row is not None and stamp == (row.size, row.changed) else None
        if look is None:
            unseen.append((index, image.path, stamp))
        else:
            looks[index] = look
    if known and folder.table is None:  # another table may list the other files
        store.forget(known)
    _scan(folder.root, unseen, look_at_all, looks, store)
    wanted = bits_of(looks.values()) if grey_bits is None else grey_bits
    rescaled = [
        (index, folder.images[index].path, _stamp(os.path.join(root, folder.images[index].path)))  # noqa: PTH118
        for index, look in sorted(looks.items())
        if look.original and look.original.highest is not None and look.original.grey_bits != wanted
    ]
    _scan(folder.root, rescaled, partial(look_at_all, grey_bits=wanted), looks, store)
    return tuple(looks[index] for index in range(len(folder.images)))


def bits_of(looks: Iterable[Look]) -> int:
    """Return the bits of 16-bit images whose header does not state them: the fewest that fit all.

    Args:
        looks: The scans of all images: a data set has one scale.
    """
    found = [look.original.highest for look in looks if look.original]
    highest = [value for value in found if value is not None]
    return fewest_bits(max(highest)) if highest else 16


def _scan(
    root: Path,
    files: list[_File],
    look: Callable[[Iterable[Path]], Iterator[Seen]],
    looks: dict[int, Look],
    store: Store,
) -> None:
    if not files:
        return
    with screen.bar("scanning images", len(files)) as bar:
        found = look(root / path for _, path, _ in files)
        for (index, path, stamp), (look_, seen) in zip(files, found, strict=True):
            looks[index] = look_
            # A file that cannot be used is scanned again next time: the machine may be the cause.
            # So is a file that changes meanwhile: the stamp was taken before the scan.
            if look_.problem is None and stamp is not None:
                store.keep(path, _to_row(look_, stamp), seen.grey if seen else None)
            bar.advance(1)
    store.save()


def look_at(path: Path, grey_bits: int | None = None) -> Seen:
    """Scan one file.

    Args:
        path: The file.
        grey_bits: See `decode`.

    Raises:
        MachineError: There is too little memory to decode it.
    """
    digest, size = "", 0
    try:
        with naming(path):
            content = read_bytes(path)
            digest, size = content_digest(content), len(content)
            with turn(content, least_side=SHARP_SIDE):
                picture, original = examine(content, least_side=SHARP_SIDE, grey_bits=grey_bits)
                seen = fingerprint(picture)
                return Look(digest, None, size, original, measure(picture), seen.cells), seen
    except ImageError as error:
        return Look(digest, error.message, size), None


def look_at_all(
    paths: Iterable[Path], *, grey_bits: int | None = None, alone: float = _ALONE
) -> Iterator[Seen]:
    """Scan image files in order, with helper processes if it takes long.

    Threads would not help: much of a scan is Python, and numpy on small arrays.

    Args:
        paths: The files.
        grey_bits: See `decode`.
        alone: Seconds after which helper processes are started, one for each core.

    Raises:
        MachineError: A helper was killed.
    """
    left = iter(paths)
    started = time.monotonic()
    for path in left:
        yield look_at(path, grey_bits)
        if time.monotonic() - started > alone:
            break
    if multiprocessing.current_process().daemon:  # a pool's process cannot start others
        yield from (look_at(path, grey_bits) for path in left)
    else:
        yield from _look_together(left, grey_bits)


def _look_together(paths: Iterator[Path], grey_bits: int | None) -> Iterator[Seen]:
    """Scan the files in chunks, with only a few chunks in progress at a time."""
    processes = min(_PROCESSES, os.cpu_count() or 1)
    # Forking this process would copy its threads' locks.
    way = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(way)
    _start_tracker()
    pool = ProcessPoolExecutor(
        processes,
        context,
        initializer=_start_helper,
        initargs=(context.Lock(), turns.max_pixels),
    )
    ahead: deque[Future[list[Seen]]] = deque()
    try:
        while chunk := list(islice(paths, _CHUNK)):
            with _main_program_not_imported(), _signals_deferred():
                ahead.append(pool.submit(_look_at_each, chunk, grey_bits))
            if len(ahead) > 2 * processes:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError(
            "a process that scans images was killed; the system may be out of memory",
            hint="run the same command again to resume",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_tracker() -> None:
    """Start Python's tracker of semaphores so that no hangup ends it, like SIGINT and SIGTERM.

    Otherwise (3.11) it is started again when the helpers end, and prints tracebacks.
    """
    if hasattr(signal, "pthread_sigmask"):  # Windows has no tracker
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # is inherited
        try:
            resource_tracker.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_program_not_imported() -> Iterator[None]:
    """Start processes without importing the user's main program, which would run it again."""
    main = sys.modules["__main__"]
    hidden = {n: vars(main)[n] for n in ("__file__", "__spec__") if n in vars(main)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Start processes whole: a signal would leave a half started one, which fails with a traceback.

    Their executor, too, waits only for processes that it knows to have started.
    """
    received: list[int] = []
    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows lacks some
        number = getattr(signal, name, None)
        if number and callable(signal.getsignal(number)):
            with suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, lambda n, _: received.append(n))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)


def _look_at_each(paths: list[Path], grey_bits: int | None) -> list[Seen]:
    return [look_at(path, grey_bits) for path in paths]


def _start_helper(lock: Any, max_pixels: int) -> None:
    """Initialise a helper process.

    Args:
        lock: Lock for large images, see `Turns`.
        max_pixels: Largest image, see `Turns`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches helpers too; the parent ends them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    turns.lock, turns.max_pixels = lock, max_pixels
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """End when the parent process has ended, for any reason.

    If the parent is killed, a helper would otherwise wait for work forever: it holds open the pipe
    that the fork server watches.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _to_row(look: Look, stamp: tuple[int, int]) -> Row:
    facts: list[object] = [look.digest, look.problem]
    if look.original and look.measures:
        facts += [astuple(look.original), astuple(look.measures)]
    return Row(*stamp, json.dumps(facts), look.cells)


def _from_row(row: Row) -> Look | None:
    try:
        digest, problem, *facts = json.loads(row.look)
        if not facts:
            return Look(digest, problem, row.size)
        original, measures = Original(*facts[0]), Measures(*facts[1])
    except (ValueError, TypeError):  # damaged on disk
        return None
    is_large = original.format != "JPEG" and original.width * original.height > turns.max_pixels
    if is_large:  # a larger limit applied then
        return None
    return Look(digest, problem, row.size, original, measures, row.cells)
