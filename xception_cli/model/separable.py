"""The depthwise separable convolution, the one operation that Xception is made of."""

import torch
from torch import nn


class SeparableConv2d(nn.Module):
    """A convolution in two parts: in space for each channel by itself, then across the channels.

    The depthwise part gives every input channel kernels of its own; the pointwise part mixes what
    comes out with N kernels of 1 x 1. Nothing stands between them: Chollet measured (2017, figure
    10) that an activation there makes Xception worse. The idea is Sifre's (2014, PhD thesis).

    With one kernel per layer it is pretrainedmodels' block, whose `conv1` is `depthwise` here.

    Args:
        in_channels: C.
        out_channels: N.
        kernel_size: K, of the depthwise part, as everything up to `dilation` but for N.
        kernels_per_layer: Kernels for each input channel (the channel multiplier): the pointwise
            part mixes `kernels_per_layer * C` channels.
        stride: Steps between two positions; it is the depthwise part that leaves positions out.
        padding: Zeros around each channel, or `same` or `valid`.
        dilation: Distance between two of a kernel's taps.
        bias: Add one in both parts. Before a batch norm, which has its own, it would do nothing.
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
