"""Datasets, keyed samplers and loaders.

A sampler yields keys `(epoch, index)`, and everything random about a sample is drawn from
`(seed, epoch, index)`. So neither workers nor a resume can change what is drawn.
"""

import gc
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from xception_cli.console import show
from xception_cli.data.images import PictureError, read_picture
from xception_cli.data.kept import KeptImages
from xception_cli.data.transforms import Preprocessing, Transform
from xception_cli.errors import DataError, MachineError
from xception_cli.processes import ALONE, Processes
from xception_cli.runtime import Runtime, drawing_from, key

Key = tuple[int, int]  # (epoch, index)

# Pictures that a worker decodes at a time. Batches are put together from such parts: the first one
# of an epoch is there as soon as several workers have one each.
PART = 16
_PART_BYTES = 5_000_000  # in shared memory, at 299 pixels


class Batch(NamedTuple):
    """Decoded pictures.

    Attributes:
        pixels: `(batch, 3, height, width)`, uint8.
        labels: `(batch,)`, int64.
        indices: `(batch,)`, int64, into the dataset.
        failures: (index, reason) of the pictures that could not be decoded; not in `pixels`.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    failures: list[tuple[int, str]]


class PictureDataset(Dataset[tuple[int, int, torch.Tensor | str]]):
    """Pictures by key; gives (index, label, pixels or the reason why there are none).

    Args:
        root: What the paths are relative to.
        paths: Image files.
        labels: Of each.
        transform: From a picture to uint8 pixels `(3, height, width)`.
        least_side: See `images.decode`.
        seed: Of everything random.
        kept: Keeps decoded pictures, where each is read in many epochs.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Sequence[int],
        transform: Transform,
        *,
        least_side: int | None = None,
        seed: int = 0,
        kept: KeptImages | None = None,
    ) -> None:
        self.root = root
        self.kept = kept
        self.paths = list(paths)
        self.labels = list(labels)
        self.transform = transform
        self.least_side = least_side
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: Key) -> tuple[int, int, torch.Tensor | str]:
        epoch, index = at
        try:
            read = partial(self._read, index)
            picture = read() if self.kept is None else self.kept.get(index, read)
        except PictureError as error:
            return index, self.labels[index], error.message
        with drawing_from(self.seed, "augment", epoch, index):
            return index, self.labels[index], self.transform(picture)

    def _read(self, index: int) -> Image.Image:
        return read_picture(self.root / self.paths[index], least_side=self.least_side)


def collate(samples: list[tuple[int, int, torch.Tensor | str]]) -> Batch:
    """Stack the pictures of a batch and list those that failed."""
    good = [s for s in samples if isinstance(s[2], torch.Tensor)]
    pixels = [s[2] for s in good if isinstance(s[2], torch.Tensor)]
    return Batch(
        torch.stack(pixels) if pixels else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        torch.tensor([s[1] for s in good], dtype=torch.int64),
        torch.tensor([s[0] for s in good], dtype=torch.int64),
        [(s[0], s[2]) for s in samples if isinstance(s[2], str)],
    )


def require_all(batch: Batch, dataset: PictureDataset) -> Batch:
    """Return the batch if every picture of it was decoded.

    Raises:
        DataError: A file vanished or changed since it was checked; names it.
    """
    if batch.failures:
        index, reason = batch.failures[0]
        raise DataError(
            f"{show(dataset.root / dataset.paths[index])}: {reason}; it was there when the run "
            "started",
            hint="put it back and go on with --resume, or start a new run",
        )
    return batch


