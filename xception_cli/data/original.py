"""Original: facts about an image file that its decoded RGB image no longer shows."""

from dataclasses import dataclass
from typing import NamedTuple

from PIL import ImageFile

from xception_cli.data.colours import colours_of
from xception_cli.data.formats import HEIF
from xception_cli.data.pixels import Values, is_transparent, orientation


@dataclass(frozen=True)
class Original:
    """Facts about an image file that its decoded RGB image no longer shows.

    Attributes:
        format: One of `readable_formats`; a JPEG with several images in it (MPO) is a JPEG.
        mode: Pillow's mode of the stored pixels, such as `L`, `P`, `RGBA`, `CMYK`, `I;16`.
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        orientation: EXIF orientation, 1 to 8; 1 if missing or invalid.
        is_deep: Whether it has more than 8 bits per channel.
        is_transparent: Whether it has an alpha channel or a transparent colour.
        is_animated: Whether it has more than one frame or page.
        has_adobe_marker: Whether it is a JPEG with Adobe's marker for the colour space.
        profile: Name of the colour profile that was converted to sRGB; empty if there was none.
        profile_problem: Why its colour profile is ignored; empty if it is not.
        grey_bits: Bits that it was scaled from; 8 if it was not scaled.
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
    """Facts about an opened image that are lost when it is decoded, perhaps at a reduced size.

    Attributes:
        mode: Pillow's mode of the file.
        width: Width in pixels, as stored.
        height: Height in pixels, as stored.
        is_deep: Whether it has more than 8 bits per channel.
    """

    mode: str
    width: int
    height: int
    is_deep: bool

    @classmethod
    def of(cls, image: ImageFile.ImageFile) -> "Stored":
        """Read them from an image that was just opened."""
        deep = image.mode.startswith("I") or ";16" in str(image.tile[:1])
        return cls(image.mode, *image.size, deep)


def original_of(image: ImageFile.ImageFile, stored: Stored, values: Values) -> Original:
    """Describe the file of a decoded image."""
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
    except Exception:  # later frames are damaged, and not needed
        return False
