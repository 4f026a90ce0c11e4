"""The pooled features of several layers, and the head that classifies them.

The last convolution does not always separate two classes best: for textures, cells or defects,
earlier layers are better. So the linear probe sees the last four steps of the network, each
averaged over its positions and scaled to length 1 (the idea of Head2Toe, Evci et al. 2022).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from xception_cli.model.network import FEATURES, STEPS, Segment, pool

# Steps whose outputs are pooled, with their channels; the last one is what `last_linear` sees.
LAYERS = {"block11": 728, "block12": 1024, "conv3": 1536, "conv4": FEATURES}
POOLED = sum(LAYERS.values())

LAYERS_HEAD = "layers_head"  # name of the submodule

Array = NDArray[Any]
Features = TypeVar("Features", torch.Tensor, NDArray[Any])


class LayersHead(nn.Linear):
    """A linear layer on the pooled features of all `LAYERS`, each scaled to length 1."""

    def __init__(self, class_count: int) -> None:
        super().__init__(POOLED, class_count)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Compute logits `(batch, classes)` of `(batch, POOLED)` features, float32."""
        with torch.autocast(pooled.device.type, enabled=False):
            parts = pooled.float().split(list(LAYERS.values()), dim=1)
            unit = [functional.normalize(part, dim=1) for part in parts]
            return super().forward(torch.cat(unit, dim=1))


def add_layers_head(network: nn.Module, class_count: int) -> LayersHead:
    """Add a head on several layers to a network, and return it.

    `last_linear` is unchanged, so the network without the new head is a plain Xception.
    """
    head = LayersHead(class_count).to(network.get_parameter("last_linear.weight").device)
    network.add_module(LAYERS_HEAD, head)
    return head


def fill_heads(
    network: nn.Module,
    last: tuple[torch.Tensor, torch.Tensor],
    layered: tuple[torch.Tensor, torch.Tensor],
) -> LayersHead:
    """Set the weights and biases of `last_linear` and of a new head on several layers.

    Args:
        network: From `build_network`.
        last: `(classes, 2048)` and `(classes,)`.
        layered: `(classes, POOLED)` and `(classes,)`.
    """
    added = add_layers_head(network, len(layered[1]))
    for head, (weight, bias) in ((network.get_submodule("last_linear"), last), (added, layered)):
        head.load_state_dict({"weight": weight, "bias": bias})
    return added


def layers_head(network: nn.Module) -> LayersHead | None:
    """Return a network's head on several layers; None for a plain Xception."""
    head = getattr(network, LAYERS_HEAD, None)
    return head if isinstance(head, LayersHead) else None


def run_layers(segment: Segment, activations: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Run a segment that ends with `conv4`.

    Args:
        segment: In eval mode; begins after `block11` at the latest.
        activations: Its input, `(batch, channels, height, width)`.

    Yields:
        Each of `LAYERS` in order, and its activations.
    """
    before = STEPS[STEPS.index(segment.steps[0]) - 1]
    if before in LAYERS:
        yield before, activations
    for step in segment.steps:
        activations = segment.step(step, activations)
        if step in LAYERS:
            yield step, activations


def fill_rows(batch: torch.Tensor, rows: int) -> torch.Tensor:
    """Pad a batch with zeros to a number of rows, in its memory format.

    Kernels are chosen by the size of a batch (in fp32 on a CPU, the last bits differ).
    """
    if len(batch) >= rows:
        return batch
    filled = batch.new_zeros((rows, *batch.shape[1:]))
    if batch.is_contiguous(memory_format=torch.channels_last):
        filled = filled.contiguous(memory_format=torch.channels_last)
    filled[: len(batch)] = batch
    return filled


def pool_layers(layers: Iterable[tuple[str, torch.Tensor]]) -> torch.Tensor:
    """Average the activations of `run_layers` over the positions: `(batch, POOLED)`, float32."""
    return torch.cat([pool(activations) for _, activations in layers], dim=1)


def classify_pooled(network: nn.Module, pooled: torch.Tensor) -> torch.Tensor:
    """Compute logits `(batch, classes)` from pooled features with the network's head.

    Args:
        network: A plain Xception, or one with a head on several layers.
        pooled: `(batch, POOLED)`, from `pool_layers`.
    """
    head = layers_head(network)
    if head is not None:
        return head(pooled)  # type: ignore[no-any-return]
    with torch.autocast(pooled.device.type, enabled=False):
        logits: torch.Tensor = network.get_submodule("last_linear")(last_layer(pooled).float())
    return logits


def classify_views(network: nn.Module, views: torch.Tensor, *, mirror: bool) -> torch.Tensor:
    """Compute logits `(images, classes)` from the pooled features of several views of each image.

    Args:
        network: See `classify_pooled`.
        views: `(views, images, POOLED)`, the evaluation crop first, then its mirror image.
        mirror: Average over these two, as `ModelBundle.outputs` does.
    """
    return torch.stack([classify_pooled(network, view) for view in views[: 1 + mirror]]).mean(dim=0)


def layer_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of the network's head by the layer that they act on.

    Returns:
        `(classes, channels)` each; for a plain Xception, those of `conv4` alone.
    """
    head = layers_head(network)
    if head is None:
        return {"conv4": network.get_parameter("last_linear.weight")}
    return dict(zip(LAYERS, head.weight.split(list(LAYERS.values()), dim=1), strict=True))


def last_layer(pooled: Features) -> Features:
    """Return the part that `last_linear` sees: `(..., POOLED)` to `(..., 2048)`."""
    part: Features = pooled[..., POOLED - FEATURES :]
    return part


def scale_layers(pooled: Array) -> Array:
    """Scale each layer's part of `(..., POOLED)` features to length 1, as `LayersHead` does."""
    ends = np.cumsum(list(LAYERS.values()))[:-1]
    parts = np.split(pooled, ends, axis=-1)
    norms = [np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-12) for part in parts]
    return np.concatenate([part / norm for part, norm in zip(parts, norms, strict=True)], axis=-1)


def without_layers_head(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the state dict of a plain Xception."""
    return {name: t for name, t in state.items() if not name.startswith(f"{LAYERS_HEAD}.")}
