"""trace: the modules of a network as they run, with their multiplications."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Call:
    """One module in a forward pass.

    Attributes:
        name: Name in the state dict.
        module: The module.
        output: Shape of its output, without the batch: `(channels, height, width)`.
    """

    name: str
    module: nn.Module
    output: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def multiplications(self) -> int:
        """Multiplications of a convolution or a linear layer for one image; 0 for anything else.

        Half of PyTorch's FLOP count, which includes each addition. Both count the multiplications
        with padding zeros.
        """
        match self.module:
            case nn.Conv2d(weight=weight):
                # Each position of an output channel uses each weight of its kernel once.
                return weight.numel() * self.output[-2] * self.output[-1]
            case nn.Linear(weight=weight):
                return weight.numel()
        return 0


def trace(
    network: nn.Module, shape: Sequence[int], kinds: tuple[type[nn.Module], ...]
) -> list[Call]:
    """Run a network on one image and return the modules that ran, in the order they ended.

    Args:
        network: A network on the meta device, where only shapes are computed.
        shape: Shape of the image, `(channels, height, width)`.
        kinds: Types of modules to record; one inside another comes before it.
    """
    calls: list[Call] = []

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            calls.append(Call(name, module, tuple(output.shape[1:])))

        return record

    hooks = [
        module.register_forward_hook(recorder(name))
        for name, module in network.named_modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        network(torch.empty((1, *shape), device="meta"))
    for hook in hooks:
        hook.remove()
    return calls
