"""Conversion of an opened image to upright RGB pixels, in little more memory than they take."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from xception_cli.config import TrainConfig
from xception_cli.data.colours import Colours, colours_of
from xception_cli.data.corrections import correct
from xception_cli.data.formats import FORMATS, HEIF, START, format_of, readable_formats
from xception_cli.errors import DataError

MAX_PIXELS: int = TrainConfig.max_pixels  # Pillow's own limit for a warning; here it is an error
REDUCED = 3  # times that number are allowed in a JPEG that is decoded at a reduced size
BYTES_PER_PIXEL = 12  # of memory for decoding: the file's own pixels, and two copies in RGB
_STRIP = 4_000_000  # pixels converted at a time: a conversion needs several copies
_LARGE = 16_000_000  # pixels over which only one image is decoded at a time
_PATIENCE = 60  # seconds to wait for that; a process that was killed does not end its turn

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
# Tags of TIFF.
_BITS, _PHOTOMETRIC, _HIGHEST, _SAMPLE_FORMAT = 258, 262, 281, 339
_SIGNED = 2
_STATED_BITS = {1023: 10, 4095: 12, 16383: 14, 65535: 16}  # by the highest value
SCALES = (10, 12, 14, 16)  # bits that cameras store in 16


class ImageError(DataError):
    """A file cannot be decoded; the message is the reason, without the path."""


def open_image(content: bytes) -> ImageFile.ImageFile:
    """Open an image of one of our formats; nothing is decoded yet.

    Raises:
        UnidentifiedImageError: It has none of them.
    """
    # A photo of 200 megapixels may be decoded at an eighth: `reduce` enforces the limit.
    most = REDUCED * turns.max_pixels
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most
    if format_of(content[:START]) != HEIF or HEIF not in readable_formats():
        image = Image.open(BytesIO(content), formats=FORMATS)
        correct(image, content)
        return image
    import pillow_heif  # takes 50 ms, and is rarely needed

    # No threads of its own, and never the thumbnail instead of the image.
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False)
    return Image.open(BytesIO(content), formats=(HEIF,))


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


def to_upright_rgb(image: Image.Image, values: "Values") -> Image.Image:
    """Apply the EXIF orientation of an image, and convert it to RGB, without its metadata.

    Args:
        image: The decoded image.
        values: From `values_of`.
    """
    method = _ORIENTATIONS.get(orientation(image))
    picture = _to_rgb(image, values)
    picture.info.clear()  # else a reader would turn it, or convert its colours, again
    return picture if method is None else picture.transpose(method)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        found = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # the EXIF block is damaged
        return 1
    return found if isinstance(found, int) and found in _ORIENTATIONS else 1


@dataclass(frozen=True)
class Values:
    """The meaning of the values of a grey image with more than 8 bits.

    Attributes:
        bits: Bits that are used.
        is_inverted: Whether zero is white.
        highest: The largest value, if no header states the bits; else None. It helps to decide the
            one scale of a data set.
    """

    bits: int = 16
    is_inverted: bool = False
    highest: int | None = None

    def to_grey(self, image: Image.Image) -> Image.Image:
        """Scale to 8 bits (Pillow's own conversion clips at 255); transparency becomes white."""
        values = np.asarray(image).astype(np.int32)
        grey = np.clip(values >> (self.bits - 8), 0, 255).astype(np.uint8)
        if self.is_inverted:
            grey = 255 - grey
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey)


def fewest_bits(highest: int) -> int:
    """Return the fewest bits of `SCALES` that fit a value of 16 bits."""
    return next(bits for bits in SCALES if highest < 1 << bits)


def values_of(image: Image.Image, grey_bits: int | None) -> Values:
    """Return the meaning of a decoded image's values.

    A PNG's sBIT chunk is ignored: by the standard, its values are scaled to all 16 bits anyway.

    Args:
        image: The decoded image.
        grey_bits: Bits if the header does not state them; None: the fewest that fit its values.

    Raises:
        ImageError: The range of the values is unknown.
    """
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits, kind, highest = ((*tags.get(tag, ()), 0)[0] for tag in (_BITS, _SAMPLE_FORMAT, _HIGHEST))
    if kind == _SIGNED:
        raise ImageError(f"TIFF of signed {bits}-bit integers: unknown range")
    if image.mode == "F":
        raise ImageError("float image: unknown range")
    if image.mode == "I" and image.format != "PPM":  # Pillow scales those to 16 bits
        raise ImageError(f"{image.format or 'image'} of 32-bit integers: unknown range")
    is_inverted = tags.get(_PHOTOMETRIC) == 0
    if bits in range(9, 16):
        return Values(bits, is_inverted)
    if highest in _STATED_BITS or not image.mode.startswith("I;16"):
        return Values(_STATED_BITS.get(highest, 16), is_inverted)
    most = _highest(image)
    return Values(grey_bits or fewest_bits(most), is_inverted, most)


def _highest(image: Image.Image) -> int:
    values, transparent = np.asarray(image), image.info.get("transparency")
    if isinstance(transparent, int):
        values = values[values != transparent]
    return int(values.max(initial=0))


def is_transparent(image: Image.Image) -> bool:
    """Return whether a decoded image is; a BMP's fourth byte is unused if it is 0 everywhere."""
    if image.format == "BMP" and image.mode == "RGBA":
        return image.getchannel("A").getextrema() != (0, 0)
    return image.has_transparency_data


def _to_rgb(image: Image.Image, values: Values) -> Image.Image:
    colours = colours_of(image)
    if image.mode == "La":  # Pillow converts grey times alpha to nothing else
        image = image.convert("LA")
    if image.has_transparency_data and not is_transparent(image):
        image = image.convert("RGB")
    width, height = image.size
    rows = max(1, _STRIP // max(1, width))
    is_plain = image.mode in {"RGB", "L"} and not image.has_transparency_data
    if height <= rows or (is_plain and colours.are_srgb):
        return _convert(image, values, colours)
    picture = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        picture.paste(_convert(strip, values, colours), (0, top))
    return picture


def _convert(image: Image.Image, values: Values, colours: Colours) -> Image.Image:
    if image.mode.startswith("I"):
        return colours.to_srgb(values.to_grey(image))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        if not colours.are_srgb:
            opaque = colours.to_srgb(_without_alpha(image, picture))
            opaque.putalpha(picture.getchannel("A"))
            picture = opaque
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return colours.to_srgb(image)


def _without_alpha(image: Image.Image, picture: Image.Image) -> Image.Image:
    return image.convert("L") if image.mode in {"1", "L", "LA"} else picture.convert("RGB")


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
