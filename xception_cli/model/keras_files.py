"""Keras's HDF5 files of the ImageNet weights, converted to pretrainedmodels' names."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import numpy as np
import torch

from xception_cli.console import show
from xception_cli.errors import ArtifactError

_LARGEST = 4_000_000  # numbers in one array; the last pointwise kernel has 3,145,728

# Layers by Keras's class name in snake case: the tensors' names, in the order of Keras's arrays.
_TENSORS = {
    "conv2d": ("weight",),
    "separable_conv2d": ("conv1.weight", "pointwise.weight"),
    "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
}


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
def _opened(content: bytes) -> Iterator[h5py.File]:
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # h5py on bad bytes
        raise ArtifactError(f"not a valid HDF5 file: {show(error)}") from error


def _convert(file: h5py.File, paths: dict[str, list[str]]) -> dict[str, torch.Tensor]:
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


def _read_array(file: h5py.File, path: str) -> np.ndarray:
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


def _array_names(file: h5py.File, group: str) -> list[str]:
    """Read the names of a layer's arrays, in Keras's order: `kernel:0` and so on."""
    if not isinstance(file.get(group, getlink=True), h5py.HardLink):
        raise ArtifactError(f"the HDF5 file has no layer {show(group)}")
    names = file[group].attrs.get("weight_names", [])
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _number(name: str) -> int:
    number = name.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0
