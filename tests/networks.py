"""The real Xception, drawn; in inference mode it tells two pictures apart."""

import functools
from copy import deepcopy

import torch
from conftest import SMALL
from torch import nn

from xception_cli.model.network import build_seeded_network
from xception_cli.runtime import Runtime

CPU = Runtime(torch.device("cpu"), "fp32")


def noise(count: int, seed: int) -> torch.Tensor:
    """Draw inputs of the network: blocky noise, so that they differ in more than fine grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 6, 6), generator=generator)
    return nn.functional.interpolate(coarse, SMALL, mode="bilinear") * 2 - 1


def lively_network(class_count: int = 3) -> nn.Module:
    """Build a network of one's own, in eval mode, with statistics in its batch norm.

    Freshly drawn, its activations die out layer by layer, and it says the same of everything.
    """
    return deepcopy(_drawn(class_count))


@functools.cache
def _drawn(class_count: int) -> nn.Module:
    network = build_seeded_network(class_count, seed=0)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(noise(4, seed=99))
    for norm in norms:
        norm.momentum = 0.1
    return CPU.place(network).eval()
