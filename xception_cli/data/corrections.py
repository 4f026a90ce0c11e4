"""Corrections of what Pillow (13) reads wrongly, without an error, or does not read at all."""

from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageFile, TiffImagePlugin

from xception_cli.data.formats import AVIF_HEADER

_GREY_LEVELS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies their values by
_BITS, _PHOTOMETRIC, _FILL_ORDER, _CHANNELS = 258, 262, 266, 277
_PLANAR, _SAMPLE_FORMAT = 284, 339
_CICP = b"\0\0\0\4cICP"  # the length and name of a PNG's chunk of such numbers
_SEPARATE = 2  # one plane for each channel
_LAB = 8  # photometric interpretation
_INTERLACE = 28  # where a PNG states it
# What a PNG states elsewhere; Pillow replaces it by a text of this name.
_STATED = (
    *("bbox", "chromaticity", "gamma", "icc_profile", "interlace", "nclx_profile", "srgb"),
    "transparency",
)
# Grey TIFFs by byte order and photometric interpretation; of the others, Pillow knows the twins.
for _order, _white_is_zero, _bits, _mode, _raw_mode in (
    (b"MM", 0, 16, "I;16B", "I;16B"),
    (b"II", 0, 12, "I;16", "I;12"),
    (b"MM", 0, 12, "I;16", "I;12"),
    (b"MM", 1, 12, "I;16", "I;12"),
):
    TiffImagePlugin.OPEN_INFO.setdefault(
        (_order, _white_is_zero, (1,), 1, (_bits,), ()), (_mode, _raw_mode)
    )


def correct(image: ImageFile.ImageFile, content: bytes) -> None:
    """Correct an image that was just opened, before its pixels are decoded."""
    if image.format == "PNG":
        if isinstance(image.info.get("bbox"), str):
            image.tile = [tile._replace(extents=(0, 0, *image.size)) for tile in image.tile]
        drop_text(image)
        if content[_INTERLACE] == 1:
            image.info["interlace"] = 1
        _scale_transparency(image)
        _read_numbers(image, content[: content.find(b"IDAT")].partition(_CICP)[2], 1)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        _read_planes(image)
    elif image.format == "AVIF":
        _read_numbers(image, content[:AVIF_HEADER].partition(b"colrnclx")[2], 2)


def drop_text(image: Image.Image) -> None:
    """Remove texts of a PNG under the name of what it states elsewhere, such as `gamma`.

    Call it again after the pixels are decoded: texts may follow them.
    """
    for name in _STATED:
        if isinstance(image.info.get(name), str):
            del image.info[name]


def _scale_transparency(image: ImageFile.ImageFile) -> None:
    """Scale a PNG's transparent colour like its pixels, to 8 bits."""
    transparent = image.info.get("transparency")
    raw_mode = image.tile[0].args if image.tile else None
    if isinstance(transparent, int) and raw_mode in _GREY_LEVELS:
        image.info["transparency"] = transparent * _GREY_LEVELS[raw_mode]
    elif isinstance(transparent, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _read_numbers(image: ImageFile.ImageFile, numbers: bytes, size: int) -> None:
    """Read the numbers of a colour space as pillow-heif reads those of a HEIC.

    Args:
        image: The image.
        numbers: The bytes from the first number on; empty if there are none.
        size: Bytes of each.
    """
    if len(numbers) >= 2 * size:
        image.info["nclx_profile"] = {
            "color_primaries": int.from_bytes(numbers[:size]),
            "transfer_characteristics": int.from_bytes(numbers[size : 2 * size]),
        }


def _read_planes(image: TiffImagePlugin.TiffImageFile) -> None:
    """Read the separate planes of an uncompressed TIFF as what they are.

    Pillow takes one letter of `RGB;16L` or `1;I` for each: 8 bits of 16, or black for white. It
    refuses the raw modes of 16-bit CMYK, which it lacks; so is Lab, whose a and b it reads without
    their sign.
    """
    tags, order = image.tag_v2, image.tag_v2.prefix
    if tags.get(_PLANAR) == _SEPARATE and tags.get(_PHOTOMETRIC) == _LAB:
        raw_modes = dict.fromkeys(("L", "A", "B", "LAB"), "a plane of Lab")
        image.tile = [_with_raw_mode(tile, raw_modes) for tile in image.tile]
    bits = tuple(tags.get(_BITS, (1,)))
    if tags.get(_PLANAR) != _SEPARATE or any(tile.codec_name != "raw" for tile in image.tile):
        return
    if tags.get(_CHANNELS, 1) == 1:
        kind = tuple(tags.get(_SAMPLE_FORMAT, (1,)))
        key = order, tags.get(_PHOTOMETRIC, 0), kind, tags.get(_FILL_ORDER, 1), bits, ()
        _, whole = TiffImagePlugin.OPEN_INFO.get(key, ("", ""))
        raw_modes = {whole[:1]: whole}
    else:
        end = ";16B" if order == b"MM" else ";16L"
        raw_modes = {band: f"{band}{end}" for band in "RGBACMYK"} if bits[0] == 16 else {}
    image.tile = [_with_raw_mode(tile, raw_modes) for tile in image.tile]


def _with_raw_mode(tile: Any, raw_modes: Mapping[str, str]) -> Any:
    """Return a tile with another raw mode, the first of its arguments, if that is a key."""
    raw_mode, *rest = tile.args
    return tile._replace(args=(raw_modes.get(raw_mode, raw_mode), *rest))
