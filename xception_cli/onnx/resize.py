"""Pillow's antialiased bicubic resize and the centre crop, in operators that all runtimes support.

ONNX's antialiased `Resize` is not one of them: OpenVINO 2026.4 silently ignores the antialiasing,
so that 9 of 10 pixels of a noisy image of 12 megapixels are off by more than 8 of 255.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from xception_cli.data.transforms import Preprocessing
from xception_cli.onnx.writer import GraphWriter

_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
_HEIGHT, _WIDTH = 0, 1  # in the shape of an image


@dataclass(frozen=True)
class _Geometry:
    """Names of pairs of numbers, for the height and the width.

    Attributes:
        scale: Pixels of the image per pixel of the resized image.
        stretch: Factor that widens the filter, at least 1: antialiasing.
        corner: First pixel of the crop, in the resized image.
        start: First pixel of the image that the crop depends on.
        end: One after the last such pixel; may exceed the image.
    """

    scale: str
    stretch: str
    corner: str
    start: str
    end: str


def add_cropping(writer: GraphWriter, preprocessing: Preprocessing, pixels: str) -> str:
    """Add nodes for torchvision's `v2.Resize` and `v2.CenterCrop` of a PIL image.

    As in Pillow, rows are resized and rounded, then columns. Both are matrix products, whose
    weights the graph computes from the size of the image. One pixel in a thousand differs from
    Pillow's, by 1 of 255: Pillow rounds the weights to 22 bits.

    Args:
        writer: Writer of the graph.
        preprocessing: The preprocessing.
        pixels: Name of uint8 pixels, `(batch, height, width, 3)`.

    Returns:
        Name of whole numbers 0..255, float32, `(batch, 3, image_size, image_size)`.
    """
    node, side = writer.node, preprocessing.image_size
    for name, value in (("0", 0.0), ("half", 0.5), ("1", 1.0), ("2", 2.0), ("255", 255.0)):
        writer.constant(f"resize/{name}", np.float32(value))
    writer.constant("resize/centres", np.arange(side, dtype=np.float32)[:, None] + 0.5)
    writer.integers("resize/over_pixels", 1)

    geometry = _add_geometry(writer, preprocessing, pixels)
    axes = writer.integers("part/axes", 1, 2)
    # Only what the crop depends on: a third less for a photo of 4:3.
    part = node("Slice", [pixels, geometry.start, geometry.end, axes], "part/pixels")
    size = node("Shape", [part], "part/size", start=1, end=3)
    current = node("Transpose", [part], "pixels/channels_first", perm=[0, 3, 1, 2])
    current = node("Cast", [current], "pixels/float", to=_FLOAT)
    rows = _add_weights(writer, geometry, size, _WIDTH, "resize/rows")
    rows = node("Transpose", [rows], "resize/rows/weights_turned", perm=[1, 0])
    current = _add_product(writer, current, rows, "resize/rows")
    columns = _add_weights(writer, geometry, size, _HEIGHT, "resize/columns")
    return _add_product(writer, columns, current, "resize/columns")


def _add_geometry(writer: GraphWriter, preprocessing: Preprocessing, pixels: str) -> _Geometry:
    node, side = writer.node, preprocessing.image_size
    shape = node("Shape", [pixels], "resize/shape", start=1, end=3)
    # The longer side is rounded down: int(resize_size * long / short).
    short = node("ReduceMin", [shape], "resize/short", keepdims=1)
    wanted = writer.integers("resize/resize_size", preprocessing.resize_size)
    sides = node("Div", [node("Mul", [shape, wanted], "resize/grown"), short], "resize/sides")
    before = node("Cast", [shape], "resize/shape_float", to=_FLOAT)
    after = node("Cast", [sides], "resize/sides_float", to=_FLOAT)
    scale = node("Div", [before, after], "resize/scale")
    stretch = node("Max", [scale, "resize/1"], "resize/stretch")

    crop = writer.constant("crop/image_size", np.float32(side))
    middle = node("Mul", [node("Sub", [after, crop], "crop/spare"), "resize/half"], "crop/middle")
    # Rounded half to even, as Python's and ONNX's round both do.
    corner = node("Round", [middle], "crop/corner")
    opposite = node("Add", [corner, crop], "crop/opposite")

    reach = node("Mul", [stretch, "resize/2"], "part/reach")  # of the cubic filter
    margin = node("Add", [reach, "resize/1"], "part/margin")  # extra pixels have weight 0
    start = node("Sub", [node("Mul", [corner, scale], "part/from"), margin], "part/before")
    start = node("Cast", [node("Relu", [start], "part/inside")], "part/start", to=_INT64)
    end = node("Add", [node("Mul", [opposite, scale], "part/to"), margin], "part/behind")
    end = node("Cast", [end], "part/end", to=_INT64)
    return _Geometry(scale, stretch, corner, start, end)


def _add_weights(writer: GraphWriter, geometry: _Geometry, size: str, axis: int, name: str) -> str:
    """Add nodes for the weight of each pixel of the part in the crop, `(image_size, part)`."""
    node = writer.node
    index = writer.constant(f"{name}/axis", np.int64(axis))

    def of(pair: str, what: str) -> str:
        return node("Gather", [pair, index], f"{name}/{what}")

    outputs = node("Add", ["resize/centres", of(geometry.corner, "corner")], f"{name}/outputs")
    outputs = node("Mul", [outputs, of(geometry.scale, "scale")], f"{name}/outputs_in_image")
    first = node("Cast", [of(geometry.start, "start")], f"{name}/start_float", to=_FLOAT)
    count = node("Cast", [of(size, "size")], f"{name}/size_float", to=_FLOAT)
    inputs = node("Range", ["resize/0", count, "resize/1"], f"{name}/inputs")
    inputs = node("Add", [inputs, first], f"{name}/inputs_in_image")
    inputs = node("Add", [inputs, "resize/half"], f"{name}/input_centres")
    apart = node("Sub", [inputs, outputs], f"{name}/apart")
    apart = node("Div", [apart, of(geometry.stretch, "stretch")], f"{name}/apart_in_filter")
    kernel = _add_cubic(writer, apart, f"{name}/cubic")
    # The weights of pixels outside of the image go to those inside.
    total = node("ReduceSum", [kernel, "resize/over_pixels"], f"{name}/total", keepdims=1)
    return node("Div", [kernel, total], f"{name}/weights")


def _add_cubic(writer: GraphWriter, x: str, name: str) -> str:
    """Add nodes for Pillow's cubic filter (Keys 1981, a = -0.5), without branches.

    With u = max(0, 2 - |x|) and v = max(0, 1 - |x|) it is u²(u - 1) / 2 + v²(1 - 2v).
    """
    node = writer.node
    x = node("Abs", [x], f"{name}/distance")
    u = node("Relu", [node("Sub", ["resize/2", x], f"{name}/2-x")], f"{name}/u")
    v = node("Relu", [node("Sub", ["resize/1", x], f"{name}/1-x")], f"{name}/v")
    outer = node("Mul", [node("Mul", [u, u], f"{name}/uu"), "resize/half"], f"{name}/uu_half")
    outer = node("Mul", [outer, node("Sub", [u, "resize/1"], f"{name}/u-1")], f"{name}/outer")
    inner = node("Sub", ["resize/1", node("Add", [v, v], f"{name}/2v")], f"{name}/1-2v")
    inner = node("Mul", [node("Mul", [v, v], f"{name}/vv"), inner], f"{name}/inner")
    return node("Add", [outer, inner], f"{name}/value")


def _add_product(writer: GraphWriter, left: str, right: str, name: str) -> str:
    """Add nodes for a matrix product, rounded and clipped to the values of a pixel."""
    product = writer.node("MatMul", [left, right], f"{name}/product")
    whole = writer.node("Round", [product], f"{name}/rounded")
    return writer.node("Clip", [whole, "resize/0", "resize/255"], name)
