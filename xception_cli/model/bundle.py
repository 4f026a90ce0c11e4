"""ModelBundle, and the model file that holds one: weights, classes, pixels, provenance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from xception_cli.console import show
from xception_cli.data.opening import turns
from xception_cli.data.transforms import Preprocessing, Transform
from xception_cli.errors import ArtifactError, DivergedError, UsageError
from xception_cli.files import is_file, write_durably
from xception_cli.model.about import LAYERED, SCHEMA, About, check_origin
from xception_cli.model.folding import for_inference
from xception_cli.model.layers import (
    LAYERS_HEAD,
    add_layers_head,
    classify_views,
    last_layer,
    layers_head,
    pool_layers,
    run_layers,
)
from xception_cli.model.network import Segment, backbone_of, build_network
from xception_cli.model.seal import note_unsealed, seal
from xception_cli.model.tensors import check_tensors, read_safetensors
from xception_cli.model.unknown import Thresholds
from xception_cli.runtime import Runtime
from xception_cli.suggestions import expect_choice

_METADATA_KEY = "xception"
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """What a model computes from one image, before a temperature or a threshold is applied.

    Attributes:
        logits: `(classes,)`.
        features: `(2048,)`, the pooled last layer; None from an exported file.
        distance: Distance from the training images, if the model computes it itself, as an exported
            file does; else None: `Classifier.distances` computes it from the features.
        pooled: `(views, POOLED)`, the pooled features of all layers, if they were just computed.
    """

    logits: Array
    features: Array | None = None
    distance: float | None = None
    pooled: Array | None = None


class Classifier(Protocol):
    """A model that classifies images: our own in PyTorch, or an exported file."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""

    @property
    def about(self) -> "About":
        """The content of its file, without the weights."""

    @property
    def runtime(self) -> Runtime:
        """Where it is computed."""

    @property
    def least_side(self) -> int | None:
        """Pixels that the shorter side must keep when an image is decoded; see `images.decode`."""

    @property
    def side(self) -> int | None:
        """Side of all its inputs, in pixels; None if it takes images whole, one per batch."""

    def transform(self) -> Transform:
        """Return the transform from an image to its pixels: uint8, `(3, height, width)`."""

    @property
    def thresholds(self) -> Thresholds | None:
        """The thresholds of `unknown`; None if it was never calibrated."""

    def outcomes(self, pixels: torch.Tensor) -> list[Outcome]:
        """Compute the outcome of each image of a batch."""

    def distances(self, outcomes: Sequence[Outcome]) -> list[float]:
        """Return the distance of each image from the training images; requires `thresholds`."""

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of logits, `(batch, classes)`."""

    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute `(batch, classes)` probabilities, float32, on the CPU."""


