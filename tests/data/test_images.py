"""The one decoder: every unusual file becomes the right image or a reason."""

import errno
import io
import os
import struct
import time
import zlib
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from folders import as_ordinary_user, open_folder
from images import draw, encoded, exif
from PIL import EpsImagePlugin, Image, ImageDraw, ImageFile, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from runs import python

from xception_cli.data import images
from xception_cli.data.formats import FORMATS, readable_formats
from xception_cli.data.images import (
    MAX_BYTES,
    ImageError,
    decode,
    examine,
    read_bytes,
    read_image,
    to_image,
)
from xception_cli.data.inspection import Inspection, content_digest, inspect, inspect_all
from xception_cli.data.opening import MAX_PIXELS
from xception_cli.data.transforms import Preprocessing

NOT_AN_IMAGE = f"not an image of a supported format ({', '.join(readable_formats())})"


def noise(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def quadrants() -> np.ndarray:
    """An image that looks different in every orientation, in blocks that JPEG preserves."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:] = (230, 30, 30), (30, 200, 30)
    pixels[16:, :32], pixels[16:, 32:] = (40, 40, 220), (200, 200, 200)
    return pixels


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, transparent: bytes = b""
) -> bytes:
    """Write a PNG by hand, with features that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    key = chunk(b"tRNS", transparent) if transparent else b""
    body = chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(
    values: np.ndarray,
    bits: int,
    channels: int,
    more: dict[int, int] | None = None,
    order: str = "<",
) -> bytes:
    """Write a TIFF by hand, with features that Pillow does not write."""
    height, width = values.shape[:2]
    start = 8 + values.nbytes
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: channels, 278: height}
    tags |= {279: values.nbytes, **(more or {})}
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", start) + values.tobytes() + directory


