"""Test-time augmentation: a model that also classifies the mirror image, on all code paths."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from images import SMALL
from networks import CPU, PREPROCESSING, lively_network

from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, load_model, save_model
from xception_cli.model.layers import add_layers_head
from xception_cli.onnx.graph import build_onnx
from xception_cli.report.activation_maps import class_maps

CLASSES = ("a", "b", "c")


@pytest.fixture
def once() -> ModelBundle:
    """A model that classifies the image alone."""
    torch.manual_seed(0)
    network = lively_network(len(CLASSES))
    add_layers_head(network, len(CLASSES))
    with torch.no_grad():
        network.layers_head.weight.mul_(20)  # else all probabilities are about the same
    return ModelBundle(network.eval(), About(CLASSES, PREPROCESSING), CPU)


@pytest.fixture
def both(once: ModelBundle) -> ModelBundle:
    return once.with_tta("mirror")


@pytest.fixture
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 3, SMALL, SMALL), dtype=torch.uint8, generator=generator)


def test_an_image_and_its_mirror_image_get_the_same_answer(once, both, pixels):
    mirrored = pixels.flip(-1)
    torch.testing.assert_close(both.outputs(pixels)[0], both.outputs(mirrored)[0])
    difference = (once.outputs(pixels)[0] - once.outputs(mirrored)[0]).abs().max()
    assert difference > 0.01


def test_the_logits_are_the_mean_and_the_features_those_of_the_image(once, both, pixels):
    expected = (once.outputs(pixels)[0] + once.outputs(pixels.flip(-1))[0]) / 2
    logits, (features, _) = both.outputs(pixels)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(features, once.outputs(pixels)[1][0])


def test_the_file_records_the_averaging_and_without_the_entry_only_the_image_is_classified(
    both, tmp_path
):
    path = tmp_path / "model.safetensors"
    save_model(path, both.network.state_dict(), both.about)
    assert load_model(path, CPU).preprocessing.mirror
    older = Preprocessing().to_dict()
    assert "mirror" not in older
    assert Preprocessing.from_dict(older) == Preprocessing()
    with pytest.raises(ArtifactError, match="impossible preprocessing"):
        Preprocessing.from_dict(older | {"mirror": 1})


@pytest.mark.parametrize("count", [1, 3])
def test_the_exported_graph_computes_the_same(both, once, pixels, count: int):
    images = pixels[:count].permute(0, 2, 3, 1).numpy()
    found = []
    for bundle in (both, once):
        session = onnxruntime.InferenceSession(build_onnx(bundle, cropped=True).SerializeToString())
        found.append(session.run(["probabilities"], {"image": images})[0])
        expected = bundle.probabilities(pixels[:count]).numpy()
        assert np.abs(found[-1] - expected).max() < 1e-5
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_the_contributions_of_the_positions_add_up_to_the_logit(both, pixels):
    labels = torch.tensor([0, 1, 2])
    maps = class_maps(both, pixels, labels)
    total = sum(part.mean((1, 2)) for part in maps) + both.network.layers_head.bias[labels]
    expected = both.outputs(pixels)[0][torch.arange(3), labels]
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-3)
    # The map of the mirror image is mirrored back.
    mirrored = class_maps(both, pixels.flip(-1), labels)
    for one, other in zip(maps, mirrored, strict=True):
        torch.testing.assert_close(one, other.flip(-1), atol=1e-4, rtol=1e-3)


def test_averaging_can_be_disabled_and_an_unknown_value_is_refused(once, both, pixels):
    assert both.with_tta(None) is both
    off = both.with_tta("none")
    assert off.about == replace(both.about, preprocessing=once.preprocessing)
    torch.testing.assert_close(off.outputs(pixels)[0], once.outputs(pixels)[0])
    with pytest.raises(UsageError, match="tta is 'yes', expected mirror or none"):
        both.with_tta("yes")
