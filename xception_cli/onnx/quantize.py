"""int8: an exported network in 8-bit integers, and what that changes in its answers."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from xception_cli.console import screen
from xception_cli.data.images import decode
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.intervals import wilson_interval
from xception_cli.model.bundle import Classifier
from xception_cli.onnx.file import INPUT
from xception_cli.onnx.judge import JudgePicture

INT8 = "int8"

_OUTLIERS = 2e-5  # of each picture's values, at either end, a range need not hold
_LEVELS = 64  # onnxruntime's largest weight of 7 bits
# onnxruntime's suffixes, the longest first, and how they read better.
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
    """What the network's tensors held while pictures ran through it.

    Attributes:
        ranges: Of each tensor, as onnxruntime's quantiser takes them.
        means: Of each convolution's input, by channel.
    """

    ranges: TensorsData
    means: dict[str, Array]


def quantize_onnx(model: onnx.ModelProto, pictures: Iterable[Array]) -> onnx.ModelProto:
    """Quantise an exported model's three flows.

    Args:
        model: From `build_onnx`.
        pictures: What it takes, one by one: `(1, height, width, 3)`, uint8. They tell which values
            occur.

    Returns:
        A model with the same input, outputs and metadata, and `quantized` among the latter.
    """
    names = [node.name for node in model.graph.node if _is_quantized(node.name)]
    seen = _observe(model, names, pictures)
    quantizer = QDQQuantizer(
        _correct_biases(model, seen),
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=seen.ranges,
        nodes_to_quantize=names,
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", "Relu", "MaxPool", "Add"],
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    quantized.producer_name = model.producer_name
    del quantized.graph.value_info[:]
    _rename(quantized.graph)
    about = {entry.key: entry.value for entry in model.metadata_props}  # without the quantiser's
    helper.set_model_props(quantized, about | {"quantized": json.dumps(INT8)})
    return quantized


def _is_quantized(node: str) -> bool:
    # Without a float convolution between, onnxruntime 1.32 moves int8's Transpose over Resize, and
    # permutes the two sides as if they were four.
    return "_flow/" in node and not node.startswith("entry_flow/conv1")


def _observe(model: onnx.ModelProto, names: Sequence[str], pictures: Iterable[Array]) -> _Seen:
    """Run pictures through a model, and look at all that goes into these nodes and out of them."""
    nodes = [node for node in model.graph.node if node.name in set(names)]
    convolved = {node.input[0] for node in nodes if node.op_type == "Conv"}
    tensors = sorted(convolved | {node.output[0] for node in nodes})
    session = _session_giving(model, tensors)
    lows: dict[str, list[Array]] = {tensor: [] for tensor in tensors}
    highs: dict[str, list[Array]] = {tensor: [] for tensor in tensors}
    means: dict[str, list[Array]] = {tensor: [] for tensor in convolved}
    for picture in pictures:
        for tensor, values in zip(tensors, session.run(tensors, {INPUT: picture}), strict=True):
            flat, kept = torch.from_numpy(values).flatten(), 1 + int(_OUTLIERS * values.size)
            lows[tensor].append(flat.topk(kept, largest=False).values[-1].numpy())
            highs[tensor].append(flat.topk(kept).values[-1].numpy())
            if tensor in means:
                means[tensor].append(values.mean(axis=(0, 2, 3)))
    ranges = {t: TensorData(lowest=min(lows[t]), highest=max(highs[t])) for t in tensors}
    return _Seen(
        TensorsData(CalibrationMethod.MinMax, ranges),
        {tensor: np.mean(of_pictures, axis=0) for tensor, of_pictures in means.items()},
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
    """Take from each bias what rounding the weights adds to its channel's mean."""
    corrected = onnx.ModelProto()
    corrected.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for node in corrected.graph.node:
        if node.op_type != "Conv" or not _is_quantized(node.name):
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        error = (rounded(weight) - weight).sum(axis=(2, 3))  # the border counts as the middle
        means = seen.means[node.input[0]]
        depthwise = error.shape[1] == 1
        shift = error[:, 0] * means if depthwise else error @ means
        name = f"{node.name}/bias"
        if name not in constants:  # batch norm was folded into the pointwise half
            node.input.append(name)
            constants[name] = corrected.graph.initializer.add()
            bias = np.zeros(len(weight), np.float32)
        else:
            bias = numpy_helper.to_array(constants[name])
        constants[name].CopyFrom(numpy_helper.from_array((bias - shift).astype(np.float32), name))
    return corrected


def rounded(weight: Array) -> Array:
    """Return a weight as 7 bits hold it, with one scale per output channel; see `reduce_range`."""
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / _LEVELS
    return np.asarray(np.round(weight / scale) * scale)


def _rename(graph: onnx.GraphProto) -> None:
    """Give the tensors and nodes of the quantiser names in the manner of ours."""
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


LEAST_AGREEMENT = 0.9  # a file that names more than a tenth otherwise is another model