def pixel(content: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    picture = decode(content)
    assert picture.mode == "RGB"
    return picture.getpixel(at)


def reason(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(content)
    return caught.value.message


def test_a_plain_image_is_decoded_as_by_pillow():
    for kind in ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP"):
        content = encoded(noise(), kind)
        reference = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        assert np.array_equal(np.asarray(decode(content)), reference), kind


# --- refused -----------------------------------------------------------------------------------


def damaged_png() -> bytes:
    content = bytearray(encoded(noise(), "PNG"))
    content[len(content) // 2] ^= 0x10
    return bytes(content)


REFUSED = {
    "html": (b"\n <!DOCTYPE html><html><body>404</body></html>", "not an image (looks like HTML)"),
    "html with a byte order mark": (b"\xef\xbb\xbf<html>", "not an image (looks like HTML)"),
    "git lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "not an image (a Git LFS pointer: run git lfs pull)",
    ),
    "text": (b"hello, I am an image", NOT_AN_IMAGE),
    "one byte": (b"\xff", NOT_AN_IMAGE),
    "jpeg cut in half": (encoded(noise(), "JPEG")[:1000], "truncated"),
    "progressive jpeg cut": (encoded(noise(), "JPEG", progressive=True)[:1200], "truncated"),
    "jpeg without its end marker": (encoded(noise(), "JPEG")[:-2], "truncated"),
    "png cut in half": (encoded(noise(), "PNG")[:2000], "truncated"),
    "png with one flipped bit": (
        damaged_png(),
        "damaged (broken data stream when reading image file)",
    ),
    "tiff of signed integers": (
        encoded(Image.fromarray(np.full((4, 4), -7, np.int32)), "TIFF"),
        "TIFF of signed 32-bit integers: unknown range; scale it to 8 or 16 bits",
    ),
    "tiff of 32 bits": (
        tiff(np.full((4, 4), 7, np.uint32), 32, 1),
        "TIFF of 32-bit integers: unknown range; scale it to 8 or 16 bits",
    ),
    "tiff of signed 16 bits": (
        tiff(np.full((4, 4), 7, np.int16), 16, 1, {339: 2}),
        "TIFF of signed 16-bit integers: unknown range; scale it to 8 or 16 bits",
    ),
    "tiff of five channels": (
        tiff(np.zeros((4, 4, 5), np.uint8), 8, 5),
        "TIFF of 5 channels of 8-bit integers is not supported; save it as grey or RGB with 8 or 16"
        " bits",
    ),
    "tiff of half floats": (
        tiff(np.zeros((4, 4), np.float16), 16, 1, {339: 3}),
        "TIFF of 16-bit floats is not supported; save it as grey or RGB with 8 or 16 bits",
    ),
    "tiff compressed as webp": (
        tiff(np.zeros((4, 4), np.uint8), 8, 1, {259: 50001}),
        "TIFF compression 50001 is not supported; save it with LZW or deflate",
    ),
    "tiff of two planes": (
        tiff(np.zeros((8, 4), np.uint8), 8, 1, {257: 4, 277: 2, 278: 4, 284: 2, 338: 2}),
        "TIFF of 2 planes is not supported; save it as grey or RGB with 8 or 16 bits",
    ),
    "tiff of cmyk in planes of 16 bits": (
        tiff(np.zeros((16, 4), np.uint16), 16, 1, {257: 4, 262: 5, 277: 4, 278: 4, 284: 2}),
        "TIFF of 4 planes is not supported; save it as grey or RGB with 8 or 16 bits",
    ),
    "tiff of reversed bits whose zero is white": (
        tiff(np.zeros((4, 4), np.uint8), 8, 1, {262: 0, 266: 2}),
        "TIFF of reversed bits (fill order 2) is not supported; save it with fill order 1",
    ),
    "tiff of 16 reversed bits whose zero is white": (
        tiff(np.zeros((4, 4), np.uint16), 16, 1, {262: 0, 266: 2}),
        "TIFF of reversed bits (fill order 2) is not supported; save it with fill order 1",
    ),
    "tiff of lab in planes": (
        tiff(np.zeros((12, 4), np.uint8), 8, 1, {257: 4, 262: 8, 277: 3, 278: 4, 284: 2}),
        "TIFF of 3 planes is not supported; save it as grey or RGB with 8 or 16 bits",
    ),
    "a tiff of half a header": (
        tiff(np.zeros((4, 4), np.uint32), 32, 1)[:110],
        "damaged (TIFF whose header cannot be read)",
    ),
    "a tiff of damaged lzw": (
        encoded(noise(), "TIFF", compression="tiff_lzw").replace(b"\x80", b"\xff"),
        "damaged (it cannot be decoded)",
    ),
    "jpeg of 12 bits": (
        encoded(noise(), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        "JPEG with 12 bits per channel is not supported; save it as PNG, or as JPEG with 8 bits",
    ),
    "jpeg-ls": (
        bytes.fromhex("ffd8 fff7 000b 08 0004 0004 01 011100"),
        "JPEG-LS is not supported; save it as PNG, or as JPEG with 8 bits",
    ),
    "a png of nothing": (b"\x89PNG\r\n\x1a\n", "damaged (PNG whose header cannot be read)"),
    "float tiff": (
        encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"),
        "float image: unknown range; scale it to 8 or 16 bits",
    ),
    "182 megapixels in the header": (png(13500, 13500, 8, 2, b""), f"over {MAX_PIXELS:,} pixels"),
    "100 megapixels in the header": (png(10000, 10000, 8, 2, b""), f"over {MAX_PIXELS:,} pixels"),
    "3000 x 1": (encoded(noise(3000, 1), "PNG"), "3000 x 1 is longer than 20 to 1"),
    "1 x 21": (encoded(noise(1, 21), "PNG"), "1 x 21 is longer than 20 to 1"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_not_an_image_is_refused_with_the_reason(content, expected):
    found = reason(content)
    if "megapixels" in expected or expected.startswith("over"):
        assert (
            f"{expected} (see --max-pixels)" in found
        )  # Pillow's own check or ours, whichever comes first
    else:
        assert found == expected


def test_a_zero_byte_file_is_refused_as_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ImageError, match=r"^empty file$"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg"])
def test_a_name_that_no_file_can_have_is_refused(name):
    """In an ASCII locale, these are all names with other letters."""
    with pytest.raises(ImageError, match=r"^its name cannot be a file name here$"):
        read_image(Path(name))


def test_a_truncated_image_is_refused_even_if_another_library_allows_truncation(monkeypatch):
    cut = encoded(noise(), "JPEG")[:-200]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    Image.open(io.BytesIO(cut)).load()  # the control: Pillow now accepts it
    assert reason(cut) == "truncated"


def psd() -> bytes:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 8, 3)
    return header + bytes(12) + struct.pack(">H", 0) + bytes(48)


def fits() -> bytes:
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8"]
    cards += ["NAXIS   =                    2", "NAXIS1  =                    4"]
    cards += ["NAXIS2  =                    4", "END"]
    return "".join(f"{card:80}" for card in cards).ljust(2880).encode() + bytes(2880)


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


OTHER_FORMATS = {
    "psd": psd(),
    "fits": fits(),
    "eps": eps(),
    "icns": encoded(Image.new("RGB", (32, 32)), "ICNS"),
    "ico": encoded(Image.new("RGB", (32, 32)), "ICO"),
    "pcx": encoded(noise(), "PCX"),
    "tga": encoded(noise(), "TGA"),
    "sgi": encoded(noise(), "SGI"),
    "jpeg 2000": encoded(noise(), "JPEG2000"),
}


@pytest.mark.parametrize("content", OTHER_FORMATS.values(), ids=OTHER_FORMATS)
def test_a_format_outside_the_list_is_refused_although_pillow_reads_it(content, tmp_path):
    with Image.open(io.BytesIO(content)) as image:  # the control: the file is valid
        assert image.format not in FORMATS
    (tmp_path / "renamed.jpg").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "renamed.jpg")
    assert caught.value.message == NOT_AN_IMAGE


def test_an_eps_file_named_jpg_starts_no_ghostscript(tmp_path, monkeypatch):
    started = tmp_path / "started"
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    assert reason(eps()) == NOT_AN_IMAGE
    assert not started.exists()
    with pytest.raises(Exception, match=r"."), Image.open(io.BytesIO(eps())) as image:
        image.load()
    assert started.exists()  # the control: Pillow alone runs it


# --- files that are not regular files ----------------------------------------------------------


def test_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"^not a regular file$"):
        read_image(tmp_path / "x.jpg")
    assert time.monotonic() - started < 1


def folder_named_jpg(path: Path) -> None:
    path.mkdir()


def link_to_nothing(path: Path) -> None:
    path.symlink_to("gone.jpg")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (folder_named_jpg, "not a regular file"),
        (link_to_nothing, "broken link"),
        (link_to_itself, "too many levels of symbolic links"),
        (nothing, "file not found"),
    ],
)
def test_a_path_without_a_file_is_refused(tmp_path, make, expected):
    make(tmp_path / "x.jpg")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "x.jpg")
    assert caught.value.message == expected


