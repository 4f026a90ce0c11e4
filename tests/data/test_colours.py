"""Colour profiles: every viewer shows the same scene, whatever space it is stored in."""

import struct
from collections.abc import Iterable

import numpy as np
import pytest
from images import encoded, photo, put
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from profiles import (
    SPACES,
    cmyk_profile,
    encode,
    grey_profile,
    repeated_table,
    rgb_profile,
    stored_in,
    table_without_entries,
)

from xception_cli.check.scan import look_at
from xception_cli.data.colours import _read
from xception_cli.data.images import decode, examine, to_image

BLOCK = 32


def scene() -> np.ndarray:
    """Linear sRGB light in blocks, inside all the spaces: colours, greys, white and black."""
    colours = np.random.default_rng(5).uniform(0, 1, (6, 8, 3))
    colours[0] = np.linspace(0, 1, 8)[:, None]
    return colours


def pixels(values: np.ndarray) -> np.ndarray:
    return values.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)


def centres(picture: Image.Image) -> np.ndarray:
    side = picture.width // 8
    return np.asarray(picture)[side // 2 :: side, side // 2 :: side].astype(int)


TRUTH = encode(scene(), None).astype(int)


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB", "ProPhoto"])
def test_a_scene_looks_the_same_in_every_colour_space_and_kind_of_file(space):
    stored = Image.fromarray(pixels(stored_in(space, scene())))
    profile = rgb_profile(space)
    assert np.abs(centres(stored) - TRUTH).max() > 20  # the control: an ignored profile is far off
    alpha = stored.copy()
    alpha.putalpha(255)
    for image, kind, options in (
        (stored, "PNG", {}),
        (stored, "TIFF", {}),
        (stored, "WEBP", {"lossless": True}),
        (stored, "JPEG", {"quality": 100, "subsampling": 0}),
        (alpha, "PNG", {}),
        (stored.quantize(64), "PNG", {}),
    ):
        content = encoded(image, kind, icc_profile=profile, **options)
        picture, original = examine(content)
        most = 8 if kind == "JPEG" else 4
        assert np.abs(centres(picture) - TRUTH).max() <= most, (kind, image.mode)
        assert (original.profile, original.profile_problem) == (space, "")
    jpeg = encoded(stored, "JPEG", quality=100, subsampling=0, icc_profile=profile)
    reduced = decode(jpeg, least_side=48)
    assert reduced.size == (64, 48)
    assert np.abs(centres(reduced) - TRUTH).max() <= 8
    stored.info["icc_profile"] = profile
    before = stored.tobytes()
    assert np.abs(centres(to_image(stored)) - TRUTH).max() <= 4
    assert stored.tobytes() == before  # the caller's image is not changed


def test_a_large_image_is_converted_in_strips_without_visible_borders():
    stored = Image.fromarray(pixels(stored_in("Adobe RGB", scene()))).resize((2400, 1800), 0)
    content = encoded(stored, "PNG", icc_profile=rgb_profile("Adobe RGB"), compress_level=1)
    assert np.abs(centres(decode(content)) - TRUTH).max() <= 4


def test_srgb_changes_no_pixel_and_needs_no_transform():
    stored = Image.fromarray(pixels(stored_in("sRGB", scene())))
    picture, original = examine(encoded(stored, "PNG", icc_profile=rgb_profile("sRGB")))
    assert picture == stored
    assert original.profile == ""
    assert _read(rgb_profile("sRGB"), "RGB").transform is None


def test_a_camera_states_adobe_rgb_in_exif_without_a_profile():
    stored = Image.fromarray(pixels(stored_in("Adobe RGB", scene())))

    def photographed(space: int, index: str) -> tuple[np.ndarray, str]:
        exif = Image.Exif()
        exif.get_ifd(0x8769).update({0xA001: space, 0xA005: {1: index}})
        jpeg = encoded(stored, "JPEG", quality=100, subsampling=0, exif=exif)
        picture, original = examine(jpeg)
        return centres(picture), original.profile

    found, profile = photographed(0xFFFF, "R03")
    assert np.abs(found - TRUTH).max() <= 8
    assert profile == "Adobe RGB, stated in EXIF"
    for space, index in ((1, "R98"), (1, "R03"), (0xFFFF, "R98"), (0xFFFF, "")):
        found, profile = photographed(space, index)
        assert np.abs(found - centres(stored)).max() <= 4
        assert profile == ""


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_of_another_gamma_is_converted_to_srgb(mode):
    light = np.linspace(0, 1, 48).reshape(6, 8)
    stored = pixels(encode(light, 1.0))
    image = Image.fromarray(stored if mode != "I;16" else stored.astype(np.uint16) * 257)
    image = image if mode != "LA" else image.convert("LA")
    found = decode(encoded(image, "PNG", icc_profile=grey_profile(1.0)))
    # Eight bits of linear light are coarse in the dark.
    expected = encode(pixels(encode(light, 1.0))[16::32, 16::32] / 255, None).astype(int)
    assert np.abs(centres(found)[..., 0] - expected).max() <= 8
    assert np.abs(centres(found)[..., 0] - centres(Image.fromarray(stored))).max() > 50


def with_primaries(stored: Image.Image, numbers: Iterable[float], gamma: float) -> bytes:
    chunks = PngInfo()
    chunks.add(b"gAMA", struct.pack(">I", round(100_000 / gamma)))
    chunks.add(b"cHRM", b"".join(struct.pack(">I", round(100_000 * n)) for n in numbers))
    return encoded(stored, "PNG", pnginfo=chunks)


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB", "ProPhoto"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_png_without_a_profile_has_the_primaries_that_it_states(space, mode):
    light = np.array([[0.6, 0.05, 0.02], [0.05, 0.5, 0.1], [0.8, 0.5, 0.3], [0.2, 0.2, 0.2]])
    truth = encode(light, None).astype(int)
    primaries, white, gamma = SPACES[space]
    stored = Image.fromarray(stored_in(space, light)[None])
    stored = stored.quantize(8, dither=0) if mode == "P" else stored.convert(mode)
    numbers = (*white, *(number for primary in primaries for number in primary))
    found, original = examine(with_primaries(stored, numbers, gamma or 2.2))
    assert original.profile == "primaries stated in numbers"
    assert np.abs(np.asarray(found)[0] - truth).max() <= 5
    assert np.abs(np.asarray(decode(encoded(stored, "PNG")))[0] - truth).max() > 15  # the control


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_the_colour_space_that_a_png_states_by_number_comes_before_its_profile(mode):
    stored = Image.fromarray(pixels(stored_in("Display P3", scene())))
    stored = stored.quantize(64, dither=0) if mode == "P" else stored.convert(mode)

    def stating(*numbers: int, **options: bytes) -> bytes:
        chunks = PngInfo()
        chunks.add(b"cICP", bytes((*numbers, 0, 1)))
        return encoded(stored, "PNG", pnginfo=chunks, **options)

    for options in ({}, {"icc_profile": rgb_profile("ProPhoto")}):
        found, original = examine(stating(12, 13, **options))
        assert original.profile == "primaries stated in numbers"
        assert np.abs(centres(found) - TRUTH).max() <= 6
        usual, original = examine(stating(1, 13, **options))  # sRGB
        assert original.profile == ""
        assert np.abs(centres(usual) - TRUTH).max() > 20  # the control
    _, original = examine(stating(9, 16))
    assert original.profile_problem.startswith("is stated as numbers only (primaries 9, curve 16")
    _, original = examine(stating(9, 16, icc_profile=rgb_profile("Display P3")))  # what is known
    assert (original.profile_problem, bool(original.profile)) == ("", True)


@pytest.mark.parametrize("numbers", [(2, 2), (2, 13), (1, 2)])
def test_the_profile_of_a_png_is_used_where_its_numbers_state_nothing(numbers):
    stored = Image.fromarray(pixels(stored_in("Display P3", scene())))
    chunks = PngInfo()
    chunks.add(b"cICP", bytes((*numbers, 0, 1)))
    profile = rgb_profile("Display P3")
    found = decode(encoded(stored, "PNG", pnginfo=chunks, icc_profile=profile))
    assert found == decode(encoded(stored, "PNG", icc_profile=profile))
    unknown = decode(encoded(stored, "PNG", pnginfo=chunks))
    assert np.abs(centres(unknown) - TRUTH).max() > 20  # the control


@pytest.mark.parametrize(
    "numbers",
    [
        (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),  # of sRGB
        (0.0,) * 8,
        (9999.0,) * 8,
        (0.3127, 0.329, 0.64, 0.33, 0.64, 0.33, 0.64, 0.33),
        (0.3127, 0.329, 1e-5, 1e-5, 2e-5, 1e-5, 1e-5, 2e-5),
    ],
)
def test_usual_or_impossible_primaries_of_a_png_change_nothing(numbers):
    stored = photo(0, 40, 30)
    found, original = examine(with_primaries(stored, numbers, 2.2))
    assert original.profile == ""
    assert np.array_equal(found, stored)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "LA"])
