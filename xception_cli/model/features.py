"""What the frozen prefix computes of each picture and view: computed once and kept."""

import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from xception_cli.console import say, screen, show
from xception_cli.data.dataset import Key, KeyedBatches
from xception_cli.data.images import DECODER
from xception_cli.data.loading import Inputs, PictureInputs
from xception_cli.entries import read_entries
from xception_cli.errors import ArtifactError, MachineError
from xception_cli.files import write_durably
from xception_cli.model.layers import POOLED, pool_layers, run_layers
from xception_cli.model.network import FIRST_TRAINED, STEPS, Segment, build_network
from xception_cli.model.seal import check_entries, seal_entries
from xception_cli.regular import NEW, open_regular
from xception_cli.rundir import read_json
from xception_cli.runtime import Runtime, key

# Batches of a GPU that are committed together: a commit waits for the disk twice.
_BATCHES_PER_COMMIT = 16

Array = np.ndarray[Any, Any]


class _Note(TypedDict):
    images: int


@dataclass(frozen=True)
class FeatureStore:
    """Activations of the frozen prefix, in one memory-mapped file.

    The rows are ordered by view, then by picture; kept as bf16 in channels-last order. The page
    cache is the RAM tier.

    Attributes:
        rows: `(views * pictures, height, width, channels)`, bf16 seen as uint16.
        count: Pictures.
        views: Views of each.
    """

    rows: Array
    count: int
    views: int

    def read(self, indices: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """Return activations as the suffix takes them, bf16.

        Args:
            indices: `(batch,)`, pictures.
            view: `(batch,)`, which view of each.

        Returns:
            `(batch, channels, height, width)`, in channels-last memory.
        """
        rows = self.rows[(view * self.count + indices).numpy()]
        return torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16).permute(0, 3, 1, 2)


class FeatureInputs:
    """Stored activations as inputs of the trained part, batch by batch.

    Shuffled, image `i` is seen in view `(offset(seed, i) + epoch) % views`, so that the views take
    turns. In order, all are seen in the same one.

    Args:
        store: The activations.
        labels: Of its pictures, `(count,)`, int64.
        batches: Which keys make up which batch.
        runtime: Where to compute.
        view: The one that is seen in order; 0 is the evaluation crop.
    """

    def __init__(
        self,
        store: FeatureStore,
        labels: torch.Tensor,
        batches: KeyedBatches,
        runtime: Runtime,
        view: int = 0,
    ) -> None:
        self.store = store
        self.labels = labels
        self.batches = batches
        self.runtime = runtime
        self.view = view
        offsets = [key(batches.seed, "view", index) % store.views for index in range(store.count)]
        self._offsets = torch.tensor(offsets)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Inputs]:
        # The next batch is read while the network works on this one: the disk is not waited for.
        with ThreadPoolExecutor(max_workers=1) as reader:
            upcoming: Future[Inputs] | None = None
            for keys in self.batches:
                current, upcoming = upcoming, reader.submit(self._read, keys)
                if current is not None:
                    yield current.result()
            if upcoming is not None:
                yield upcoming.result()

    def example(self, count: int) -> torch.Tensor:
        """Return values such as those of a batch of `count`."""
        some = torch.zeros(count, dtype=torch.int64)
        return self._to_device(self.store.read(some, some)).zero_()

    def _to_device(self, activations: torch.Tensor) -> torch.Tensor:
        placed = self.runtime.join_parts([activations], self.batches.rows)
        return placed if self.runtime.precision == "bf16" else placed.float()

    def _read(self, keys: list[Key]) -> Inputs:
        epoch = keys[0][0]
        indices = torch.tensor([index for _, index in keys])
        view = torch.full_like(indices, self.view)
        if self.batches.shuffle:
            view = (self._offsets[indices] + epoch) % self.store.views
        activations = self._to_device(self.store.read(indices, view))
        return Inputs(activations, self.runtime.to_device(self.labels[indices]), indices)


@torch.inference_mode()
def compute_pooled(network: Segment, inputs: PictureInputs | FeatureInputs, what: str) -> Array:
    """Compute the pooled features of every image, without keeping anything else.

    Args:
        network: A segment to `conv4`, in eval mode: from `conv1` for pictures, from the cut for
            stored activations.
        inputs: In order, with the evaluation transform.
        what: Names the phase on the screen.

    Returns:
        `(images, POOLED)`, float32.
    """
    processes = inputs.runtime.processes
    pooled = np.zeros((inputs.batches.count, POOLED), dtype=np.float32)
    with screen.bar(what, len(pooled)) as bar:
        for batch in inputs:
            with inputs.runtime.autocast():
                found = pool_layers(run_layers(network, batch.values))
            pooled[batch.indices.numpy()] = found[: len(batch.indices)].cpu().numpy()
            bar.advance(len(batch.indices) * processes.count)
            processes.wait()  # nobody is far behind at the end
    # What another process computed is 0 here.
    return processes.total(torch.from_numpy(pooled)).numpy()


