"""Convolutions fused with what follows them give the same numbers, on a GPU's code paths, too."""

from copy import deepcopy

import pytest
import torch
from networks import lively_network, noise
from torch import nn
from torch.nn import functional

from xception_cli.model.convolutions import Depthwise, _multiply, convolve, pass_block
from xception_cli.model.network import STEPS, Segment, train_mode


@pytest.fixture(scope="module")
def network():
    """In float64, where only rounding errors of 1e-16 remain."""
    network = lively_network().double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.copy_(torch.rand(part.weight.shape, generator=generator) + 0.5)
                part.bias.copy_(torch.randn(part.bias.shape, generator=generator) * 0.1)
    return network


def gradients(network: nn.Module, forward) -> dict[str, torch.Tensor]:
    own = deepcopy(network)
    train_mode(own, batch_norm=False)
    logits = forward(own)
    functional.cross_entropy(logits, torch.arange(len(logits)) % 3).backward()
    return {name: parameter.grad for name, parameter in own.named_parameters()}


def by_segment(own: nn.Module, images: torch.Tensor) -> torch.Tensor:
    pooled = Segment(own, STEPS[0], "conv4")(images).mean((2, 3))  # a head is in float32 only
    return own.last_linear(pooled)


def worst(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert list(found) == list(expected)
    whole = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    return max(float((found[n] - expected[n]).norm() / whole) for n in found)


def test_gradients_of_all_parameters_equal_those_of_the_networks_own_forward_pass(network):
    images = noise(4, seed=2).double()
    expected = gradients(network, lambda own: own(images))
    assert len(expected) == 156
    found = gradients(network, lambda own: by_segment(own, images))
    assert worst(found, expected) < 1e-12
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    other = deepcopy(network)
    other.block5.rep[2].running_var[7] *= 1.01  # the control: one channel of one batch norm
    moved = gradients(other, lambda own: by_segment(own, images))
    assert worst(moved, expected) > 1e-9


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["block1", "block4", "block12"])
def test_a_block_equals_its_own_forward_and_does_not_change_its_input(network, name, training):
    block = deepcopy(network.get_submodule(name)).train(training)
    reference = deepcopy(block)
    channels = (
        block.rep[0].conv1.in_channels if name == "block1" else block.rep[1].conv1.in_channels
    )
    given = torch.randn(2, channels, 10, 10, dtype=torch.float64)
    kept = given.clone()
    with torch.no_grad():
        found = pass_block(block, given)
        assert torch.equal(given, kept)
        torch.testing.assert_close(found, reference(given), atol=1e-12, rtol=1e-12)
    for one, other in zip(block.buffers(), reference.buffers(), strict=True):
        assert torch.equal(one, other)  # statistics of batch norm in training


def test_batch_norm_in_training_is_not_folded():
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
    given = torch.randn(5, 3, 8, 8)
    expected = deepcopy(norm)(convolution(given)).relu()
    torch.testing.assert_close(convolve(convolution, norm, given, relu=True), expected)
    assert norm.num_batches_tracked == 1


def test_a_batch_norm_over_several_gpus_is_not_skipped():
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval()
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.weight)
    given = torch.randn(5, 3, 8, 8)
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(deepcopy(norm))
    assert not isinstance(synchronized, nn.BatchNorm2d)
    found = convolve(convolution, synchronized, given, relu=False)
    torch.testing.assert_close(found, norm(convolution(given)))


# On a GPU


def test_a_depthwise_convolution_and_its_gradients_equal_torchs():
    generator = torch.Generator().manual_seed(0)
    drawn = {"dtype": torch.float64, "generator": generator}
    values = torch.randn(3, 6, 9, 7, **drawn).requires_grad_()
    weight = torch.randn(6, 1, 3, 3, **drawn).requires_grad_()
    outer = torch.randn(3, 6, 9, 7, **drawn)
    expected = functional.conv2d(values, weight, padding=1, groups=6)
    found = Depthwise.apply(values, weight)
    assert torch.equal(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, (values, weight), outer),
        torch.autograd.grad(expected, (values, weight), outer),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    assert torch.autograd.gradcheck(Depthwise.apply, (values, weight))
    frozen = Depthwise.apply(values, weight.detach())
    assert torch.autograd.grad(frozen, values, outer)[0].abs().max() > 0


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_pointwise_convolution_is_a_matrix_product(layout, relu):
    convolution = nn.Conv2d(6, 10, 1).double()
    given = torch.randn(3, 6, 5, 4, dtype=torch.float64).contiguous(memory_format=layout)
    expected = convolution(given)
    expected = expected.relu() if relu else expected
    matrix, bias = convolution.weight.flatten(1), convolution.bias
    found = _multiply(given, matrix, bias, relu=relu)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert found.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():  # without gradients the ReLU is fused into the product
        torch.testing.assert_close(
            _multiply(given, matrix, bias, relu=relu), expected, atol=1e-12, rtol=1e-12
        )
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), convolution.parameters()),
        torch.autograd.grad(expected.square().sum(), convolution.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
