"""Opening of image files: what is too large to be decoded, and what has to wait for memory."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from PIL import Image, ImageFile

from xception_cli.config import TrainConfig
from xception_cli.data.corrections import correct
from xception_cli.data.formats import FORMATS, HEIF, START, format_of, readable_formats
from xception_cli.errors import DataError

MAX_PIXELS: int = TrainConfig.max_pixels  # Pillow's own limit for a warning; here it is an error
REDUCED = 3  # times that number are allowed in a JPEG that is decoded at a reduced size
BYTES_PER_PIXEL = 12  # of memory for decoding: the file's own pixels, and two copies in RGB
_LARGE = 16_000_000  # pixels over which only one image is decoded at a time
_SCANS = 100  # of a progressive JPEG; each takes as long as a whole image, but may be 20 bytes
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # of a JPEG, not inside its pixels
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_PATIENCE = 60  # seconds to wait for that; a process that was killed does not end its turn


class ImageError(DataError):
    """A file cannot be decoded; the message is the reason, without the path."""


def open_image(content: bytes) -> ImageFile.ImageFile:
    """Open an image of one of our formats; nothing is decoded yet.

    Raises:
        UnidentifiedImageError: It has none of them.
        ImageError: It is a JPEG with hundreds of scans.
    """
    # A photo of 200 megapixels may be decoded at an eighth: `reduce` enforces the limit.
    most = REDUCED * turns.max_pixels
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most
    if format_of(content[:START]) != HEIF or HEIF not in readable_formats():
        image = Image.open(BytesIO(content), formats=FORMATS)
        correct(image, content)
        if image.info.get("progressive") and _scans(content) > _SCANS:
            image.close()
            raise ImageError(f"damaged (a JPEG of over {_SCANS} scans)")
        return image
    import pillow_heif  # takes 50 ms, and is rarely needed

    # No threads of its own, and never the thumbnail instead of the image.
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False)
    return Image.open(BytesIO(content), formats=(HEIF,))


def _scans(content: bytes) -> int:
    """Return the number of scans of a JPEG; a larger number than `_SCANS` may be too small."""
    count, at = 0, 2
    while count <= _SCANS and (found := _MARKER.search(content, at)) and found[0] != _END:
        count += found[0] == _SCAN
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2])
    return count


def reduce(image: Image.Image, least_side: int | None) -> int:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, if its use or the memory requires it.

    Args:
        image: An image that was just opened.
        least_side: Pixels that the shorter side must keep; None: as many as memory allows.

    Returns:
        The memory that decoding takes, as a number of pixels.

    Raises:
        ImageError: It is too large even so.
    """
    (width, height), most = image.size, turns.max_pixels
    kept = _coefficients(image) // BYTES_PER_PIXEL
    if isinstance(image, ImageFile.ImageFile) and width * height <= REDUCED * most:
        side, scale = least_side, 1
        while least_side is None and width * height // scale**2 + kept > most and scale < 8:
            scale *= 2
            side = min(width, height) // scale
        if side is not None:
            image.draft(None, (side, side))  # has no effect on formats other than JPEG
    cost = image.width * image.height + kept
    if cost > most:
        raise ImageError(f"{width} x {height} is over {most:,} pixels (see --max-pixels)")
    return cost


def _coefficients(image: Image.Image) -> int:
    """Return the bytes of the coefficients of a progressive JPEG: libjpeg keeps them all."""
    layers = getattr(image, "layer", ())
    if not image.info.get("progressive") or not layers:
        return 0
    most = max(across * down for _, across, down, _ in layers)
    pixels = image.width * image.height
    return sum(2 * pixels * across * down // most for _, across, down, _ in layers)


class Turns:
    """Large images are decoded one after another, in all threads and processes that share this.

    Several at once could need more memory than the machine has.

    Attributes:
        lock: The shared lock.
        max_pixels: Largest image to decode, at its decoded size; a larger one is refused. There is
            one limit per process, because it depends on the machine's memory.
    """

    def __init__(self) -> None:
        self.max_pixels = MAX_PIXELS
        self.lock: Any = threading.Lock()  # or one of `multiprocessing`

    def allow(self, max_pixels: int) -> None:
        """Raise the limit to the one that a model was trained with, if that is higher."""
        self.max_pixels = max(self.max_pixels, max_pixels)

    @contextmanager
    def take(self, content: bytes, *, least_side: int | None = None) -> Iterator[None]:
        """Wait until no other large image is decoded, if this one is large.

        Args:
            content: The bytes of its file.
            least_side: See `reduce`: the decoded size counts.
        """
        has_turn = _is_large(content, least_side) and self.lock.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if has_turn:
                self.lock.release()


def _is_large(content: bytes, least_side: int | None) -> bool:
    try:
        with open_image(content) as image:
            return reduce(image, least_side) > _LARGE
    except Exception:  # not an image; decoding reports why
        return False


turns = Turns()