def test_a_device_file_is_refused():
    with pytest.raises(ImageError, match=r"^not a regular file$"):
        read_image(Path("/dev/zero"))


def test_a_name_too_long_for_the_file_system_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"^file name too long$"):
        read_image(tmp_path / ("x" * 300 + ".jpg"))


def test_an_unreadable_file_is_reported_as_unreadable_and_not_corrupt():
    with open_folder() as folder:
        path = folder / "x.jpg"
        path.write_bytes(encoded(noise(), "JPEG"))
        path.chmod(0)
        with as_ordinary_user(), pytest.raises(ImageError, match=r"^permission denied$"):
            read_image(path)
        path.chmod(0o644)
        with as_ordinary_user():
            assert read_image(path).size == (48, 32)


def test_a_damaged_tiff_is_reported_by_us_alone_and_not_by_libtiff(tmp_path, capfd):
    content = bytearray(encoded(noise(), "TIFF", compression="tiff_adobe_deflate"))
    content[300:400] = bytes(100)
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        read_image(path)
    assert capfd.readouterr().err == ""


# --- accepted ----------------------------------------------------------------------------------


def test_garbage_after_a_jpeg_is_ignored():
    content = encoded(noise(), "JPEG")
    assert decode(content + b"garbage" * 100) == decode(content)


def test_the_content_and_not_the_name_decides(tmp_path):
    (tmp_path / "A.JPG").write_bytes(encoded(noise(), "PNG"))
    assert read_image(tmp_path / "A.JPG") == noise()


