"""Images, and a network with a frozen prefix to compute their features."""

from pathlib import Path

import pytest
from images import COLOURS, draw
from networks import lively_network
from torch import nn

from xception_cli.model.network import cut

IMAGES = 11


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A randomly initialised Xception with the exit flow trainable."""
    network = lively_network()
    cut(network, "exit")  # freezes the prefix
    return network


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images named by their number, from `0.png`."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(IMAGES):
        draw(folder / f"{index}.png", [*COLOURS.values()][index % 3], seed=index)
    return folder
