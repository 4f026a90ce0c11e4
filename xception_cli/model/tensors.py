"""Tensors from files that may come from anyone: checked before the network sees them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch

from xception_cli.console import show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.model.conversion import HEAD

LARGEST_FILE = 1_000_000_000  # bytes; Xception has 92 million
_LARGEST_HEADER = 3_000_000  # bytes of JSON; ours have 1.5 million at most
_FLOATS = {torch.float32, torch.float16, torch.bfloat16}


def check_file(path: Path) -> None:
    """Refuse what is not there, far too large, or plainly something else.

    Raises:
        UsageError: There is no such file.
        ArtifactError: It is none of ours.
    """
    try:
        if not path.is_file():
            raise UsageError(
                f"there is no file {show(path)}", hint="--weights takes imagenet, none or a file"
            )
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError as error:
        raise ArtifactError(f"cannot read {show(path)}: {error.strerror}") from error
    if size > LARGEST_FILE:
        raise ArtifactError(f"{show(path)} has {size:,} bytes; no Xception is that large")
    if start.startswith(b"version https://git-lfs"):
        raise ArtifactError(
            f"{show(path)} is a Git LFS pointer, not the weights", hint="git lfs pull"
        )
    if start.startswith((b"<!doctype html", b"<html")):
        raise ArtifactError(
            f"{show(path)} is a web page, not the weights",
            hint="open it in a browser: it may say what went wrong with the download",
        )


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        UsageError: There is no such file.
        ArtifactError: It is too large, or not a sound safetensors file.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > _LARGEST_HEADER:
            raise ArtifactError(f"{show(path)} has a header of {header:,} bytes; that is no model")
        with safetensors.safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtifactError(
            f"{show(path)} is not a sound safetensors file: {show(error)}",
            hint="get or copy the file again",
        ) from error


def check_tensors(
    state: Mapping[str, Any], expected: Mapping[str, torch.Size], what: str
) -> dict[str, torch.Tensor]:
    """See that a state dict has exactly the tensors expected, each sound.

    Batch norm's `num_batches_tracked` is left out on both sides: nothing that is loaded uses it.

    Args:
        state: What was read from a file that may come from anyone.
        expected: Names and shapes.
        what: The file, for the message.

    Returns:
        The tensors as contiguous float32 copies on the CPU.

    Raises:
        ArtifactError: A name is missing or unknown, or a tensor has another shape or type, is
            sparse, overlaps itself, or is not finite.
    """
    names = [name for name in expected if not name.endswith("num_batches_tracked")]
    missing = [name for name in names if name not in state]
    unknown = [n for n in state if n not in expected and not n.endswith("num_batches_tracked")]
    for problem, found in (("lacks", missing), ("also holds", unknown)):
        if found:
            raise ArtifactError(
                f"{what} is not an Xception of this kind: it {problem} {len(found)} tensors, "
                f"{show(found[0])} for instance",
                hint="expected are the names of pretrainedmodels' xception",
            )
    for name in names:
        if problem := _problem(state[name], expected[name]):
            raise ArtifactError(
                f"{what} is refused: {show(name)} {problem}",
                hint="the file is damaged or was not made for Xception; get it again",
            )
    return {name: state[name].detach().to(torch.float32, copy=True).contiguous() for name in names}


def _problem(tensor: Any, shape: torch.Size) -> str:
    """Say what is wrong with a tensor; empty when nothing is."""
    if not isinstance(tensor, torch.Tensor):
        return "is not a tensor"
    if tensor.layout is not torch.strided or tensor.is_meta:
        return "is not an ordinary dense tensor"
    if tensor.dtype not in _FLOATS:
        return f"has the type {tensor.dtype}, expected float32, float16 or bfloat16"
    if tensor.shape != shape:
        return f"has the shape {tuple(tensor.shape)}, expected {tuple(shape)}"
    step = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != step:
            return "does not have one place in memory for each number"
        step *= size
    return "" if torch.isfinite(tensor).all() else "has numbers that are not finite"


def tensor_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over a backbone's tensors: names, shapes and float32 numbers, sorted by name.

    The head and `num_batches_tracked` are left out, so that a network and a file of the same
    backbone have the same digest.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name in HEAD or name.endswith("num_batches_tracked"):
            continue
        numbers = state[name].detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f"{name} float32 {numbers.shape}\n".encode())
        digest.update(numbers.astype("<f4", copy=False).data)
    return digest.hexdigest()
