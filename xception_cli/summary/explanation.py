"""Why separable convolutions are inexpensive: the derivation, counted on real modules."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from torch import nn

from xception_cli.console import new_table
from xception_cli.summary.count import Separable, summarize_network
from xception_cli.summary.trace import trace

# The convolution


class SeparableConv2d(nn.Module):
    """A convolution in two parts: in space within each channel, then across the channels.

    The depthwise part has separate kernels for every input channel; the pointwise part mixes its
    output with N kernels of 1 x 1. There is no activation between them: Chollet measured (2016,
    section 4.7) that one makes Xception worse. The idea is Sifre's (2014, PhD thesis).

    With one kernel per channel it is pretrainedmodels' block, whose `conv1` is `depthwise` here.

    Args:
        in_channels: C.
        out_channels: N.
        kernel_size: K, for the depthwise part, like `stride`, `padding` and `dilation`.
        kernels_per_layer: Kernels per input channel (the channel multiplier): the pointwise part
            mixes `kernels_per_layer * C` channels.
        stride: Step between positions of the depthwise part.
        padding: Zeros around each channel, or `same` or `valid`.
        dilation: Distance between adjacent kernel elements.
        bias: Add a bias in both parts. It has no effect before a batch norm, which has its own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        kernels_per_layer: int = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        channels = in_channels * kernels_per_layer
        self.depthwise = nn.Conv2d(
            in_channels,
            channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=bias,
        )
        self.pointwise = nn.Conv2d(channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Convolve `(batch, C, height, width)` to `(batch, N, height', width')`."""
        outputs: torch.Tensor = self.pointwise(self.depthwise(activations))
        return outputs


# Its cost

EXAMPLE = "block4.rep.1"  # the middle flow has 24 of these
KERNELS = (*range(32, 112, 8), 128, 256, 728)
GROUPS = (1, 5, 25)

_CHANNELS, _SIDE = 25, 28  # of the activations in the small examples


@dataclass(frozen=True)
class Cost:
    """Multiplications of a separable convolution, and of the regular convolution that it replaces.

    Attributes:
        kernels: N, the number of 3 x 3 kernels.
        separable: Multiplications of both parts.
        regular: Multiplications of a regular convolution with the same output shape.
    """

    kernels: int
    separable: int
    regular: int

    @property
    def times(self) -> float:
        """Ratio of regular to separable multiplications."""
        return self.regular / self.separable


@dataclass(frozen=True)
class Grouping:
    """The effect of `groups` on a convolution.

    Attributes:
        groups: Number of groups of channels.
        weight: Shape of the weight: `(kernels, channels of a group, 3, 3)`.
        output: Shape of the output: `(batch, kernels, height, width)`.
        multiplications: Multiplications for one image.
    """

    groups: int
    weight: tuple[int, ...]
    output: tuple[int, ...]
    multiplications: int


def multiplications(module: nn.Module, channels: int, side: int) -> int:
    """Count the multiplications of a module on the meta device for `(channels, side, side)`."""
    calls = trace(module, (channels, side, side), (nn.Conv2d,))
    return sum(call.multiplications for call in calls)


def compare(kernels: int, *, channels: int = _CHANNELS, side: int = _SIDE) -> Cost:
    """Count both kinds of convolution with this many 3 x 3 kernels; the size is unchanged."""
    with torch.device("meta"):
        separable = SeparableConv2d(channels, kernels, 3, padding=1)
        regular = nn.Conv2d(channels, kernels, 3, padding=1, bias=False)
    costs = (multiplications(module, channels, side) for module in (separable, regular))
    return Cost(kernels, *costs)


def group(groups: int) -> Grouping:
    """Count a convolution of 25 channels with 50 kernels of 3 x 3, in groups."""
    with torch.device("meta"):
        convolution = nn.Conv2d(_CHANNELS, 2 * _CHANNELS, 3, padding=1, groups=groups)
        output = convolution(torch.empty(1, _CHANNELS, _SIDE, _SIDE))
    return Grouping(
        groups,
        tuple(convolution.weight.shape),
        tuple(output.shape),
        multiplications(convolution, _CHANNELS, _SIDE),
    )


@dataclass(frozen=True)
class Explanation:
    """The figures of the explanation.

    Attributes:
        example: A layer of Xception, `EXAMPLE`.
        costs: Costs for increasing numbers of kernels.
        groupings: Groupings for increasing numbers of groups.
    """

    example: Separable
    costs: tuple[Cost, ...]
    groupings: tuple[Grouping, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        costs = [asdict(cost) | {"times": cost.times} for cost in self.costs]
        return asdict(self) | {"costs": costs}


def explain() -> Explanation:
    """Count all figures of the explanation."""
    layers = summarize_network().layers
    example = next(x.separable for x in layers if x.separable and x.name == EXAMPLE)
    return Explanation(example, tuple(compare(n) for n in KERNELS), tuple(group(g) for g in GROUPS))


# The text

_DERIVATION = """\
A convolution looks for patterns in space and across channels at once. N kernels
of K × K over C channels, at G × G positions, multiply this many times:

    regular      K² · C · G² · N

A depthwise separable convolution does this in two steps: K × K within each
channel, then 1 × 1 across the channels.

    depthwise    K² · C · G²
    pointwise    C · G² · N
    together     C · G² · (K² + N)

The fraction of the regular convolution's multiplications that remains:

    C · G² · (K² + N)     1     1
    ─────────────────  =  ─  +  ──
     K² · C · G² · N      N     K²

With more kernels, it approaches 1/K², a ninth for 3 × 3.

An Inception block taken to the extreme differs in two things: 1 × 1 comes
first, and a ReLU follows each step. Between depthwise and pointwise there is
none: Xception trains better without it (Chollet 2017, section 4.7).
"""

_EXAMPLE = """\
Xception's {name}, where C is {channels}, N {kernels}, K {kernel} and G {side}:

    depthwise  {depthwise:>13,}
    pointwise  {pointwise:>13,}
    together   {together:>13,}
    regular    {regular:>13,}
    left       {reduction:>13.6f}  = 1/{kernels} + 1/{squared}

The regular convolution takes {times:.2f} times as many.
"""

_COSTS = """\
How many times as many multiplications a regular convolution takes, with N
kernels of 3 × 3 (counted on {channels} channels of {side} × {side}; C and G cancel out):
"""

_GROUPS = """
`groups` = g splits the channels, and each group is convolved by itself, with
its share of the kernels: weights and multiplications shrink to 1/g. C and N
must be divisible by g. {channels} channels in, {kernels} out, 3 × 3, on {side} × {side}:
"""

_END = """
With as many groups as channels, this is the depthwise part, here with two
kernels per channel.

L. Sifre, Rigid-Motion Scattering for Image Classification, PhD thesis, 2014
F. Chollet, Xception: Deep Learning with Depthwise Separable Convolutions,
arxiv.org/abs/1610.02357, 2016; CVPR 2017\
"""


def explanation_parts(explanation: Explanation) -> Iterator[str | Table]:
    """Yield the explanation as text and tables, for 80 columns."""
    example = explanation.example
    yield _DERIVATION
    yield _EXAMPLE.format(
        **asdict(example),
        name=EXAMPLE,
        together=example.depthwise + example.pointwise,
        squared=example.kernel**2,
        times=1 / example.reduction,
    )
    yield _COSTS.format(channels=_CHANNELS, side=_SIDE)
    costs = new_table(">N", ">separable", ">regular", ">times")
    for cost in explanation.costs:
        costs.add_row(
            str(cost.kernels), f"{cost.separable:,}", f"{cost.regular:,}", f"{cost.times:.2f}"
        )
    yield costs
    yield _GROUPS.format(channels=_CHANNELS, kernels=2 * _CHANNELS, side=_SIDE)
    groupings = new_table(">groups", ">weight", ">output", ">multiplications")
    for grouping in explanation.groupings:
        shapes = (" × ".join(map(str, shape)) for shape in (grouping.weight, grouping.output))
        groupings.add_row(str(grouping.groups), *shapes, f"{grouping.multiplications:,}")
    yield groupings
    yield _END
