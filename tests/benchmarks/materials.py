"""Inputs of all cases: drawn photos and the weights. Nothing here imports the product."""

from argparse import Namespace
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import nn

CLASSES = ("bagel", "lemon", "pizza", "tomato")


def draw_photos(root: Path, count: int, width: int, height: int) -> list[Path]:
    """Draw JPEG files with a camera's bytes per pixel, in one folder per class."""
    return [draw_photo(root, number, width, height) for number in range(count)]


def draw_photo(root: Path, number: int, width: int, height: int) -> Path:
    """Draw one of them."""
    name = CLASSES[number % len(CLASSES)]
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    coarse[..., number % 3] //= 1 + number % len(CLASSES)  # a tint by class
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.integers(-6, 7, (height, width, 1), dtype=np.int16)
    pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    path = root / name / f"{number:05}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)
    return path


def weights_file(options: Namespace) -> Path:
    """Return the path at which `product.keep_weights` stores the backbone's weights."""
    return Path(options.scratch, "weights.safetensors")


def fill(network: nn.Module, options: Namespace) -> nn.Module:
    """Load the backbone's weights into a network with any head, in eval mode."""
    network.load_state_dict({**network.state_dict(), **load_file(weights_file(options))})
    return network.eval()
