"""The scan of each file of a data folder: whether it is an image, its format and fingerprint."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from xception_cli.check.store import Row, Store
from xception_cli.console import screen
from xception_cli.data.folder import DataFolder
from xception_cli.data.images import (
    DECODER,
    Inspection,
    Original,
    PictureError,
    content_digest,
    examine,
    naming,
    read_bytes,
    turn,
)
from xception_cli.data.pixels import turns
from xception_cli.errors import MachineError

VERSION = f"{DECODER}, Pillow {PIL.__version__}"  # results of another version are dropped

SIDE = 32  # of the grey thumbnail, in pixels; near-copies are found with it
CELLS = 4  # per side of the grid of mean colours
SHARP_SIDE = 256  # of the longer side when sharpness is measured, for any camera

_ALONE = 1.0  # seconds of scanning after which helper processes are started
_PROCESSES = 16  # at most
_CHUNK = 16  # files that a helper gets at a time


@dataclass(frozen=True, slots=True)
class Measures:
    """Numbers of one image, on the scale of its pixels (0 to 255) unless stated otherwise.

    Attributes:
        brightness: Mean grey.
        contrast: Standard deviation of the grey.
        darkest: The 5th percentile of the grey.
        brightest: The 99th percentile of the grey.
        sharpness: Root mean square of the Laplacian, relative to the contrast, at one size for all
            images: about 0.5 for a photo, under 0.1 if it is blurred.
        colourfulness: Mean difference between the largest and the smallest of red, green and blue.
    """

    brightness: float
    contrast: float
    darkest: float
    brightest: float
    sharpness: float
    colourfulness: float


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies an image after re-encoding, resizing or slight cropping.

    Attributes:
        cells: Mean colours of `CELLS` x `CELLS` cells, as bytes.
        grey: The grey thumbnail, `SIDE` x `SIDE`, as bytes.
    """

    cells: bytes
    grey: bytes


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


def scan_folder(folder: DataFolder, store: Store) -> tuple[Look, ...]:
    """Scan every image file, or only those that changed since the last scan.

    Every file is fully decoded, at a reduced size where its format allows that, and with several
    processes if there are many files. Memory grows only with the results.

    Args:
        folder: The data folder. Nothing is ever written there.
        store: Results of the last scan; is updated.

    Returns:
        A look for each of its images, in order.

    Raises:
        MachineError: A helper process was killed. What was found before is kept.
    """
    known = store.rows()
    root = os.fspath(folder.root)
    looks: dict[int, Look] = {}
    unseen: list[tuple[int, str, tuple[int, int] | None]] = []
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
    if unseen:
        with screen.bar("scanning images", len(unseen)) as bar:
            found = look_at_all(folder.root / path for _, path, _ in unseen)
            for (index, path, stamp), (look, seen) in zip(unseen, found, strict=True):
                looks[index] = look
                # A file that cannot be used is tried again: the machine may be the reason. The
                # stamp is taken before the scan, so that a file that changes meanwhile is
                # scanned again.
                if look.problem is None and stamp is not None:
                    store.keep(path, _to_row(look, stamp), seen.grey if seen else None)
                bar.advance(1)
        store.save()
    return tuple(looks[index] for index in range(len(folder.images)))


def look_at(path: Path) -> Seen:
    """Scan one image file.

    Raises:
        MachineError: There is too little memory to decode it.
    """
    digest, size = "", 0
    try:
        with naming(path):
            content = read_bytes(path)
            digest, size = content_digest(content), len(content)
            with turn(content, least_side=SHARP_SIDE):
                picture, original = examine(content, least_side=SHARP_SIDE)
                seen = fingerprint(picture)
                return Look(digest, None, size, original, measure(picture), seen.cells), seen
    except PictureError as error:
        return Look(digest, error.message, size), None


def look_at_all(paths: Iterable[Path], *, alone: float = _ALONE) -> Iterator[Seen]:
    """Scan image files in order, with helper processes if it takes long.

    Threads would not help: much of a scan is Python, and numpy on small arrays.

    Args:
        paths: The files.
        alone: Seconds after which helpers are started, one per core.

    Raises:
        MachineError: A helper was killed.
    """
    left = iter(paths)
    started = time.monotonic()
    for path in left:
        yield look_at(path)
        if time.monotonic() - started > alone:
            break
    if multiprocessing.current_process().daemon:  # a pool's worker cannot start processes
        yield from map(look_at, left)
    else:
        yield from _look_together(left)


def _look_together(paths: Iterator[Path]) -> Iterator[Seen]:
    """Distribute the files in chunks, a few chunks ahead of the one that is awaited."""
    processes = min(_PROCESSES, os.cpu_count() or 1)
    # Forking this process would copy its threads' locks.
    way = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(way)
    pool = ProcessPoolExecutor(
        processes,
        context,
        initializer=_start_helper,
        initargs=(context.Lock(), turns.max_pixels),
    )
    ahead: deque[Future[list[Seen]]] = deque()
    try:
        while chunk := list(islice(paths, _CHUNK)):
            with _main_program_not_imported():
                ahead.append(pool.submit(_look_at_each, chunk))
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


def _look_at_each(paths: list[Path]) -> list[Seen]:
    return [look_at(path) for path in paths]


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
    if is_large:  # allowed at that time
        return None
    return Look(digest, problem, row.size, original, measures, row.cells)


# Measures of an image


def measure(picture: Image.Image) -> Measures:
    """Measure an RGB image."""
    grey = np.asarray(_at_sharp_side(picture.convert("L")), np.float32)
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.int16)
    contrast = float(grey.std())
    darkest, brightest = np.percentile(grey, [5, 99])
    return Measures(
        brightness=round(float(grey.mean()), 2),
        contrast=round(contrast, 2),
        darkest=round(float(darkest), 2),
        brightest=round(float(brightest), 2),
        sharpness=round(_roughness(grey) / max(contrast, 1), 4),
        colourfulness=round(float(np.ptp(small, axis=2).mean()), 2),
    )


def fingerprint(picture: Image.Image) -> Fingerprint:
    """Compute the fingerprint of an RGB image."""
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    cells = small.resize((CELLS, CELLS), Image.Resampling.BOX)
    return Fingerprint(cells.tobytes(), small.convert("L").tobytes())


def _at_sharp_side(grey: Image.Image) -> Image.Image:
    scale = SHARP_SIDE / max(grey.size)
    if scale >= 1:  # a small image is kept: enlarging would blur it
        return grey
    width, height = (max(1, round(side * scale)) for side in grey.size)
    return grey.resize((width, height), Image.Resampling.BOX)


def _roughness(grey: NDArray[np.float32]) -> float:
    if min(grey.shape) < 3:
        return 0.0
    centre = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.sqrt(np.mean((4 * centre - around) ** 2)))
