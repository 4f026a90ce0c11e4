"""What a network's modules give and how much they multiply, seen by hooks while it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Call:
    """One module's turn in a forward pass.

    Attributes:
        name: The module's, as in the state dict.
        module: The module.
        output: Shape of what it gave, without the batch: `(channels, height, width)`.
    """

    name: str
    module: nn.Module
    output: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Numbers that can be trained."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def multiplications(self) -> int:
        """What a convolution or a linear layer multiplies for one picture; 0 for anything else.

        Half of PyTorch's FLOP count, which holds each addition too. A kernel's taps on the zeros
        of the padding are counted, by both.
        """
        match self.module:
            case nn.Conv2d(weight=weight):
                # A position of an output channel takes its kernel's numbers once each.
                return weight.numel() * self.output[-2] * self.output[-1]
            case nn.Linear(weight=weight):
                return weight.numel()
        return 0


def trace(
    network: nn.Module, shape: Sequence[int], kinds: tuple[type[nn.Module], ...]
) -> list[Call]:
    """Run a network on one picture and tell which modules ran, in the order they ended.

    Args:
        network: On the meta device, where nothing is computed but shapes.
        shape: Of the picture, `(channels, height, width)`.
        kinds: Modules of interest; one inside another comes before it.
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
