"""Loading: batches of decoded images, in the parts that workers decode."""

import gc
import math
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from xception_cli.data.dataset import ImageDataset, Key, KeyedBatches
from xception_cli.data.opening import turns
from xception_cli.data.slots import Slots, can_share
from xception_cli.data.workers import start_error, start_worker, worker_errors
from xception_cli.errors import MachineError
from xception_cli.runtime import release_freed_memory

PART = 16  # images per task of a worker, so that several workers share the first batch
_PART_BYTES = 5_000_000  # limit on a part, reached by images over 299 pixels
_AHEAD = 2  # parts assigned to each worker
_START = 16  # images that are decoded in the time that it takes to start a worker
_CPU = torch.device("cpu")


class Batch(NamedTuple):
    """Decoded images.

    Attributes:
        pixels: `(batch, 3, height, width)`, uint8.
        labels: `(batch,)`, int64.
        indices: `(batch,)`, int64, into the dataset.
        failures: (index, reason) of the images that could not be decoded; not in `pixels`.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    failures: list[tuple[int, str]]


class _Part(NamedTuple):
    """The images that a worker decodes, and the slot for them; None if it sends them itself."""

    keys: list[Key]
    slot: int | None


class _Decoded(NamedTuple):
    """A decoded part; see `Batch`."""

    pixels: torch.Tensor | int  # an int is the index of a slot
    labels: list[int]
    indices: list[int]
    failures: list[tuple[int, str]]


Pass = Iterator[_Decoded | MachineError]  # over the parts of a loader


def create_loader(
    dataset: ImageDataset,
    batches: KeyedBatches,
    *,
    workers: int,
    passes: int = 1,
    side: int | None = None,
    device: torch.device = _CPU,
) -> "DataLoader[Any]":
    """Create a loader of parts of batches, for `read_parts`.

    Args:
        dataset: The images.
        batches: The keys of each batch.
        workers: Number of image-loading processes; fewer if there is little to read. 0 decodes in
            this one.
        passes: How often the batches are read.
        side: Side of all decoded images, in pixels; None if they differ.
        device: Target of the batches.
    """
    rows = PART
    if side is not None:
        rows = max(1, min(PART, _PART_BYTES // (3 * side**2)))
    sizes = batches.sizes()
    parts = [-(-size // rows) for size in sizes]  # of each batch
    # Workers start one after another, so w of them take w starts and 1/w of the decoding.
    fastest = math.ceil(math.sqrt(sum(sizes) * passes / _START))
    workers = min(workers, sum(parts), fastest)
    slots = context = None
    if workers and can_share():
        context = "fork"  # Python 3.14 would start a new program, which lacks the lock
        try:
            turns.lock = multiprocessing.get_context(context).Lock()  # the workers inherit it
        except OSError as error:
            raise start_error(error) from None
        if side is not None:
            # For the parts held by workers, the batch being assembled, and those in use.
            count = _AHEAD * workers + 4 * max(parts) + 2
            slots = Slots(min(count, sum(parts)), rows, side, device)
    return DataLoader(
        _PartReader(dataset, slots),
        batch_sampler=cast("Any", _Parts(batches, rows, slots)),
        collate_fn=cast("Any", _as_it_is),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        multiprocessing_context=context,
        persistent_workers=workers > 0,
        worker_init_fn=partial(start_worker, turns.max_pixels),
        # Otherwise each pass would take one number from the global generator.
        generator=torch.Generator().manual_seed(0),
    )


def read_parts(loader: "DataLoader[Any]", begun: Pass | None = None) -> Iterator[list[Batch]]:
    """Iterate over a loader, batch by batch: the parts of each batch.

    Their pixels are valid until the next batch is requested; then the memory is reused.

    Args:
        loader: From `create_loader`.
        begun: A pass that has already been started.

    Raises:
        MachineError: A worker process died.
    """
    sampler = cast("_Parts", loader.batch_sampler)
    with worker_errors():
        parts: list[Batch] = []
        slots: list[int] = []
        for decoded in start_pass(loader) if begun is None else begun:
            if isinstance(decoded, MachineError):
                raise decoded
            number = sampler.number
            parts.append(sampler.receive(decoded))
            slots += [decoded.pixels] if isinstance(decoded.pixels, int) else []
            if sum(len(p.indices) + len(p.failures) for p in parts) == sampler.sizes[0]:
                sampler.sizes.popleft()
                yield parts
                # DataLoader has one iterator for all passes: if another has begun, stop.
                if sampler.number != number:
                    return
                if sampler.slots is not None:
                    sampler.slots.give_back(slots)
                parts, slots = [], []


def start_pass(loader: "DataLoader[Any]") -> Pass:
    """Begin a pass, without the SIGCHLD handler that torch (2.14) installs for its workers.

    The handler raises in whatever line runs when a worker dies, even while a state is saved.
    Without it, reading the next batch notices within 5 seconds.

    Workers never collect inherited garbage: a GPU tensor in a reference cycle, freed in a fork,
    aborts the process (torch 2.11).
    """
    sampler = cast("_Parts", loader.batch_sampler)
    forks, sampler.has_workers = loader.num_workers and not sampler.has_workers, True
    if forks and sampler.slots is not None:
        sampler.slots.allocate()
    number = getattr(signal, "SIGCHLD", None)
    if threading.current_thread() is not threading.main_thread():
        number = None
    before = None if number is None else signal.getsignal(number)
    if forks:
        gc.freeze()
        release_freed_memory()
    try:
        return iter(loader)
    except OSError as error:
        if isinstance(error, ConnectionError):  # a started worker has died
            raise
        raise start_error(error) from None
    finally:
        if forks:
            gc.unfreeze()
        if number is not None and before is not None:
            signal.signal(number, before)


class _Parts(Sampler[_Part]):
    """Batches cut into parts; remembers the sizes of the batches and assigns slots."""

    def __init__(self, batches: KeyedBatches, rows: int, slots: Slots | None) -> None:
        self.batches = batches
        self.rows = rows
        self.slots = slots
        self.sizes: deque[int] = deque()
        self.number = 0  # number of the pass
        self.has_workers = False  # persistent workers

    def __iter__(self) -> Iterator[_Part]:
        sizes = self.sizes = deque()
        self.number += 1
        if self.slots is not None:
            self.slots.begin()
        for keys in self.batches:
            sizes.append(len(keys))
            for at in range(0, len(keys), self.rows):
                slot = None if self.slots is None else self.slots.take()
                yield _Part(keys[at : at + self.rows], slot)

    def receive(self, decoded: _Decoded) -> Batch:
        """Turn a decoded part into tensors."""
        pixels = decoded.pixels
        if isinstance(pixels, int):
            pixels = cast("Slots", self.slots).pixels[pixels, : len(decoded.labels)]
        return Batch(
            pixels,
            torch.tensor(decoded.labels, dtype=torch.int64),
            torch.tensor(decoded.indices, dtype=torch.int64),
            decoded.failures,
        )


class _PartReader(Dataset[Any]):
    """Decodes parts, in a worker or in the main process."""

    def __init__(self, dataset: ImageDataset, slots: Slots | None) -> None:
        self.dataset = dataset
        self.slots = slots

    # DataLoader fetches a whole part with this method.
    def __getitems__(self, part: _Part) -> "_Decoded | MachineError":
        try:
            return self._decode(part)
        except MachineError as error:  # raised in a worker, it would arrive as a text traceback
            return error

    def _decode(self, part: _Part) -> _Decoded:
        labels: list[int] = []
        indices: list[int] = []
        failures: list[tuple[int, str]] = []
        decoded: list[torch.Tensor] = []
        for epoch, at in part.keys:
            index, label, pixels = self.dataset[epoch, at]
            if isinstance(pixels, str):
                failures.append((index, pixels))
                continue
            if self.slots is not None and part.slot is not None:
                self.slots.pixels[part.slot, len(labels)] = pixels
            else:
                decoded.append(pixels)
            labels.append(label)
            indices.append(index)
        if part.slot is not None:
            return _Decoded(part.slot, labels, indices, failures)
        stacked = torch.stack(decoded) if decoded else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        return _Decoded(stacked, labels, indices, failures)


def _as_it_is(decoded: "_Decoded | MachineError") -> "_Decoded | MachineError":
    return decoded
