"""The program that an export prints: it classifies photos, without xception."""

from pathlib import Path

from xception_cli.data.transforms import Preprocessing

ONNX, OPENVINO = "onnx", "openvino"  # formats of an export

_PROGRAM = """\
import io, json, sys
import numpy, {package}
from PIL import Image, ImageCms, ImageOps

{opening}srgb = ImageCms.createProfile("sRGB")
for path in sys.argv[1:]:
    picture = ImageOps.exif_transpose(Image.open(path))
    picture = picture if picture.mode in {{"L", "CMYK"}} else picture.convert("RGB")
    try:
        profile = io.BytesIO(picture.info["icc_profile"])
        picture = ImageCms.profileToProfile(picture, profile, srgb, outputMode="RGB")
    except (KeyError, ImageCms.PyCMSError):  # without a profile, or with a damaged one
        picture = picture.convert("RGB")
{cropping}\
    {running}{{"image": numpy.asarray(picture)[None]}}{ending}
    best = found[0].argsort()[::-1][:5]
    print(path, ", ".join(f"{{classes[i]}} {{found[0][i]:.1%}}" for i in best), sep=": ")
"""

_CROPPING = """\
    sides = [side * {resize_size} // min(picture.size) for side in picture.size]
    left, top = (round((side - {image_size}) / 2) for side in sides)
    box = (left, top, left + {image_size}, top + {image_size})
    picture = picture.resize(sides, Image.Resampling.BICUBIC).crop(box)
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
    """Write a program that names the photos it is given, with an exported file.

    Args:
        path: The file.
        preprocessing: Its pixel numbers.
        cropped: Whether the file wants pictures resized and cut.
        form: `onnx` or `openvino`.
    """
    cropping = _CROPPING.format(**preprocessing.to_dict()) if cropped else ""
    parts = _PARTS[form]
    opening = parts["opening"].format(path=str(path))
    return _PROGRAM.format(**parts | {"opening": opening}, cropping=cropping)
