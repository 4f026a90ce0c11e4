"""Device and precision, decided once; and random numbers that are functions of their key."""

import contextlib
import os
import platform
import random

import numpy as np
import pytest
import torch
from PIL import Image

from xception_cli import __version__
from xception_cli.data.transforms import Preprocessing
from xception_cli.environment import read_environment
from xception_cli.errors import MachineError, UsageError
from xception_cli.numerals import count_of
from xception_cli.processes import Processes
from xception_cli.runtime import Runtime, check_compiler, decide_runtime, versions
from xception_cli.seeds import drawing_from, key, seed_everything

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
without_mps = pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")


def test_a_cpu_supports_its_two_precisions():
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        runtime = decide_runtime(device="cpu", precision=precision)
        assert runtime == Runtime(torch.device("cpu"), precision)
        assert runtime.dtype is dtype
        assert runtime.memory_format is torch.channels_last
    assert decide_runtime(device="cpu").precision in {"fp32", "bf16"}


@without_cuda
@without_mps
def test_without_a_gpu_auto_is_the_cpu():
    assert decide_runtime() == decide_runtime(device="cpu")


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "gpu"])
def test_a_missing_gpu_is_a_machine_error(device):
    with pytest.raises(MachineError, match=r"^there is no cuda device on this machine; ") as caught:
        decide_runtime(device=device)
    assert caught.value.exit_code == 5


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"^device is 'cudda', expected one of auto, cpu"
    ) as caught:
        decide_runtime(device="cudda")
    assert caught.value.hint == "did you mean cuda?"


def test_idle_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    gpu = Runtime(torch.device("cuda"), "bf16")
    assert gpu.idle_gpus() == 2
    assert Runtime(torch.device("cuda", 1), "bf16", processes=Processes(1, 2)).idle_gpus() == 0
    assert Runtime(torch.device("cpu"), "fp32").idle_gpus() == 0


def test_parts_of_a_batch_are_joined_in_their_order():
    runtime = Runtime(torch.device("cpu"), "fp32")
    parts = [torch.arange(3), torch.arange(3, 5)]
    assert runtime.join_parts(parts).tolist() == [0, 1, 2, 3, 4]
    assert runtime.join_parts(parts, 9).tolist() == [0, 1, 2, 3, 4]  # a CPU needs no padding
    assert runtime.join_parts(parts[:1]).tolist() == [0, 1, 2]


@without_mps
def test_a_missing_apple_gpu_is_a_machine_error():
    with pytest.raises(MachineError, match=r"^there is no mps device on this machine; "):
        decide_runtime(device="mps")


def test_half_precision_on_a_cpu_is_refused_with_the_alternatives():
    with pytest.raises(UsageError, match=r"^precision fp16 is not supported on cpu; ") as caught:
        decide_runtime(device="cpu", precision="fp16")
    assert caught.value.exit_code == 2
    assert caught.value.hint in {
        "--precision fp32, or leave it out",
        "--precision bf16, or leave it out",
    }


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_computes_convolutions_in_the_precision(precision, dtype):
    runtime = decide_runtime(device="cpu", precision=precision)
    with runtime.autocast():
        assert torch.nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2)).dtype is dtype


def test_a_network_is_placed_in_channels_last():
    placed = decide_runtime(device="cpu").place(torch.nn.Conv2d(3, 4, 3))
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    assert not placed.weight.is_contiguous()


def test_torch_is_deterministic_only_on_request(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    try:
        for wanted in (False, True):
            made = decide_runtime(device="cpu", precision="fp32", deterministic=wanted)
            assert made.deterministic == torch.are_deterministic_algorithms_enabled() == wanted
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_a_deterministic_training_may_follow_another_one_on_a_gpu(monkeypatch):
    """Torch reads the variable once per process, at the first matrix product on a GPU."""
    for given, used in ((None, ":4096:8"), (":16:8", ":16:8")):
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        if given is not None:
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given)
        decide_runtime(device="cpu", deterministic=False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == used


@pytest.mark.parametrize("name", ["c++", "g++", "clang++"])
def test_compiling_on_a_cpu_uses_any_cpp_compiler_and_reports_a_missing_one(
    monkeypatch, tmp_path, name
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"--compile needs a C\+\+ compiler") as caught:
        check_compiler(torch.device("cpu"))
    assert caught.value.exit_code == 5
    assert "leave --compile out" in caught.value.hint
    (tmp_path / name).write_text("#!/bin/sh\n")
    with pytest.raises(MachineError):
        check_compiler(torch.device("cpu"))  # it is not executable
    (tmp_path / name).chmod(0o755)
    check_compiler(torch.device("cpu"))


def test_a_compiler_of_another_name_is_set_by_the_usual_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "")
    with pytest.raises(MachineError):
        check_compiler(torch.device("cpu"))
    (tmp_path / "mine").touch(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "mine"))
    check_compiler(torch.device("cpu"))


