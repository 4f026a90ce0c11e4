"""Features of the frozen prefix, for each image and view: computed once and kept.

An image gives the same numbers in every batch: a partial batch is padded, because kernels are
chosen by its size (in fp32 on a CPU, the last bits differ). So features that were computed in one
pass can be used in another.
"""

import functools
import itertools
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from xception_cli.console import say, screen, show
from xception_cli.data.dataset import KeyedBatches
from xception_cli.data.images import DECODER
from xception_cli.data.inputs import ImageInputs
from xception_cli.entries import read_entries
from xception_cli.errors import ArtifactError, MachineError
from xception_cli.files import write_durably
from xception_cli.model.feature_cache import KeptView
from xception_cli.model.feature_inputs import FeatureInputs, FeatureStore
from xception_cli.model.layers import POOLED, fill_rows, pool_layers, run_layers
from xception_cli.model.network import STEPS, Segment, build_network, last_frozen
from xception_cli.model.seal import check_entries, seal_entries
from xception_cli.regular import NEW, open_regular
from xception_cli.rundir import read_json

# Seconds between commits, which wait for the disk twice. A kill loses about this much work.
_BETWEEN_COMMITS = 5.0

Array = np.ndarray[Any, Any]


class _Note(TypedDict):
    images: int
    sums: list[int]


@torch.inference_mode()
def compute_pooled(
    network: Segment,
    inputs: ImageInputs | FeatureInputs,
    what: str,
    kept: KeptView | None = None,
) -> Array:
    """Compute the pooled features of all images, or load them from the cache.

    Args:
        network: A segment up to `conv4`, in eval mode: from `conv1` for images, from the cut for
            stored activations.
        inputs: The images in order, with the evaluation transform.
        what: Label of the progress bar.
        kept: These images in the cache.

    Returns:
        `(images, POOLED)`, float32.
    """
    batches, processes = inputs.batches, inputs.runtime.processes
    pooled = np.zeros((batches.count, POOLED), dtype=np.float32)
    with screen.bar(what, len(pooled)) as bar:
        batches.chosen = _load_kept(kept, {None: pooled}, batches, bar.advance)
        pooled[batches.chosen] = 0  # some are loaded, too, and the sum below would count them twice
        for batch in inputs if batches.chosen else ():
            with inputs.runtime.autocast():
                found = pool_layers(run_layers(network, fill_rows(batch.values, batches.rows)))
            indices = batch.indices.numpy()
            pooled[indices] = found[: len(indices)].cpu().numpy()
            _keep(kept, {None: pooled}, indices)
            bar.advance(len(indices) * processes.count)
            processes.wait()  # keeps the processes together
    # Rows of other processes are 0 here.
    return processes.total(torch.from_numpy(pooled)).numpy()