@dataclass(frozen=True)
class ModelBundle:
    """A trained network with all that is needed to use it.

    Attributes:
        network: pretrainedmodels' Xception on its device, in eval mode. Its inference copy is made
            at the first use, so later changes of the weights have no effect.
        about: The content of its file, without the weights.
        runtime: Where it is computed.
    """

    network: nn.Module
    about: About
    runtime: Runtime

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.about.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the network's input."""
        return self.about.preprocessing

    @property
    def thresholds(self) -> Thresholds | None:
        """The thresholds of `unknown`; None if it was never calibrated."""
        return None if self.about.unknown is None else self.about.unknown.thresholds

    @property
    def least_side(self) -> int:
        """See `Preprocessing`."""
        return self.preprocessing.least_side

    @property
    def side(self) -> int:
        """Side of its inputs, in pixels."""
        return self.preprocessing.image_size

    def with_tta(self, tta: str | None) -> "ModelBundle":
        """Return the model with the given test-time augmentation.

        Args:
            tta: `mirror` or `none`; None: as decided in training.

        Raises:
            UsageError: `tta` is something else.
        """
        if tta is None:
            return self
        expect_choice("tta", tta, ("mirror", "none"))
        preprocessing = replace(self.preprocessing, mirror=tta == "mirror")
        return replace(self, about=replace(self.about, preprocessing=preprocessing))

    def transform(self) -> Transform:
        """Return the evaluation transform, whose result `outputs` takes."""
        return self.preprocessing.evaluation_transform()

    @torch.inference_mode()
    def outputs(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits, and the pooled features of each view, the image and its mirror image.

        Args:
            pixels: `(batch, 3, image_size, image_size)`, uint8, from `preprocessing`.

        Returns:
            `(batch, classes)`, without temperature, and `(views, batch, POOLED)`; float32, on CPU.
        """
        views = [pixels, pixels.flip(-1)] if self.preprocessing.mirror else [pixels]
        pooled = torch.stack([pool_layers(self._layers(view)) for view in views])
        logits = classify_views(self.network, pooled, mirror=self.preprocessing.mirror)
        return logits.cpu(), pooled.cpu()

    def outcomes(self, pixels: torch.Tensor) -> list[Outcome]:
        """Compute the outcome of each image of a batch; see `outputs`."""
        logits, pooled = (rows.numpy() for rows in self.outputs(pixels))
        pairs = zip(logits, pooled.swapaxes(0, 1), strict=True)
        return [Outcome(row, last_layer(views[0]).copy(), pooled=views) for row, views in pairs]

    def distances(self, outcomes: Sequence[Outcome]) -> list[float]:
        """Return the distance of each image from the training images, by its features.

        Raises:
            ValueError: The model was never calibrated, or an outcome is from an exported file.
        """
        known = [outcome.features for outcome in outcomes if outcome.features is not None]
        if self.about.unknown is None or len(known) < len(outcomes):
            raise ValueError("there is nothing to measure a distance from")
        found: list[float] = self.about.unknown.reference.distances(np.stack(known)).tolist()
        return found

    @torch.inference_mode()
    def activations(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the activations that the head averages, `(batch, channels, h, w)` by layer."""
        return {layer: values.float().cpu() for layer, values in self._layers(pixels)}

    def _layers(self, pixels: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        inputs = self.preprocessing.normalize(self.runtime.to_device(pixels))
        inputs = inputs.contiguous(memory_format=self.runtime.memory_format)
        with self.runtime.autocast():
            return list(run_layers(self._backbone, inputs))

    @cached_property
    def _backbone(self) -> Segment:
        return backbone_of(for_inference(self.network, self.runtime))

    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute class probabilities, calibrated by the temperature; see `outputs`."""
        return self.calibrated(self.outputs(pixels)[0])

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of logits, `(batch, classes)`."""
        return torch.softmax(logits / self.about.temperature, dim=1)


def save_model(path: Path, state: Mapping[str, torch.Tensor], about: About) -> None:
    """Write a model file: safetensors with a digest, all else as one JSON string in its metadata.

    Args:
        path: The file.
        state: State dict of the whole network; keys as in `pretrainedmodels.xception`, and those
            of a head on several layers.
        about: Everything else; its provenance is plain data.

    Raises:
        DivergedError: A weight is not finite.
        ArtifactError: The tensors do not fit the network or the classes.
        MachineError: The disk is full or read-only.
    """
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise DivergedError("the trained weights are not finite; the model file is unchanged")
    network = _empty_network(len(about.classes), state)
    tensors = check_tensors(state, _shapes(network), "the trained network")
    metadata = {_METADATA_KEY: json.dumps(about.to_dict(format_of(network)))}
    write_durably(path, seal(save(tensors, metadata=metadata)))


def load_model(path: Path, runtime: Runtime) -> ModelBundle:
    """Read a model file; nothing else is needed, and nothing in it is executed.

    Args:
        path: A `model.safetensors` of ours.
        runtime: Where to compute; the precision of its training is used if possible.

    Raises:
        UsageError: The file does not exist.
        ArtifactError: It is damaged, foreign, too new, of another run, or its tensors do not fit.
    """
    if not is_file(path):
        raise UsageError(f"there is no model file {show(path)}", hint="xception train makes one")
    tensors, metadata = read_safetensors(path)
    about = About.from_dict(_read_metadata(path, metadata), path)
    note_unsealed(metadata, path)
    check_origin(path, about.provenance)
    # Checked before memory is allocated: a header of 1 MB can name 100,000 classes.
    network = _empty_network(len(about.classes), tensors)
    network.load_state_dict(check_tensors(tensors, _shapes(network), show(path)), assign=True)
    # The precision of its own evaluation, so that a later one agrees.
    runtime = runtime.preferring(about.provenance.get("precision"))
    turns.allow(about.preprocessing.max_pixels)
    return ModelBundle(runtime.place(network).eval(), about, runtime)


def format_of(network: nn.Module) -> int:
    """Return the version of the format that a model needs."""
    return SCHEMA if layers_head(network) is None else LAYERED


def _empty_network(class_count: int, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return the network that a state dict belongs to, without numbers."""
    with torch.device("meta"):  # no memory, and no random initialization to overwrite
        network = build_network(class_count)
        if f"{LAYERS_HEAD}.weight" in state:
            add_layers_head(network, class_count)
        return network


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _read_metadata(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        about = json.loads(metadata[_METADATA_KEY])
        about["schema"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{show(path)} is a safetensors file, but not a model of xception",
            hint="plain weights go to xception train --weights FILE",
        ) from error
    return dict(about)
