"""Colours: from an ICC profile, or from what a file states instead, to sRGB, as viewers do."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from xception_cli.errors import is_out_of_memory

_MOST = 4_000_000  # bytes of a profile; printer profiles have up to 3 million
_TAGS = 100  # of a profile; lcms has the same limit
_SAME = 2  # of 255: a profile that changes no colour by more is treated as sRGB
_D50 = np.array([0.9642, 1.0, 0.8249])  # the white of profiles
_BRADFORD = np.array(  # of their adaptation to it
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_GAMMAS = (0.3, 1.0)  # 1 / 3.3 to linear light: others are mistakes, such as 2.2 for 1 / 2.2
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # of a profile's type 3
# x and y of white, red, green and blue, and the difference that no one sees.
_SRGB, _NEAR = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), 0.005
_FLAT = 1e-3  # determinant of primaries on a line
_MOST_XYZ = 4.0  # of a primary; white is 1
# Numbers of ITU-T H.273 (nclx); other primaries include those of P3 and BT.2020.
_UNKNOWN = 2  # as primaries, or as a curve
_USUAL_PRIMARIES = (1, _UNKNOWN, 5, 6, 7)  # of HD and SD television, which are nearly sRGB's
_D65 = (0.3127, 0.329)
_WIDE_PRIMARIES = {  # white, red, green and blue: BT.2020, Display P3
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
_HDR = (16, 18)  # PQ and HLG
_ADOBE_RGB, _ADOBE_GAMMA = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 256 / 563
_UNCALIBRATED = 0xFFFF  # EXIF for: not sRGB
_LEVELS = 16  # of each channel, in the colours that are compared for `_SAME`
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_DEVICES = (b"scnr", b"mntr", b"prtr", b"spac")  # no device links, no named colours


@dataclass(frozen=True)
class Colours:
    """The colour conversion that an embedded profile asks for.

    Attributes:
        profile: Name of the profile; empty if the colours are sRGB already.
        problem: Why the profile is ignored; empty if it is not.
        mode: Mode of the images to convert: `RGB`, `L` or `CMYK`.
        transform: Transform from that mode to sRGB; None if there is a curve, or nothing to do.
        curve: The sRGB value of each of 256 values, if only a gamma is stated.
    """

    profile: str = ""
    problem: str = ""
    mode: str = "RGB"
    transform: Any = None
    curve: tuple[int, ...] = ()

    @property
    def are_srgb(self) -> bool:
        """Whether no conversion is needed."""
        return self.transform is None and not self.curve

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """Convert an image without transparency to RGB; `image` is unchanged."""
        if self.transform is None:
            picture = image.convert("RGB")
            return picture.point(self.curve * 3) if self.curve else picture
        return ImageCms.applyTransform(image.convert(self.mode), self.transform)  # type: ignore[return-value]


def colours_of(image: Image.Image) -> Colours:
    """Return the conversion for an image, from its profile, or from what its file states."""
    profile, nclx = image.info.get("icc_profile"), image.info.get("nclx_profile") or {}
    if image.format == "PNG" and nclx and _UNKNOWN not in nclx.values():
        stated = _of_numbers(nclx)
        if not stated.problem:  # by the standard, numbers come before a profile
            return stated
    if isinstance(profile, bytes) and profile:
        is_grey = image.mode in {"1", "L", "LA", "La"} or image.mode.startswith("I")
        return _read(profile, "L" if is_grey else "CMYK" if image.mode == "CMYK" else "RGB")
    if image.format == "PNG" and "gamma" in image.info and "srgb" not in image.info:
        return _of_png(image)
    if image.format in {"JPEG", "MPO"} and image.mode == "RGB" and _states_adobe_rgb(image):
        found = _of_primaries(_ADOBE_RGB, _ADOBE_GAMMA, is_power=True)
        return replace(found, profile="Adobe RGB, stated in EXIF")
    return _of_numbers(nclx)


def _of_png(image: Image.Image) -> Colours:
    """Return the conversion for a PNG that states its gamma, and perhaps its primaries."""
    gamma = float(image.info["gamma"])
    primaries = tuple(image.info.get("chromaticity", ()))
    if image.mode in {"RGB", "RGBA", "P"} and len(primaries) == 8:
        return _of_primaries(primaries, gamma)
    return _of_gamma(gamma)


def _states_adobe_rgb(image: Image.Image) -> bool:
    """Return whether the EXIF block states Adobe RGB as cameras do (DCF 2.0), by the word R03."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        if space != _UNCALIBRATED:
            return False
        return exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03"
    except Exception:  # the EXIF block is damaged
        return False


