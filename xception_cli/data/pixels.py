"""From an opened image to upright RGB pixels, in memory that hardly exceeds theirs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from xception_cli.errors import DataError

_STRIP = 4_000_000  # pixels that are converted at a time: a conversion needs several copies
_LARGE = 16_000_000  # pixels of an image that others wait for
_PATIENCE = 60  # seconds; a process that was killed does not end its turn

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


class PictureError(DataError):
    """A file that does not become a picture; the message is the reason, without the path."""


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says, and convert it to RGB.

    Raises:
        PictureError: Its pixels are floats, of an unknown range.
    """
    method = _ORIENTATIONS.get(orientation(image))
    picture = _to_rgb(image)
    return picture if method is None else picture.transpose(method)


def orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 if it says nothing that can be understood."""
    try:
        found = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about orientation
        return 1
    return found if isinstance(found, int) and found in _ORIENTATIONS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    rows = max(1, _STRIP // max(1, width))
    is_plain = image.mode in {"RGB", "L"} and not image.has_transparency_data
    if height <= rows or is_plain:
        return _convert(image)
    picture = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        picture.paste(_convert(strip), (0, top))
    return picture


def _convert(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image).astype(np.int64)
        grey = np.clip(values // 256, 0, 255).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise PictureError("float image: unknown range")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


class Turns:
    """Large images are decoded one after another, in all threads and processes that share this.

    Several at once could need more memory than the machine has. Attribute `lock` is what is shared.
    """

    def __init__(self) -> None:
        self.lock: Any = threading.Lock()  # of this process; `multiprocessing` has its own kinds

    @contextmanager
    def take(self, content: bytes, formats: tuple[str, ...]) -> Iterator[None]:
        """Wait until no other large image is decoded, if this one is large.

        Args:
            content: The bytes of its file.
            formats: That are tried.
        """
        has_turn = _is_large(content, formats) and self.lock.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if has_turn:
                self.lock.release()


def _is_large(content: bytes, formats: tuple[str, ...]) -> bool:
    try:
        with Image.open(BytesIO(content), formats=formats) as image:
            return image.width * image.height > _LARGE
    except Exception:  # no image; whoever decodes it says why
        return False


turns = Turns()
