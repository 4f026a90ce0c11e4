"""Colours: from the colour space of an embedded ICC profile to sRGB, as viewers show it."""

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_MOST = 4_000_000  # bytes of a profile; printer profiles have up to 3 million
_TAGS = 100  # of a profile; lcms has the same limit
_SAME = 2  # of 255: a profile that changes no colour by more is treated as sRGB
_LEVELS = 16  # per channel, of the colours that are compared
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_DEVICES = (b"scnr", b"mntr", b"prtr", b"spac")  # no device links, no named colours


@dataclass(frozen=True)
class Colours:
    """The colour conversion that an embedded profile asks for.

    Attributes:
        profile: Name of the profile, if colours are converted; empty if they are sRGB already.
        problem: Why the profile is ignored; empty if it is not.
        mode: Mode of the images to convert: `RGB`, `L` or `CMYK`.
        transform: Conversion to sRGB; None if none is needed.
    """

    profile: str = ""
    problem: str = ""
    mode: str = "RGB"
    transform: Any = None

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """Convert an image without transparency to RGB; `image` is unchanged."""
        if self.transform is None:
            return image.convert("RGB")
        return ImageCms.applyTransform(image.convert(self.mode), self.transform)  # type: ignore[return-value]


def colours_of(image: Image.Image) -> Colours:
    """Return the colours of an image by its profile; without a profile, no conversion."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return Colours()
    is_grey = image.mode in {"1", "L", "LA", "La"} or image.mode.startswith("I")
    return _read(profile, "L" if is_grey else "CMYK" if image.mode == "CMYK" else "RGB")


@lru_cache(maxsize=8)  # images of one camera share a profile
def _read(profile: bytes, channels: str) -> Colours:
    if problem := _problem(profile):
        return Colours(problem=problem)
    mode = _SPACES[profile[16:20]]
    if mode != channels and (mode, channels) != ("RGB", "L"):  # a grey image may have one of RGB
        return Colours(problem=f"is for {mode}, the image is {channels}")
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(opened, _srgb(), mode, "RGB")
        name = ImageCms.getProfileDescription(opened).strip()[:60]
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return Colours(problem="is damaged")
    found = Colours(name or "without a name", "", mode, transform)
    return Colours() if mode != "CMYK" and _changes_nothing(found) else found


@lru_cache(maxsize=1)
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")


def _changes_nothing(colours: Colours) -> bool:
    levels = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(_LEVELS, -1, 3)
    shown = Image.fromarray(cube).convert(colours.mode)
    there, here = np.asarray(colours.to_srgb(shown), int), np.asarray(shown.convert("RGB"), int)
    return int(abs(there - here).max()) <= _SAME


def _problem(profile: bytes) -> str:
    """Return why a profile is not passed to lcms: it would fail or take gigabytes of memory.

    lcms allocates a table before it notices that the file is too short for it.
    """
    if len(profile) > _MOST:
        return f"is over {_MOST:,} bytes"
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return "is damaged"
    if profile[16:20] not in _SPACES or profile[12:16] not in _DEVICES:
        return "is not for RGB, grey or CMYK"
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > _TAGS or len(profile) < 132 + 12 * count:
        return "is damaged"
    for at in range(132, 132 + 12 * count, 12):
        name, offset, size = struct.unpack_from(">4sII", profile, at)
        tag = profile[offset : offset + size]
        if tag[:4] == b"mpet" and name.startswith(b"D2B"):  # may repeat a table without limit
            return "is of a kind that is not supported"
        if tag[:4] in {b"mft1", b"mft2", b"mAB "} and _table_bytes(tag) > len(tag):
            return "is damaged"
    return ""


def _table_bytes(tag: bytes) -> int:
    """Return how long the table of colours in a tag claims to be."""
    if len(tag) < 32:
        return 0
    channels, outputs = tag[8], tag[9]
    if tag[:4] != b"mAB ":
        return int(tag[10] ** channels) * outputs * (2 if tag[:4] == b"mft2" else 1)
    at = int.from_bytes(tag[24:28], "big")
    table = tag[at : at + 20]
    if not at or len(table) < 20:
        return 0
    return int(math.prod(table[:channels])) * outputs * table[16]