def _of_numbers(nclx: Mapping[str, Any]) -> Colours:
    """Return the conversion for colours stated as numbers; HDR colours are not converted."""
    primaries, transfer = nclx.get("color_primaries", 2), nclx.get("transfer_characteristics", 2)
    if primaries in _USUAL_PRIMARIES and transfer not in _HDR:
        return Colours()
    if primaries in _WIDE_PRIMARIES and transfer not in _HDR:
        return _of_primaries(_WIDE_PRIMARIES[primaries], 1 / 2.2)
    return Colours(problem=f"is stated as numbers only (primaries {primaries}, curve {transfer})")


@lru_cache(maxsize=8)
def _of_gamma(gamma: float) -> Colours:
    """Return the conversion for a PNG's gAMA chunk, the exponent of its encoding.

    1 / 2.2 means sRGB; others are converted relative to it, as libpng does.
    """
    if not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        return Colours()
    levels = np.arange(256) / 255
    curve = np.round(255 * levels ** (1 / 2.2 / gamma)).astype(int)
    if abs(curve - np.arange(256)).max() <= _SAME:
        return Colours()
    return Colours(f"gamma {1 / gamma:.3g}", curve=tuple(curve.tolist()))


@lru_cache(maxsize=8)
def _of_primaries(
    chromaticity: tuple[float, ...], gamma: float, *, is_power: bool = False
) -> Colours:
    """Return the conversion for primaries stated in numbers, from a profile that means the same.

    Args:
        chromaticity: x and y of white, red, green and blue.
        gamma: See `_of_gamma`.
        is_power: Whether 1 / 2.2 means this power, and not the curve of sRGB.
    """
    usual = _of_gamma(gamma)
    is_usual = abs(np.subtract(chromaticity, _SRGB)).max() < _NEAR
    if is_usual or not _GAMMAS[0] <= gamma <= _GAMMAS[1] or min(chromaticity[1::2]) <= 0:
        return usual
    white, *primaries = (
        np.array([x / y, 1.0, (1 - x - y) / y])
        for x, y in zip(chromaticity[::2], chromaticity[1::2], strict=True)
    )
    columns = np.stack(primaries, axis=1)
    if abs(np.linalg.det(columns)) < _FLAT:
        return usual
    to_d50 = np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white))
    columns = columns * np.linalg.solve(columns, white)
    columns = np.linalg.inv(_BRADFORD) @ to_d50 @ _BRADFORD @ columns
    if not (abs(columns) < _MOST_XYZ).all():  # a mistake
        return usual
    is_power = is_power or bool(usual.curve)  # by convention, 1 / 2.2 means the curve of sRGB
    numbers = _fixed(1 / gamma) if is_power else _fixed(*_SRGB_CURVE)
    curve = b"para\0\0\0\0" + (b"\0\0" if is_power else b"\0\3") + b"\0\0" + numbers
    tags = {b"wtpt": _D50, **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True))}
    content = {name: b"XYZ \0\0\0\0" + _fixed(*values) for name, values in tags.items()}
    content |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    found = _read(_profile(content), "RGB")
    return found if found.are_srgb else replace(found, profile="primaries stated in numbers")


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def _profile(content: Mapping[bytes, bytes]) -> bytes:
    """Write the ICC profile of a screen.

    Args:
        content: Its tags, each of a multiple of four bytes.
    """
    table, data, start = b"", b"", 132 + 12 * len(content)
    for name, tag in content.items():
        table += struct.pack(">4sII", name, start + len(data), len(tag))
        data += tag
    head = struct.pack(
        ">I4xI4s4s4s12x4s", start + len(data), 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    head = (head.ljust(68, b"\0") + _fixed(*_D50)).ljust(128, b"\0")
    return head + struct.pack(">I", len(content)) + table + data


@lru_cache(maxsize=8)  # images of one camera share a profile
def _read(profile: bytes, channels: str) -> Colours:
    if problem := _problem(profile):
        return Colours(problem=problem)
    mode = _SPACES[profile[16:20]]
    if mode != channels and (mode, channels) != ("RGB", "L"):  # grey may have an RGB profile
        return Colours(problem=f"is for {mode}, the image is {channels}")
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(opened, _srgb(), mode, "RGB")
        name = ImageCms.getProfileDescription(opened).strip()[:60]
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        if is_out_of_memory(error, _MOST):
            raise MemoryError from error
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
