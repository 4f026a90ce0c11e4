"""Packed weights change no number, and are not used if torch's operators disagree."""

from dataclasses import replace

import pytest
import torch
from networks import CPU, lively_network, noise
from torch import nn

from xception_cli.model import folding
from xception_cli.model.convolutions import PackedConvolution
from xception_cli.model.folding import fold_batch_norm, for_inference
from xception_cli.model.layers import pool_layers, run_layers
from xception_cli.model.network import Segment

if not folding.packs_weights(CPU):
    pytest.skip("this build of torch has no such operators", allow_module_level=True)


def pooled(network: nn.Module, count: int, runtime=CPU) -> torch.Tensor:
    images = noise(count, seed=3).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), runtime.autocast():
        return pool_layers(run_layers(Segment(network, "conv1", "conv4").eval(), images))


def convolutions(network: nn.Module, kind: type) -> int:
    return sum(isinstance(part, kind) for part in network.modules())


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_a_network_with_packed_weights_computes_the_same(precision, tolerance):
    runtime = replace(CPU, precision=precision)
    if not folding.packs_weights(runtime):
        pytest.skip("this CPU does not compute in bf16")
    network = lively_network()
    plain, packed = fold_batch_norm(network, runtime.dtype), for_inference(network, runtime)
    assert convolutions(packed, PackedConvolution) == convolutions(plain, nn.Conv2d) == 74
    for count in (3, 1, 4):
        expected, found = pooled(plain, count, runtime), pooled(packed, count, runtime)
        assert (found - expected).norm() / expected.norm() < tolerance
        # Earlier batches do not matter.
        assert torch.equal(found, pooled(for_inference(network, runtime), count, runtime))
    assert convolutions(packed, nn.Conv2d) == 0
    packed.block9.rep[4].pointwise.bias += 1  # the control
    moved = (pooled(packed, 4, runtime) - expected).norm() / expected.norm()
    assert moved > tolerance


CONVOLVE = torch.ops.mkldnn._convolution_pointwise


@pytest.mark.parametrize("operator", [None, lambda *given: CONVOLVE(*given) * 1.001])
def test_the_networks_own_modules_are_used_if_the_operators_are_missing_or_disagree(
    monkeypatch, operator
):
    state = torch.random.get_rng_state()
    with monkeypatch.context() as patched:
        patched.setattr(torch.ops.mkldnn, "_convolution_pointwise", operator)
        folding._agrees.cache_clear()
        assert not folding.packs_weights(CPU)
        assert convolutions(for_inference(lively_network(), CPU), PackedConvolution) == 0
    folding._agrees.cache_clear()
    assert folding.packs_weights(CPU)
    assert not folding.packs_weights(replace(CPU, device=torch.device("cuda")))
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing is drawn for the comparison
