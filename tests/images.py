"""Images that tests draw, and their bytes."""

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image

SMALL = 71  # the smallest image_size: real Xception, a tenth of a second per batch


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: int = 96) -> None:
    """Draw a noisy patch of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    path.write_bytes(_patch(colour, seed, size, kind))


@functools.lru_cache(maxsize=1000)  # the same few images are drawn for hundreds of tests
def _patch(colour: tuple[int, int, int], seed: int, size: int, kind: str) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 30, (size, size, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    return encoded(Image.fromarray(pixels), kind, quality=95)


COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


def draw_photos(root: Path) -> Path:
    """Draw three classes of eight images each, easy to separate by colour."""
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(8):
            draw(root / name / f"{i}.jpg", colour, seed=100 * c + i)
    return root


def photo(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Draw an image with large and small shapes, different for every seed."""
    rng = np.random.default_rng(seed)
    sides = ((4, 3, 70), (16, 12, 40), (64, 48, 15))
    pixels = np.full((height, width, 3), rng.uniform(90, 160, 3))
    for across, down, strength in sides:
        layer = Image.fromarray(rng.integers(0, 256, (down, across, 3), dtype=np.uint8))
        bigger = np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), float)
        pixels += (bigger - 127) / 128 * strength
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(path: Path, content: bytes | Image.Image) -> Path:
    """Write a file with any content; an image by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        kind = {".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}.get(path.suffix.lower(), "JPEG")
        content = encoded(content, kind)
    path.write_bytes(content)
    return path


def two_classes(root: Path, count: int = 3) -> Path:
    """Create `cat` and `dog`, with images that are all different."""
    for number in range(2 * count):
        put(root / ("cat", "dog")[number % 2] / f"{number // 2}.jpg", photo(number))
    return root


# --- unusual -------------------------------------------------------------------------------------


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block
