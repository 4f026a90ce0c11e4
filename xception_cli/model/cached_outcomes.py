"""Outcomes of images whose features are cached, computed without decoding the images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from xception_cli.model.bundle import Array, ModelBundle, Outcome
from xception_cli.model.feature_cache import kept_view, open_feature_cache
from xception_cli.model.layers import POOLED, classify_views, last_layer, without_layers_head
from xception_cli.model.tensors import tensor_digest


@torch.inference_mode()
def cached_outcomes(bundle: ModelBundle, digests: Sequence[str]) -> dict[int, Outcome]:
    """Compute the outcomes of images whose features a training or a check has cached.

    There are some only if the model's backbone is the pretrained one, bit for bit: if only the head
    was trained. They equal those of `ModelBundle.outcomes` with full batches.

    Args:
        bundle: The model.
        digests: Of the images' current contents; empty if unknown.

    Returns:
        The outcomes by index, without those of uncached images.
    """
    cache, mirror = open_feature_cache(), bundle.preprocessing.mirror
    if not cache.keeps:
        return {}
    weights = tensor_digest(without_layers_head(bundle.network.state_dict()))
    views = [
        kept_view(
            cache,
            weights=weights,
            runtime=bundle.runtime,
            preprocessing=replace(bundle.preprocessing, mirror=False),  # as when they were cached
            view=view,
            digests=digests,
        )
        for view in ("centre", "mirrored")[: 1 + mirror]
    ]
    rows: list[Array] = []
    found: list[int] = []
    for index, digest in enumerate(digests):
        row = np.empty((len(views), POOLED), np.float32)
        if digest and all(view.load(index, row[at]) for at, view in enumerate(views)):
            rows.append(row)
            found.append(index)
    if not found:
        return {}
    pooled = np.stack(rows, axis=1)
    outcomes: list[Outcome] = []
    # In the same batches as images: the last bits of a result may depend on their size.
    for batch in torch.from_numpy(pooled).split(bundle.runtime.inference_batch, dim=1):
        moved = bundle.runtime.to_device(batch)
        logits = classify_views(bundle.network, moved, mirror=mirror).cpu().numpy()
        outcomes += map(Outcome, logits, last_layer(batch[0].numpy()))
    return dict(zip(found, outcomes, strict=True))
