"""Descriptions of TIFF files that cannot be read: many channels, floats, rare compressions."""

from io import BytesIO
from typing import Any

from PIL import TiffImagePlugin

from xception_cli.data.formats import START, format_of

_WIDTH, _BITS, _COMPRESSION, _COLOURS, _CHANNELS, _SAMPLE_FORMAT = 256, 258, 259, 262, 277, 339
_PLANAR, _STRIPS, _TILES, _FILL_ORDER = 284, 273, 324, 266
_SEPARATE = 2  # one plane for each channel
_REVERSED = 2  # fill order: the lowest bit of each byte is the first one
_WEBP = 50001  # Pillow knows it, but its own libtiff (13) lacks it
_KNOWN_COLOURS = {0, 1, 2, 3, 5, 6, 8}  # grey, RGB, palette, CMYK, YCbCr, Lab
_REVERSED_BITS = "TIFF of reversed bits (fill order 2) is not supported; save it with fill order 1"
_KINDS = {2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}


def describe_tiff(content: bytes) -> str:
    """Describe the kind of a TIFF file that cannot be decoded.

    Returns:
        A sentence; empty if the file is not a TIFF, or is damaged.
    """
    if format_of(content[:START]) != "TIFF":
        return ""
    if content.startswith(b"MM\0+"):
        return "big-endian BigTIFF is not supported; save it as little-endian, or as TIFF"
    try:
        tags = _tags_of(content)
        bits = tuple(map(int, tags.get(_BITS, (1,))))
        kind = _KINDS.get(tags.get(_SAMPLE_FORMAT, (1,))[0], "integers")
        channels = int(tags.get(_CHANNELS, len(bits)))
        compression, colours = tags.get(_COMPRESSION, 1), tags.get(_COLOURS, 1)
        if _WIDTH not in tags or not (_STRIPS in tags or _TILES in tags):  # truncated
            return ""
    except Exception:  # damaged files raise many kinds of errors
        return ""
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        return _unsupported(compression)
    if colours not in _KNOWN_COLOURS:
        return f"TIFF photometric interpretation {colours} is not supported; save it as grey or RGB"
    if tags.get(_FILL_ORDER) == _REVERSED:
        return _REVERSED_BITS
    each = f"{bits[0]}-bit {kind}"
    what = each if channels == 1 else f"{channels} channels of {each}"
    return f"TIFF of {what} is not supported; save it as grey or RGB with 8 or 16 bits"


def describe_undecoded(content: bytes, error: str) -> str:
    """Describe the kind of a TIFF file that Pillow opens, but cannot decode although it is sound.

    Returns:
        A sentence; empty if the file is not a TIFF, or of another kind.
    """
    if format_of(content[:START]) != "TIFF":
        return ""
    try:
        tags = _tags_of(content)
    except Exception:  # as above
        return ""
    if tags.get(_COMPRESSION) == _WEBP:
        return _unsupported(_WEBP)
    if tags.get(_FILL_ORDER) == _REVERSED and "raw mode" in error:
        return _REVERSED_BITS
    planes = tags.get(_CHANNELS, 1)
    if tags.get(_PLANAR) == _SEPARATE and (planes == 2 or "raw mode" in error):
        return f"TIFF of {planes} planes is not supported; save it as grey or RGB with 8 or 16 bits"
    return ""


def _tags_of(content: bytes) -> Any:
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if content[2] == 43 else 8])
    file = BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _unsupported(compression: object) -> str:
    return f"TIFF compression {compression} is not supported; save it with LZW or deflate"
