"""The drawn data set: its content, and that it never changes.

How well it can be learned: tests/check/test_labels.py.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import files_no_larger_than

from xception_cli.errors import MachineError, UsageError
from xception_cli.sample import run
from xception_cli.sample.foods import FOODS
from xception_cli.sample.run import draw_sample


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, bytes]:
    """Three images of every food."""
    folder = tmp_path_factory.mktemp("drawn")
    assert draw_sample(folder, images=3) == 36
    return contents(folder)


def test_a_sample_holds_one_folder_per_food_and_nothing_else(drawn, tmp_path):
    assert draw_sample(tmp_path / "new" / "food", classes=2, images=2) == 4
    names = ["apple/apple_000.jpg", "apple/apple_001.jpg", "bagel/bagel_000.jpg"]
    assert list(contents(tmp_path / "new" / "food")) == [*names, "bagel/bagel_001.jpg"]
    assert list(FOODS) == sorted(FOODS)
    assert list(drawn) == [f"{food}/{food}_{n:03}.jpg" for food in FOODS for n in range(3)]


def test_an_image_depends_only_on_its_food_and_number(drawn, tmp_path):
    draw_sample(tmp_path / "fewer", classes=3, images=2)
    fewer = contents(tmp_path / "fewer")
    assert fewer == {name: drawn[name] for name in fewer}
    assert len(set(drawn.values())) == len(drawn)  # and other numbers give other images


def test_every_image_is_an_rgb_jpeg_like_a_photo(drawn):
    sizes = set()
    for content in drawn.values():
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert 240 <= min(image.size) <= max(image.size) <= 400
            assert np.asarray(image).std() > 10  # not blank, not black
            sizes.add(image.size)
    assert len(sizes) > 10
    assert max(map(len, drawn.values())) < 100_000


def test_the_foods_have_their_colours(drawn):
    def green_to_red(food: str) -> float:
        centres = []
        for number in range(3):
            with Image.open(io.BytesIO(drawn[f"{food}/{food}_{number:03}.jpg"])) as image:
                width, height = image.size
                box = (width * 0.3, height * 0.3, width * 0.7, height * 0.7)
                centres.append(np.asarray(image.crop(box), float).mean((0, 1)))
        red, green, _ = np.mean(centres, 0)
        return green / red

    ratios = {food: green_to_red(food) for food in FOODS}
    assert len({round(ratio, 3) for ratio in ratios.values()}) == len(FOODS)
    assert max(ratios["strawberry"], ratios["tomato"]) < min(ratios["lemon"], ratios["pear"])


def test_a_folder_that_is_not_empty_is_refused_and_not_changed(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UsageError, match="nothing is overwritten") as caught:
            draw_sample(target)
        assert caught.value.hint
    assert contents(tmp_path) == {"mine.txt": b"precious"}


@pytest.mark.parametrize(
    "wrong", [{"classes": 1}, {"classes": 13}, {"images": 1}, {"images": 1001}]
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(UsageError, match=f"not {next(iter(wrong.values()))}$"):
        draw_sample(tmp_path / "food", **wrong)
    assert not (tmp_path / "food").exists()


def test_an_unwritable_place_is_a_machine_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot write"):
        draw_sample(tmp_path / "file" / "food")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_sample_that_cannot_be_finished_leaves_nothing_and_can_be_drawn_again(
    tmp_path, monkeypatch, stopped
):
    folder = tmp_path / "food"
    draw_sample(tmp_path / "other", classes=2, images=3)
    sizes = [path.stat().st_size for path in (tmp_path / "other").glob("*/*.jpg")]
    draw, missing = run._draw, ["bagel"] * stopped

    def draw_or_stop(name: str, number: int) -> bytes:
        if name in missing:
            raise KeyboardInterrupt
        return draw(name, number)

    monkeypatch.setattr(run, "_draw", draw_or_stop)
    with (
        files_no_larger_than(max(sizes) - (not stopped)),
        pytest.raises(KeyboardInterrupt if stopped else MachineError),
    ):
        draw_sample(folder, classes=2, images=3)
    assert list(folder.iterdir()) == []
    missing.clear()
    assert draw_sample(folder, classes=2, images=3) == 6