def test_a_png_without_a_profile_has_the_gamma_that_it_states(mode):
    light = np.linspace(0, 1, 48).reshape(6, 8)
    stored = Image.fromarray(pixels(encode(light, 1.8)))
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    stored = stored.convert(mode)

    def with_gamma(gamma: float, **more: bytes) -> bytes:
        chunks = PngInfo()
        chunks.add(b"gAMA", struct.pack(">I", round(100_000 * gamma)))
        for name, data in more.items():
            chunks.add(name.encode(), data)
        return encoded(stored, "PNG", pnginfo=chunks)

    found, original = examine(with_gamma(1 / 1.8))
    assert original.profile == "gamma 1.8"
    truth = encode(light, 2.2).astype(int)
    assert np.abs(centres(found)[..., 0] - truth).max() <= 2
    plain = decode(encoded(stored, "PNG"))
    assert np.abs(centres(plain)[..., 0] - truth).max() > 15  # the control
    # Of sRGB, by its number or by name; and by mistake the inverse.
    for content in (with_gamma(1 / 2.2), with_gamma(1 / 1.8, sRGB=b"\0"), with_gamma(1.8)):
        same, unchanged = examine(content)
        assert (same.tobytes(), unchanged.profile) == (plain.tobytes(), "")


def test_wide_colours_of_an_avif_without_a_profile_are_converted():
    image = Image.fromarray(pixels(stored_in("Display P3", scene())))
    plain = encoded(image, "AVIF", quality=100, subsampling="4:4:4")
    assert b"colrnclx\0\1\0\r" in plain
    truth = centres(Image.fromarray(pixels(encode(scene(), None)))).astype(int)
    found, original = examine(plain.replace(b"colrnclx\0\1", b"colrnclx\0\x0c"))
    assert original.profile == "primaries stated in numbers"
    assert np.percentile(np.abs(centres(found) - truth), 95) <= 8
    assert np.percentile(np.abs(centres(decode(plain)) - truth), 95) > 15  # the control
    _, original = examine(plain.replace(b"colrnclx\0\1\0\r", b"colrnclx\0\x09\0\x10"))
    assert original.profile_problem.startswith("is stated as numbers only (primaries 9, curve 16")


