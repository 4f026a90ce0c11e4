"""How the network's convolutions are computed: with their batch norm, by the fastest kernels."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


def pass_block(block: Any, activations: torch.Tensor) -> torch.Tensor:
    """Run one of the network's blocks like its own forward pass, through `convolve`.

    Args:
        block: A block of pretrainedmodels' Xception, or folded by `fold_batch_norm`.
        activations: `(batch, channels, height, width)`.
    """
    found, layers = activations, list(block.rep)  # not its children(): it contains one ReLU twice
    position = 0
    while position < len(layers):
        layer, following = layers[position], layers[position + 1 : position + 3]
        if isinstance(layer, nn.ReLU | nn.MaxPool2d):
            found = layer(found)
            position += 1
            continue
        is_followed_by_relu = isinstance(following[-1], nn.ReLU)
        found = convolve(layer, following[0], found, relu=is_followed_by_relu)
        position += 3 if is_followed_by_relu else 2
    if block.skip is not None:
        activations = convolve(block.skip, block.skipbn, activations, relu=False)
    # In training, not in place: autograd would copy the gradient of a view changed in place.
    if torch.is_grad_enabled():
        return found + activations.to(found.dtype)
    return found.add_(activations)


def convolve(convolution: Any, norm: Any, activations: torch.Tensor, *, relu: bool) -> torch.Tensor:
    """Run a convolution and its batch norm; in inference mode, as one convolution.

    In inference mode a batch norm is a scale and a shift for each channel. Folded into the weights,
    they cost only a pass over the weights; as a layer, they read and write all activations again,
    forward and backward, and keep a copy for the gradient. All gradients are the same.

    Args:
        convolution: A module: plain, or separable, which is depthwise and pointwise.
        norm: A batch norm, or `nn.Identity` if it is already folded.
        activations: `(batch, channels, height, width)`.
        relu: Whether a ReLU follows.
    """
    found: torch.Tensor
    normalizes = not isinstance(norm, nn.Identity)  # BatchNorm2d, or SyncBatchNorm
    if normalizes and norm.training:
        found = norm(convolution(activations))
        return found.relu_() if relu else found
    if hasattr(convolution, "pointwise"):  # separable: the batch norm follows the pointwise part
        activations, convolution = _depthwise(convolution.conv1, activations), convolution.pointwise
    if isinstance(convolution, PackedConvolution):
        found = convolution(activations, relu=relu)
        return found
    weight, bias = convolution.weight, convolution.bias
    if normalizes:
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = weight * scale[:, None, None, None]
        bias = norm.bias - norm.running_mean * scale
    if activations.is_cuda and convolution.kernel_size == convolution.stride == (1, 1):
        return _multiply(activations, weight.flatten(1), bias, relu=relu)
    found = functional.conv2d(activations, weight, bias, convolution.stride, convolution.padding)
    return found.relu_() if relu else found


def _depthwise(convolution: Any, activations: torch.Tensor) -> torch.Tensor:
    """Run the depthwise part of a separable convolution."""
    if not activations.is_cuda or not torch.is_grad_enabled():
        found: torch.Tensor = convolution(activations)
        return found
    dtype = activations.dtype
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    found = Depthwise.apply(activations.to(dtype), convolution.weight.to(dtype))
    return found  # noqa: RET504 - apply is untyped


class Depthwise(torch.autograd.Function):
    """A 3×3 depthwise convolution whose input gradient is another one, by the flipped weights.

    The forward kernel of cuDNN takes half the time of its input-gradient kernel (measured on an
    H200, bf16, channels last), and there is one kernel less to prepare.
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Convolve `(batch, channels, height, width)` by `(channels, 1, 3, 3)`."""
        ctx.save_for_backward(values, weight)
        return functional.conv2d(values, weight, padding=1, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the activations and of the weights."""
        values, weight = ctx.saved_tensors
        of_values = of_weight = None
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3)
            of_values = functional.conv2d(gradient, flipped, padding=1, groups=len(weight))
        if ctx.needs_input_grad[1]:
            one = [1, 1]
            of_weight = torch.ops.aten.convolution_backward(
                *(gradient, values, weight, None, one, one, one, False, [0, 0], len(weight)),
                [False, True, False],
            )[1]
        return of_values, of_weight


def _multiply(
    activations: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor, *, relu: bool
) -> torch.Tensor:
    """Compute a pointwise convolution as the matrix product that it is in channels-last memory.

    cuBLAS adds the bias, and in inference applies the ReLU, while it writes the product. With cuDNN
    these are further passes: a third of the time of inference on an H200.

    Args:
        activations: `(batch, channels, height, width)`, channels last.
        matrix: `(new channels, channels)`.
        bias: `(new channels,)`.
        relu: Whether a ReLU follows.
    """
    batch, channels, height, width = activations.shape
    rows = activations.permute(0, 2, 3, 1).reshape(-1, channels)
    if relu and not torch.is_grad_enabled() and rows.dtype == matrix.dtype:
        found = torch._addmm_activation(bias, rows, matrix.t())
    else:
        found = functional.linear(rows, matrix, bias)
        found = found.relu_() if relu else found
    return found.view(batch, height, width, -1).permute(0, 3, 1, 2)


class PackedConvolution(nn.Module):
    """A convolution with its weights in the order in which the CPU's kernel reads them.

    An `nn.Conv2d` reorders its weights in each call, which takes a fifth of the time for one image,
    and its ReLU is another pass over the result. The numbers are the same.

    Args:
        convolution: With weights in the dtype to compute in.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight.detach()
        self.bias = None if convolution.bias is None else convolution.bias.detach()
        # In the order of the two operators.
        self._steps = [convolution.padding, convolution.stride, convolution.dilation]
        self._groups = convolution.groups
        # A batch size, and the weights in the order for it: a kernel that expects another order
        # reorders them again. One attribute, since threads may share a network.
        self._packed = (0, self.weight)

    def forward(self, activations: torch.Tensor, *, relu: bool = False) -> torch.Tensor:
        """Run it in inference, without autocast.

        Args:
            activations: `(batch, channels, height, width)`, always of the same height and width.
            relu: Whether a ReLU follows.
        """
        count, weight = self._packed
        if count != len(activations):
            shape = list(activations.shape)
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, *self._steps, self._groups, shape
            )
            self._packed = (len(activations), weight)
        found: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            activations.to(self.weight.dtype),
            *(weight, self.bias, *self._steps, self._groups),
            *("relu" if relu else "none", [], ""),
        )
        return found
