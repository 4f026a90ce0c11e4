"""The network: cutting it changes no number, and only what shall be trained is."""

import pytest
import torch
from networks import lively_network, noise
from torch import nn

from xception_cli.model.network import (
    FIRST_TRAINED,
    STEPS,
    Segment,
    build_seeded_network,
    cut,
    parameter_groups,
    pool,
    train_mode,
)


@pytest.fixture(scope="module")
def network():
    return lively_network()


@pytest.fixture(scope="module")
def pictures():
    return noise(3, seed=1)


@pytest.fixture(scope="module")
def logits(network, pictures):
    """What pretrainedmodels' own forward pass says."""
    with torch.no_grad():
        return network(pictures)


@pytest.fixture(scope="module")
def activations(network, pictures):
    """The input of every step, and the logits behind the last."""
    values = {}
    with torch.no_grad():
        for step in STEPS:
            values[step] = pictures.clone()
            pictures = Segment(network, step, step).eval()(pictures.clone())
    return values | {"logits": pictures}


# The forward pass


@pytest.mark.parametrize("unfreeze", FIRST_TRAINED)
@torch.no_grad()
def test_the_two_parts_of_a_cut_give_the_logits_of_the_whole(network, pictures, logits, unfreeze):
    prefix, trained = cut(network, unfreeze, dropout=0.5)
    frozen = pictures if prefix is None else prefix(pictures)
    assert trained.steps[0] == FIRST_TRAINED[unfreeze]
    assert ((*prefix.steps,) if prefix else ()) + trained.steps == STEPS
    torch.testing.assert_close(trained.eval()(frozen), logits, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_comparison_sees_a_step_that_is_left_out_or_taken_twice(network, activations, logits):
    def from_block_5(*steps: str) -> torch.Tensor:
        values = activations["block5"]
        for step in steps:
            values = Segment(network, step, step).eval()(values)
        return Segment(network, "block7", "head").eval()(values)

    torch.testing.assert_close(from_block_5("block5", "block6"), logits, atol=1e-6, rtol=1e-5)
    for other in (("block6", "block5"), ("block5",), ("block5", "block5")):
        assert (from_block_5(*other) - logits).abs().max() > 1e-3
    assert (logits - logits.roll(1, 0)).abs().max() > 1e-2  # nor are all pictures alike


@torch.no_grad()
def test_the_pooled_features_are_those_behind_the_last_relu(network, pictures):
    expected = nn.functional.relu(network.features(pictures)).mean((2, 3))
    found = pool(Segment(network, "conv1", "conv4").eval()(pictures))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    head = Segment(network, "head", "head").eval()
    torch.testing.assert_close(head(found), network(pictures), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
@torch.no_grad()
def test_no_step_changes_the_tensor_it_is_given(network, activations, mode):
    changed, own = [], lively_network() if mode else network  # training changes its buffers
    for step in STEPS:
        given = activations[step].clone()
        Segment(own, step, step).train(mode)(given)
        changed += [step] * (not torch.equal(given, activations[step]))
    assert changed == []


@torch.no_grad()
def test_pretrainedmodels_itself_changes_the_features_it_is_given(network, pictures):
    # Why `Segment` does not use its `features` and `logits`.
    features = network.features(pictures)
    before = features.clone()
    network.logits(features)
    assert not torch.equal(features, before)


def test_the_weights_are_a_function_of_the_seed():
    first, again, other = (build_seeded_network(2, seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


# What belongs to which part


@pytest.mark.parametrize("unfreeze", FIRST_TRAINED)
def test_the_parts_hold_the_networks_own_tensors_under_its_own_names(network, unfreeze):
    whole = network.state_dict()
    prefix, trained = cut(network, unfreeze)
    parts = [*(prefix.state_dict().items() if prefix else []), *trained.state_dict().items()]
    assert sorted(name for name, _ in parts) == sorted(whole)
    assert all(tensor.data_ptr() == whole[name].data_ptr() for name, tensor in parts)


@pytest.mark.parametrize("unfreeze", FIRST_TRAINED)
def test_exactly_the_prefix_is_frozen(unfreeze):
    network = build_seeded_network(2, 0)
    prefix, trained = cut(network, unfreeze)
    frozen = {id(parameter) for parameter in prefix.parameters()} if prefix else set()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (id(parameter) not in frozen), name
    assert all(parameter.requires_grad for parameter in trained.parameters())
    if prefix is not None:
        assert not any(part.training for part in prefix.modules())


def test_a_backward_pass_reaches_every_trained_parameter(activations):
    _, trained = cut(lively_network(), "exit")
    train_mode(trained, batch_norm=False)
    trained(activations["block12"]).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained.parameters())


# Training mode


def buffers_after_a_pass(activations: torch.Tensor, *, batch_norm: bool) -> list[bool]:
    """Tell for each buffer whether a forward pass in training mode changed it."""
    trained = Segment(lively_network(), "block12", "head", dropout=0.5)
    before = {name: buffer.clone() for name, buffer in trained.named_buffers()}
    train_mode(trained, batch_norm=batch_norm)
    trained(activations)
    return [not torch.equal(before[name], buffer) for name, buffer in trained.named_buffers()]


def test_batch_norm_stands_still_in_training_unless_it_is_trained(activations):
    assert not any(buffers_after_a_pass(activations["block12"], batch_norm=False))
    assert all(buffers_after_a_pass(activations["block12"], batch_norm=True))


@torch.no_grad()
def test_dropout_acts_in_training_only(network, activations):
    trained = Segment(network, "conv4", "head", dropout=0.5)
    values, expected = activations["conv4"], activations["logits"]
    train_mode(trained, batch_norm=False)
    first, second = trained(values), trained(values)
    assert (first - second).abs().max() > 1e-3
    torch.testing.assert_close(trained.eval()(values), expected)
    without = Segment(network, "conv4", "head")
    train_mode(without, batch_norm=False)
    torch.testing.assert_close(without(values), expected)
    network.eval()


# Parameter groups


def groups_of(network: nn.Module, unfreeze: str) -> tuple[Segment, list[dict[str, object]]]:
    trained = Segment(network, FIRST_TRAINED[unfreeze], "head")
    groups = parameter_groups(trained, lr=1.0, head_lr=5.0, layer_decay=0.5, weight_decay=0.05)
    return trained, groups


@pytest.mark.parametrize("unfreeze", FIRST_TRAINED)
def test_every_trained_parameter_is_in_one_group_and_only_kernels_decay(network, unfreeze):
    trained, groups = groups_of(network, unfreeze)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(decay)
    assert set(decay) == {id(parameter) for parameter in trained.parameters()}
    for module in trained.modules():
        for name, parameter in module.named_parameters(recurse=False):
            plain = name == "bias" or isinstance(module, nn.BatchNorm2d)
            assert decay[id(parameter)] == (0.0 if plain else 0.05)


def test_each_block_learns_at_half_the_rate_of_the_one_behind_it(network):
    _, groups = groups_of(network, "all")
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {
        "conv1": 1 / 8192,
        "conv2": 1 / 4096,
        "block1": 1 / 2048,
        "block2": 1 / 1024,
        "block3": 1 / 512,
        "block4": 1 / 256,
        "block5": 1 / 128,
        "block6": 1 / 64,
        "block7": 1 / 32,
        "block8": 1 / 16,
        "block9": 1 / 8,
        "block10": 1 / 4,
        "block11": 1 / 2,
        "block12": 1.0,
        "conv3": 1.0,
        "conv4": 1.0,
        "head": 5.0,
    }
    assert all(group["lr"] == group["peak_lr"] for group in groups)
    assert groups[-1]["name"] == "head"
    names = {id(p): name for name, p in network.named_parameters()}
    for group in groups:
        modules = {names[id(p)].split(".")[0].replace("bn", "conv") for p in group["params"]}
        assert modules == {"last_linear" if group["name"] == "head" else group["name"]}
