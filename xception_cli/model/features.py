"""Features of the frozen prefix, for each image and view: computed once and kept.

An image gives the same numbers in every batch: a partial batch is padded, because kernels are
chosen by its size (in fp32 on a CPU, the last bits differ). So features that were computed in one
pass can be used in another.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xception_cli.console import screen
from xception_cli.data.dataset import KeyedBatches
from xception_cli.data.inputs import ImageInputs
from xception_cli.model.feature_cache import KeptView
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.feature_store import FeatureStore, StoreWriter, row_shape, to_bits
from xception_cli.model.layers import POOLED, fill_rows, pool_layers, run_layers
from xception_cli.model.network import Segment

Array = np.ndarray[Any, Any]


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
    shape = row_shape(inputs[0].preprocessing.image_size, prefix.steps[-1])
    processes = inputs[0].runtime.processes
    writer = StoreWriter(folder, name, shape, views=views, count=count, processes=processes)
    computed = 0
    with screen.bar(f"computing features ({name})", count * views) as bar:
        bar.advance(min(writer.done, count * views))
        for view in range(writer.done // count, views):
            if view > 0 and not another(writer.pooled_of(view), computed):
                views = view
                break
            cached = kept[view] if kept else None
            computed += _fill_view(writer, view, prefix, rest, inputs[view], cached, bar.advance)
    return writer.store_of(views), writer.pooled_of(views)


def _fill_view(
    writer: StoreWriter,
    view: int,
    prefix: Segment,
    rest: Segment,
    images: ImageInputs,
    kept: KeptView | None,
    advance: Callable[[int], None],
) -> int:
    """Load or compute the rows of a view that are not committed; return the number computed."""
    batches, runtime, last = images.batches, images.runtime, prefix.steps[-1]
    first = view * batches.count
    parts: dict[str | None, Array] = {None: writer.pooled[first:], last: writer.rows[first:]}
    batches.epoch = view
    begin = max(0, writer.done - first)
    batches.chosen = missing = _load_kept(kept, parts, batches, advance, begin)
    for number, batch in enumerate(images if missing else (), start=1):
        indices = batch.indices.numpy()
        with runtime.autocast():
            activations = prefix(fill_rows(batch.values, batches.rows))
            found = pool_layers(run_layers(rest, activations))
        parts[None][indices] = found[: len(indices)].cpu().numpy()
        parts[last][indices] = to_bits(activations[: len(indices)])
        _keep(kept, parts, indices)
        # Commit all before the first image that is still missing.
        if left := missing[number * batches.batch_size :]:
            writer.commit_if_due(first + left[0])
        advance(len(indices) * runtime.processes.count)
    writer.commit(first + batches.count)
    return len(missing)


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
