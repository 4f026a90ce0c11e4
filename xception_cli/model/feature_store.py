"""FeatureStore: activations of the frozen prefix in one memory-mapped file; and its writer."""

import functools
import json
import math
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from xception_cli.console import say, show
from xception_cli.data.images import DECODER
from xception_cli.entries import read_entries
from xception_cli.errors import ArtifactError, MachineError
from xception_cli.files import write_durably
from xception_cli.model.layers import POOLED
from xception_cli.model.network import STEPS, Segment, build_network, last_frozen
from xception_cli.model.seal import check_entries, seal_entries
from xception_cli.processes import Processes
from xception_cli.regular import NEW, open_regular
from xception_cli.rundir import read_json

# Seconds between commits, which wait for the disk twice. A kill loses about this much work.
_BETWEEN_COMMITS = 5.0

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FeatureStore:
    """Activations of the frozen prefix, in one memory-mapped file.

    The rows are ordered by view, then by image, in bf16 and channels-last order. The system's page
    cache keeps them in memory.

    Attributes:
        rows: `(views * images, height, width, channels)`, bf16 seen as uint16.
        count: Number of images.
        views: Views of each image.
    """

    rows: Array
    count: int
    views: int

    def read(self, indices: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """Return activations as the other layers take them, bf16.

        Args:
            indices: `(batch,)`, images.
            view: `(batch,)`, which view of each.

        Returns:
            `(batch, channels, height, width)`, in channels-last memory.
        """
        rows = self.rows[(view * self.count + indices).numpy()]
        return torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16).permute(0, 3, 1, 2)


def to_bits(activations: torch.Tensor) -> Array:
    """Return activations as rows of a `FeatureStore`, the inverse of `read`."""
    kept = activations.permute(0, 2, 3, 1).to(torch.bfloat16).contiguous().cpu()
    return kept.view(torch.int16).numpy().view(np.uint16)


@functools.cache
def row_shape(image_size: int, last: str) -> tuple[int, int, int]:
    """Return height, width and channels of the activations after a step.

    Args:
        image_size: Side of the input, in pixels.
        last: The step, one of `network.STEPS`.
    """
    with torch.device("meta"):  # shapes only, nothing is computed
        prefix = Segment(build_network(2), STEPS[0], last).eval()
        _, channels, height, width = prefix(torch.empty(1, 3, image_size, image_size)).shape
    return (height, width, channels)


def activation_bytes(image_size: int, unfreeze: str) -> int:
    """Return the bytes that one view of one image takes in the store.

    Args:
        image_size: Side of the input, in pixels.
        unfreeze: `middle` or `exit`.
    """
    return math.prod(row_shape(image_size, last_frozen(unfreeze))) * 2 + POOLED * 4


class StoreWriter:
    """A store that is being filled in the order of its rows, and pooled features with it.

    A durable note commits the rows every few seconds, so that a killed run resumes there; its
    checksums show whether the rows are intact. With several processes, each writes its part of a
    batch into the same files.

    Args:
        folder: Folder of the store.
        name: Name of the store in it.
        shape: Of a row, from `row_shape`.
        views: Views of each image.
        count: Number of images.
        processes: The processes that fill it.

    Attributes:
        rows: As in `FeatureStore`.
        pooled: `(views * images, POOLED)`, float32.
        done: Number of rows that are committed.

    Raises:
        MachineError: The disk is too small; the error gives the size needed.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, ...],
        *,
        views: int,
        count: int,
        processes: Processes,
    ) -> None:
        note = folder / f"{name}-{DECODER}.json"  # rows of another decoder are not used
        total = views * count
        if not processes.leads:  # the leader creates the files
            processes.wait()
        self.rows = _open_map(folder / f"{name}.bin", note, np.uint16, (total, *shape))
        self.pooled = _open_map(folder / f"{name}.pooled", note, np.float32, (total, POOLED))
        if processes.leads:
            processes.wait()
        self.done, self._sums = processes.once(
            lambda: _read_note(note, (self.rows, self.pooled), count)
        )
        self._note, self._count, self._processes = note, count, processes
        self._committed = time.monotonic()

    def commit_if_due(self, done: int) -> None:
        """Commit, if the last commit of any process is long ago; see `commit`."""
        if self._processes.largest(time.monotonic() - self._committed >= _BETWEEN_COMMITS):
            self.commit(done)

    def commit(self, done: int) -> None:
        """Commit all rows before `done`, which is in the view that is being filled, or its end."""
        self.rows.flush()
        self.pooled.flush()
        self._processes.wait()
        if self._processes.leads:
            so_far = self._sums.pop() if self.done % self._count else 0  # a sum for each view
            self._sums.append(_sum_rows((self.rows, self.pooled), self.done, done, so_far))
            content = seal_entries({"images": done, "sums": self._sums})
            write_durably(self._note, json.dumps(content).encode())
        self.done, self._committed = done, time.monotonic()

    def pooled_of(self, views: int) -> Array:
        """Return a copy of the pooled features of the first views, `(views, images, POOLED)`."""
        return np.array(self.pooled[: views * self._count]).reshape(views, self._count, POOLED)

    def store_of(self, views: int) -> FeatureStore:
        """Return the first views, which are filled."""
        return FeatureStore(self.rows[: views * self._count], self._count, views)


class _Note(TypedDict):
    images: int
    sums: list[int]


def _read_note(note: Path, arrays: Sequence[Array], count: int) -> tuple[int, list[int]]:
    """Return the number of intact rows, and their checksums by view."""
    if not note.is_file():
        return 0, []
    is_sound = True
    try:
        found = read_entries(_Note, check_entries(read_json(note), note))
        done, sums = found["images"], found["sums"]
    except (ArtifactError, ValueError):
        done, sums, is_sound = 0, [], False
    if done < 0 or -(-done // count) != len(sums):
        done, sums, is_sound = 0, [], False
    for view in range(min(len(sums), len(arrays[0]) // count)):
        begin = view * count
        if _sum_rows(arrays, begin, min(done, begin + count)) != sums[view]:
            done, sums, is_sound = begin, sums[:view], False
            break
    if not is_sound:
        say(f"note      {show(note)} or its features are damaged: they are computed again")
    return done, sums


def _sum_rows(arrays: Sequence[Array], begin: int, end: int, so_far: int = 0) -> int:
    """Continue the CRC-32 of rows; at 4 GB/s, this takes 0.2% of the time to compute them."""
    for at in range(begin, end):
        for array in arrays:
            so_far = zlib.crc32(array[at], so_far)
    return so_far


def _open_map(path: Path, note: Path, dtype: type, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        path.parent.mkdir(exist_ok=True)
        # A larger file is from before the run was limited to fewer views: its first rows are valid.
        if not path.is_file() or path.stat().st_size < size:
            note.unlink(missing_ok=True)  # its rows are not in the new file
            path.unlink(missing_ok=True)
            with os.fdopen(open_regular(path, NEW), "wb") as file:
                # Allocated, not sparse: a full disk is an error here, but a crash (SIGBUS) later.
                _reserve(file.fileno(), size)
        with os.fdopen(open_regular(path, os.O_RDWR), "r+b") as file:
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise MachineError(
            f"cannot store {size / 1e9:.1f} GB of features in {show(path)}: {error.strerror}",
            hint="fewer --views, --unfreeze head, an --output on a larger disk, or "
            "xception cache clear",
        ) from error


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS, Windows
        os.truncate(descriptor, size)
