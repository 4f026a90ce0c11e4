"""Folding: the network for inference, with batch norm folded into packed weights."""

import functools
import platform
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from xception_cli.model.convolutions import PackedConvolution
from xception_cli.runtime import Runtime


def for_inference(network: nn.Module, runtime: Runtime) -> nn.Module:
    """Return a faster copy for inference, to be run by `Segment`; see the functions below."""
    folded = fold_batch_norm(network, runtime.dtype)
    if packs_weights(runtime):
        for parent in list(folded.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Conv2d):
                    setattr(parent, name, PackedConvolution(child))
    return folded


def fold_batch_norm(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy for inference: each batch norm is folded into the convolution before it.

    In inference mode a batch norm is a scale and a shift per channel, which the convolution's
    weights and a bias can include. The copy gives the same outputs up to rounding, but has other
    module names: it is no longer pretrainedmodels' network, and is never trained or saved.

    Args:
        network: From `build_network`.
        dtype: The dtype that autocast will use for convolutions: converting their weights now saves
            it in each pass, with the same result. None keeps their dtype; the head always keeps its
            own.
    """
    # Its tensors are shared at first: folding replaces them, and copies of 84 MB take time.
    shared = {
        id(tensor): tensor
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
        for tensor in module.state_dict(keep_vars=True).values()
    }
    folded = deepcopy(network, dict(shared)).eval()
    for number in range(1, 5):
        _fold_pair(folded, f"conv{number}", f"bn{number}")
    for number in range(1, 13):
        block = folded.get_submodule(f"block{number}")
        if block.skip is not None:
            _fold_pair(block, "skip", "skipbn")
        layers = block.get_submodule("rep")
        for name, layer in layers.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                _fold_pair(layers, str(int(name) - 1), name)
    for module in folded.modules():
        if isinstance(module, nn.Conv2d):
            if id(module.weight) in shared:  # depthwise
                module.weight = deepcopy(module.weight)
            if dtype is not None:
                module.to(dtype)
    return folded


def _fold_pair(parent: nn.Module, convolution: str, norm: str) -> None:
    before: Any = parent.get_submodule(convolution)
    before = getattr(before, "pointwise", before)  # the last part of a separable convolution
    after: Any = parent.get_submodule(norm)
    before.weight, before.bias = fuse_conv_bn_weights(
        *(before.weight, before.bias, after.running_mean, after.running_var),
        *(after.eps, after.weight, after.bias),
    )
    setattr(parent, norm, nn.Identity())


def packs_weights(runtime: Runtime) -> bool:
    """Return whether `for_inference` packs weights: torch has the operators, and they are correct.

    These are the undocumented operators that torch.compile uses in its code.

    Args:
        runtime: Where the network is computed.
    """
    if runtime.device.type != "cpu" or platform.machine() not in {"x86_64", "AMD64"}:
        return False
    return _agrees(runtime.dtype)


@functools.cache
def _agrees(dtype: torch.dtype) -> bool:
    """Compare each kind of convolution of the network with torch's own, on one random image."""
    generator = torch.Generator().manual_seed(0)
    for channels, width, options in (
        (3, 32, {"kernel_size": 3, "stride": 2}),
        (728, 728, {"kernel_size": 3, "padding": 1, "groups": 728, "bias": False}),
        (728, 728, {"kernel_size": 1}),
    ):
        # Without numbers at first: drawing them would change the global random state. torch's
        # skip_init does the same, but imports SymPy (2.14), which takes half a second.
        plain = nn.Conv2d(channels, width, **options, device="meta")  # type: ignore[arg-type]
        with torch.inference_mode():
            for name, parameter in list(plain.named_parameters()):
                drawn = torch.empty(parameter.shape).uniform_(-1, 1, generator=generator)
                setattr(plain, name, nn.Parameter(drawn))
            image = torch.rand((1, channels, 19, 19), generator=generator).to(dtype)
            image = image.contiguous(memory_format=torch.channels_last)
            expected = functional.relu(plain.to(dtype)(image))
            try:
                found = PackedConvolution(plain)(image, relu=True)
                error = (found - expected).float().norm() / expected.float().norm()
            except (AttributeError, RuntimeError, TypeError):
                return False
        if not error < 16 * torch.finfo(dtype).eps:
            return False
    return True