def without_adobe_marker(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xee")
    (length,) = struct.unpack(">H", jpeg[at + 2 : at + 4])
    return jpeg[:at] + jpeg[at + 2 + length :]


def test_a_cmyk_jpeg_keeps_its_colours_with_and_without_an_adobe_marker():
    red = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    plain = without_adobe_marker(red)
    assert b"Adobe" in red
    assert b"Adobe" not in plain
    assert pixel(red, (8, 8)) == pytest.approx((255, 0, 0), abs=3)
    assert pixel(plain, (8, 8)) == pytest.approx((255, 0, 0), abs=3)


DEEP = np.array([[40000, 100], [65535, 255]], dtype=np.uint16)
SCALED = [156, 0, 255, 0]  # a 256th, as is correct: Pillow's own conversion clips
DEEP_GREY = {
    "png, big-endian": encoded(Image.fromarray(DEEP), "PNG"),
    "png by hand": png(2, 2, 16, 0, b"\0\x9c\x40\0\x64\0\xff\xff\0\xff"),
    "tiff, little-endian": encoded(Image.fromarray(DEEP.astype("<u2")), "TIFF"),
    "tiff, big-endian": encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "tiff, white is zero": tiff(65535 - DEEP, 16, 1, {262: 0}),
    "tiff, big-endian, white is zero": tiff((65535 - DEEP).astype(">u2"), 16, 1, {262: 0}, ">"),
    "tiff of one plane": tiff(DEEP, 16, 1, {284: 2}),
    "tiff of 12 bits in 16": tiff(DEEP >> 4, 16, 1, {281: 4095}),
    "pgm of 12 bits": b"P5 2 2 4095\n" + (DEEP >> 4).astype(">u2").tobytes(),
    "pgm": b"P5 2 2 65535\n" + DEEP.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("content", DEEP_GREY.values(), ids=DEEP_GREY)
def test_sixteen_bit_grey_is_scaled_and_not_clipped(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode.startswith("I")
    assert examine(content)[1].is_deep
    picture = np.asarray(decode(content))
    assert picture.shape == (2, 2, 3)
    for channel in range(3):
        assert picture[..., channel].ravel().tolist() == SCALED


def test_a_bitmap_whose_fourth_byte_is_never_used_is_not_transparent():
    def bitmap(*alphas: int) -> bytes:
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks + bytes(52)
        pixels = b"".join(bytes([7, 8, 9, alpha]) for alpha in alphas)
        return b"BM" + struct.pack("<IHHI", 14 + len(header) + 8, 0, 0, 122) + header + pixels

    assert [pixel(bitmap(0, 0), (x, 0)) for x in (0, 1)] == [(9, 8, 7), (9, 8, 7)]
    assert not examine(bitmap(0, 0))[1].is_transparent
    assert [pixel(bitmap(0, 255), (x, 0)) for x in (0, 1)] == [(255,) * 3, (9, 8, 7)]


def test_heic_is_read_with_pillow_heif(monkeypatch):
    pytest.importorskip("pillow_heif").register_heif_opener()
    content = encoded(photo_of_blocks(), "HEIF", quality=95)
    found = np.asarray(decode(content), int)
    assert np.abs(found - np.asarray(photo_of_blocks(), int)).mean() < 4
    stored = photo_of_blocks().transpose(Image.Transpose.ROTATE_90)
    turned = encoded(
        stored, "HEIF", quality=95, exif=exif(6).tobytes()
    )  # the format's own rotation
    assert np.abs(np.asarray(decode(turned), int) - found).mean() < 4
    monkeypatch.setattr("xception_cli.data.formats.reads_heif", lambda: False)
    assert reason(content) == "HEIC needs pillow-heif: pip install 'xception-cli[heif]'"


def photo_of_blocks() -> Image.Image:
    return Image.fromarray(quadrants())


def test_the_two_byte_orders_of_tiff_differ():
    assert DEEP_GREY["tiff, little-endian"][:2] == b"II"
    assert DEEP_GREY["tiff, big-endian"][:2] == b"MM"


def test_sixteen_bit_rgb_keeps_its_high_bytes():
    row = b"\0" + struct.pack(">HHH", 40000, 100, 65535)
    assert pixel(png(1, 1, 16, 2, row)) == (156, 0, 255)


def test_a_palette_with_partial_transparency_is_composited_on_white():
    image = Image.new("P", (3, 1))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata([0, 1, 2])
    content = encoded(image, "PNG", transparency=bytes([0, 128, 255]))
    assert pixel(content, (0, 0)) == (255, 255, 255)
    assert pixel(content, (1, 0)) == pytest.approx((127, 227, 127), abs=1)
    assert pixel(content, (2, 0)) == (0, 0, 200)


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "PNG", {}, (255, 255, 255)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 51)), "PNG", {}, (255, 204, 204)),
        (Image.new("RGBA", (1, 1), (0, 0, 0, 0)), "WEBP", {"lossless": True}, (255, 255, 255)),
        (Image.new("LA", (1, 1), (0, 0)), "PNG", {}, (255, 255, 255)),
        (Image.new("LA", (1, 1), (80, 255)), "PNG", {}, (80, 80, 80)),
        (Image.new("RGB", (1, 1), (9, 8, 7)), "PNG", {"transparency": (9, 8, 7)}, (255,) * 3),
        (Image.new("L", (1, 1), 9), "PNG", {"transparency": 9}, (255, 255, 255)),
        (Image.new("1", (1, 1), 0), "PNG", {"transparency": 0}, (255, 255, 255)),
        (Image.new("P", (1, 1), 0), "GIF", {"transparency": 0}, (255, 255, 255)),
        (Image.new("L", (1, 1), 77), "PNG", {}, (77, 77, 77)),
        (Image.new("L", (1, 1), 77), "PPM", {}, (77, 77, 77)),
        (Image.new("1", (1, 1), 1), "PNG", {}, (255, 255, 255)),
        (Image.new("1", (1, 1), 0), "TIFF", {}, (0, 0, 0)),
        (Image.new("RGB", (1, 1), (9, 8, 7)).quantize(2), "PNG", {}, (9, 8, 7)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_becomes_rgb_as_seen_on_white(image, kind, options, expected):
    assert pixel(encoded(image, kind, **options)) == expected


def test_grey_that_is_stored_times_its_alpha_is_shown_on_white():
    content = tiff(np.array([[[40, 128]]], np.uint8), 8, 2, {338: 1})
    assert pixel(content) == pytest.approx((40 + 127,) * 3, abs=1)


def test_a_transparent_colour_is_scaled_like_the_pixels():
    def shown(depth: int, colour: int, rows: bytes, transparent: bytes) -> list[tuple[int, ...]]:
        content = png(2, 1, depth, colour, b"\0" + rows, transparent)
        return [pixel(content, (x, 0)) for x in (0, 1)]

    white = (255,) * 3
    assert shown(2, 0, b"\x60", b"\0\1") == [white, (170,) * 3]
    assert shown(4, 0, b"\x12", b"\0\1") == [white, (34,) * 3]
    two = struct.pack(">HH", 40000, 30000)
    assert shown(16, 0, two, two[:2]) == [white, (117,) * 3]
    two = struct.pack(">6H", 40000, 300, 5, 0x4000, 300, 5)  # 0x40 is the low byte of 40000
    assert shown(16, 2, two, two[:6]) == [white, (64, 1, 0)]


@pytest.mark.parametrize("counted", [True, False], ids=["bits of each", "bits of all"])
@pytest.mark.parametrize("order", "<>")
def test_the_planes_of_a_tiff_are_read_with_all_their_bits(order, counted):
    # With single values for tags, all planes are one strip; each needs its own.
    values = np.array([40000, 100, 65535], f"{order}u2")[:, None, None].repeat(6, 1).repeat(4, 2)
    content = tiff(values.reshape(18, 4), 16, 1, {257: 6, 262: 2, 277: 3, 278: 6, 284: 2}, order)
    strip = struct.pack(f"{order}3I", 8, 8 + 48, 8 + 96), struct.pack(f"{order}3I", 48, 48, 48)
    for tag, kind, part in (
        *[(258, 3, struct.pack(f"{order}3H", 16, 16, 16))] * counted,
        *zip((273, 279), (4, 4), strip, strict=True),
    ):
        at = content.index(struct.pack(f"{order}HH", tag, 4), 8 + values.nbytes)
        entry = struct.pack(f"{order}HHII", tag, kind, 3, len(content))
        content = content[:at] + entry + content[at + 12 :] + part
    assert {pixel(content, (x, y)) for x in range(4) for y in range(6)} == {(156, 0, 255)}


def test_a_black_and_white_tiff_of_one_plane_is_not_inverted():
    content = tiff(np.array([[0b11110000]], np.uint8), 1, 1, {256: 8, 262: 0, 284: 2})
    assert [pixel(content, (x, 0)) for x in (1, 6)] == [(0,) * 3, (255,) * 3]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})],
    ids=["gif", "webp", "apng", "pages of a tiff"],
)
def test_the_first_frame_of_an_animation_is_used(kind, options):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    content = encoded(first, kind, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 2
    assert pixel(content) == (255, 0, 0)


def test_an_image_of_one_pixel_and_one_of_twenty_to_one_are_accepted():
    assert decode(encoded(noise(1, 1), "PNG")).size == (1, 1)
    assert decode(encoded(noise(20, 1), "PNG")).size == (20, 1)


# How the rows of an upright image are stored, by orientation (EXIF 2.3, 4.6.4 A).
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p[:, ::-1].transpose(1, 0, 2),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p[::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_orientations_give_the_same_upright_image(kind, orientation):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quadrants())))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "PNG": {},
        "TIFF": {},
    }[kind]
    content = encoded(stored, kind, exif=exif, **options)
    found = np.asarray(decode(content)).astype(int)
    assert found.shape == (32, 64, 3)
    assert np.abs(found - quadrants()).max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize(
    ("name", "text"),
    [("gamma", "1"), ("gamma", "sRGB"), ("bbox", "1,2,3,4"), ("transparency", "none"),
     ("interlace", "no"), ("nclx_profile", "x"), ("icc_profile", "x"), ("srgb", "x")],
)  # fmt: skip
def test_a_text_in_a_png_is_not_what_the_png_states(name, text, mode, is_last):
    chunks = PngInfo()
    chunks.add(b"tEXt", f"{name}\0{text}".encode("latin-1"), after_idat=is_last)
    image = noise().convert(mode)
    found, original = examine(encoded(image, "PNG", pnginfo=chunks))
    assert (found, original) == examine(encoded(image, "PNG"))