@dataclass(frozen=True)
class Agreement:
    """How a quantised file compares with the float one, on the same pictures.

    Attributes:
        calibrated_on: Pictures that it was quantised by, by where they are from: `train`, `drawn`.
        images: Pictures that both were shown.
        kinds: Of them, by where they are from: `val`, `drawn`.
        agreeing: With the same best class.
        labelled: Whose class is known.
        correct_float: Of these, recognised by the float file.
        correct_int8: Recognised by the quantised one.
        milliseconds_float: Median time of a picture, in onnxruntime on this machine.
        milliseconds_int8: Of the quantised file.
    """

    calibrated_on: dict[str, int]
    images: int
    kinds: dict[str, int]
    agreeing: int
    labelled: int
    correct_float: int
    correct_int8: int
    milliseconds_float: float
    milliseconds_int8: float

    @property
    def passed(self) -> bool:
        """Whether it is the same model still."""
        return self.agreeing >= LEAST_AGREEMENT * self.images

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, each part with its 95 % interval."""
        accuracies = {}
        for name, correct in (("float", self.correct_float), ("int8", self.correct_int8)):
            accuracies[name] = _proportion(correct, self.labelled) if self.labelled else None
        return {
            "calibrated_on": self.calibrated_on,
            "images": self.images,
            "kinds": self.kinds,
            "top1_agreement": _proportion(self.agreeing, self.images),
            "accuracy": accuracies,
            "milliseconds": {"float": self.milliseconds_float, "int8": self.milliseconds_int8},
        }

    def headline(self) -> str:
        """Say in a line how often both say the same."""
        return (
            f"{self.images} pictures ({_list(self.kinds)}): best class as in float32 on "
            f"{_say(self.agreeing, self.images)}"
        )

    def lines(self) -> list[str]:
        """Say all of it, a line for each thing."""
        said = [f"calibrated on {_list(self.calibrated_on)} pictures", self.headline()]
        if self.labelled:
            said.append(
                f"accuracy {_say(self.correct_int8, self.labelled)}; in float32 "
                f"{_say(self.correct_float, self.labelled)}"
            )
        before, after = self.milliseconds_float, self.milliseconds_int8
        return [
            *said,
            f"{before / after:.2f} times as fast here: {after:.0f} ms per picture instead of "
            f"{before:.0f}, by the median",
        ]

    def warning(self) -> str | None:
        """Say that accuracy falls, if it does."""
        lost = self.correct_float - self.correct_int8
        if lost <= 0:
            return None
        return (
            f"int8 COSTS ACCURACY: {lost} fewer of {self.labelled} val images are recognised; "
            "ship the float file if that is too many"
        )


def measure_agreement(
    exported: Classifier,
    quantized: Classifier,
    pictures: Sequence[JudgePicture],
    *,
    calibrated_on: Sequence[JudgePicture],
) -> Agreement:
    """Show pictures to both files, in turn.

    Args:
        exported: The float file.
        quantized: The one that was made of it.
        pictures: With their labels, as far as they are known.
        calibrated_on: What it was quantised by.
    """
    equal, labelled = 0, 0
    correct: list[int] = [0, 0]
    seconds: tuple[list[float], list[float]] = ([], [])
    with screen.bar("comparing int8", len(pictures)) as bar:
        for picture in pictures:
            pixels = exported.transform()(decode(picture.content))[None]
            best = []
            for which, classifier in enumerate((exported, quantized)):
                began = time.perf_counter()
                best.append(int(classifier.probabilities(pixels).argmax()))
                seconds[which].append(time.perf_counter() - began)
                correct[which] += best[-1] == picture.label
            equal += best[0] == best[1]
            labelled += picture.label is not None
            bar.advance(1)
    return Agreement(
        calibrated_on=_kinds(calibrated_on),
        images=len(pictures),
        kinds=_kinds(pictures),
        agreeing=equal,
        labelled=labelled,
        correct_float=correct[0],
        correct_int8=correct[1],
        milliseconds_float=1000 * median(seconds[0]),
        milliseconds_int8=1000 * median(seconds[1]),
    )


def require_agreement(agreement: Agreement) -> None:
    """Let a quantised file out.

    Raises:
        ArtifactError: It is another model.
    """
    if not agreement.passed:
        raise ArtifactError(
            f"the int8 file is not the same model any more, and was not written: "
            f"{agreement.headline()}, fewer than {LEAST_AGREEMENT:.0%}",
            hint="leave --quantize out: the float file says what PyTorch says",
        )


def _kinds(pictures: Sequence[JudgePicture]) -> dict[str, int]:
    return dict(Counter(picture.kind for picture in pictures))


def _list(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _proportion(part: int, of: int) -> dict[str, float]:
    low, high = wilson_interval(part, of)
    return {"value": part / of, "low": low, "high": high}


def _say(part: int, of: int) -> str:
    low, high = wilson_interval(part, of)
    return f"{part} of {of}, {100 * part / of:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"
