"""Tensors from untrusted files, checked before the network sees them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch

from xception_cli.console import show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.files import is_file, why
from xception_cli.model.seal import check_seal
from xception_cli.model.torch_files import CONVERT
from xception_cli.numerals import count_of

LARGEST_FILE = 1_000_000_000  # bytes; Xception has 92 million
# Bytes of JSON in the header: ours are 1.5 million, and 3,600 for each class name at most, whose
# weights take 8,192 or more.
_LARGEST_HEADER = 3_000_000
_PER_BYTE = 2  # bytes of the file that allow one more
_AGAIN = "download or copy the file again"
_WHICH = (
    "a model is the model.safetensors of a run; weights that torch wrote (.pt, .pth) go to "
    "xception train --weights FILE"
)
# Of safetensors, for a file that was cut off or has more at its end.
_CUT = ("not fully covered", "header too small", "invalid header length")
_FLOATS = {torch.float32, torch.float16, torch.bfloat16}
# Tensors of a head, by any of its names.
HEAD = {
    f"{head}.{kind}" for head in ("fc", "last_linear", "layers_head") for kind in ("weight", "bias")
}
_PREFIXES = ("module.", "model.")  # DataParallel; Lightning


def check_file(path: Path) -> None:
    """Refuse a file that does not exist, is far too large, or is obviously something else.

    Raises:
        UsageError: The file does not exist.
        ArtifactError: It cannot be a model file.
    """
    try:
        if not is_file(path):
            raise UsageError(
                f"there is no file {show(path)}", hint="--weights takes imagenet, none or a file"
            )
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError as error:
        raise ArtifactError(f"cannot read {show(path)}: {error.strerror}") from error
    if size > LARGEST_FILE:
        raise ArtifactError(f"{show(path)} is {size:,} bytes, too large for an Xception")
    if start.startswith(b"version https://git-lfs"):
        raise ArtifactError(
            f"{show(path)} is a Git LFS pointer, not the weights", hint="git lfs pull"
        )
    if start.startswith((b"<!doctype html", b"<html")):
        raise ArtifactError(
            f"{show(path)} is a web page, not the weights",
            hint="open it in a browser: it may explain why the download failed",
        )


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        UsageError: The file does not exist.
        ArtifactError: It is too large, not a valid safetensors file, or damaged.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            header, json = int.from_bytes(file.read(8), "little"), file.read(1)
        if json not in {b"{", b""}:
            raise ArtifactError(f"{show(path)} is not a safetensors file", hint=_WHICH)
        if json and header > _LARGEST_HEADER + path.stat().st_size // _PER_BYTE:
            raise ArtifactError(
                f"{show(path)} has a header of {header:,} bytes, too large for a model"
            )
        with safetensors.safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
        with path.open("rb") as file:
            check_seal(file, path, hint=_AGAIN)
    except OSError as error:
        raise ArtifactError(f"cannot read {show(path)}: {why(error)}") from error
    except safetensors.SafetensorError as error:
        is_cut = any(words in str(error) for words in _CUT)
        fault = "its size is not that in its header" if is_cut else "its header is damaged"
        raise ArtifactError(
            f"{show(path)} is not a valid safetensors file: {fault}", hint=_AGAIN
        ) from error
    return tensors, metadata


def check_tensors(
    state: Mapping[str, Any], expected: Mapping[str, torch.Size], what: str
) -> dict[str, torch.Tensor]:
    """Check that a state dict has exactly the expected tensors, all valid.

    Batch norm's `num_batches_tracked` is ignored on both sides: no loaded network uses it.

    Args:
        state: The content of an untrusted file.
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
                f"{what} is not an Xception of this kind: it {problem} "
                f"{count_of(len(found), 'tensor')}, for example {show(found[0])}",
                hint="the names must be those of pretrainedmodels' xception",
            )
    for name in names:
        if problem := _problem(state[name], expected[name]):
            raise ArtifactError(
                f"{what} is refused: {show(name)} {problem}",
                hint="the file is damaged or was not made for Xception; download it again",
            )
    return {name: state[name].detach().to(torch.float32, copy=True).contiguous() for name in names}


def _problem(tensor: Any, shape: torch.Size) -> str:
    """Describe what is wrong with a tensor; empty if nothing is."""
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
            return "shares memory between its numbers"
        step *= size
    ends = torch.stack(torch.aminmax(tensor))  # nan if there is one; 8 times as fast as all of them
    return "" if torch.isfinite(ends).all() else "has numbers that are not finite"


def tensor_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a backbone's tensors: names, shapes and float32 numbers, by name.

    It excludes the head and `num_batches_tracked`, so that a network and a file of the same
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


def to_backbone(state: Any, what: str) -> dict[Any, Any]:
    """Remove the wrapping, the prefixes and the head from a torch state dict.

    Raises:
        ArtifactError: It is not a state dict.
    """
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise ArtifactError(f"{what} does not hold a state dict", hint=CONVERT)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    backbone = {name: value for name, value in state.items() if name not in HEAD}
    for name, value in backbone.items():
        # In the file of 2017 (b5690688), such kernels have two dimensions.
        is_dense = isinstance(value, torch.Tensor) and value.layout is torch.strided
        if name.endswith("pointwise.weight") and is_dense and value.ndim == 2:
            backbone[name] = value[:, :, None, None]
    return backbone
