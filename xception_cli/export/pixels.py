"""The evaluation transform as ONNX nodes: resize, cut the centre, normalise.

onnxruntime's antialiased bicubic Resize of uint8 is a port of Pillow's, fixed-point arithmetic and
all; only its scales are float32, so that one pixel in some thousands differs by 1 of 255.
Other runtimes may not know `antialias` (opset 18), and need a file with cropped input.
"""

import numpy as np
import onnx

from xception_cli.data.transforms import Preprocessing
from xception_cli.export.writer import GraphWriter

RANGE = 255.0  # of a uint8 pixel; `Preprocessing.normalize` divides by it first


def add_cropping(writer: GraphWriter, preprocessing: Preprocessing, pixels: str) -> str:
    """Write what torchvision's `v2.Resize` and `v2.CenterCrop` do with a PIL picture.

    Args:
        writer: Of the graph.
        preprocessing: The pixel numbers.
        pixels: Name of uint8 pixels, `(batch, 3, height, width)`.

    Returns:
        Name of uint8 pixels, `(batch, 3, image_size, image_size)`.
    """
    node, integers = writer.node, writer.integers
    shape = node("Shape", [pixels], "resize/shape", start=2)
    # The longer side is rounded down: int(resize_size * long / short).
    short = node("ReduceMin", [shape], "resize/short", keepdims=1)
    wanted = integers("resize/resize_size", preprocessing.resize_size)
    grown = node("Mul", [shape, wanted], "resize/grown")
    sides = node("Div", [grown, short], "resize/sides")
    resized = node(
        "Resize",
        [pixels, "", "", sides],
        "resize/bicubic",
        axes=[2, 3],
        mode="cubic",
        cubic_coeff_a=-0.5,  # Pillow's
        antialias=1,
        exclude_outside=1,  # weights of pixels beyond the border go to those within
        coordinate_transformation_mode="half_pixel",
    )
    # The corner is rounded half to even, as Python's and ONNX's round both do.
    kept = integers("crop/image_size", preprocessing.image_size)
    spare = node("Sub", [sides, kept], "crop/spare")
    spare = node("Cast", [spare], "crop/spare_float", to=onnx.TensorProto.FLOAT)
    half = node("Mul", [spare, writer.constant("crop/half", np.float32(0.5))], "crop/middle")
    corner = node("Round", [half], "crop/corner_float")
    corner = node("Cast", [corner], "crop/corner", to=onnx.TensorProto.INT64)
    end = node("Add", [corner, kept], "crop/end")
    axes = integers("crop/axes", 2, 3)
    return node("Slice", [resized, corner, end, axes], "crop/centre")


def add_normalization(writer: GraphWriter, preprocessing: Preprocessing, pixels: str) -> str:
    """Write `Preprocessing.normalize`, step by step.

    Args:
        writer: Of the graph.
        preprocessing: The pixel numbers.
        pixels: Name of pixels in 0..255, float32.

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
