"""The head on several layers: its computation, its file, and its plain Xception."""

from pathlib import Path

import numpy as np
import onnxruntime
import pretrainedmodels
import pytest
import torch
from images import SMALL
from networks import CPU, PREPROCESSING, lively_network, noise
from safetensors.torch import load_file
from torch import nn

from xception_cli.errors import ArtifactError
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, load_model, save_model
from xception_cli.model.folding import fold_batch_norm
from xception_cli.model.layers import (
    LAYERS,
    POOLED,
    LayersHead,
    add_layers_head,
    classify_pooled,
    fill_heads,
    layers_head,
    pool_layers,
    run_layers,
    scale_layers,
    without_layers_head,
)
from xception_cli.model.network import FIRST_TRAINED, Segment, cut
from xception_cli.onnx.graph import build_onnx
from xception_cli.report.activation_maps import class_maps, heat_maps

CLASSES = ("a", "b", "c")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    made = lively_network(len(CLASSES))
    add_layers_head(made, len(CLASSES))
    with torch.no_grad():
        made.layers_head.weight.mul_(20)  # else all probabilities are about the same
    return made.eval()


@pytest.fixture
def bundle(network: nn.Module) -> ModelBundle:
    return ModelBundle(network, About(CLASSES, PREPROCESSING), CPU)


def drawn_pixels(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, SMALL, SMALL), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_the_pooled_layers_are_the_means_of_the_networks_own_steps(network):
    inputs = noise(3, seed=2)
    found = pool_layers(run_layers(Segment(network, "conv1", "conv4").eval(), inputs))
    outputs: dict[str, torch.Tensor] = {}
    modules = {"block11": "block11", "block12": "block12", "conv3": "bn3", "conv4": "bn4"}
    hooks = [
        network.get_submodule(module).register_forward_hook(
            lambda _, __, out, layer=layer: outputs.update({layer: out.clone()})
        )
        for layer, module in modules.items()
    ]
    network.features(inputs)
    for hook in hooks:
        hook.remove()
    means = [
        (out.relu() if layer.startswith("conv") else out).mean((2, 3))
        for layer, out in outputs.items()
    ]
    assert [len(mean[0]) for mean in means] == list(LAYERS.values())
    assert found.shape == (3, POOLED)
    torch.testing.assert_close(found, torch.cat(means, dim=1), atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("unfreeze", ["exit", "middle"])
def test_after_the_cut_the_layers_are_those_of_the_whole_network(network, unfreeze):
    inputs = noise(3, seed=2)
    whole = pool_layers(run_layers(Segment(network, "conv1", "conv4").eval(), inputs))
    rest = Segment(network, FIRST_TRAINED[unfreeze], "conv4").eval()
    kept = cut(network, unfreeze)[0](inputs)
    torch.testing.assert_close(pool_layers(run_layers(rest, kept)), whole)


def test_the_head_is_linear_on_layers_of_unit_length():
    torch.manual_seed(0)
    head = LayersHead(3)
    pooled = torch.rand(5, POOLED)
    scaled = scale_layers(pooled.numpy())
    ends = np.cumsum(list(LAYERS.values()))[:-1]
    for part in np.split(scaled, ends, axis=1):
        assert np.linalg.norm(part, axis=1) == pytest.approx(1.0, abs=1e-5)
    expected = torch.from_numpy(scaled) @ head.weight.T + head.bias
    torch.testing.assert_close(head(pooled), expected, atol=1e-5, rtol=1e-4)
    longer = pooled.clone()
    longer[:, :728] *= 3  # the length of a layer does not matter, its direction does
    torch.testing.assert_close(head(longer), head(pooled), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(head(pooled.flip(1)), head(pooled), atol=1e-3)
    assert np.isfinite(scale_layers(np.zeros((2, POOLED), np.float32))).all()


# In a file


def test_a_file_has_both_heads_and_gives_the_same_answers(bundle, tmp_path: Path):
    path, pixels = tmp_path / "model.safetensors", drawn_pixels()
    save_model(path, bundle.network.state_dict(), bundle.about)
    found = load_model(path, CPU)
    assert torch.equal(found.outputs(pixels)[0], bundle.outputs(pixels)[0])
    plain = ModelBundle(lively_network(len(CLASSES)), bundle.about, CPU)
    assert (plain.outputs(pixels)[0] - bundle.outputs(pixels)[0]).abs().max() > 0.1
    assert layers_head(plain.network) is None


def test_a_plain_xception_loads_the_file_without_the_head_on_several_layers(bundle, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_model(path, bundle.network.state_dict(), bundle.about)
    plain = pretrainedmodels.xception(num_classes=1000, pretrained=None)
    plain.last_linear = nn.Linear(2048, len(CLASSES))
    missing, unexpected = plain.load_state_dict(load_file(path), strict=False)
    assert {name for name in missing if not name.endswith("num_batches_tracked")} == set()
    assert unexpected == ["layers_head.bias", "layers_head.weight"]
    inputs = noise(2, seed=5)
    with torch.no_grad():
        expected = lively_network(len(CLASSES))(inputs)
        torch.testing.assert_close(plain.eval()(inputs), expected, atol=1e-4, rtol=1e-3)


def test_a_head_of_another_width_is_refused(bundle, tmp_path: Path):
    state = bundle.network.state_dict() | {"layers_head.weight": torch.zeros(3, 2048)}
    with pytest.raises(ArtifactError, match=r"layers_head.weight has the shape \(3, 2048\)"):
        save_model(tmp_path / "model.safetensors", state, bundle.about)


def test_the_plain_state_is_the_networks_without_that_head(network):
    expected = lively_network(len(CLASSES)).state_dict()
    found = without_layers_head(network.state_dict())
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)


# Elsewhere


def test_the_exported_graph_computes_the_same_probabilities(bundle):
    pixels = drawn_pixels()
    expected = bundle.probabilities(pixels).numpy()
    model = build_onnx(bundle, cropped=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(["probabilities"], {"image": pixels.permute(0, 2, 3, 1).numpy()})
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(expected - expected[::-1]).max() > 0.01


def test_the_contributions_of_the_positions_add_up_to_the_logit(bundle):
    pixels, labels = drawn_pixels(), torch.tensor([0, 1, 2, 0])
    maps = class_maps(bundle, pixels, labels)
    total = sum(part.mean((1, 2)) for part in maps) + bundle.network.layers_head.bias[labels]
    expected = bundle.outputs(pixels)[0][torch.arange(4), labels]
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-3)
    assert len({part.shape[-1] for part in maps}) == 2  # block11 is finer than the others
    assert heat_maps(bundle, pixels, labels).shape == (4, *maps[0].shape[1:])


@torch.no_grad()
def test_folding_keeps_the_head(network):
    pooled = torch.rand(2, POOLED)
    folded = fold_batch_norm(network, torch.bfloat16)
    torch.testing.assert_close(classify_pooled(folded, pooled), classify_pooled(network, pooled))


def test_heads_are_filled_with_the_fitted_weights():
    network = lively_network(2)
    last = torch.rand(2, 2048), torch.rand(2)
    layered = torch.rand(2, POOLED), torch.rand(2)
    fill_heads(network, last, layered)
    assert torch.equal(network.last_linear.weight, last[0])
    assert torch.equal(network.layers_head.bias, layered[1])


def test_a_head_is_added_on_the_device_of_the_network():
    network = lively_network(2).to("meta")
    assert add_layers_head(network, 2).weight.is_meta
