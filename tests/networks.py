"""The real Xception, randomly initialised; in inference mode it separates two images."""

import functools
from copy import deepcopy

import numpy as np
import torch
from images import SMALL
from torch import nn

from xception_cli.data.transforms import Preprocessing
from xception_cli.model.network import build_seeded_network
from xception_cli.runtime import Runtime

CPU = Runtime(torch.device("cpu"), "fp32")


def noise(count: int, seed: int) -> torch.Tensor:
    """Draw inputs of the network: blocky noise, so that they differ in more than fine grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 6, 6), generator=generator)
    return nn.functional.interpolate(coarse, SMALL, mode="bilinear") * 2 - 1


def lively_network(class_count: int = 3) -> nn.Module:
    """Build a network in eval mode, with batch norm statistics of its own activations.

    Without them, activations shrink layer by layer, and all logits are the same.
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


def about(**changed: object) -> dict[str, object]:
    """Create valid metadata of two classes, with changes; `...` removes an entry."""
    good = {
        "schema": 1,
        "architecture": "xception",
        "classes": ["cat", "dog"],
        "preprocessing": PREPROCESSING.to_dict(),
        "temperature": 1.0,
        "provenance": {},
    }
    return {name: value for name, value in (good | changed).items() if value is not ...}


PREPROCESSING = Preprocessing(SMALL, 80, mean=0.4, std=0.6)


def drawn(count: int, width: int, classes: int, *, distance: float, seed: int = 0):
    """Draw features: Gaussian clouds, `distance` standard deviations apart along each axis."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = generator.normal(0, distance, (classes, width))
    values = centres[labels] + generator.normal(0, 1, (count, width))
    return (0.3 + 0.1 * values).astype(np.float32), labels
