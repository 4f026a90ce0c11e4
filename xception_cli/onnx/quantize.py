"""int8: an exported network in 8-bit integers, by onnxruntime's `quantize_static`.

Two steps are ours, because onnxruntime has neither: tensor ranges without outliers, and biases that
correct for the change of a channel's mean by rounding the weights.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from xception_cli.errors import MachineError
from xception_cli.files import why
from xception_cli.onnx.classifier import INPUT

INT8 = "int8"

_OUTLIERS = 2e-5  # of each image's values, at either end, are outside of the range
_LEVELS = 64  # onnxruntime's largest 7-bit weight
# onnxruntime's suffixes, the longest first, and their readable replacements.
_SUFFIXES = {
    "_QuantizeLinear_Output": "/uint8",
    "_DequantizeLinear_Output": "/float",
    "_QuantizeLinear": "/quantize",
    "_DequantizeLinear": "/dequantize",
    "_quantized": "/quantized",
    "_zero_point": "/zero_point",
    "_scale": "/scale",
}

Array = NDArray[Any]


@dataclass(frozen=True)
class _Seen:
    """Statistics of the network's tensors, from running it on images.

    Attributes:
        ranges: Minimum and maximum of each tensor.
        means: Mean of each convolution's input, by channel.
        example: One of the images.
    """

    ranges: dict[str, tuple[Array, Array]]
    means: dict[str, Array]
    example: Array


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Gives onnxruntime one image: it requires calibration, although the ranges are known."""

    def __init__(self, example: Array) -> None:
        self._inputs = iter([{INPUT: example}])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._inputs, None)


def quantize_onnx(model: onnx.ModelProto, images: Iterable[Array]) -> onnx.ModelProto:
    """Quantise an exported model's three flows.

    Args:
        model: From `build_onnx`.
        images: Inputs, one by one: `(1, height, width, 3)`, uint8. They determine the ranges.

    Returns:
        A model with the same input, outputs and metadata, plus the metadata entry `quantized`.

    Raises:
        MachineError: Temporary files cannot be written.
    """
    names = [node.name for node in model.graph.node if _is_quantized(node.name)]
    seen = _observe(model, names, images)
    try:
        quantized = _quantize(_correct_biases(model, seen), names, seen)
    except OSError as error:
        raise MachineError(
            f"cannot quantize: temporary files cannot be written: {why(error)}",
            hint="they take 0.3 GB; set TMPDIR to another folder",
        ) from error
    quantized.producer_name = model.producer_name
    del quantized.graph.value_info[:]
    _rename(quantized.graph)
    about = {entry.key: entry.value for entry in model.metadata_props}  # without the quantizer's
    helper.set_model_props(quantized, about | {"quantized": json.dumps(INT8)})
    return quantized


def _is_quantized(node: str) -> bool:
    # The first convolution has a known range, the pixels, and is a hundredth of the work.
    return "_flow/" in node and not node.startswith("entry_flow/conv1")


def _quantize(model: onnx.ModelProto, names: Sequence[str], seen: _Seen) -> onnx.ModelProto:
    """Quantise nodes with onnxruntime, using the observed ranges instead of its own."""
    ranges = {
        tensor: [{"rmin": lowest, "rmax": highest}]
        for tensor, (lowest, highest) in seen.ranges.items()
    }
    with TemporaryDirectory() as folder:
        given, prepared, quantized = (Path(folder, f"{n}.onnx") for n in ("float", "shapes", INT8))
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Reader(seen.example),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            nodes_to_quantize=names,
            op_types_to_quantize=["Conv", "Relu", "MaxPool", "Add"],
            extra_options={"TensorQuantOverrides": ranges},
        )
        return onnx.load(quantized)


def _observe(model: onnx.ModelProto, names: Sequence[str], images: Iterable[Array]) -> _Seen:
    """Run images through a model, and observe all inputs and outputs of these nodes."""
    nodes = [node for node in model.graph.node if node.name in set(names)]
    convolved = {node.input[0] for node in nodes if node.op_type == "Conv"}
    tensors = sorted(convolved | {node.output[0] for node in nodes})
    session = _session_giving(model, tensors)
    lows: dict[str, list[Array]] = {tensor: [] for tensor in tensors}
    highs: dict[str, list[Array]] = {tensor: [] for tensor in tensors}
    means: dict[str, list[Array]] = {tensor: [] for tensor in convolved}
    for image in images:
        for tensor, values in zip(tensors, session.run(tensors, {INPUT: image}), strict=True):
            flat, kept = torch.from_numpy(values).flatten(), 1 + int(_OUTLIERS * values.size)
            lows[tensor].append(flat.topk(kept, largest=False).values[-1].numpy())
            highs[tensor].append(flat.topk(kept).values[-1].numpy())
            if tensor in means:
                means[tensor].append(values.mean(axis=(0, 2, 3)))
    return _Seen(
        {tensor: (min(lows[tensor]), max(highs[tensor])) for tensor in tensors},
        {tensor: np.mean(of_images, axis=0) for tensor, of_images in means.items()},
        image,
    )


def _session_giving(model: onnx.ModelProto, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for tensor in tensors:
        info = helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
        watched.graph.output.append(info)
    return onnxruntime.InferenceSession(
        watched.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def _correct_biases(model: onnx.ModelProto, seen: _Seen) -> onnx.ModelProto:
    """Subtract from each bias the change of its channel's mean by rounding the weights."""
    corrected = onnx.ModelProto()
    corrected.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for node in corrected.graph.node:
        if node.op_type != "Conv" or not _is_quantized(node.name):
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        error = (rounded(weight) - weight).sum(axis=(2, 3))  # borders are treated like the middle
        means = seen.means[node.input[0]]
        depthwise = error.shape[1] == 1
        shift = error[:, 0] * means if depthwise else error @ means
        name = f"{node.name}/bias"
        if name not in constants:  # batch norm was folded into the pointwise part
            node.input.append(name)
            constants[name] = corrected.graph.initializer.add()
            bias = np.zeros(len(weight), np.float32)
        else:
            bias = numpy_helper.to_array(constants[name])
        constants[name].CopyFrom(numpy_helper.from_array((bias - shift).astype(np.float32), name))
    return corrected


def rounded(weight: Array) -> Array:
    """Return a weight rounded to 7 bits, with one scale per output channel; see `reduce_range`."""
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / _LEVELS
    return np.asarray(np.round(weight / scale) * scale)


def _rename(graph: onnx.GraphProto) -> None:
    """Rename the quantizer's tensors and nodes in our style."""
    for node in graph.node:
        node.name = _readable(node.name)
        node.input[:] = [_readable(name) for name in node.input]
        node.output[:] = [_readable(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = _readable(tensor.name)


def _readable(name: str) -> str:
    for suffix, better in _SUFFIXES.items():
        if name.endswith(suffix):
            return _readable(name.removesuffix(suffix)) + better
    return name
