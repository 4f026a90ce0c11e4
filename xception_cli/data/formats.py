"""Formats: which files are images, by suffix and first bytes; tables. Opens no file, no Pillow."""

import codecs
from functools import lru_cache
from importlib.util import find_spec

from xception_cli.parquet import SUFFIX as PARQUET

# Other formats are never tried: EPS starts Ghostscript, PSD, FITS and ICNS had memory bugs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
TABLES = (".csv", ".tsv", PARQUET)  # of images, with their classes
WORKBOOKS = {".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"}  # tables that have to be saved as CSV first
HEIF = "HEIF"  # needs pillow-heif
SUFFIXES_OF = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pbm"},
    "AVIF": {".avif"},
    HEIF: {".heic", ".heif", ".hif"},
}
INSTALL_HEIF = "pip install 'xception-cli[heif]'"

# No TIFF, BMP and PPM: camera raw files begin as TIFF, and many other files with `BM` or P6.
_CERTAIN = frozenset({"JPEG", "PNG", "WEBP", "GIF", "AVIF", HEIF})
# Files often found next to images: never opened, because there can be one per image.
_OTHERS = frozenset(
    {".txt", ".xml", ".json", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html", ".htm", ".pdf"}
    | {".py", ".ipynb", ".log", ".npy", ".npz", ".zip", ".tar", ".gz", ".mp4", ".mov", ".thm"}
    | {".bak", ".orig", ".tmp", ".part", ".crdownload", ".jpg_original"}
)
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), HEIF),
    **dict.fromkeys((b"mif1", b"msf1"), HEIF),
}
START = 32  # bytes needed by `format_of`
AVIF_HEADER = 4096  # bytes of an AVIF in which its properties are
# Markers of JPEG at the start of a frame; C4, C8 and CC are others.
_FRAMES = frozenset(bytes([marker]) for marker in {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_LS = b"\xf7"


@lru_cache(maxsize=1)
def reads_heif() -> bool:
    """Return whether HEIC and HEIF files can be decoded, which requires pillow-heif."""
    return find_spec("pillow_heif") is not None


def readable_formats() -> tuple[str, ...]:
    """Return the formats that can be decoded here."""
    return (*FORMATS, HEIF) if reads_heif() else FORMATS


def suffixes() -> frozenset[str]:
    """Return the suffixes of the images that can be decoded here, in lower case."""
    return _suffixes(readable_formats())


@lru_cache(maxsize=2)
def _suffixes(formats: tuple[str, ...]) -> frozenset[str]:
    return frozenset(suffix for name in formats for suffix in SUFFIXES_OF[name])


def is_undecided(suffix: str) -> bool:
    """Return whether a suffix does not identify the file type, so that its first bytes decide."""
    return suffix not in _OTHERS and not any(suffix in known for known in SUFFIXES_OF.values())


def is_certain(found: str | None) -> bool:
    """Return whether a file of undecided suffix is an image that can be decoded here."""
    return found in _CERTAIN and found in readable_formats()


def format_of(start: bytes) -> str | None:
    """Return the format of a file by its first `START` bytes; None if it is none of ours."""
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WEBP"
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if start.startswith(b"BM"):
        return "BMP"
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "PPM"
    if start[4:8] == b"ftyp":
        # The brand `mif1` is shared with AVIF: the compatible brands decide.
        also = {start[at : at + 4] for at in range(16, START, 4)}
        return "AVIF" if b"avif" in also else _BRANDS.get(start[8:12])
    return None


def claimed_size(content: bytes) -> tuple[int, int]:
    """Return the width and height in the header of a WebP or AVIF; of other files, zeros.

    These are decoded when they are opened: their size is needed to judge why that failed.
    """
    found, kind = format_of(content[:START]), content[12:16]
    if found == "AVIF":
        boxes = content[:AVIF_HEADER].split(b"ispe\0\0\0\0")[1:]
        return max(((int.from_bytes(b[:4]), int.from_bytes(b[4:8])) for b in boxes), default=(0, 0))
    if found == "WEBP" and kind == b"VP8X":
        return _little(content[24:27]) + 1, _little(content[27:30]) + 1
    if found == "WEBP" and kind == b"VP8L":
        sides = _little(content[21:25])
        return (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    if found == "WEBP":
        return _little(content[26:28]) & 0x3FFF, _little(content[28:30]) & 0x3FFF
    return 0, 0


def _little(content: bytes) -> int:
    return int.from_bytes(content, "little")


def what_else(content: bytes) -> str:
    """Describe a file that no decoder recognises."""
    start = content[:512].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "not an image (looks like HTML)"
    if start.startswith(b"version https://git-lfs"):
        return "not an image (a Git LFS pointer: run git lfs pull)"
    found = format_of(content[:START])
    if found == HEIF and not reads_heif():
        return f"HEIC needs pillow-heif: {INSTALL_HEIF}"
    if found == "JPEG" and (kind := _kind_of_jpeg(content)):
        return f"{kind} is not supported; save it as PNG, or as JPEG with 8 bits"
    if found is not None:
        return f"damaged ({found} whose header cannot be read)"
    return f"not an image of a supported format ({', '.join(readable_formats())})"


def _kind_of_jpeg(content: bytes) -> str:
    """Return the kind of a JPEG that is not of 8 bits, as in medicine; else empty."""
    at = 2
    while content[at : at + 1] == b"\xff":
        marker, bits = content[at + 1 : at + 2], content[at + 4 : at + 5]
        if marker == _JPEG_LS:
            return "JPEG-LS"
        if marker in _FRAMES:
            return f"JPEG with {bits[0]} bits per channel" if bits and bits != b"\x08" else ""
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return ""