def test_wide_colours_of_a_heic_without_a_profile_are_converted_and_hdr_is_noted():
    pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.fromarray(pixels(stored_in("Display P3", scene())))
    plain, wide, hdr = (
        encoded(image, "HEIF", quality=100, save_nclx_profile=True, **numbers)
        for numbers in (
            {"color_primaries": 1},
            {"color_primaries": 12},
            {"color_primaries": 9, "transfer_characteristics": 16},
        )
    )
    truth = centres(Image.fromarray(pixels(encode(scene(), None)))).astype(int)
    found, original = examine(wide)
    assert original.profile == "primaries stated in numbers"
    assert np.percentile(np.abs(centres(found) - truth), 95) <= 8
    assert examine(plain)[1].profile_problem == ""
    assert np.percentile(np.abs(centres(decode(plain)) - truth), 95) > 15  # the control
    assert examine(hdr)[1].profile_problem.startswith("is stated as numbers only (primaries 9,")


def test_printing_inks_become_what_their_profile_says():
    """In the profile red ink, like every other, is grey: nothing but the profile says so."""
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    content = encoded(image, "JPEG", quality=100, icc_profile=cmyk_profile())
    red, green, blue = decode(content).getpixel((9, 9))
    assert max(red, green, blue) - min(red, green, blue) <= 3
    assert red == pytest.approx(80, abs=10)  # L* of 33


BROKEN = {
    "garbage": b"garbage" * 40,
    "cut": rgb_profile("Adobe RGB")[:300],
    "of inks": cmyk_profile(),
    "of grey": grey_profile(2.2),
    "without tags": rgb_profile("Adobe RGB")[:128] + bytes(4),
    "too large": rgb_profile("Adobe RGB") + bytes(4_000_000),
    "a table without entries": rgb_profile("Adobe RGB", A2B0=table_without_entries()),
    "a table repeated": rgb_profile("Adobe RGB", D2B0=repeated_table(4)),
}


@pytest.mark.parametrize("profile", BROKEN.values(), ids=BROKEN)
def test_a_broken_or_unsupported_profile_is_ignored_with_a_reason(profile, tmp_path):
    stored = Image.fromarray(pixels(stored_in("Adobe RGB", scene())))
    kind = "TIFF" if len(profile) > 1_000_000 else "PNG"
    content = encoded(stored, kind, icc_profile=profile)
    look, _ = look_at(put(tmp_path / "x.png", content))
    assert look.problem is None
    assert look.original.profile == ""
    assert look.original.profile_problem.startswith("is ")
    assert decode(content).tobytes() == stored.tobytes()


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_damaged_profile_is_used_or_ignored_without_an_error(mode):
    sound = cmyk_profile() if mode == "CMYK" else rgb_profile("ProPhoto")
    generator, used = np.random.default_rng(1), 0
    for number in range(24):
        damaged = bytearray(sound)
        for _ in range(number % 6):
            damaged[generator.integers(len(sound))] = generator.integers(256)
        content = encoded(Image.new(mode, (8, 8)), "TIFF", icc_profile=bytes(damaged))
        used += bool(examine(content)[1].profile)
    assert used >= 4  # the undamaged ones
