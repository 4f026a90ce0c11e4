"""The scan of each file of a data folder: whether it is an image, its format and fingerprint."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from xception_cli.check.measures import SHARP_SIDE, Fingerprint, Measures, fingerprint, measure
from xception_cli.check.pool import map_in_processes
from xception_cli.check.store import Row, Store
from xception_cli.console import screen
from xception_cli.data.folder import DataFolder
from xception_cli.data.images import ImageError, examine, naming, read_bytes
from xception_cli.data.inspection import Inspection, content_digest
from xception_cli.data.opening import turns
from xception_cli.data.original import Original
from xception_cli.data.pixels import fewest_bits

_ALONE = 1.0  # seconds of scanning after which helper processes are started


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


class _File(NamedTuple):
    """A file to scan: the number of its image, its path, and its size and time of change."""

    number: int
    path: str
    stamp: tuple[int, int] | None


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
    looks: dict[int, Look] = {}
    unseen: list[_File] = []
    for index, image in enumerate(folder.images):
        file = _file(folder, index)
        row = known.pop(image.path, None)
        look = _from_row(row) if row is not None and file.stamp == (row.size, row.changed) else None
        if look is None:
            unseen.append(file)
        else:
            looks[index] = look
    if known and folder.table is None:  # another table may list the other files
        store.forget(known)
    _scan(folder.root, unseen, None, looks, store)
    wanted = bits_of(looks.values()) if grey_bits is None else grey_bits
    rescaled = [
        _file(folder, index)
        for index, look in sorted(looks.items())
        if look.original and look.original.highest is not None and look.original.grey_bits != wanted
    ]
    _scan(folder.root, rescaled, wanted, looks, store)
    return tuple(looks[index] for index in range(len(folder.images)))


def _file(folder: DataFolder, index: int) -> _File:
    path = folder.images[index].path
    try:
        status = os.stat(os.path.join(folder.root, path))  # noqa: PTH116, PTH118 - a tenth of Path's time
    except OSError:
        return _File(index, path, None)
    # Another file that was moved there may have the same modification time, as from an archive.
    return _File(index, path, (status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)))


def bits_of(looks: Iterable[Look]) -> int:
    """Return the bits of 16-bit images whose header does not state them: the fewest that fit all.

    Args:
        looks: The scans of all images: a data set has one scale.
    """
    highest = largest_values(looks)
    return fewest_bits(max(highest)) if highest else 16


def largest_values(looks: Iterable[Look]) -> list[int]:
    """Return the largest value of each 16-bit image whose header does not state its bits."""
    found = [look.original.highest for look in looks if look.original]
    return [value for value in found if value is not None]


def _scan(
    root: Path,
    files: list[_File],
    grey_bits: int | None,
    looks: dict[int, Look],
    store: Store,
) -> None:
    if not files:
        return
    with screen.bar("scanning images", len(files)) as bar:
        found = look_at_all((root / file.path for file in files), grey_bits=grey_bits)
        for (index, path, stamp), (look, seen) in zip(files, found, strict=True):
            looks[index] = look
            # A file that cannot be used is scanned again next time: the machine may be the cause.
            # So is a file that changes meanwhile: the stamp was taken before the scan.
            if look.problem is None and stamp is not None:
                store.keep(path, _to_row(look, stamp), seen.grey if seen else None)
            bar.advance(1)
    store.save()


def look_at(path: Path, grey_bits: int | None = None) -> Seen:
    """Scan one file.

    Raises:
        MachineError: There is too little memory to decode it.
    """
    digest, size = "", 0
    try:
        with naming(path):
            content = read_bytes(path)
            digest, size = content_digest(content), len(content)
            with turns.take(content, least_side=SHARP_SIDE):
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
        yield from map_in_processes(partial(_look_at_each, grey_bits=grey_bits), left)


def _look_at_each(paths: list[Path], grey_bits: int | None) -> list[Seen]:
    return [look_at(path, grey_bits) for path in paths]


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
