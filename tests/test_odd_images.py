"""Each command uses the one decoder: an image is the same, however it is stored.

The kinds of unusual files are tested at the decoder (data/test_images.py) and at the scan
(check/test_scan.py); these tests prove that check, train, eval and predict use them.
"""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from documented import check_documented
from images import encoded
from PIL import Image
from runs import call, quick_settings, train_run
from safetensors.torch import load_file

from xception_cli.rundir import RunDir

EXIF_ORIENTATION = 0x0112


def patch(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """Draw blotches around one colour, and a white corner that shows the orientation."""
    blotches = np.random.default_rng(seed).integers(-60, 61, (8, 12, 3))
    pixels = np.clip(np.array(colour) + blotches, 0, 250).astype(np.uint8)
    pixels = pixels.repeat(10, axis=0).repeat(10, axis=1)
    pixels[:30, :50] = 255
    return Image.fromarray(pixels)


def turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # a viewer rotates it by 90 degrees clockwise
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def transparent(picture: Image.Image) -> bytes:
    """Where the corner is white, transparent pixels are bright red."""
    corner = np.asarray(picture).min(axis=2) == 255
    pixels = np.dstack([picture, np.where(corner, 0, 255)]).astype(np.uint8)
    pixels[corner, :3] = (255, 0, 0)
    return encoded(Image.fromarray(pixels), "PNG")


def animated(picture: Image.Image) -> bytes:
    return encoded(picture, "PNG", save_all=True, append_images=[picture.rotate(180)])


def bitmap(picture: Image.Image) -> bytes:
    return encoded(picture, "BMP")


STORED = (turned, transparent, animated, bitmap)
NAMES = (b"%d caf\xe9.JPG", b"%d a\nb.PNG", b"%d =1+1,'\".jpe", "%d \u202egpj.jfif".encode())


def folder_of(root: Path, *, odd: bool) -> Path:
    """Draw two classes in two splits, as plain PNGs or as unusual files with unusual names."""
    for c, (name, colour) in enumerate({"blue": (40, 60, 200), "red": (200, 50, 40)}.items()):
        for split, count in (("train", 8), ("val", 4)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = patch(colour, 100 * c + 10 * count + i)
                content = STORED[i % 4](picture) if odd else encoded(picture, "PNG")
                file = NAMES[i % 4] % i if odd else b"%d.png" % i
                (folder / os.fsdecode(file)).write_bytes(content)
    return root


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "plain", odd=False)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "odd", odd=True)


def train(data: Path, weights: Path, run: str, **more) -> RunDir:
    settings = quick_settings(data, weights) | {"epochs": 1, "views": 1}
    return train_run(settings | more, run).run


def numbers(path: Path) -> list[list[str]]:
    """Return a table of predictions without what differs between files."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            [value for name, value in row.items() if name not in {"path", "digest", "unit"}]
            for row in csv.DictReader(file)
        ]


def naive_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_naive_reader_would_read_other_images_from_the_unusual_files(plain, odd):
    for split in ("train", "val"):
        files = [sorted((root / split / "red").iterdir()) for root in (plain, odd)]
        for index, (one, other) in enumerate(zip(*files, strict=True)):
            pixels = [naive_pixels(path) for path in (one, other)]
            assert np.array_equal(*pixels) == (STORED[index % 4] in {animated, bitmap}), other


def test_check_lists_unusual_images_without_stopping(odd, capsys):
    assert call("check", str(odd), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    check_documented("check", printed)
    problems = printed["problems"]
    counts = {problem["name"]: len(problem["findings"]) for problem in problems}
    assert "broken" not in counts
    assert {"EXIF-rotated": 6, "transparent": 6, "animated": 6}.items() <= counts.items()


@pytest.mark.slow
def test_training_gives_the_same_bytes_from_plain_and_from_unusual_files(
    plain, odd, random_weights
):
    """Also, the page of the run shows names that are dangerous for a terminal."""
    first, second = (train(data, random_weights, f"run-{data.name}") for data in (plain, odd))
    assert first.metrics.read_bytes() == second.metrics.read_bytes()
    tensors = [load_file(run.model) for run in (first, second)]
    assert all(tensor.equal(tensors[1][name]) for name, tensor in tensors[0].items())
    scored = [numbers(run.evaluation("val") / "predictions.csv") for run in (first, second)]
    assert scored[0] == scored[1]
    page = second.report.read_text(encoding="utf-8")
    assert "=1+1" in page  # one of the images that are shown
    assert re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page) is None


@pytest.mark.slow
def test_eval_and_predict_give_the_same_for_plain_and_for_unusual_files(plain, odd, random_weights):
    run = train(plain, random_weights, "run", unfreeze="head", refit=False)
    assert call("eval", str(run.path), "--data", str(odd), "--split", "val") == 0
    for data in (plain, odd):
        table = f"{data.name}.csv"
        assert call("predict", str(data / "val"), "--run", str(run.path), "--output", table) == 0
    tables = [run.evaluation(name) / "predictions.csv" for name in ("val", "odd-val")]
    assert numbers(tables[0]) == numbers(tables[1])
    assert numbers(Path("plain.csv")) == numbers(Path("odd.csv"))
