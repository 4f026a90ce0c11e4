"""From an opened image to upright RGB pixels, in memory that hardly exceeds theirs."""

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
from xception_cli.data.formats import FORMATS, HEIF, START, format_of, readable_formats
from xception_cli.errors import DataError

MAX_PIXELS: int = TrainConfig.max_pixels  # Pillow's own limit for a warning; here it is an error
_REDUCED = 3  # times as many may a JPEG have that is decoded at a part of its size
BYTES_PER_PIXEL = 12  # that decoding takes: the file's own, and two copies of the RGB
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
# Tags of TIFF.
_BITS, _PHOTOMETRIC, _HIGHEST, _SAMPLE_FORMAT = 258, 262, 281, 339
_SIGNED = 2
_STATED_BITS = {1023: 10, 4095: 12, 16383: 14, 65535: 16}  # by the highest value
SCALES = (10, 12, 14, 16)  # bits that cameras put into 16


class ImageError(DataError):
    """A file that does not become an image; the message is the reason, without the path."""


def open_image(content: bytes) -> ImageFile.ImageFile:
    """Open an image of one of our formats; nothing is decoded yet.

    Raises:
        UnidentifiedImageError: It is none.
    """
    # A photo of 200 megapixels may be decoded at an eighth: `reduce` is what limits it.
    most = _REDUCED * turns.max_pixels
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most
    if format_of(content[:START]) != HEIF or HEIF not in readable_formats():
        return Image.open(BytesIO(content), formats=FORMATS)
    import pillow_heif  # 50 ms that few need

    # Without threads of its own, and never the thumbnail in the place of the image.
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False)
    return Image.open(BytesIO(content), formats=(HEIF,))


def reduce(image: Image.Image, least_side: int | None) -> int:
    """Let a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, where its use or memory asks for it.

    Args:
        image: Just opened.
        least_side: Pixels that the shorter side must keep; None: as many as memory allows.

    Returns:
        What decoding takes, as a number of pixels.

    Raises:
        ImageError: It is too large nevertheless.
    """
    (width, height), most = image.size, turns.max_pixels
    kept = _coefficients(image) // BYTES_PER_PIXEL
    if isinstance(image, ImageFile.ImageFile) and width * height <= _REDUCED * most:
        side, scale = least_side, 1
        while least_side is None and width * height // scale**2 + kept > most and scale < 8:
            scale *= 2
            side = min(width, height) // scale
        if side is not None:
            image.draft(None, (side, side))  # of other formats than JPEG nothing comes
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
    """Turn an image as its EXIF orientation says, and convert it to RGB.

    Args:
        image: Decoded.
        values: From `values_of`.
    """
    method = _ORIENTATIONS.get(orientation(image))
    picture = _to_rgb(image, values)
    picture.info.pop("icc_profile", None)  # or a reader would convert them again
    return picture if method is None else picture.transpose(method)


def orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 if it says nothing that can be understood."""
    try:
        found = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about orientation
        return 1
    return found if isinstance(found, int) and found in _ORIENTATIONS else 1


@dataclass(frozen=True)
class Values:
    """What the values of a grey image of many bits mean.

    Attributes:
        bits: That are used of each.
        is_inverted: Zero is white.
        highest: The largest one, where no header states the bits: a data set has one scale, which
            it takes part in; else None.
    """

    bits: int = 16
    is_inverted: bool = False
    highest: int | None = None

    def to_grey(self, image: Image.Image) -> Image.Image:
        """Scale to 8 bits: Pillow's own conversion clips at 255. What is transparent is white."""
        values = np.asarray(image).astype(np.int32)
        grey = np.clip(values >> (self.bits - 8), 0, 255).astype(np.uint8)
        if self.is_inverted:
            grey = 255 - grey
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey)


def fewest_bits(highest: int) -> int:
    """Return the fewest of `SCALES` that hold a value of 16 bits."""
    return next(bits for bits in SCALES if highest < 1 << bits)


def values_of(image: Image.Image, grey_bits: int | None) -> Values:
    """Return what the values of a decoded image mean.

    A PNG's sBIT chunk does not count: by the standard, its values fill all 16 bits nevertheless.

    Args:
        image: Decoded.
        grey_bits: That are used where the header does not say; None: the fewest that hold its own.

    Raises:
        ImageError: That cannot be known.
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
    """Tell whether a decoded image is; in a BMP, a fourth byte that is 0 everywhere is unused."""
    if image.format == "BMP" and image.mode == "RGBA":
        return image.getchannel("A").getextrema() != (0, 0)
    return image.has_transparency_data


def _to_rgb(image: Image.Image, values: Values) -> Image.Image:
    colours = colours_of(image)
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
        lock: What is shared.
        max_pixels: Of an image as it is decoded; a larger one is refused. One number for the
            process, because it is the machine's memory that sets it.
    """

    def __init__(self) -> None:
        self.max_pixels = MAX_PIXELS
        self.lock: Any = threading.Lock()  # of this process; `multiprocessing` has its own kinds

    def allow(self, max_pixels: int) -> None:
        """Decode images as large as a model was trained on, if only smaller ones are allowed."""
        self.max_pixels = max(self.max_pixels, max_pixels)

    @contextmanager
    def take(self, content: bytes, least_side: int | None) -> Iterator[None]:
        """Wait until no other large image is decoded, if this one is large.

        Args:
            content: The bytes of its file.
            least_side: It is decoded with, see `reduce`: what counts is what is decoded.
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
    except Exception:  # no image; whoever decodes it says why
        return False


turns = Turns()
