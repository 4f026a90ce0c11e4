"""NetworkSummary: the network layer by layer, counted: shapes, parameters, multiplications."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from xception_cli.config import TrainConfig
from xception_cli.console import show
from xception_cli.errors import ArtifactError
from xception_cli.model.layers import LAYERS_HEAD, POOLED
from xception_cli.model.network import FIRST_TRAINED, STEPS, build_network
from xception_cli.model.reference import SeparableConv2d
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings
from xception_cli.summary.trace import Call, trace

IMAGENET_CLASSES = 1000

# The paper's flows begin where the network can be cut. The head is part of the paper's exit flow;
# here it is separate, because it is replaced and trained separately.
FLOWS = dict(
    zip(("entry flow", "middle flow", "exit flow", "head"), FIRST_TRAINED.values(), strict=True)
)

_KINDS = {nn.Conv2d: "convolution", nn.MaxPool2d: "pooling", nn.Linear: "linear"}


@dataclass(frozen=True)
class Separable:
    """The cost of a separable convolution, and of the regular convolution that it replaces.

    Attributes:
        channels: Channels of the input, C.
        kernels: Kernels of the pointwise part, N: the channels of the output.
        kernel: Side of the depthwise part's kernels, K.
        side: Side of the output, G.
        depthwise: Multiplications of the depthwise part, K²·C·G².
        pointwise: Multiplications of the pointwise part, C·G²·N.
        regular: Multiplications of the regular convolution, K²·C·G²·N.
        reduction: The fraction of them that remains, 1/N + 1/K².
    """

    channels: int
    kernels: int
    kernel: int
    side: int
    depthwise: int
    pointwise: int
    regular: int
    reduction: float


@dataclass(frozen=True)
class Layer:
    """A convolution, a pooling or the linear layer.

    Attributes:
        name: Name in the state dict.
        flow: A key of `FLOWS`.
        kind: `convolution`, `separable`, `pooling` or `linear`.
        kernel: Side of its kernels, K; 1 for the linear layer.
        stride: Stride of the kernel.
        output: `(channels, height, width)`, or `(classes,)`.
        parameters: Its parameters, including those of the batch norm after it, 2 per channel.
        multiplications: Multiplications for one image; see `Call.multiplications`.
        relu: `before` it, as in the blocks; `after` its batch norm, as outside them; None without.
        separable: The costs of its parts, if it is separable.
        trained: Whether the run trains it; None without a run.
    """

    name: str
    flow: str
    kind: str
    kernel: int
    stride: int
    output: tuple[int, ...]
    parameters: int
    multiplications: int
    relu: str | None = None
    separable: Separable | None = None
    trained: bool | None = None

    @property
    def regular(self) -> int:
        """Multiplications if a separable convolution were a regular one."""
        return self.separable.regular if self.separable else self.multiplications


@dataclass(frozen=True)
class Total:
    """Sums over a flow, or over the network."""

    name: str
    parameters: int
    multiplications: int
    regular: int
    trained: bool | None


@dataclass(frozen=True)
class NetworkSummary:
    """The layers of a network, with their costs.

    Attributes:
        size: Side of the images, in pixels.
        classes: Number of outputs of the head.
        unfreeze: What the run trains; None without a run.
        layers: In the order of the forward pass; a skip's convolution follows what it skips.
    """

    size: int
    classes: int
    unfreeze: str | None
    layers: tuple[Layer, ...]

    @property
    def flows(self) -> tuple[Total, ...]:
        """Sums over each flow."""
        return tuple(_total(f, [x for x in self.layers if x.flow == f]) for f in FLOWS)

    @property
    def total(self) -> Total:
        """Sums over the network."""
        return replace(_total("network", self.layers), trained=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self) | {
            "flows": [asdict(total) for total in self.flows],
            "total": asdict(self.total),
        }


def _total(name: str, layers: Sequence[Layer]) -> Total:
    return Total(
        name,
        sum(layer.parameters for layer in layers),
        sum(layer.multiplications for layer in layers),
        sum(layer.regular for layer in layers),
        layers[0].trained,  # a flow is frozen as a whole
    )


def summarize_network(
    classes: int = IMAGENET_CLASSES,
    *,
    size: int = TrainConfig.image_size,
    unfreeze: str | None = None,
) -> NetworkSummary:
    """Count the real network on the meta device, which needs no memory and almost no time.

    Args:
        classes: Number of outputs of the head.
        size: Side of the images, in pixels.
        unfreeze: What is trained, a key of `FIRST_TRAINED`; None without a run.
    """
    first = None if unfreeze is None else STEPS.index(FIRST_TRAINED[unfreeze])
    kinds = (*_KINDS, nn.BatchNorm2d, nn.ReLU, SeparableConv2d)
    layers: list[Layer] = []
    relu = None  # of the next layer
    with torch.device("meta"):
        network = build_network(classes).eval()
        for call in trace(network, (3, size, size), kinds):
            if isinstance(call.module, nn.BatchNorm2d):
                norm = layers.pop()
                layers.append(replace(norm, parameters=norm.parameters + call.parameters))
            elif isinstance(call.module, nn.ReLU):
                if step_of(call.name) in STEPS:  # it belongs to a block
                    relu = "before"
                else:
                    layers.append(replace(layers.pop(), relu="after"))
            elif isinstance(call.module, SeparableConv2d):
                pointwise, depthwise = layers.pop(), layers.pop()  # its parts end before it
                layers.append(_separable(call, depthwise, pointwise))
            else:
                layers.append(replace(_layer(call), relu=relu))
                relu = None
    if first is not None:
        layers = [replace(x, trained=STEPS.index(step_of(x.name)) >= first) for x in layers]
    return NetworkSummary(size, classes, unfreeze, tuple(layers))


def summarize_run(run: RunDir, *, size: int | None = None) -> NetworkSummary:
    """Count the network of a run, and mark what it trains.

    Args:
        run: From `find_run`.
        size: Side of the images, instead of the run's own.

    Raises:
        ArtifactError: Its settings cannot be read, or are not those of `xception train`.
    """
    config = TrainConfig(**read_settings(run))
    classes = run.read_info().classes
    if config.unfreeze not in FIRST_TRAINED:
        raise ArtifactError(
            f"{show(run.path)} does not record what it trains: unfreeze is {config.unfreeze}",
            hint="restore its config.toml: xception train replaced each `auto` in it",
        )
    if size is not None:
        config = config.replace(image_size=size)
    summary = summarize_network(len(classes), size=config.image_size, unfreeze=config.unfreeze)
    if config.weights == "none":
        return summary
    return replace(summary, layers=(*summary.layers, _layers_head(len(classes))))


def _layers_head(classes: int) -> Layer:
    """Count the head on several layers, which training from pretrained weights adds."""
    weights = POOLED * classes
    return Layer(
        LAYERS_HEAD, "head", "linear", 1, 1, (classes,), weights + classes, weights, trained=True
    )


def step_of(name: str) -> str:
    """Return the step of the network that a module is in, one of `STEPS`."""
    step = name.split(".")[0]
    return "head" if step == "last_linear" else step


def flow_of(step: str) -> str:
    """Return the flow that a step is in, a key of `FLOWS`."""
    at = STEPS.index(step)
    return [flow for flow, first in FLOWS.items() if STEPS.index(first) <= at][-1]


def _layer(call: Call) -> Layer:
    module = call.module
    return Layer(
        name=call.name,
        flow=flow_of(step_of(call.name)),
        kind=_KINDS[type(module)],
        kernel=_side(getattr(module, "kernel_size", 1)),
        stride=_side(getattr(module, "stride", 1)),
        output=call.output,
        parameters=call.parameters,
        multiplications=call.multiplications,
    )


def _side(size: int | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]


def _separable(call: Call, depthwise: Layer, pointwise: Layer) -> Layer:
    channels, kernels, side = depthwise.output[0], *call.output[:2]
    regular = Call(call.name, nn.Conv2d(channels, kernels, depthwise.kernel), call.output)
    multiplications = depthwise.multiplications + pointwise.multiplications
    return replace(
        depthwise,
        name=call.name,
        kind="separable",
        output=call.output,
        parameters=call.parameters,
        multiplications=multiplications,
        separable=Separable(
            channels=channels,
            kernels=kernels,
            kernel=depthwise.kernel,
            side=side,
            depthwise=depthwise.multiplications,
            pointwise=pointwise.multiplications,
            regular=regular.multiplications,
            reduction=multiplications / regular.multiplications,
        ),
    )
