"""Runtime: device, precision, memory format and threads, decided once."""

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import torch
from torch import distributed

from xception_cli import __version__
from xception_cli.errors import MachineError, UsageError
from xception_cli.numerals import count_of
from xception_cli.processes import ALONE, Processes
from xception_cli.suggestions import expect_choice

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where and how the network is computed.

    Attributes:
        device: The one device of this process.
        precision: `fp32`, `bf16` or `fp16`: autocast's dtype of convolutions.
        deterministic: Whether to use only deterministic algorithms.
        processes: The processes that train together; usually only this one.
    """

    device: torch.device
    precision: str
    deterministic: bool = False
    processes: Processes = ALONE

    @property
    def dtype(self) -> torch.dtype:
        """Autocast's dtype of convolutions."""
        return _DTYPES[self.precision]

    @property
    def is_asynchronous(self) -> bool:
        """Whether kernels run asynchronously, so that reading a result waits for the device."""
        return self.device.type != "cpu"

    @property
    def inference_batch(self) -> int:
        """Images per batch in inference.

        On a CPU, 16 are as fast as 32 in half of the memory, and the first batch is ready sooner.
        """
        return 16 if self.device.type == "cpu" else 128

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of activations. channels_last is 1.7 to 5 times faster on CPU, and on CUDA."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    def autocast(self, *, cache: bool = True) -> AbstractContextManager[Any]:
        """Return the context that forward passes run in.

        Args:
            cache: Whether to keep cast weights until the context exits.
        """
        return torch.autocast(
            self.device.type,
            dtype=self.dtype,
            enabled=self.precision != "fp32",
            cache_enabled=cache,
        )

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Move a batch to the device, asynchronously if possible."""
        if self.device.type != "cuda" or tensor.is_cuda:
            return tensor.to(self.device)
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        return pinned.to(self.device, non_blocking=True)

    def join_parts(self, parts: Sequence[torch.Tensor], rows: int = 0) -> torch.Tensor:
        """Join the parts of a batch, on the device.

        Args:
            parts: `(n, ...)` each.
            rows: On CUDA, pad the batch with zeros to this many rows: for each new batch size cuDNN
                takes seconds to prepare its kernels.

        Returns:
            The rows of all parts, in order, then any padding.
        """
        count = sum(len(part) for part in parts)
        first = parts[0]
        if len(parts) == 1 and (count >= rows or self.device.type != "cuda"):
            return self.to_device(first)
        if self.device.type != "cuda":
            return torch.cat(list(parts)).to(self.device)
        # Part by part: page-locked memory is copied directly and asynchronously.
        shape = (max(rows, count), *first.shape[1:])
        joined = torch.zeros(shape, dtype=first.dtype, device=self.device)
        if first.dim() == 4 and first.is_contiguous(memory_format=torch.channels_last):
            joined = joined.contiguous(memory_format=torch.channels_last)
        at = 0
        for part in parts:
            joined[at : at + len(part)].copy_(part, non_blocking=True)
            at += len(part)
        return joined

    def synchronize(self) -> None:
        """Wait until the device is idle; for timing only."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def place(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device, in its memory format."""
        return network.to(self.device).to(memory_format=self.memory_format)

    def preferring(self, precision: object) -> "Runtime":
        """Return the runtime with another precision, if the device supports it."""
        if precision in supported_precisions(self.device):
            return replace(self, precision=str(precision))
        return self

    def alone(self) -> "Runtime":
        """Return the runtime for what this process computes by itself."""
        return replace(self, processes=ALONE)

    def describe_device(self) -> str:
        """Return a readable name of the device."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "cpu":
            return f"CPU, {count_of(torch.get_num_threads(), 'thread')}"
        return "Apple GPU"

    def idle_gpus(self) -> int:
        """Return the number of GPUs on this machine that this training does not use."""
        if self.device.type != "cuda" or self.processes.count > 1:
            return 0
        return torch.cuda.device_count() - 1

    def describe(self) -> str:
        """Return a readable summary."""
        together = f", {self.processes.count} processes" if self.processes.count > 1 else ""
        return f"{self.describe_device()}, {self.precision}{together}"


def decide_runtime(
    *,
    device: str = "auto",
    precision: str = "auto",
    deterministic: bool = False,
    compiled: bool = False,
    processes: Processes = ALONE,
) -> Runtime:
    """Choose device and precision, and set up torch. Call it before creating any tensor.

    Args:
        device: `auto`, `cpu`, `cuda` (or `gpu`, which means the same) or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        deterministic: Whether to use only deterministic algorithms.
        compiled: Whether torch.compile will be used.
        processes: The processes that train together, each on a device of its own.

    Raises:
        MachineError: The device is not available, or there are fewer than processes; or triton or
            a C++ compiler is missing.
        UsageError: There is no such device, or it does not support the precision.
    """
    chosen = _decide_device(device, processes)
    supported = supported_precisions(chosen)
    if precision == "auto":
        precision = supported[0]
    elif precision not in supported:
        raise UsageError(
            f"precision {precision} is not supported on {chosen}; "
            f"supported there: {', '.join(supported)}",
            hint=f"--precision {supported[0]}, or leave it out",
        )
    if compiled:
        check_compiler(chosen)
    _keep_freed_memory()
    # Always: torch reads it at the first matrix product, and a later training may be deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic != torch.are_deterministic_algorithms_enabled():  # by an earlier training
        torch.use_deterministic_algorithms(mode=deterministic)
    if chosen.type == "cuda":
        # Otherwise fp32 convolutions use TF32 (10-bit mantissas) from Ampere on. This is the older
        # of torch's two interfaces: torch 2.11 to 2.14 refuse to read it after using the newer one.
        torch.backends.cudnn.allow_tf32 = False
        if processes.are_joined:
            if not distributed.is_nccl_available():
                raise MachineError(
                    "this build of torch has no NCCL, which training on several GPUs needs",
                    hint="train without torchrun",
                )
            torch.cuda.set_device(chosen)
            processes = replace(processes, nccl=distributed.new_group(backend="nccl"))
    return Runtime(chosen, precision, deterministic, processes)


def check_compiler(device: torch.device) -> None:
    """Check that torch.compile can run, before anything is computed.

    Raises:
        MachineError: Triton or a C++ compiler is missing.
    """
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise MachineError("--compile needs triton on a GPU", hint="leave --compile out")
    compilers = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    if device.type != "cuda" and not any(name and shutil.which(name) for name in compilers):
        raise MachineError(
            "--compile needs a C++ compiler, and none was found",
            hint="install g++ or clang++, or leave --compile out",
        )


def _decide_device(name: str, processes: Processes) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    name = "cuda" if name == "gpu" else name
    expect_choice("device", name, ("auto", *sorted(available)))
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    elif not available[name]:
        others = ", ".join(kind for kind, there in available.items() if there)
        raise MachineError(
            f"there is no {name} device on this machine; available: {others}",
            hint="leave --device out, or use --device cpu; xception env lists the devices",
        )
    alone = not processes.are_joined or (processes.count == 1 and name == "mps")
    if alone or name == "cpu":
        return torch.device(name)
    there = torch.cuda.device_count() if name == "cuda" else 0
    if processes.local_count > there:
        raise MachineError(
            f"torchrun started {processes.local_count} processes on this machine, which has "
            f"{count_of(there, 'CUDA device')}",
            hint=f"torchrun --nproc-per-node {there}" if there > 1 else "train without torchrun",
        )
    return torch.device(name, processes.local_rank)


def supported_precisions(device: torch.device) -> list[str]:
    """List the precisions that the device supports, the best first."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ["bf16", "fp16", "fp32"]
        return ["fp16", "fp32"]
    if device.type == "cpu":
        # Without these instructions bf16 is emulated: 15 times slower than fp32 on an AVX2 CPU.
        if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
            return ["bf16", "fp32"]
        return ["fp32", "bf16"]
    return ["fp32"]


def release_freed_memory() -> None:
    """Return the memory that `_keep_freed_memory` keeps to the system, before a fork.

    A forked process would hold a copy of it: this one writes to it again, with the next batch.
    """
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def _keep_freed_memory() -> None:
    """Make glibc keep the memory of freed activations, instead of returning it to the system.

    This speeds up CPU inference in batches of 32 by a factor of 1.5 to 2. The numbers are glibc's
    `M_MMAP_MAX` and `M_TRIM_THRESHOLD`; other systems are unchanged.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)
        mallopt(-1, 2**31 - 1)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ("torch", "torchvision", "pytorch-ignite", "pillow", "numpy", "scikit-learn")
    found = {
        "xception": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
    with suppress(metadata.PackageNotFoundError):  # an extra
        found["pillow-heif"] = metadata.version("pillow-heif")
    return found
