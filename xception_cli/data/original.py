"""Original: what an image file holds, beside the RGB image that it becomes."""

from dataclasses import dataclass
from typing import NamedTuple

from PIL import ImageFile

from xception_cli.data.colours import colours_of
from xception_cli.data.formats import HEIF
from xception_cli.data.pixels import Values, is_transparent, orientation


@dataclass(frozen=True)
class Original:
    """What an image file holds, beside the RGB image that it becomes.

    Attributes:
        format: One of `readable_formats`; a JPEG with several images in it (MPO) is a JPEG.
        mode: How its pixels are stored, in Pillow's words: `L`, `P`, `RGBA`, `CMYK`, `I;16`.
        width: In pixels, upright.
        height: In pixels, upright.
        orientation: EXIF's, 1 to 8; 1 if it says nothing that can be understood.
        is_deep: More than 8 bits a channel.
        is_transparent: It has an alpha channel or a transparent colour.
        is_animated: There are more frames or pages behind the first.
        has_adobe_marker: A JPEG that says how its colours are meant.
        profile: Name of the colour profile that was converted to sRGB; empty if there was none.
        profile_problem: Why its colour profile is ignored; empty if it is not.
        grey_bits: That it was scaled from; 8 if it was not.
        highest: The largest value of a 16-bit grey image whose header does not state its bits.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    is_deep: bool
    is_transparent: bool
    is_animated: bool
    has_adobe_marker: bool
    profile: str = ""
    profile_problem: str = ""
    grey_bits: int = 8
    highest: int | None = None


class Stored(NamedTuple):
    """What an opened image no longer says once it is decoded, which may be at another scale.

    Attributes:
        mode: Pillow's, of the file.
        width: In pixels, as stored.
        height: In pixels, as stored.
        is_deep: More than 8 bits a channel.
    """

    mode: str
    width: int
    height: int
    is_deep: bool

    @classmethod
    def of(cls, image: ImageFile.ImageFile) -> "Stored":
        """Take it from an image that was just opened."""
        deep = image.mode.startswith("I") or ";16" in str(image.tile[:1])
        return cls(image.mode, *image.size, deep)


def original_of(image: ImageFile.ImageFile, stored: Stored, values: Values) -> Original:
    """Describe the file of a decoded image.

    Args:
        image: Decoded.
        stored: What it was before.
        values: What its values mean.
    """
    turned, colours = orientation(image), colours_of(image)
    width, height = stored[1:3] if turned < 5 else stored[2:0:-1]
    return Original(
        format="JPEG" if image.format == "MPO" else str(image.format),
        mode=stored.mode,
        width=width,
        height=height,
        orientation=turned,
        is_deep=stored.is_deep,
        is_transparent=is_transparent(image),
        is_animated=image.format not in {"MPO", HEIF} and _is_animated(image),
        has_adobe_marker="adobe" in image.info,
        profile=colours.profile,
        profile_problem=colours.problem,
        grey_bits=values.bits if image.mode.startswith("I") else 8,
        highest=values.highest,
    )


def _is_animated(image: ImageFile.ImageFile) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what is behind the first frame is damaged, and not needed
        return False