def test_a_decoded_image_is_not_turned_again_when_it_is_given_as_an_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(Image.fromarray(quadrants()), "JPEG", exif=exif))
    assert to_image(decoded) == decoded
    assert decoded.rotate(-90, expand=True) != decoded  # the control


def orientation(kind: int, count: int, value: bytes) -> bytes:
    """An EXIF block with one entry."""
    entry = struct.pack(">HHHI4s", 1, 0x0112, kind, count, value)
    return b"Exif\0\0MM\0*\0\0\0\x08" + entry + bytes(4)


@pytest.mark.filterwarnings("ignore")  # Pillow's; images.py silences them where it is imported
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0garbage garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0",
     orientation(2, 3, b"up\0"), orientation(3, 1, b"\0\x09")],
    ids=["garbage", "an offset to nowhere", "nothing", "a word", "nine"],
)  # fmt: skip
def test_a_broken_exif_block_leaves_the_image_as_it_is_stored(exif):
    image = Image.fromarray(quadrants())
    stored = decode(encoded(image, "JPEG"))
    found = decode(encoded(image, "JPEG", exif=exif))
    assert np.array_equal(np.asarray(found), np.asarray(stored))
    turned = decode(encoded(image, "JPEG", exif=orientation(3, 1, b"\0\x06")))
    assert turned.size == (32, 64)  # the control: a valid block is applied


