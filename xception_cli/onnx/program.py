"""The program that an export prints: it classifies images without xception."""

from pathlib import Path

from xception_cli.data.transforms import Preprocessing
from xception_cli.onnx import ONNX, OPENVINO

_PROGRAM = """\
# Reads images as xception predict does, except a PNG that has a gamma but no profile, and a 16-bit
# TIFF whose header states another range.
import csv, io, json, sys
import numpy, {package}
from PIL import Image, ImageCms, ImageOps

{opening}srgb = ImageCms.createProfile("sRGB")
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path))
    profile = io.BytesIO(image.info.get("icc_profile", b""))
    if image.mode.startswith("I"):  # grey of 16 bits
        grey = numpy.asarray(image).astype(int) >> {shift}
        image = Image.fromarray(grey.clip(0, 255).astype("uint8"))
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    kept = {{"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}}
    image = image.convert(kept.get(image.mode, "RGB"))
    try:
        profile = ImageCms.ImageCmsProfile(profile)
        if image.mode == "L" and profile.profile.xcolor_space == "RGB ":
            image = image.convert("RGB")
        image = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    except (OSError, ImageCms.PyCMSError):  # no profile, or an invalid one
        image = image.convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
{cropping}\
    {running}{{"image": numpy.asarray(image)[None]}}{ending}
    best = found[0].argsort()[::-1][:5]
    cells = [cell for i in best for cell in (classes[i], f"{{found[0][i]:.4f}}")]
    csv.writer(sys.stdout).writerow([path, *cells])
"""

_CROPPING = """\
    sides = [side * {resize_size} // min(image.size) for side in image.size]
    left, top = (round((side - {image_size}) / 2) for side in sides)
    box = (left, top, left + {image_size}, top + {image_size})
    image = image.resize(sides, Image.Resampling.BICUBIC).crop(box)
"""

# What differs between the two formats.
_PARTS = {
    ONNX: {
        "package": "onnxruntime",
        "opening": """\
session = onnxruntime.InferenceSession({path!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
""",
        "running": '(found,) = session.run(["probabilities"], ',
        "ending": ")",
    },
    OPENVINO: {
        "package": "openvino",
        "opening": """\
model = openvino.Core().read_model({path!r})
classes = json.loads(model.get_rt_info(["xception", "classes"]).value)
network = openvino.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
""",
        "running": "found = network(",
        "ending": ')["probabilities"]',
    },
}


def inference_snippet(
    path: Path, preprocessing: Preprocessing, *, cropped: bool, form: str = ONNX
) -> str:
    """Return a program that classifies images with an exported file.

    Args:
        path: The file.
        preprocessing: Its preprocessing.
        cropped: Whether the file takes images that are already resized and cropped.
        form: `onnx` or `openvino`.
    """
    cropping = _CROPPING.format(**preprocessing.to_dict()) if cropped else ""
    parts = _PARTS[form]
    opening = parts["opening"].format(path=str(path))
    # Pillow scales the values of a PGM (mode I) to 16 bits itself.
    bits = preprocessing.grey_bits
    shift = "8" if bits == 16 else f'({bits - 8} if ";16" in image.mode else 8)'
    return _PROGRAM.format(**parts | {"opening": opening}, cropping=cropping, shift=shift)
