"""Xception as an ONNX graph, node by node, with names that read well in a viewer.

Written by hand, because torch's exporters name nodes after modules, `/block5/rep/rep.1/conv1/Conv`
instead of `middle_flow/block5/sepconv1/depthwise`; because the one that is not deprecated needs
another package, onnxscript; and because they cannot trace Pillow's resize, which is in the file
(resize.py).
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from torch import nn

from xception_cli.data.transforms import Preprocessing
from xception_cli.model.bundle import ModelBundle
from xception_cli.model.folding import fold_batch_norm
from xception_cli.model.layers import LAYERS, layers_head
from xception_cli.model.network import STEPS
from xception_cli.model.unknown import NEIGHBOURS, Reference
from xception_cli.onnx.classifier import DISTANCE, INPUT, OUTPUT
from xception_cli.onnx.file import to_metadata
from xception_cli.onnx.resize import add_cropping
from xception_cli.onnx.writer import GraphWriter
from xception_cli.summary.count import flow_of

_OPSET = 18  # the first whose ReduceMean takes axes as an input (2022)
_IR_VERSION = 9  # of the same year, for older runtimes
RANGE = 255.0  # of a uint8 pixel, which `Preprocessing.normalize` divides by


def add_normalization(writer: GraphWriter, preprocessing: Preprocessing, pixels: str) -> str:
    """Add the nodes of `Preprocessing.normalize`.

    Args:
        writer: Writer of the graph.
        preprocessing: The pixel preprocessing.
        pixels: Name of the pixels in 0..255, float32.

    Returns:
        Name of the network's input, float32.
    """
    steps = (
        ("Div", "range", RANGE),
        ("Sub", "mean", preprocessing.mean),
        ("Div", "std", preprocessing.std),
    )
    for operator, name, value in steps:
        operand = writer.constant(f"normalize/{name}/value", np.float32(value))
        pixels = writer.node(operator, [pixels, operand], f"normalize/{name}")
    return pixels


def build_onnx(bundle: ModelBundle, *, cropped: bool) -> onnx.ModelProto:
    """Build a model as an ONNX graph, from pixels to probabilities and the distance for `unknown`.

    The input `image` is uint8 RGB, `(batch, height, width, 3)`, as Pillow and numpy hold an image.

    Args:
        bundle: The model.
        cropped: Leave out resizing and cropping; the input is `image_size` square.

    Returns:
        A model with the weights inside, in float32.
    """
    writer = GraphWriter()
    if cropped:
        pixels = writer.node("Transpose", [INPUT], "pixels/channels_first", perm=[0, 3, 1, 2])
        pixels = writer.node("Cast", [pixels], "pixels/float", to=onnx.TensorProto.FLOAT)
    else:
        pixels = add_cropping(writer, bundle.preprocessing, INPUT)
    pixels = add_normalization(writer, bundle.preprocessing, pixels)
    network = fold_batch_norm(bundle.network).cpu()
    add_logits = _add_mirrored_network if bundle.preprocessing.mirror else _add_network
    logits, features = add_logits(writer, network, pixels)
    if bundle.about.temperature != 1:
        divisor = writer.constant("head/temperature/value", np.float32(bundle.about.temperature))
        logits = writer.node("Div", [logits, divisor], "head/temperature")
    writer.node("Softmax", [logits], "head/softmax", output=OUTPUT, axis=1)
    floats = onnx.TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(OUTPUT, floats, ["batch", len(bundle.classes)])]
    if bundle.about.unknown is not None:
        _add_distance(writer, bundle.about.unknown.reference, features)
        outputs.append(helper.make_tensor_value_info(DISTANCE, floats, ["batch"]))
    side: int | str = bundle.preprocessing.image_size if cropped else ""
    shape = ["batch", side or "height", side or "width", 3]
    graph = helper.make_graph(
        writer.nodes,
        "Xception",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, shape)],
        outputs,
        writer.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="xception",
    )
    helper.set_model_props(model, to_metadata(bundle, cropped=cropped))
    return model


def _add_network(writer: GraphWriter, network: nn.Module, pixels: str) -> tuple[str, str]:
    """Add the nodes of a network with folded batch norm.

    Args:
        writer: Writer of the graph.
        network: Network from `fold_batch_norm`.
        pixels: Name of its normalised input.

    Returns:
        Names of the logits, and of the pooled last layer.
    """
    current, head = pixels, layers_head(network)
    pooled: dict[str, str] = {}
    for step in STEPS[:-1]:
        name = f"{flow_of(step).replace(' ', '_')}/{step}"
        part = network.get_submodule(step)
        if step.startswith("conv"):
            current = writer.node("Relu", [_add_layer(writer, part, current, name)], f"{name}/relu")
        else:
            current = _add_block(writer, part, current, name)
        if step == STEPS[-2] or (head is not None and step in LAYERS):
            name = "head/pool" if step == STEPS[-2] else f"head/pool_{step}"
            axes = writer.integers(f"{name}/axes", 2, 3)
            pooled[step] = writer.node("ReduceMean", [current, axes], name, keepdims=0)
    features = pooled[STEPS[-2]]
    if head is None:
        last = network.get_submodule("last_linear")
        return _add_linear(writer, last, features, "head/last_linear"), features
    unit = [
        writer.node("LpNormalization", [name], f"{name}/unit", axis=1, p=2)
        for name in pooled.values()
    ]
    joined = writer.node("Concat", unit, "head/layers", axis=1)
    return _add_linear(writer, head, joined, "head/layers_head"), features


def _add_mirrored_network(writer: GraphWriter, network: nn.Module, pixels: str) -> tuple[str, str]:
    """Add a network that also classifies the mirror image; see `_add_network`.

    Both go through the same nodes, as a batch of twice the size.

    Returns:
        Names of the logits, averaged, and of the pooled last layer of the image itself.
    """
    node, integers = writer.node, writer.integers
    last, before_first = integers("mirror/last", -1), integers("mirror/before_first", -(2**31))
    axis = integers("mirror/axis", 3)
    mirrored = node("Slice", [pixels, last, before_first, axis, last], "mirror/image")
    both = node("Concat", [pixels, mirrored], "mirror/both", axis=0)
    logits, features = _add_network(writer, network, both)
    count = node("Shape", [pixels], "mirror/batch", start=0, end=1)
    start, end = integers("mirror/start", 0), integers("mirror/end", 2**31)
    batch = integers("mirror/axis_of_batch", 0)

    def part(of: str, first: str, behind: str, name: str) -> str:
        return node("Slice", [of, first, behind, batch], name)

    own = part(logits, start, count, "mirror/logits_of_image")
    other = part(logits, count, end, "mirror/logits_of_mirrored")
    total = node("Add", [own, other], "mirror/sum")
    half = writer.constant("mirror/half", np.float32(0.5))
    mean = node("Mul", [total, half], "mirror/mean")
    return mean, part(features, start, count, "mirror/features")


def _add_distance(writer: GraphWriter, reference: Reference, features: str) -> None:
    """Add `Reference.distances`: 1 minus the mean cosine to the nearest training images."""
    levels = writer.constant("unknown/training_photos", reference.levels)
    photos = writer.node("Cast", [levels], "unknown/photos_float", to=onnx.TensorProto.FLOAT)
    directions = writer.node("LpNormalization", [photos], "unknown/photos_unit", axis=1, p=2)
    direction = writer.node("LpNormalization", [features], "unknown/image_unit", axis=1, p=2)
    cosines = writer.node("Gemm", [direction, directions], "unknown/cosines", transB=1)
    count = writer.integers("unknown/nearest/count", min(NEIGHBOURS, len(reference.levels)))
    nearest = writer.node("TopK", [cosines, count], "unknown/nearest", second="unknown/which")
    axes = writer.integers("unknown/likeness/axes", 1)
    likeness = writer.node("ReduceMean", [nearest, axes], "unknown/likeness", keepdims=0)
    one = writer.constant("unknown/one", np.float32(1))
    writer.node("Sub", [one, likeness], "unknown/distance", output=DISTANCE)


def _add_block(writer: GraphWriter, block: Any, start: str, name: str) -> str:
    current, separables = start, 0
    for layer in block.rep:  # not its children(): it contains one ReLU twice
        if isinstance(layer, nn.Identity):
            continue  # a folded batch norm
        if isinstance(layer, nn.ReLU):
            current = writer.node("Relu", [current], f"{name}/relu{separables + 1}")
        elif isinstance(layer, nn.MaxPool2d):
            current = _add_pooling(writer, layer, current, f"{name}/pool")
        else:
            separables += 1
            current = _add_layer(writer, layer, current, f"{name}/sepconv{separables}")
    skip = start
    if block.skip is not None:
        skip = _add_layer(writer, block.skip, start, f"{name}/skip")
    return writer.node("Add", [current, skip], f"{name}/add")


def _add_layer(writer: GraphWriter, layer: Any, start: str, name: str) -> str:
    """Add a convolution, or the two of a separable convolution."""
    if isinstance(layer, nn.Conv2d):
        return _add_convolution(writer, layer, start, name)
    current = _add_convolution(writer, layer.conv1, start, f"{name}/depthwise")
    return _add_convolution(writer, layer.pointwise, current, f"{name}/pointwise")


def _add_convolution(writer: GraphWriter, layer: nn.Conv2d, start: str, name: str) -> str:
    inputs = [start, writer.constant(f"{name}/weight", _array(layer.weight))]
    if layer.bias is not None:
        inputs.append(writer.constant(f"{name}/bias", _array(layer.bias)))
    return writer.node(
        "Conv",
        inputs,
        name,
        kernel_shape=_pair(layer.kernel_size),
        strides=_pair(layer.stride),
        pads=_pair(layer.padding) * 2,
        dilations=_pair(layer.dilation),
        group=layer.groups,
    )


def _add_pooling(writer: GraphWriter, layer: nn.MaxPool2d, start: str, name: str) -> str:
    return writer.node(
        "MaxPool",
        [start],
        name,
        kernel_shape=_pair(layer.kernel_size),
        strides=_pair(layer.stride),
        pads=_pair(layer.padding) * 2,
    )


def _add_linear(writer: GraphWriter, layer: nn.Module, start: str, name: str) -> str:
    weight = writer.constant(f"{name}/weight", _array(layer.weight))
    bias = writer.constant(f"{name}/bias", _array(layer.bias))
    return writer.node("Gemm", [start, weight, bias], name, transB=1)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _array(parameter: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = parameter.detach().float().contiguous().numpy()
    return array
