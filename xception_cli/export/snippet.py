"""The program that a person starts from: onnxruntime, numpy and Pillow are all that it needs."""

from pathlib import Path

from xception_cli.data.transforms import Preprocessing

_PROGRAM = """\
import json, sys
import numpy, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({path!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
for path in sys.argv[1:]:
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
{cropping}\
    (found,) = session.run(["probabilities"], {{"image": numpy.asarray(picture)[None]}})
    best = found[0].argsort()[::-1][:5]
    print(path, ", ".join(f"{{classes[i]}} {{found[0][i]:.1%}}" for i in best), sep=": ")
"""

_CROPPING = """\
    sides = [side * {resize_size} // min(picture.size) for side in picture.size]
    left, top = (round((side - {image_size}) / 2) for side in sides)
    box = (left, top, left + {image_size}, top + {image_size})
    picture = picture.resize(sides, Image.Resampling.BICUBIC).crop(box)
"""


def inference_snippet(path: Path, preprocessing: Preprocessing, *, cropped: bool) -> str:
    """Write a program that names the photos it is given, with an exported file.

    Args:
        path: The file.
        preprocessing: Its pixel numbers.
        cropped: Whether the file wants pictures resized and cut.
    """
    cropping = _CROPPING.format(**preprocessing.to_dict()) if cropped else ""
    return _PROGRAM.format(path=str(path), cropping=cropping)
