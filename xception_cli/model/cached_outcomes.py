"""Outcomes of images whose features are cached, computed without decoding the images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from xception_cli.model.bundle import Array, ModelBundle, Outcome
from xception_cli.model.feature_cache import KeptView, kept_view, open_feature_cache
from xception_cli.model.layers import POOLED, classify_views, last_layer, without_layers_head
from xception_cli.model.tensors import tensor_digest

PROBE = "probe"  # in a model's provenance: the value of `trained` if only the head was trained


@dataclass(frozen=True)
class CachedOutcomes:
    """Outcomes of some images, as far as their features are in the cache; see `open_outcomes`.

    Attributes:
        bundle: The model.
        views: The images in the cache; and their mirror images, if the model averages over both.
    """

    bundle: ModelBundle
    views: Sequence[KeptView]

    @torch.inference_mode()
    def load(self) -> dict[int, Outcome]:
        """Compute the outcomes of cached images, by index.

        They equal those of `ModelBundle.outcomes` with full batches.
        """
        rows: list[Array] = []
        found: list[int] = []
        for index, digest in enumerate(self.views[0].digests if self.views else ()):
            row = np.empty((len(self.views), POOLED), np.float32)
            if digest and all(view.load(index, row[at]) for at, view in enumerate(self.views)):
                rows.append(row)
                found.append(index)
        if not found:
            return {}
        pooled = torch.from_numpy(np.stack(rows, axis=1))
        runtime, mirror = self.bundle.runtime, self.bundle.preprocessing.mirror
        outcomes: list[Outcome] = []
        # In the same batches as images: the last bits of a result may depend on their size.
        for batch in pooled.split(runtime.inference_batch, dim=1):
            moved = runtime.to_device(batch)
            logits = classify_views(self.bundle.network, moved, mirror=mirror).cpu().numpy()
            outcomes += map(Outcome, logits, last_layer(batch[0].numpy()))
        return dict(zip(found, outcomes, strict=True))

    def keep(self, index: int, outcome: Outcome) -> None:
        """Keep the features of an image, if its outcome was computed from the image."""
        # A number that is not finite may be a failure of the machine: it is not kept.
        if outcome.pooled is None or not np.isfinite(outcome.pooled).all():
            return
        for view, row in zip(self.views, outcome.pooled, strict=False):
            if view.digests[index]:
                view.keep(index, row)


def open_outcomes(bundle: ModelBundle, digests: Sequence[str]) -> CachedOutcomes | None:
    """Open the outcomes of images in the cache of features, if only the model's head was trained.

    Its features are those of the pretrained network, which trainings, checks and evaluations share.

    Args:
        bundle: The model.
        digests: Of the images' current contents; empty if unknown.

    Returns:
        The outcomes; None for a model of which more than the head was trained.
    """
    if bundle.about.provenance.get("trained") != PROBE:
        return None
    cache, mirror = open_feature_cache(), bundle.preprocessing.mirror
    if not cache.keeps:
        return CachedOutcomes(bundle, ())
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
    return CachedOutcomes(bundle, views)