@torch.inference_mode()
def compute_store(
    folder: Path,
    name: str,
    prefix: Segment,
    rest: Segment,
    inputs: Sequence[ImageInputs],
    another: Callable[[Array, int], bool] = lambda pooled, computed: True,
    kept: Sequence[KeptView] = (),
) -> tuple[FeatureStore, Array]:
    """Compute, or resume computing, the prefix's activations and the pooled features of all views.

    A durable note commits the rows every few seconds, so that a killed run resumes there; its
    checksums show whether the rows are intact. With several processes, each writes its part of a
    batch into the same file.

    Args:
        folder: Folder of the store.
        name: Name of the store in it, `train` or `val`.
        prefix: The frozen part, in eval mode.
        rest: From the cut to `conv4`, in eval mode.
        inputs: The images in order, once for each view.
        another: Called before each further view with the pooled features so far, `(views, images,
            POOLED)`, and the number of images computed; returns whether to compute it.
        kept: The same views in the cache, to be copied from and to; if empty, all are computed.

    Returns:
        The store, and the pooled features `(views, images, POOLED)`, float32.

    Raises:
        MachineError: The disk is too small; the error gives the size needed.
        DataError: An image has disappeared.
    """
    views, count = len(inputs), inputs[0].batches.count
    runtime, last = inputs[0].runtime, prefix.steps[-1]
    shape = row_shape(inputs[0].preprocessing.image_size, last)
    note = folder / f"{name}-{DECODER}.json"  # rows of another decoder are not used
    processes = runtime.processes
    if not processes.leads:  # the leader creates the files
        processes.wait()
    rows = _open_map(folder / f"{name}.bin", note, np.uint16, (count * views, *shape))
    pooled = _open_map(folder / f"{name}.pooled", note, np.float32, (count * views, POOLED))
    if processes.leads:
        processes.wait()
    done, sums = processes.once(lambda: _read_note(note, (rows, pooled), count))
    computed = 0

    summed, committed = done, time.monotonic()

    def is_due() -> bool:  # in any process
        return processes.largest(time.monotonic() - committed >= _BETWEEN_COMMITS) > 0

    def commit(first: int, done: int) -> None:
        nonlocal summed, committed
        rows.flush()
        pooled.flush()
        processes.wait()
        if processes.leads:
            _add_sum(sums, (rows, pooled), first, summed, done)
            content = seal_entries({"images": done, "sums": sums})
            write_durably(note, json.dumps(content).encode())
        summed, committed = done, time.monotonic()

    def so_far(views: int) -> Array:
        return np.array(pooled[: views * count]).reshape(views, count, POOLED)

    with screen.bar(f"computing features ({name})", count * views) as bar:
        bar.advance(min(done, count * views))
        for view in range(done // count, views):
            if view > 0 and not another(so_far(view), computed):
                views = view
                break
            images, batches = inputs[view], inputs[view].batches
            first, cached = view * count, kept[view] if kept else None
            parts: dict[str | None, Array] = {None: pooled[first:], last: rows[first:]}
            batches.epoch = view
            begin = max(0, done - first)
            batches.chosen = missing = _load_kept(cached, parts, batches, bar.advance, begin)
            for number, batch in enumerate(images if missing else (), start=1):
                indices = batch.indices.numpy()
                with runtime.autocast():
                    activations = prefix(fill_rows(batch.values, batches.rows))
                    found = pool_layers(run_layers(rest, activations))
                parts[None][indices] = found[: len(indices)].cpu().numpy()
                parts[last][indices] = _to_bits(activations[: len(indices)])
                _keep(cached, parts, indices)
                computed += len(indices) * processes.count
                # Commit all before the first image that is still missing.
                left = missing[number * batches.batch_size :]
                if left and is_due():
                    commit(first, first + left[0])
                bar.advance(len(indices) * processes.count)
            done = first + count
            commit(first, done)
    return FeatureStore(rows[: views * count], count, views), so_far(views)


def _load_kept(
    kept: KeptView | None,
    parts: Mapping[str | None, Array],
    batches: KeyedBatches,
    advance: Callable[[int], None],
    begin: int = 0,
) -> list[int]:
    """Load cached features in the leader; return the images to compute, in every process.

    Args:
        kept: The images in the cache.
        parts: Output: activations by image, by the step that they come after; None for pooled
            features.
        batches: Batches of the images, in order.
        advance: Called with 1 for each cached image.
        begin: The first image to load.

    Returns:
        The images that the cache lacks, in order.
    """
    least = batches.processes.count

    def load_all() -> list[int]:
        missing = []
        for index in range(begin, batches.count):
            if kept and all(kept.load(index, rows[index], step) for step, rows in parts.items()):
                advance(1)
            else:
                missing.append(index)
        if 0 < len(missing) < least:  # each process needs one
            others = (index for index in range(batches.count) if index not in missing)
            missing += itertools.islice(others, least - len(missing))
        return sorted(missing)

    return batches.processes.once(load_all)


def _keep(kept: KeptView | None, parts: Mapping[str | None, Array], indices: Array) -> None:
    for index in indices:
        # A number that is not finite may be a failure of the machine: it is not kept.
        if kept is not None and np.isfinite(parts[None][index]).all():
            for step, rows in parts.items():
                kept.keep(index, rows[index], step)


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


def _add_sum(sums: list[int], arrays: Sequence[Array], begin: int, before: int, done: int) -> None:
    """Add rows to the checksum of their view, which begins at `begin`."""
    so_far = sums.pop() if before > begin else 0
    sums.append(_sum_rows(arrays, before, done, so_far))


def _sum_rows(arrays: Sequence[Array], begin: int, end: int, so_far: int = 0) -> int:
    """Continue the CRC-32 of rows; at 4 GB/s, this takes 0.2% of the time to compute them."""
    for at in range(begin, end):
        for array in arrays:
            so_far = zlib.crc32(array[at], so_far)
    return so_far


def _to_bits(activations: torch.Tensor) -> Array:
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
