"""Tensors from untrusted files, checked before the network sees them."""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import torch

from xception_cli.console import show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.model.seal import check_seal
from xception_cli.model.torch_files import CONVERT
from xception_cli.numerals import count_of

if TYPE_CHECKING:
    import h5py  # at runtime, imported only to read HDF5

LARGEST_FILE = 1_000_000_000  # bytes; Xception has 92 million
# Bytes of JSON in the header: ours are 1.5 million, and 3,600 for each class name at most, whose
# weights take 8,192 or more.
_LARGEST_HEADER = 3_000_000
_PER_BYTE = 2  # bytes of the file that allow one more
_AGAIN = "download or copy the file again"
_FLOATS = {torch.float32, torch.float16, torch.bfloat16}


def check_file(path: Path) -> None:
    """Refuse a file that does not exist, is far too large, or is obviously something else.

    Raises:
        UsageError: The file does not exist.
        ArtifactError: It cannot be a model file.
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
            header = int.from_bytes(file.read(8), "little")
        if header > _LARGEST_HEADER + path.stat().st_size // _PER_BYTE:
            raise ArtifactError(
                f"{show(path)} has a header of {header:,} bytes, too large for a model"
            )
        with safetensors.safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
        with path.open("rb") as file:
            check_seal(file, path, hint=_AGAIN)
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtifactError(
            f"{show(path)} is not a valid safetensors file: {show(error)}",
            hint=_AGAIN,
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


_LARGEST = 4_000_000  # numbers in one array; the last pointwise kernel has 3,145,728

# Layers by Keras's class name in snake case: the tensors' names, in the order of Keras's arrays.
_TENSORS = {
    "conv2d": ("weight",),
    "separable_conv2d": ("conv1.weight", "pointwise.weight"),
    "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
}

HEAD = {
    f"{head}.{kind}" for head in ("fc", "last_linear", "layers_head") for kind in ("weight", "bias")
}
_PREFIXES = ("module.", "model.")  # DataParallel; Lightning


def from_keras_v3(content: bytes) -> dict[str, torch.Tensor]:
    """Convert the `model.weights.h5` of a `.keras` archive with an Xception backbone.

    It names layers by class and number, in the order of the network.

    Raises:
        ArtifactError: The file has another layout, or holds anything but plain arrays.
    """
    numbers: Counter[str] = Counter()
    paths = {}
    for kind, _, name in _layers():
        number = numbers[kind]
        numbers[kind] += 1
        layer = f"layers/functional/layers/{kind}" + (f"_{number}" if number else "")
        paths[name] = [f"{layer}/vars/{index}" for index in range(len(_TENSORS[kind]))]
    with _opened(content) as file:
        return _convert(file, paths)


def from_keras_applications(content: bytes) -> dict[str, torch.Tensor]:
    """Convert the `.h5` file of Keras Applications.

    It names most layers after their place in the network. The four skip branches have numbers that
    depend on what else the exporting process had built: only their order counts.

    Raises:
        ArtifactError: The file has another layout, or holds anything but plain arrays.
    """
    with _opened(content) as file:
        skips = {
            kind: iter(sorted((g for g in file if re.fullmatch(rf"{kind}(_\d+)?", g)), key=_number))
            for kind in ("conv2d", "batch_normalization")
        }
        paths = {}
        for kind, layer, name in _layers():
            group = layer or next(skips[kind], kind)
            paths[name] = [f"{group}/{array}" for array in _array_names(file, group)]
        return _convert(file, paths)


def _layers() -> Iterator[tuple[str, str, str]]:
    """List the layers with weights, in the order of the network.

    Yields:
        Keras's class; Keras Applications' name, empty in skip branches; pretrainedmodels' name.
    """
    for number in (1, 2):
        yield "conv2d", f"block1_conv{number}", f"conv{number}"
        yield "batch_normalization", f"block1_conv{number}_bn", f"bn{number}"
    for block in range(1, 13):  # Keras counts the two plain convolutions as its block 1
        has_skip = block in (1, 2, 3, 12)
        for number in range(1, 3 if has_skip else 4):
            keras_name = f"block{block + 1}_sepconv{number}"
            place = 3 * (number - 1) + (block > 1)  # block 1 does not start with a ReLU
            yield "separable_conv2d", keras_name, f"block{block}.rep.{place}"
            yield "batch_normalization", f"{keras_name}_bn", f"block{block}.rep.{place + 1}"
        if has_skip:
            yield "conv2d", "", f"block{block}.skip"
            yield "batch_normalization", "", f"block{block}.skipbn"
    for number in (1, 2):
        yield "separable_conv2d", f"block14_sepconv{number}", f"conv{number + 2}"
        yield "batch_normalization", f"block14_sepconv{number}_bn", f"bn{number + 2}"


@contextmanager
def _opened(content: bytes) -> "Iterator[h5py.File]":
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # h5py on bad bytes
        raise ArtifactError(f"not a valid HDF5 file: {show(error)}") from error


def _convert(file: "h5py.File", paths: dict[str, list[str]]) -> dict[str, torch.Tensor]:
    backbone = {}
    for kind, _, name in _layers():
        if len(paths[name]) != len(_TENSORS[kind]):
            raise ArtifactError(f"the HDF5 file has no {kind} arrays for {name}")
        for tensor_name, path in zip(_TENSORS[kind], paths[name], strict=True):
            array = torch.from_numpy(_read_array(file, path))
            if array.ndim == 4:  # (height, width, in, out); a depthwise kernel has out = 1
                depthwise = kind == "separable_conv2d" and tensor_name == "conv1.weight"
                array = array.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
            backbone[f"{name}.{tensor_name}"] = array.contiguous()
    return backbone


def _read_array(file: "h5py.File", path: str) -> np.ndarray:
    import h5py

    node = file
    for part in path.split("/"):
        # Soft and external links lead elsewhere, external storage to any file of this machine.
        is_group = isinstance(node, h5py.Group)
        if not is_group or not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise ArtifactError(f"the HDF5 file has no {show(path)}")
        node = node[part]
    is_plain = (
        isinstance(node, h5py.Dataset)
        and node.external is None
        and not node.is_virtual
        and node.chunks is None
        and node.dtype == np.dtype("<f4")
        and node.size is not None
        and node.size <= _LARGEST
    )
    if not is_plain:
        raise ArtifactError(f"{show(path)} in the HDF5 file is not a plain float32 array")
    return np.asarray(node[()], dtype=np.float32)


def _array_names(file: "h5py.File", group: str) -> list[str]:
    """Read the names of a layer's arrays, in Keras's order: `kernel:0` and so on."""
    import h5py

    if not isinstance(file.get(group, getlink=True), h5py.HardLink):
        raise ArtifactError(f"the HDF5 file has no layer {show(group)}")
    names = file[group].attrs.get("weight_names", [])
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _number(name: str) -> int:
    number = name.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


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
