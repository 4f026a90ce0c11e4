"""SeparableConv2d equals two convolutions of PyTorch, a low-rank one, and Xception's block."""

from copy import deepcopy

import pytest
import torch
from networks import lively_network, noise
from pretrainedmodels.models.xception import SeparableConv2d as PublishedSeparableConv2d
from torch import nn
from torch.nn import functional

from xception_cli.summary.explanation import SeparableConv2d

ARGUMENTS = [
    {},
    {"kernels_per_layer": 3},
    {"stride": 2},
    {"stride": (2, 3), "padding": (1, 0)},
    {"padding": 2},
    {"padding": "same"},
    {"dilation": 2},
    {"dilation": (1, 3), "padding": (1, 3)},
    {"bias": True},
    {"kernels_per_layer": 2, "stride": 2, "padding": 2, "dilation": 2, "bias": True},
]


def drawn(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def separable(**arguments: object) -> SeparableConv2d:
    """Create one of 4 channels and 7 kernels of 3 x 3, with random weights, in float64."""
    module = SeparableConv2d(4, 7, 3, **arguments).double()
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = drawn(tuple(parameter.shape), seed)
    return module


IMAGES = drawn((2, 4, 13, 11), seed=9)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@torch.no_grad()
def test_it_equals_two_convolutions_of_pytorch(arguments):
    module = separable(**arguments)
    geometry = {k: v for k, v in arguments.items() if k in {"stride", "padding", "dilation"}}
    depthwise, pointwise = module.depthwise, module.pointwise
    middle = functional.conv2d(IMAGES, depthwise.weight, depthwise.bias, groups=4, **geometry)
    expected = functional.conv2d(middle, pointwise.weight, pointwise.bias)
    assert torch.equal(module(IMAGES), expected)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@torch.no_grad()
def test_it_equals_one_convolution_whose_kernels_are_products(arguments):
    """A separable convolution is a regular one with kernels W[n, c] = sum of p[n, m] d[m]."""
    module = separable(**arguments | {"bias": False})
    geometry = {k: v for k, v in arguments.items() if k in {"stride", "padding", "dilation"}}
    depthwise = module.depthwise.weight.reshape(4, -1, 3, 3)  # channel, kernel of the channel
    pointwise = module.pointwise.weight.reshape(7, 4, -1)
    kernels = torch.einsum("ncm,cmyx->ncyx", pointwise, depthwise)
    expected = functional.conv2d(IMAGES, kernels, **geometry)
    torch.testing.assert_close(module(IMAGES), expected, atol=1e-12, rtol=1e-12)
    for weight in (module.depthwise.weight, module.pointwise.weight):  # the control
        weight[-1].mul_(1.001)
        assert (module(IMAGES) - expected).abs().max() > 1e-4
        weight[-1].div_(1.001)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, (11, 9)),
        ({"padding": 1}, (13, 11)),
        ({"padding": "same", "dilation": 3}, (13, 11)),
        ({"stride": 2}, (6, 5)),
        ({"stride": 2, "padding": 1}, (7, 6)),
        ({"dilation": 2}, (9, 7)),
        ({"dilation": 5}, (3, 1)),
        ({"stride": 3, "dilation": 2}, (3, 3)),
    ],
    ids=str,
)
@torch.no_grad()
def test_stride_and_dilation_are_applied(arguments, size):
    assert separable(**arguments)(IMAGES).shape == (2, 7, *size)


@torch.no_grad()
def test_stride_skips_positions_and_changes_no_other():
    every = separable(padding=1)(IMAGES)
    torch.testing.assert_close(
        separable(padding=1, stride=2)(IMAGES), every[..., ::2, ::2], atol=1e-12, rtol=0
    )


def test_a_position_depends_on_inputs_spaced_by_the_dilation():
    pictures = IMAGES.clone().requires_grad_()
    separable(dilation=3)(pictures)[0, :, 2, 1].sum().backward()
    seen = pictures.grad[0].abs().sum(0).nonzero()
    assert seen.tolist() == [[y, x] for y in (2, 5, 8) for x in (1, 4, 7)]


@torch.no_grad()
def test_the_depthwise_part_mixes_no_channels_and_the_pointwise_part_no_positions():
    module = separable(kernels_per_layer=2, padding=1)
    changed = IMAGES.clone()
    changed[:, 2] += 1
    moved = (module.depthwise(changed) != module.depthwise(IMAGES)).flatten(2).any(2)
    assert moved.tolist() == [[False] * 4 + [True] * 2 + [False] * 2] * 2  # kernels of channel 2
    middle = module.depthwise(IMAGES)
    elsewhere = middle.clone()
    elsewhere[..., 3, 4] += 1
    moved = (module.pointwise(elsewhere) != module.pointwise(middle)).any(1)
    assert moved[0].nonzero().tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("arguments", "shapes"),
    [
        ({}, {"depthwise.weight": (4, 1, 3, 3), "pointwise.weight": (7, 4, 1, 1)}),
        (
            {"kernels_per_layer": 3, "bias": True},
            {
                "depthwise.weight": (12, 1, 3, 3),
                "depthwise.bias": (12,),
                "pointwise.weight": (7, 12, 1, 1),
                "pointwise.bias": (7,),
            },
        ),
    ],
)
def test_its_parameters(arguments, shapes):
    found = {name: tuple(p.shape) for name, p in separable(**arguments).named_parameters()}
    assert found == shapes


def rebuilt(published: nn.Module) -> SeparableConv2d:
    first, second = published.conv1, published.pointwise
    module = SeparableConv2d(
        first.in_channels,
        second.out_channels,
        first.kernel_size,
        stride=first.stride,
        padding=first.padding,
        dilation=first.dilation,
    )
    module.depthwise.load_state_dict(first.state_dict())
    module.pointwise.load_state_dict(second.state_dict())
    return module


@torch.no_grad()
def test_it_equals_the_blocks_of_pretrainedmodels_to_the_bit():
    network, pictures = lively_network(), noise(2, seed=3)
    ours, count = deepcopy(network), 0
    for name, part in network.named_modules():
        if isinstance(part, PublishedSeparableConv2d):
            ours.set_submodule(name, rebuilt(part).eval())
            count += 1
    assert count == 34
    assert not any(isinstance(part, PublishedSeparableConv2d) for part in ours.modules())
    parameters = [sum(p.numel() for p in each.parameters()) for each in (network, ours)]
    assert parameters[0] == parameters[1]
    expected = network(pictures.clone())
    assert torch.equal(ours(pictures.clone()), expected)
    # The control: the block of another layer.
    ours.set_submodule("block7.rep.4", rebuilt(network.get_submodule("block7.rep.7")))
    assert (ours(pictures.clone()) - expected).abs().max() > 1e-4
