"""16-bit images whose header does not state their bits: one scale for the whole data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from images import SMALL, encoded, photo, put
from networks import CPU
from PIL import Image
from runs import train_run

from xception_cli.check.pictures import find_odd
from xception_cli.check.report import DEEP
from xception_cli.check.scan import Look, scan_folder
from xception_cli.check.store import open_store
from xception_cli.data.folder import read_folder
from xception_cli.data.images import decode
from xception_cli.data.opening import MAX_PIXELS, turns
from xception_cli.data.transforms import Preprocessing
from xception_cli.inference import predict_images
from xception_cli.model.bundle import load_model
from xception_cli.rundir import RunDir


def deep(image: Image.Image, bits: int) -> Image.Image:
    """The same in grey, with as many bits in 16 and no word about it in the header."""
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    return Image.fromarray(grey << bits - 8)


def darker(image: Image.Image) -> Image.Image:
    return image.point(lambda value: value // 8)


def draw_deep(root: Path, count: int = 12) -> Path:
    """Two classes in 12 bits of 16: `bright` and `dark`, whose values would fit in 9 bits."""
    for number in range(count):
        picture = photo(number, 96, 96)
        put(root / "bright" / f"{number}.png", deep(picture, 12))
        put(root / "dark" / f"{number}.png", deep(darker(photo(100 + number, 96, 96)), 12))
    return root


def scan(root: Path, grey_bits: int | None = None) -> dict[str, Look]:
    folder = read_folder(root)
    with open_store(root) as store:
        looks = scan_folder(folder, store, grey_bits=grey_bits)
    return {image.path: look for image, look in zip(folder.images, looks, strict=True)}


def test_a_data_set_has_one_scale_whatever_each_image_would_fit_into(tmp_path):
    draw_deep(tmp_path, 3)
    stated = deep(darker(photo(7)), 16)  # its header states 16 bits: it has no say
    stated.save(tmp_path / "dark" / "stated.tif", tiffinfo={281: 65535})
    looks = scan(tmp_path)
    assert {look.original.grey_bits for path, look in looks.items() if "png" in path} == {12}
    assert looks["dark/stated.tif"].original.grey_bits == 16
    assert looks["dark/0.png"].original.highest < 1 << 10
    # As an image of 8 bits is measured, which shows the same.
    put(tmp_path / "dark" / "same.png", darker(photo(100, 96, 96)).convert("L"))
    looks = scan(tmp_path)
    assert looks["dark/0.png"].measures == looks["dark/same.png"].measures
    folder = read_folder(tmp_path)
    (problem,) = (p for p in find_odd(folder, list(looks.values())) if p.name == DEEP)
    most = max(look.original.highest or 0 for look in looks.values())
    assert problem.summary == (
        "7 images with more than 8 bits a channel (they are scaled); 6 of them do not state "
        "how many bits they use: these are read as 12 bits, the fewest that hold their largest "
        f"value, {most:,}"
    )
    assert problem.findings[0].detail == f"stored as I;16, largest value {most:,}"
    # One brighter image changes the scale of all; a model's own scale is kept.
    put(tmp_path / "dark" / "hot.png", deep(photo(9), 16))
    after = scan(tmp_path)
    assert {look.original.grey_bits for path, look in after.items() if "same" not in path} == {16}
    assert after["dark/0.png"].measures.brightness < looks["dark/0.png"].measures.brightness / 4
    assert scan(tmp_path, 12)["dark/0.png"] == looks["dark/0.png"]


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_scale_is_the_grey_of_8_bits_and_what_exceeds_it_is_white(bits):
    picture = photo(1).convert("L")
    expected = np.asarray(picture.convert("RGB"))
    content = encoded(deep(picture, bits), "PNG")
    assert np.array_equal(np.asarray(decode(content, grey_bits=bits)), expected)
    own = decode(content, grey_bits=None)  # by its values; here they need them all
    assert np.array_equal(np.asarray(own), expected)
    less = np.asarray(decode(content, grey_bits=10)).astype(int)
    assert np.array_equal(less, np.minimum(expected.astype(int) << bits - 10, 255))


@pytest.mark.slow  # a training of 6 s
def test_a_model_has_the_scale_that_it_was_trained_with(
    tmp_path, random_weights, capsys, monkeypatch
):
    data = draw_deep(tmp_path / "cells")
    settings = {
        "data": str(data),
        "weights": str(random_weights),
        "image_size": SMALL,
        "views": 1,
        "unfreeze": "head",
        "workers": 0,
        "max_pixels": 100_000_000,
    }
    run = RunDir(train_run(settings).run.path)
    assert "these are read as 12 bits" in " ".join(capsys.readouterr().err.split())
    assert json.loads(run.info.read_text())["grey_bits"] == 12
    monkeypatch.setattr(turns, "max_pixels", MAX_PIXELS)
    bundle = load_model(run.model, CPU)
    assert turns.max_pixels == 100_000_000
    made = Preprocessing(SMALL, bundle.preprocessing.resize_size, grey_bits=12)
    assert bundle.preprocessing.to_dict() == {**made.to_dict(), "max_pixels": 100_000_000}
    # An image that the header says nothing of, one that it does, and one in memory, are the same.
    image = deep(photo(50), 12)
    put(tmp_path / "plain.png", image)
    image.save(tmp_path / "stated.tif", tiffinfo={281: 4095})
    images = [tmp_path / "plain.png", tmp_path / "stated.tif", image]
    first, *others = (p.probabilities for p in predict_images(bundle, images, workers=0))
    assert others == [first, first]