@torch.inference_mode()
def compute_store(
    folder: Path,
    name: str,
    prefix: Segment,
    rest: Segment,
    inputs: Sequence[PictureInputs],
    another: Callable[[int, int], bool] = lambda done, computed: True,
) -> tuple[FeatureStore, Array]:
    """Compute, or resume computing, the prefix's activations and the pooled features of all views.

    A durable note commits what is computed, on a CPU after each batch, so that a killed run resumes
    there. Processes that train together write their parts of a batch into the same file.

    Args:
        folder: Where the store lies.
        name: Of the store in it, `train` or `val`.
        prefix: The frozen part, in eval mode.
        rest: From the cut to `conv4`, in eval mode.
        inputs: The images in order, once for each view.
        another: Asked after each view but the last whether there is to be another one; takes how
            many there are, and how many images were computed.

    Returns:
        The store, and the pooled features `(views, images, POOLED)`, float32.

    Raises:
        MachineError: The disk is too small; says how much is needed.
        DataError: A picture vanished.
    """
    views, count = len(inputs), inputs[0].batches.count
    batch_size, runtime = inputs[0].batches.batch_size, inputs[0].runtime
    per_commit = _BATCHES_PER_COMMIT if runtime.is_asynchronous else 1
    shape = row_shape(inputs[0].preprocessing.image_size, prefix.steps[-1])
    note = folder / f"{name}-{DECODER}.json"  # of another decoder, nothing is kept
    processes = runtime.processes
    if not processes.leads:  # the leader makes the files
        processes.wait()
    rows = _open_map(folder / f"{name}.bin", note, np.uint16, (count * views, *shape))
    pooled = _open_map(folder / f"{name}.pooled", note, np.float32, (count * views, POOLED))
    if processes.leads:
        processes.wait()
    done = _read_note(note)
    computed = 0
    with screen.bar(f"computing features ({name})", count * views) as bar:
        bar.advance(min(done, count * views))
        for view in range(done // count, views):
            if 0 < view < views and not another(view, computed):
                views = view
                break
            images = inputs[view]
            # Whole batches only: on another device the batch size may differ.
            start = (done - view * count) // batch_size
            images.batches.epoch, images.batches.start = view, start
            for number, batch in enumerate(images, start=start + 1):
                indices = batch.indices.numpy()
                with runtime.autocast():
                    activations = prefix(batch.values)
                    found = pool_layers(run_layers(rest, activations))
                at = view * count + indices
                pooled[at] = found[: len(indices)].cpu().numpy()
                rows[at] = _to_bits(activations[: len(indices)])
                is_last = number == len(images)
                done = view * count + (count if is_last else number * batch_size)
                computed += len(indices) * processes.count
                if number % per_commit == 0 or is_last:
                    rows.flush()
                    pooled.flush()
                    processes.wait()
                    if processes.leads:
                        write_durably(note, json.dumps(seal_entries({"images": done})).encode())
                bar.advance(len(indices) * processes.count)
    kept = np.array(pooled[: views * count]).reshape(views, count, POOLED)
    return FeatureStore(rows[: views * count], count, views), kept


def _read_note(note: Path) -> int:
    """Return how many rows are computed; none where the note is not what was written."""
    if not note.is_file():
        return 0
    try:
        done = read_entries(_Note, check_entries(read_json(note), note))["images"]
    except (ArtifactError, ValueError):
        done = -1
    if done < 0:
        say(f"note      {show(note)} is damaged: these features are computed again")
    return max(0, done)


def _to_bits(activations: torch.Tensor) -> Array:
    kept = activations.permute(0, 2, 3, 1).to(torch.bfloat16).contiguous().cpu()
    return kept.view(torch.int16).numpy().view(np.uint16)


@functools.cache
def row_shape(image_size: int, last: str) -> tuple[int, int, int]:
    """Return height, width and channels of what the network gives behind a step.

    Args:
        image_size: Side of the input, in pixels.
        last: The step, one of `network.STEPS`.
    """
    with torch.device("meta"):  # shapes only, nothing is computed
        prefix = Segment(build_network(2), STEPS[0], last).eval()
        _, channels, height, width = prefix(torch.empty(1, 3, image_size, image_size)).shape
    return (height, width, channels)


def activation_bytes(image_size: int, unfreeze: str) -> int:
    """Return what one image in one view takes in the store, in bytes.

    Args:
        image_size: Side of the input, in pixels.
        unfreeze: `middle` or `exit`.
    """
    last = STEPS[STEPS.index(FIRST_TRAINED[unfreeze]) - 1]
    return math.prod(row_shape(image_size, last)) * 2 + POOLED * 4


def _open_map(path: Path, note: Path, dtype: type, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        path.parent.mkdir(exist_ok=True)
        # A larger file is of a run that has since settled for fewer views: its first rows hold.
        if not path.is_file() or path.stat().st_size < size:
            note.unlink(missing_ok=True)  # what it says is done is not in the new file
            path.unlink(missing_ok=True)
            with os.fdopen(open_regular(path, NEW), "wb") as file:
                # Real blocks, not a hole: a full disk is an error here, and a crash (SIGBUS) later.
                _reserve(file.fileno(), size)
        with os.fdopen(open_regular(path, os.O_RDWR), "r+b") as file:
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise MachineError(
            f"cannot keep {size / 1e9:.1f} GB of features in {show(path)}: {error.strerror}",
            hint="fewer --views, --unfreeze head, or an --output on a larger disk",
        ) from error


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS, Windows
        os.truncate(descriptor, size)