class KeyedBatches(Sampler[list[Key]]):
    """Batches of keys: shuffled or drawn by (seed, epoch), or in order.

    Processes that train together each get a part of every batch, which differ by one key at most.

    Attributes:
        weights: `(count,)`, how often each index is drawn, with replacement; None draws each once.
        epoch: The epoch that the next pass draws, from 0.
        start: Batches to skip at its beginning, for a resume inside an epoch.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool,
        weights: torch.Tensor | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.processes = processes
        self.seed = seed
        self.shuffle = shuffle
        self.weights = weights
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return len(self._bounds())

    @property
    def rows(self) -> int:
        """How many keys a process has of most batches."""
        return min(-(-self.batch_size // self.processes.count), self.count)

    def _bounds(self) -> list[int]:
        bounds = list(range(0, self.count, self.batch_size))
        last = self.count - bounds[-1] if bounds else 0
        # Batch statistics of a single picture are worthless: it joins the batch before it. So do
        # fewer than there are processes: each needs one.
        least = max(2 if self.shuffle else 1, self.processes.count)
        if len(bounds) > 1 and last < least:
            bounds.pop()
        return bounds

    def order(self) -> list[int]:
        """Return this epoch's order of indices."""
        if not self.shuffle:
            return list(range(self.count))
        generator = torch.Generator().manual_seed(key(self.seed, "order", self.epoch))
        if self.weights is not None:
            drawn = self.weights.multinomial(self.count, replacement=True, generator=generator)
            return drawn.tolist()
        return torch.randperm(self.count, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order, bounds = self.epoch, self.order(), [*self._bounds(), self.count]
        rank, count = self.processes.rank, self.processes.count
        for begin, end in list(pairwise(bounds))[self.start :]:
            yield [(epoch, index) for index in order[begin + rank : end : count]]


class _Parts(Sampler[list[Key]]):
    """Batches in parts of `PART` keys, and how many keys each batch of this pass has so far."""

    def __init__(self, batches: KeyedBatches) -> None:
        self.batches = batches
        self.sizes: deque[int] = deque()

    def __iter__(self) -> Iterator[list[Key]]:
        sizes = self.sizes = deque()
        for keys in self.batches:
            sizes.append(len(keys))
            yield from (keys[at : at + PART] for at in range(0, len(keys), PART))


def default_workers(runtime: Runtime) -> int:
    """Return how many processes decode: enough for a GPU; few beside a network on the CPU.

    Each has two parts of a batch in shared memory, of which a container may have 64 MB.
    """
    shared = Path("/dev/shm")
    wanted = 16 if runtime.device.type == "cuda" else 2
    if shared.is_dir():
        wanted = min(wanted, shutil.disk_usage(shared).free // (2 * _PART_BYTES))
    return max(1, min(wanted, (os.cpu_count() or 1) // runtime.processes.local_count))


def create_loader(
    dataset: PictureDataset, batches: KeyedBatches, *, workers: int, pin_memory: bool = False
) -> "DataLoader[Any]":
    """Make a loader of parts of batches, for `read_parts` and `read_batches`.

    Args:
        dataset: The pictures.
        batches: Which keys make up which batch.
        workers: Processes that decode; 0 decodes in this one.
        pin_memory: Page-locked batches, for copies to a GPU that do not wait.
    """
    return DataLoader(
        dataset,
        batch_sampler=_Parts(batches),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        # Else each pass would take one number from the global generator.
        generator=torch.Generator().manual_seed(0),
    )


def _start_worker(_: int) -> None:
    # Ctrl-C reaches the whole process group; the parent still wants to finish its batch.
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):  # Windows lacks some
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


class Inputs(NamedTuple):
    """What a network takes, and what it should say.

    Attributes:
        values: `(batch or more, channels, height, width)`, float, on the device; what is behind the
            labels is filling, see `Runtime.join_parts`.
        labels: `(batch,)`, int64, on the device.
        indices: `(batch,)`, int64, on the CPU: which pictures these are.
    """

    values: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class PictureInputs:
    """Decoded pictures as inputs of the whole network, batch by batch; each pass decodes anew.

    Args:
        dataset: The pictures.
        batches: Which keys make up which batch.
        preprocessing: Of the pixels.
        runtime: Where to compute.
        workers: Processes that decode.
    """

    def __init__(
        self,
        dataset: PictureDataset,
        batches: KeyedBatches,
        *,
        preprocessing: Preprocessing,
        runtime: Runtime,
        workers: int,
    ) -> None:
        self.dataset = dataset
        self.batches = batches
        self.preprocessing = preprocessing
        self.runtime = runtime
        pin = runtime.device.type == "cuda"
        self.loader = create_loader(dataset, batches, workers=workers, pin_memory=pin)
        self._begun: tuple[int, Iterator[Batch]] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Inputs]:
        """Yield batches.

        Raises:
            DataError: A picture vanished or changed.
            MachineError: A worker process died.
        """
        begun, self._begun = self._begun, None
        ahead = begun is not None and (begun[0], 0) == (self.batches.epoch, self.batches.start)
        for parts in read_parts(self.loader, begun[1] if begun and ahead else None):
            for part in parts:
                require_all(part, self.dataset)
            pixels = self.runtime.join_parts([part.pixels for part in parts], self.batches.rows)
            values = self.preprocessing.normalize(pixels)
            yield Inputs(
                values.contiguous(memory_format=self.runtime.memory_format),
                self.runtime.to_device(torch.cat([part.labels for part in parts])),
                torch.cat([part.indices for part in parts]),
            )

    def begin(self, epoch: int) -> None:
        """Let the workers begin with an epoch's first batches before they are asked for."""
        if self.loader.num_workers:
            self.batches.epoch, self.batches.start = epoch, 0
            self._begun = epoch, _start(self.loader)

    def example(self, count: int) -> torch.Tensor:
        """Return values such as those of a batch of `count`."""
        size = self.preprocessing.image_size
        return torch.zeros((count, 3, size, size), device=self.runtime.device).contiguous(
            memory_format=self.runtime.memory_format
        )


def _start(loader: "DataLoader[Any]") -> Iterator[Batch]:
    """Begin a pass, without the SIGCHLD handler that torch (2.14) installs for its workers.

    It raises in whatever line runs when a worker dies, a state's being saved included. Without
    it the reading of the next batch notices, within 5 seconds.

    Garbage is collected before workers are forked, and nothing of ours in them: a tensor of a GPU
    in a cycle, collected in a worker, would end it (seen with torch 2.11: CUDA is not there).
    """
    number = getattr(signal, "SIGCHLD", None)
    if threading.current_thread() is not threading.main_thread():
        number = None
    before = None if number is None else signal.getsignal(number)
    gc.collect()
    gc.freeze()
    try:
        return iter(loader)
    finally:
        gc.unfreeze()
        if number is not None and before is not None:
            signal.signal(number, before)


def read_batches(loader: "DataLoader[Any]") -> Iterator[Batch]:
    """Iterate over a loader, batch by batch.

    Raises:
        MachineError: A worker process died.
    """
    for parts in read_parts(loader):
        pixels = [part.pixels for part in parts if len(part.indices)] or [parts[0].pixels]
        yield Batch(
            torch.cat(pixels),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.indices for part in parts]),
            [failure for part in parts for failure in part.failures],
        )


def read_parts(
    loader: "DataLoader[Any]", begun: Iterator[Batch] | None = None
) -> Iterator[list[Batch]]:
    """Iterate over a loader: the parts of a batch, batch by batch.

    Args:
        loader: From `create_loader`.
        begun: A pass that was begun before.

    Raises:
        MachineError: A worker process died.
    """
    try:
        parts: list[Batch] = []
        for part in _start(loader) if begun is None else begun:
            parts.append(part)
            sizes = loader.batch_sampler.sizes  # type: ignore[union-attr]
            if sum(len(p.indices) + len(p.failures) for p in parts) == sizes[0]:
                sizes.popleft()
                yield parts
                parts = []
    except (RuntimeError, ConnectionError, EOFError) as error:
        # The latter two: it died between handing over a batch and the opening of its memory.
        # A bug in a worker says "in DataLoader worker process", a death "DataLoader worker (pid".
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise
        raise MachineError(
            f"a process that decodes images died: {show(error)}",
            hint="memory may be short: try --workers 0",
        ) from error
