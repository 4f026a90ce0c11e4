"""The recipe of docs/export.md: the whole model in timm's Xception, for other converters."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from images import COLOURS, SMALL
from networks import CPU, lively_network

from xception_cli.data.transforms import Preprocessing
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, save_model
from xception_cli.model.layers import add_layers_head

RECIPE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.mark.parametrize("layered", [False, True])
def test_the_model_file_in_timm_gives_the_probabilities_of_predict(tmp_path, layered):
    pytest.importorskip("timm")
    network, preprocessing = lively_network(), Preprocessing.for_size(SMALL)
    if layered:
        torch.nn.init.normal_(add_layers_head(network, 3).weight)
        preprocessing = replace(preprocessing, mirror=True)
    bundle = ModelBundle(network, About(tuple(COLOURS), preprocessing, temperature=0.7), CPU)
    save_model(tmp_path / "model.safetensors", network.state_dict(), bundle.about)
    (program,) = re.findall(r"```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, type] = {}
    exec(program, names)
    pixels = torch.randint(256, (4, 3, SMALL, SMALL), dtype=torch.uint8)
    with torch.no_grad():
        found = names["Classifier"](tmp_path / "model.safetensors")(preprocessing.normalize(pixels))
    expected = bundle.probabilities(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (expected - expected.roll(1, 0)).abs().max() > 1e-2  # other images, other answers
