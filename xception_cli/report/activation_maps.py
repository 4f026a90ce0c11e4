"""Class activation maps: what contributed to a class, and where; as heat over an image."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.nn import functional

from xception_cli.data.images import read_image
from xception_cli.data.transforms import Preprocessing
from xception_cli.model.bundle import ModelBundle
from xception_cli.model.layers import layer_weights, layers_head
from xception_cli.model.network import pool

_STRENGTH = 0.65  # opacity of the colours at the maximum
_LARGEST = 1600  # pixels of the longer side above which a frame is at least 2 px wide


@torch.inference_mode()
def heat_maps(
    bundle: ModelBundle, pixels: torch.Tensor, labels: torch.Tensor
) -> NDArray[np.float32]:
    """Compute class activation maps (CAM, Zhou et al. 2016): how much each position contributes.

    The head is linear on means over the positions, so a class's logit is a sum over the positions
    of each layer that it uses. The maps of several layers are added, enlarged to the finest. For
    the last convolution alone this equals Grad-CAM (Selvaraju et al. 2017): the gradient of the
    logit is that class's row of weights at every position.

    Args:
        bundle: The model.
        pixels: `(batch or more, 3, image_size, image_size)`, uint8, from its preprocessing.
        labels: `(batch,)`, the class to explain in each image.

    Returns:
        `(batch, height, width)` in 0..1; the maximum of each map is 1, unless it is 0 everywhere.
    """
    maps = class_maps(bundle, pixels, labels)
    side = max(part.shape[-1] for part in maps)
    fine = [functional.interpolate(part[:, None], size=side, mode="bilinear") for part in maps]
    total = torch.cat(fine, dim=1).sum(dim=1).clamp_min(0)
    heat: NDArray[np.float32] = (total / total.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()
    return heat


@torch.inference_mode()
def class_maps(
    bundle: ModelBundle, pixels: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor]:
    """Compute the contribution of each position of each layer to a class's logit.

    Returns:
        `(batch, height, width)` for each layer used by the head. Their means over the positions
        add up to the logit without its bias.
    """
    maps = _class_maps(bundle, pixels, labels)
    if not bundle.preprocessing.mirror:
        return maps
    mirrored = _class_maps(bundle, pixels.flip(-1), labels)
    return [(one + other.flip(-1)) / 2 for one, other in zip(maps, mirrored, strict=True)]


def _class_maps(
    bundle: ModelBundle, pixels: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor]:
    maps, activations = [], bundle.activations(pixels)
    weights = layer_weights(bundle.network)
    for layer, of_classes in weights.items():
        seen = activations[layer][: len(labels)]
        found = torch.einsum("bc,bchw->bhw", of_classes.float().cpu()[labels], seen)
        if layers_head(bundle.network) is not None:  # it scales each layer to unit length
            found = found / pool(seen).norm(dim=1)[:, None, None]
        maps.append(found)
    return maps


def seen_square(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Return the square of an image that the network sees, in pixels: left, top, right, bottom.

    Args:
        size: Width and height of the image, upright.
        preprocessing: Resizes the shorter side, and crops the centre.
    """
    width, height = size
    side = preprocessing.image_size * min(size) / preprocessing.resize_size
    left, top = (width - side) / 2, (height - side) / 2
    return round(left), round(top), round(left + side), round(top + side)


def draw_heat(
    image: Image.Image, heat: NDArray[np.float32], preprocessing: Preprocessing
) -> Image.Image:
    """Draw a heat map over a grey image, and a frame around the square that the network sees.

    Args:
        image: RGB, upright, of any size; is not changed.
        heat: `(height, width)` in 0..1.
        preprocessing: Preprocessing of the network's input.
    """
    box = seen_square(image.size, preprocessing)
    side = (box[2] - box[0], box[3] - box[1])
    smooth = Image.fromarray(heat.astype(np.float32)).resize(side, Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(smooth), 0, 1)
    colours = Image.fromarray((colormaps["inferno"](values)[..., :3] * 255).astype(np.uint8))
    strength = Image.fromarray((255 * _STRENGTH * values).astype(np.uint8))
    drawn = image.convert("L").convert("RGB")  # grey, so that yellow heat is visible on lemons
    drawn.paste(colours, box, strength)
    line = max(1, round(max(image.size) / _LARGEST * 2))
    frame = (box[0], box[1], box[2] - 1, box[3] - 1)
    ImageDraw.Draw(drawn).rectangle(frame, outline="white", width=line)
    return drawn


def explain_image(bundle: ModelBundle, path: Path, label: int) -> bytes:
    """Explain the class of an image, as a JPEG of the image's own size, upright."""
    preprocessing = bundle.preprocessing
    bits = preprocessing.grey_bits
    # The same pixels as in the prediction.
    seen = read_image(path, least_side=preprocessing.least_side, grey_bits=bits)
    pixels = preprocessing.evaluation_transform()(seen)[None]
    (heat,) = heat_maps(bundle, pixels, torch.tensor([label]))
    buffer = BytesIO()
    draw_heat(read_image(path, grey_bits=bits), heat, preprocessing).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()
