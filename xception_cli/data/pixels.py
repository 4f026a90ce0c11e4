"""Conversion of a decoded image to upright RGB pixels, in little more memory than they take."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from xception_cli.data.colours import Colours, colours_of
from xception_cli.data.opening import ImageError

_STRIP = 4_000_000  # pixels converted at a time: a conversion needs several copies

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
_UNKNOWN_RANGE = ": unknown range; scale it to 8 or 16 bits"


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
        raise ImageError(f"TIFF of signed {bits}-bit integers{_UNKNOWN_RANGE}")
    if image.mode == "F":
        raise ImageError(f"float image{_UNKNOWN_RANGE}")
    if image.mode == "I" and image.format != "PPM":  # Pillow scales those to 16 bits
        raise ImageError(f"{image.format or 'image'} of 32-bit integers{_UNKNOWN_RANGE}")
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


def to_upright_rgb(image: Image.Image, values: Values) -> Image.Image:
    """Apply the EXIF orientation of an image, and convert it to RGB, without its metadata."""
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