@pytest.mark.parametrize("found", [None, object()])
def test_compiling_on_a_gpu_needs_triton(monkeypatch, tmp_path, found):
    monkeypatch.setenv("PATH", str(tmp_path))  # and no C++ compiler
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: asked.append(name) or found)
    refused = contextlib.nullcontext() if found else pytest.raises(MachineError, match="triton")
    with refused:
        check_compiler(torch.device("cuda"))
    assert asked == ["triton"]


def test_the_environment_of_a_bug_report_names_versions_and_devices():
    described = dict(read_environment().rows())
    assert {name: described[name] for name in versions()} == versions()
    assert versions()["xception"] == __version__
    assert versions()["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert described["system"] == platform.platform()
    assert described["cpu"].startswith(
        f"CPU, {count_of(torch.get_num_threads(), 'thread')}; precisions "
    )


# --- keyed random numbers ----------------------------------------------------------------------


def test_a_key_is_the_same_on_every_machine():
    # Computed once, with Python 3.11 on x86-64 Linux: other machines must get the same.
    assert key(0, "split", "abc") == 2187686976609194648
    assert key(1, "order", 2) == 2739087069771477911


def test_keys_of_other_parts_differ_and_have_63_bits():
    parts = [(), (0,), (1,), ("0",), (0, 1), (1, 0), (10,), (0, "a", 1), (0, "a1"), (0.0,), (True,)]
    keys = [key(*p) for p in parts]
    assert len(set(keys)) == len(parts)
    many = [key("many", n) for n in range(1000)]
    assert min(many) >= 0
    assert 2**62 < max(many) < 2**63
    assert np.mean(many) / 2**63 == pytest.approx(0.5, abs=0.05)


def draw() -> tuple:
    return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()


def states() -> tuple:
    kind, words, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (kind, words.tolist(), rest)


def drawn_from(*parts) -> tuple:
    with drawing_from(*parts):
        return draw()


def test_equal_keys_give_equal_numbers_independently_of_earlier_ones():
    first = drawn_from(7, "augment", 0, 3)
    draw()
    assert drawn_from(7, "augment", 0, 3) == first
    other = drawn_from(7, "augment", 0, 4)
    assert all(a != b for a, b in zip(first, other, strict=True))  # the control, in all three


@pytest.mark.parametrize("fails", [False, True], ids=["it ends", "it fails"])
def test_keyed_numbers_restore_all_three_generators(fails):
    before = states()
    with contextlib.suppress(KeyError), drawing_from("x"):
        draw()
        assert all(a != b for a, b in zip(states(), before, strict=True))
        if fails:
            raise KeyError
    assert states() == before


def test_nested_keys_return_to_the_outer_one():
    with drawing_from("outer"):
        alone = [draw(), draw()]
    with drawing_from("outer"):
        nested = [draw()]
        drawn_from("inner")
        nested.append(draw())
    assert nested == alone


def test_seeding_everything_seeds_all_three_generators():
    with drawing_from("so that the other tests keep theirs"):
        seed_everything(3, "phase")
        first = draw()
        draw()
        seed_everything(3, "phase")
        assert draw() == first
        seed_everything(4, "phase")
        assert all(a != b for a, b in zip(first, draw(), strict=True))


def test_random_numbers_of_augmentation_are_keyed_too():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8))
    transform = Preprocessing.for_size(71).training_transform(augment="light", flip=True)
    views = []
    for parts in ((0, 1), (0, 1), (0, 2)):
        with drawing_from(*parts):
            views.append(transform(image))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
