"""The program of an export, printed or written: it classifies images without xception."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from xception_cli.console import emit, quoted, say, show
from xception_cli.csv_files import UNMARKED
from xception_cli.data.formats import SUFFIXES_OF
from xception_cli.data.opening import REDUCED
from xception_cli.data.transforms import Preprocessing
from xception_cli.files import write_durably
from xception_cli.onnx import ONNX, OPENVINO

_PROGRAM = """\
# Classifies images, and all images below folders: python THIS_FILE FOLDER > answers.csv
# It needs: pip install {package} pillow numpy
# Reads images as xception predict does, except one whose colours are stated in numbers or EXIF
# instead of a profile, and a 16-bit TIFF whose header states another range.
import csv, glob, io, json, os, re, sys
{before}import numpy, {package}
from PIL import Image, ImageCms, ImageOps

names = sys.argv[1:] or sys.exit(f"no images: python {{sys.argv[0]}} FOLDER > answers.csv")
model = os.path.join(os.path.dirname(sys.argv[0]), {name!r})  # next to this program
model = model if os.path.exists(model) else {path!r}
{opening}srgb = ImageCms.createProfile("sRGB")
Image.MAX_IMAGE_PIXELS = {largest}  # of a JPEG, see read
suffixes = '''{suffixes}'''.split()

def images_of(name):
    if os.path.isdir(name):
        below = glob.glob(os.path.join(glob.escape(name), "**"), recursive=True)
        images = [path for path in below if os.path.splitext(path)[1].lower() in suffixes]
        return sorted(path for path in images if not os.path.isdir(path))
    if os.path.lexists(name):
        return [name]
    return [path for found in sorted(glob.glob(name)) for path in images_of(found)]  # *.jpg

def read(path):
    image = Image.open(path)
    is_inverted = getattr(image, "tag_v2", {{}}).get(262) == 0  # a TIFF whose zero is white
    if image.width * image.height > {most}:  # a JPEG is decoded at half its size
        image.draft(None, (image.width // 2, image.height // 2))
    image = ImageOps.exif_transpose(image)
    profile = io.BytesIO(image.info.get("icc_profile", b""))
    if image.mode.startswith("I"):  # grey of 16 bits
        grey = numpy.asarray(image).astype(int) >> {shift}
        grey = grey.clip(0, 255).astype("uint8")
        image = Image.fromarray(255 - grey if is_inverted else grey)
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
    return image

formula = re.compile({formula!r})
def write(row):  # with a quote where a spreadsheet would begin a formula
    table.writerow([formula.sub("'", cell) for cell in row])

sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")
table = csv.writer(sys.stdout)
ranks = range(1, min(5, len(classes)) + 1)
write(["path", *(f"{{what}}_{{i}}" for i in ranks for what in ("class", "probability"))])
failed = False
for path in [path for name in names for path in images_of(name) or [name]]:
    try:
        {running}{{"image": numpy.asarray(read(path))[None]}}{ending}
    except Exception as error:  # a broken image, or of a format that Pillow does not read
        reason = error if os.path.isfile(path) else "no image found"
        print(f"cannot read {{path}}: {{reason}}", file=sys.stderr)
        failed = True
        continue
    best = found[0].argsort()[::-1][:5]
    write([path, *(cell for i in best for cell in (classes[i], f"{{found[0][i]:.4f}}"))])
sys.exit(failed)
"""

_CROPPING = """\
    sides = [side * {resize_size} // min(image.size) for side in image.size]
    left, top = (round((side - {image_size}) / 2) for side in sides)
    box = (left, top, left + {image_size}, top + {image_size})
    image = image.resize(sides, Image.Resampling.BICUBIC).crop(box)
"""

# With those of HEIC: a photo that Pillow does not read is reported, not ignored.
_SUFFIXES = fill(" ".join(sorted(set().union(*SUFFIXES_OF.values()))), 60)

# What differs between the two formats.
_PARTS = {
    ONNX: {
        "package": "onnxruntime",
        "before": "",
        "opening": """\
session = onnxruntime.InferenceSession(model)
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
""",
        "running": '(found,) = session.run(["probabilities"], ',
        "ending": ")",
    },
    OPENVINO: {
        "package": "openvino",
        # It sends its message in a process, which would run the program again where processes are
        # not forked: on macOS and Windows, and from Python 3.14 on.
        "before": 'sys.modules["openvino_telemetry"] = None  # sends nothing\n',
        "opening": """\
model = openvino.Core().read_model(model)
classes = json.loads(model.get_rt_info(["xception", "classes"]).value)
network = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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
    # Pillow scales the values of a PGM (mode I) to 16 bits itself.
    bits = preprocessing.grey_bits
    shift = "8" if bits == 16 else f'({bits - 8} if ";16" in image.mode else 8)'
    return _PROGRAM.format(
        **parts,
        name=path.name,
        path=str(path),
        suffixes=_SUFFIXES,
        cropping=cropping,
        most=preprocessing.max_pixels,
        largest=REDUCED * preprocessing.max_pixels,
        shift=shift,
        formula=UNMARKED.pattern,
    )


def hand_over(snippet: str, files: Sequence[Path]) -> None:
    """Print the program; on a terminal, where it would be lost, write it next to the export.

    Args:
        snippet: From `inference_snippet`.
        files: The files of the export, of which the first one names the program.

    Raises:
        SystemExit, MachineError: See `emit` and `write_durably`.
    """
    sent = [show(path) for path in files]
    if sys.stdout.isatty():
        sent.append(show(_write(snippet.encode(), files[0])))
    else:
        emit(snippet.rstrip())
        sent.append("the printed program")
    last = f"next: send {', '.join(sent[:-1])} and {sent[-1]} to a colleague"
    if files[0].suffix.lower() == ".onnx":
        last += f", or: xception predict IMAGE.jpg --model {quoted(files[0])}"
    say(last)


def _write(content: bytes, exported: Path) -> Path:
    """Write the program as a new file, unless it is there already, and return its path."""
    stem, number = f"classify_{exported.stem}", 1
    program = exported.with_name(f"{stem}.py")
    while os.path.lexists(program):
        if program.is_file() and program.read_bytes() == content:
            return program
        number += 1
        program = exported.with_name(f"{stem}-{number}.py")
    write_durably(program, content)
    say(f"written   {show(program)}: classifies images without xception")
    return program