def test_unusual_images_print_no_warning(tmp_path):
    palette = Image.new("P", (3, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    odd = {
        "palette": encoded(palette, "PNG", transparency=bytes([0, 128, 255])),
        "exif": encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"),
        "large": png(10000, 10000, 8, 2, b""),
        "bands": tiff(np.zeros((2, 2), np.uint8), 8, 2048),
    }
    for name, content in odd.items():
        (tmp_path / name).write_bytes(content)
    script = (
        "import sys; from pathlib import Path; from xception_cli.check.scan import look_at\n"
        "for name in sys.argv[1:]: print(look_at(Path(name))[0].problem)\n"
        "import warnings; warnings.warn('the control')"
    )
    done = python("-c", script, *odd, cwd=tmp_path)
    large = f"10000 x 10000 is over {MAX_PIXELS:,} pixels (see --max-pixels)"
    bands = "TIFF of 2048 channels of 8-bit integers is not supported; save it as grey or RGB with"
    assert done.stdout == f"None\nNone\n{large}\n{bands} 8 or 16 bits\n"
    # Python 3.13 adds the line of the script, indented.
    warned = [line for line in done.stderr.splitlines() if not line.startswith(" ")]
    assert warned == ["<string>:3: UserWarning: the control"]


# --- arbitrary bytes ---------------------------------------------------------------------------


def outcome(content: bytes) -> bool:
    """Whether it decodes; any result except an image or a ImageError fails the test."""
    try:
        picture = decode(content)
    except ImageError as error:
        refusal = error.message
    else:
        assert picture.mode == "RGB"
        return True
    assert len(refusal.splitlines()) == 1
    return False


STARTS = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x40\0\0\0WEBPVP8 "]
STARTS += [b"BM", b"II*\0\x08\0\0\0", b"P6 4 4 255\n", b"P1 9 9\n", b"\0\0\0\x1cftypavif"]


@pytest.mark.filterwarnings("ignore")
def test_random_bytes_are_refused_without_another_error():
    generator = np.random.default_rng(25)
    decoded = 0
    for number in range(300):
        start = STARTS[number % len(STARTS)]
        decoded += outcome(start + generator.bytes(int(generator.integers(1, 600))))
    assert decoded < 60  # a few are images by chance: P6 accepts any bytes


VALID = {
    kind: encoded(noise(24, 16), kind)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF")
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", VALID)
def test_a_damaged_image_is_decoded_or_refused_without_another_error(kind):
    generator = np.random.default_rng(list(kind.encode()))
    outcomes = [outcome(VALID[kind])]
    for number in range(40):
        damaged = bytearray(VALID[kind])
        if number % 4 == 3:
            del damaged[int(generator.integers(1, len(damaged))) :]
        else:
            for _ in range(1 + number % 3 * 4):
                damaged[int(generator.integers(len(damaged)))] = int(generator.integers(256))
        outcomes.append(outcome(bytes(damaged)))
    assert set(outcomes) == {True, False}


# --- decoding at a reduced size ----------------------------------------------------------------


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """An image of 1600 x 1600 with detail of every size, edges and fine lines."""
    generator, size = np.random.default_rng(0), 1600
    light = np.full((size, size, 3), 128.0)
    for grid, strength in ((4, 60), (16, 35), (64, 20), (256, 12), (size, 6)):
        coarse = np.clip(generator.normal(128, strength, (grid, grid, 3)), 0, 255)
        fine = Image.fromarray(coarse.astype(np.uint8)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        light += np.asarray(fine).astype(float) - 128
    picture = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(150):
        x, y, x2, y2 = generator.integers(0, size, 4).tolist()
        radius, width = generator.integers(3, 60).item(), generator.integers(1, 5).item()
        colour = tuple(generator.integers(0, 256, 3).tolist())
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        pen.line((x, y, x2, y2), fill=colour, width=width)
    return picture


@pytest.mark.parametrize(
    ("size", "least_side", "expected"),
    [
        ((1600, 1200), 1201, (1600, 1200)),
        ((1600, 1200), 1200, (1600, 1200)),
        ((1600, 1200), 601, (1600, 1200)),
        ((1600, 1200), 600, (800, 600)),
        ((1600, 1200), 301, (800, 600)),
        ((1600, 1200), 300, (400, 300)),
        ((1600, 1200), 151, (400, 300)),
        ((1600, 1200), 150, (200, 150)),
        ((1600, 1200), 1, (200, 150)),  # the smallest of libjpeg
        ((1200, 1600), 300, (300, 400)),
        ((301, 4000), 150, (151, 2000)),  # by the shorter side, rounded up
        ((1600, 1200), None, (1600, 1200)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_keeps_enough(size, least_side, expected):
    content = encoded(Image.new("RGB", size, (9, 120, 200)), "JPEG")
    found = decode(content, least_side=least_side)
    assert found.size == expected
    assert pixel(encoded(found, "PNG"), (20, 20)) == pytest.approx((9, 120, 200), abs=3)


@pytest.mark.parametrize(
    ("size", "options", "least_side", "expected"),
    [
        ((12000, 9000), {}, 666, (1500, 1125)),
        ((12000, 9000), {"exif": exif(6)}, 666, (1125, 1500)),
        ((12000, 9000), {"progressive": True}, 666, (1500, 1125)),  # coefficients stay in memory
        ((12000, 9000), {}, None, (6000, 4500)),  # the largest allowed in memory
        ((16320, 12240), {}, 666, (2040, 1530)),
        ((20000, 14000), {}, 666, None),
    ],
)
def test_a_photo_of_a_hundred_megapixels_is_decoded_at_the_required_size(
    size, options, least_side, expected
):
    content = encoded(Image.new("L", size, 90), "JPEG", quality=10, **options)
    if expected is None:
        with pytest.raises(ImageError, match=f"over {MAX_PIXELS:,} pixels"):
            decode(content, least_side=least_side)
        return
    picture, original = examine(content, least_side=least_side)
    assert picture.size == expected
    assert sorted((original.width, original.height)) == sorted(size)


def test_the_shorter_side_is_never_below_the_required_one():
    generator, scales = np.random.default_rng(3), []
    for _ in range(150):
        width, height, least_side = generator.integers([24, 24, 1], [400, 400, 200]).tolist()
        found = decode(encoded(Image.new("L", (width, height)), "JPEG"), least_side=least_side)
        shorter = min(width, height)
        assert min(found.size) >= min(least_side, shorter)
        sizes = {scale: (-(-width // scale), -(-height // scale)) for scale in (1, 2, 4, 8)}
        scale = next(scale for scale, size in sizes.items() if size == found.size)
        assert scale == 8 or shorter // (2 * scale) < least_side  # and not larger than necessary
        scales.append(scale)
    assert set(scales) == {1, 2, 4, 8}


KINDS = {
    "baseline": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "colour as fine as grey": ("RGB", {"subsampling": 0}),
    "colour of half the width": ("RGB", {"subsampling": 1}),
    "grey": ("L", {}),
    "four inks": ("CMYK", {}),
    "with restart markers": ("RGB", {"restart_marker_rows": 1}),
}


@pytest.mark.parametrize(("mode", "options"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("least_side", "size"), [(1, 128), (128, 128), (129, 256), (600, 1024)])
def test_every_kind_of_jpeg_shows_the_same_at_a_reduced_size(mode, options, least_side, size):
    image = Image.fromarray(quadrants()).resize((1024, 1024), Image.Resampling.NEAREST)
    content = encoded(image.convert(mode), "JPEG", quality=95, **options)
    if mode == "CMYK":
        assert b"Adobe" in content
    found = decode(content, least_side=least_side)
    assert (found.mode, found.size) == ("RGB", (size, size))
    expected = decode(content).resize(found.size, Image.Resampling.NEAREST)
    off = np.abs(np.asarray(found).astype(int) - np.asarray(expected).astype(int))
    assert np.median(off) <= 3
    assert off.mean() < 6
    turned = np.asarray(expected.rotate(180)).astype(int)
    assert np.abs(np.asarray(found).astype(int) - turned).mean() > 20  # the control


@pytest.mark.parametrize("orientation", STORED)
def test_a_rotated_jpeg_is_upright_at_a_reduced_size(orientation):
    large = np.kron(quadrants(), np.ones((16, 16, 1), np.uint8))  # 512 rows of 1024
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](large)))
    content = encoded(stored, "JPEG", exif=exif, quality=100, subsampling=0)
    found = np.asarray(decode(content, least_side=64)).astype(int)
    assert found.shape == (64, 128, 3)
    assert np.abs(found - np.kron(quadrants(), np.ones((2, 2, 1)))).max() <= 3


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}),
     ("TIFF", {"compression": "jpeg"}), ("GIF", {}), ("PPM", {}), ("AVIF", {})],
)  # fmt: skip
def test_other_formats_are_decoded_at_full_size(kind, options):
    content = encoded(noise(640, 480), kind, **options)
    assert decode(content, least_side=1) == decode(content)
    jpeg = encoded(noise(640, 480), "JPEG")
    assert decode(jpeg, least_side=1) != decode(jpeg)  # the control


def test_a_jpeg_with_several_images_is_decoded_at_a_reduced_size():
    # Phones write JPEGs with a second image after the first; Pillow has a separate format for them.
    first, second = Image.new("RGB", (800, 600), (250, 0, 0)), Image.new("RGB", (80, 60))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 2
    found = decode(content, least_side=150)
    assert found.size == (200, 150)
    assert found.getpixel((100, 70)) == pytest.approx((250, 0, 0), abs=3)


def said(content: bytes, least_side: int | None) -> str:
    try:
        decode(content, least_side=least_side)
    except ImageError as error:
        return error.message
    return "an image"


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_truncated_jpeg_is_refused_at_any_scale(options):
    content = encoded(noise(160, 120), "JPEG", **options)
    assert said(content, 1) == said(content, None) == "an image"
    for end in np.linspace(30, len(content) - 1, 40).astype(int).tolist():
        assert [said(content[:end], side) for side in (None, 60, 1)] == [said(content[:end], 1)] * 3
        assert said(content[:end], 1) in {"truncated", NOT_AN_IMAGE}
    assert said(content[:-1], 1) == "truncated"


def test_a_jpeg_of_hundreds_of_scans_is_refused_without_decoding_them():
    content = encoded(Image.new("RGB", (2000, 2000), "teal"), "JPEG", progressive=True)
    last, end = content.rindex(b"\xff\xda"), content[-2:]
    many = content[:-2] + content[last:-2] * 20_000 + end  # 35 s, from 300 kB
    started = time.process_time()
    assert reason(many) == "damaged (a JPEG of over 100 scans)"
    assert time.process_time() - started < 1
    video = content[last:-2] * 200  # after the image, as in a phone's motion photo
    assert decode(content[:-2] + content[last:-2] * 20 + end + video) == decode(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_damaged_jpeg_is_treated_the_same_at_any_scale(options):
    generator, content = np.random.default_rng(8), encoded(noise(160, 120), "JPEG", **options)
    verdicts = []
    for number in range(300):
        damaged = bytearray(content)
        for _ in range(1 + number % 3 * 6):
            damaged[int(generator.integers(len(damaged)))] = int(generator.integers(256))
        verdicts.append(said(bytes(damaged), None))
        assert said(bytes(damaged), 1) == verdicts[-1]
    assert len(set(verdicts)) > 2
    assert verdicts.count("an image") < 299


def test_the_networks_input_hardly_changes(photo):
    preprocessing, content = Preprocessing(), encoded(photo, "JPEG", quality=90)
    transform = preprocessing.evaluation_transform()

    def seen(least_side: int | None) -> np.ndarray:
        return transform(decode(content, least_side=least_side)).numpy().astype(int)

    def off(least_side: int) -> float:
        return float(np.abs(seen(least_side) - seen(None)).mean())

    # Grey levels, of 256; measured 0.9, 2.0 and 7.4.
    assert decode(content, least_side=preprocessing.least_side).size == (800, 800)
    assert 0 < off(preprocessing.least_side) < 1.5
    assert off(preprocessing.resize_size) > 1.8  # the control: decoded at the filter's output size
    assert off(preprocessing.resize_size // 2) > 5  # the control: enlarged by the filter


# --- inspection --------------------------------------------------------------------------------


def test_a_file_is_identified_by_the_digest_of_its_bytes(tmp_path):
    content = encoded(noise(), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    expected = blake2b(content, digest_size=16).hexdigest()
    assert content_digest(b"abc") == "cf4ab791c62b8d2b2109c90275287816"  # by b2sum -l 128
    assert inspect(tmp_path / "a.png") == Inspection(expected, None)


def test_a_damaged_file_has_a_digest_and_an_unread_one_only_a_problem(tmp_path):
    cut = encoded(noise(), "PNG")[:500]
    (tmp_path / "cut.png").write_bytes(cut)
    assert inspect(tmp_path / "cut.png") == Inspection(content_digest(cut), None)
    assert inspect(tmp_path / "none.png") == Inspection("", "file not found")


def test_all_files_are_inspected_in_order(tmp_path):
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        if number % 3:
            paths[-1].write_bytes(encoded(noise(seed=number), "PNG"))
    found = inspect_all(paths)
    assert found == [inspect(path) for path in paths]
    assert [bool(i.problem) for i in found] == [n % 3 == 0 for n in range(20)]
    assert len({i.digest for i in found}) == 14


def test_pillow_still_requires_a_list_of_formats():
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(psd()), formats=FORMATS)


@pytest.mark.parametrize(("number", "failures", "read"), [
    (errno.EIO, 2, True), (errno.ESTALE, 1, True), (errno.EIO, 3, False), (errno.EACCES, 1, False),
])  # fmt: skip
def test_a_transient_error_of_a_network_drive_is_retried(
    tmp_path, monkeypatch, number, failures, read
):
    draw(tmp_path / "a.png", (200, 20, 20), seed=0)
    content, asked = (tmp_path / "a.png").read_bytes(), []

    def stumbling(path):
        asked.append(path)
        if len(asked) <= failures:
            raise OSError(number, os.strerror(number))
        return content

    monkeypatch.setattr(Path, "read_bytes", stumbling)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if read:
        assert read_bytes(tmp_path / "a.png") == content
    else:
        with pytest.raises(ImageError, match=os.strerror(number).lower()):
            read_bytes(tmp_path / "a.png")
    assert len(asked) == (1 if number == errno.EACCES else min(3, failures + 1))


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: it takes no space
    with pytest.raises(ImageError, match="over 500,000,000 bytes"):
        read_bytes(path)


def test_the_names_of_version_0_1_still_work():
    assert (images.PictureError, images.read_picture) == (images.ImageError, images.read_image)
    assert images.to_picture is images.to_image
