"""Grad-CAM: where in a picture the network finds its answer, drawn over the original photo."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from xception_cli.console import show
from xception_cli.data.images import read_picture
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import MachineError, UsageError
from xception_cli.files import write_durably
from xception_cli.model.bundle import ModelBundle

_STRENGTH = 0.65  # of the colours where the heat is greatest
_LARGEST = 1600  # pixels of the longer side of a drawn photo beyond which a frame is 2 px or more


@torch.inference_mode()
def heat_maps(
    bundle: ModelBundle, pixels: torch.Tensor, labels: torch.Tensor
) -> NDArray[np.float32]:
    """Compute Grad-CAM (Selvaraju et al. 2017) of the last convolution.

    The head is linear on the mean over the positions, so the gradient of a class's logit is that
    class's row of weights at every position, and Grad-CAM is CAM (Zhou et al. 2016): no backward
    pass is needed.

    Args:
        bundle: The model.
        pixels: `(batch or more, 3, image_size, image_size)`, uint8, from its preprocessing.
        labels: `(batch,)`, the class that each map explains.

    Returns:
        `(batch, height, width)` in 0..1, each with a largest value of 1 unless it is 0 everywhere.
    """
    activations = bundle.activations(pixels)[: len(labels)]
    weights = bundle.network.get_parameter("last_linear.weight").float().cpu()[labels]
    maps = torch.einsum("bc,bchw->bhw", weights, activations).clamp_min(0)
    heat: NDArray[np.float32] = (maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()
    return heat


def seen_square(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Return the part of a photo that the network sees: left, top, right, bottom, in its pixels.

    Args:
        size: Width and height of the photo, upright.
        preprocessing: Resizes the shorter side, and cuts the centre out.
    """
    width, height = size
    side = preprocessing.image_size * min(size) / preprocessing.resize_size
    left, top = (width - side) / 2, (height - side) / 2
    return round(left), round(top), round(left + side), round(top + side)


def draw_heat(
    picture: Image.Image, heat: NDArray[np.float32], preprocessing: Preprocessing
) -> Image.Image:
    """Draw a heat map over a photo in grey, and a frame around what the network saw of it.

    Args:
        picture: RGB, upright, of any size; is left as it is.
        heat: `(height, width)` in 0..1.
        preprocessing: As the network's input was made.
    """
    box = seen_square(picture.size, preprocessing)
    side = (box[2] - box[0], box[3] - box[1])
    smooth = Image.fromarray(heat.astype(np.float32)).resize(side, Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(smooth), 0, 1)
    colours = Image.fromarray((colormaps["inferno"](values)[..., :3] * 255).astype(np.uint8))
    strength = Image.fromarray((255 * _STRENGTH * values).astype(np.uint8))
    drawn = picture.convert("L").convert("RGB")  # yellow heat must not be lost on lemons
    drawn.paste(colours, box, strength)
    line = max(1, round(max(picture.size) / _LARGEST * 2))
    frame = (box[0], box[1], box[2] - 1, box[3] - 1)
    ImageDraw.Draw(drawn).rectangle(frame, outline="white", width=line)
    return drawn


def check_folder(folder: Path) -> None:
    """See that explanations can be written there, before anything is predicted.

    Raises:
        UsageError: There is something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{show(folder)} already exists and is not empty", hint="choose another --explain"
        )


def write_explanation(bundle: ModelBundle, path: Path, label: int, folder: Path) -> Path:
    """Draw why a photo is given a class, as a JPEG of the photo's own size, upright.

    Args:
        bundle: The model.
        path: The photo; it was decoded before.
        label: Index of the class.
        folder: Is made. Of photos of one name the later get `-2`, `-3`.

    Returns:
        The new file.

    Raises:
        MachineError: The disk is full or read-only.
    """
    preprocessing = bundle.preprocessing
    seen = read_picture(path, least_side=preprocessing.least_side)  # the same pixels as predicted
    pixels = preprocessing.evaluation_transform()(seen)[None]
    (heat,) = heat_maps(bundle, pixels, torch.tensor([label]))
    buffer = BytesIO()
    draw_heat(read_picture(path), heat, preprocessing).save(buffer, "JPEG", quality=90)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make the folder {show(folder)}: {error.strerror}") from error
    target, number = folder / f"{path.stem}.jpg", 1
    while target.exists():
        number += 1
        target = folder / f"{path.stem}-{number}.jpg"
    write_durably(target, buffer.getvalue())
    return target
