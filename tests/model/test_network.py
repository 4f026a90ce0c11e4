"""The network: cutting it changes no number, and only the selected part is trained."""

from copy import deepcopy

import pretrainedmodels
import pytest
import torch
from networks import lively_network, noise
from torch import nn

from xception_cli.model.folding import fold_batch_norm
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
    """The logits of pretrainedmodels' own forward pass."""
    with torch.no_grad():
        return network(pictures)


@pytest.fixture(scope="module")
def activations(network, pictures):
    """The input of every step, and the logits after the last."""
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
def test_the_comparison_detects_a_step_that_is_left_out_or_repeated(network, activations, logits):
    def from_block_5(*steps: str) -> torch.Tensor:
        values = activations["block5"]
        for step in steps:
            values = Segment(network, step, step).eval()(values)
        return Segment(network, "block7", "head").eval()(values)

    torch.testing.assert_close(from_block_5("block5", "block6"), logits, atol=1e-6, rtol=1e-5)
    for other in (("block6", "block5"), ("block5",), ("block5", "block5")):
        assert (from_block_5(*other) - logits).abs().max() > 1e-3
    assert (logits - logits.roll(1, 0)).abs().max() > 1e-2  # and the images differ


@torch.no_grad()
def test_the_pooled_features_are_those_after_the_last_relu(network, pictures):
    # In float64: a folded batch norm rounds differently.
    own, pictures = deepcopy(network).double(), pictures.double()
    expected = nn.functional.relu(own.features(pictures)).mean((2, 3))
    found = Segment(own, "conv1", "conv4").eval()(pictures).mean((2, 3))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)
    single = pool(Segment(network, "conv1", "conv4").eval()(pictures.float()))
    torch.testing.assert_close(single, expected.float(), atol=3e-5, rtol=0)
    head = Segment(network, "head", "head").eval()
    torch.testing.assert_close(head(single), network(pictures.float()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", [True, False])
@torch.no_grad()
def test_no_step_changes_its_input(network, activations, mode):
    changed, own = [], lively_network() if mode else network  # training changes its buffers
    for step in STEPS:
        given = activations[step].clone()
        Segment(own, step, step).train(mode)(given)
        changed += [step] * (not torch.equal(given, activations[step]))
    assert changed == []


@torch.no_grad()
def test_pretrainedmodels_itself_changes_its_features_in_place(network, pictures):
    # The reason why `Segment` does not use its `features` and `logits`.
    features = network.features(pictures)
    before = features.clone()
    network.logits(features)
    assert not torch.equal(features, before)


def test_the_weights_are_a_function_of_the_seed():
    first, again, other = (build_seeded_network(2, seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


# Batch norm, folded


@pytest.fixture(scope="module")
def shifting(network):
    """The network with a scale and a shift in each batch norm, like a trained one."""
    own, generator = deepcopy(network), torch.Generator().manual_seed(4)
    for part in own.modules():
        if isinstance(part, nn.BatchNorm2d):
            with torch.no_grad():
                part.weight.copy_(torch.rand(part.weight.shape, generator=generator) + 0.5)
                part.bias.copy_(torch.randn(part.bias.shape, generator=generator) * 0.1)
    return own


def norms(network: nn.Module) -> list[str]:
    return [n for n, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["network", "shifting"])
@torch.no_grad()
def test_folding_batch_norm_changes_the_logits_only_by_rounding(request, pictures, name):
    own = request.getfixturevalue(name)
    logits = own(pictures)
    # Measured: 4e-6 to 1.1e-5 in float32, 2e-15 in float64, where only rounding remains.
    for folded, tolerance in (
        (fold_batch_norm(own)(pictures), 3e-5),
        (fold_batch_norm(deepcopy(own).double())(pictures.double()), 1e-12),
    ):
        exact = (
            logits if folded.dtype == logits.dtype else deepcopy(own).double()(pictures.double())
        )
        assert (folded - exact).abs().max() < tolerance * exact.abs().max()
    assert (logits - logits.roll(1, 0)).abs().max() > 1e-2  # other images, other logits


@pytest.mark.parametrize(
    "name", ["bn1", "bn2", "block1.skipbn", "block1.rep.1", "block5.rep.2", "block12.rep.5", "bn4"]
)
@torch.no_grad()
def test_the_comparison_detects_a_wrongly_folded_batch_norm(shifting, pictures, name):
    other = deepcopy(shifting)
    other.get_submodule(name).running_mean.add_(0.01)
    expected = shifting(pictures)
    found = fold_batch_norm(other)(pictures)
    assert (found - expected).abs().max() > 1e-3 * expected.abs().max()


def test_folding_leaves_no_batch_norm_and_does_not_change_the_network(shifting, pictures):
    own = deepcopy(shifting)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    wanting = {name: p.requires_grad for name, p in own.named_parameters()}
    folded = fold_batch_norm(own)
    assert len(norms(own)) == 40  # 4 after the convolutions, 32 in the blocks, 4 on their skips
    assert norms(folded) == []
    for parameter in folded.parameters():
        parameter.data.zero_()  # a copy: nothing is shared
    assert list(before) == list(own.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in own.state_dict().items())
    assert wanting == {name: p.requires_grad for name, p in own.named_parameters()}
    assert norms(own) == norms(shifting)


@pytest.mark.parametrize("unfreeze", ["head", "exit", "middle"])
@torch.no_grad()
def test_a_folded_network_is_cut_like_the_original(shifting, pictures, unfreeze):
    prefix, trained = cut(fold_batch_norm(shifting), unfreeze)
    expected, _ = cut(deepcopy(shifting), unfreeze)
    activations = expected(pictures)
    assert (prefix(pictures) - activations).abs().max() < 3e-5 * activations.abs().max()
    logits = shifting(pictures)
    assert (trained.eval()(activations) - logits).abs().max() < 3e-5 * logits.abs().max()


def test_the_networks_own_type_and_names_are_pretrainedmodels(network):
    plain = pretrainedmodels.xception(num_classes=3, pretrained=None)
    assert type(network) is type(plain)
    assert list(network.state_dict()) == list(plain.state_dict())
    assert list(fold_batch_norm(network).state_dict()) != list(plain.state_dict())


# Parts of the network


@pytest.mark.parametrize("unfreeze", FIRST_TRAINED)
def test_the_parts_have_the_networks_own_tensors_under_its_own_names(network, unfreeze):
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
    """Return for each buffer whether a forward pass in training mode changed it."""
    trained = Segment(lively_network(), "block12", "head", dropout=0.5)
    before = {name: buffer.clone() for name, buffer in trained.named_buffers()}
    train_mode(trained, batch_norm=batch_norm)
    trained(activations)
    return [not torch.equal(before[name], buffer) for name, buffer in trained.named_buffers()]


def test_batch_norm_is_fixed_in_training_unless_it_is_trained(activations):
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


def test_each_block_learns_at_half_the_rate_of_the_next_one(network):
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
