"""What is known of a data folder before training, and what a person decided about it."""

from pathlib import Path

import pytest

from xception_cli.check.survey import survey_data
from xception_cli.config import TrainConfig
from xception_cli.data.assign import make_split
from xception_cli.errors import DataError


def spoil(root: Path, count: int) -> list[str]:
    """Put some bad files beside drawn pictures; return them in order."""
    names = [f"bad{i:02}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        (root / "red" / name).write_bytes(b"" if i % 2 else b"<html>")
    return names


REASONS = ["not an image (looks like HTML)", "empty file"]


@pytest.mark.parametrize("count", [1, 20, 21, 25])
def test_strictly_every_bad_image_is_listed_at_once_and_a_long_list_is_cut(photos, count):
    lines = [f"red/{n}: {REASONS[i % 2]}" for i, n in enumerate(spoil(photos, count))]
    if count > 20:
        lines[20:] = [f"and {count - 20} more"]
    with pytest.raises(DataError) as caught:
        survey_data(TrainConfig(data=str(photos)))
    assert caught.value.message.splitlines() == [
        f"{count} of {24 + count} images in {photos} cannot be used:",
        *(f"  {line}" for line in lines),
    ]
    assert "--skip-bad" in caught.value.hint


def test_with_skip_bad_the_bad_images_are_left_out_of_a_real_folder(photos):
    names = spoil(photos, 4)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in photos.rglob("*")}
    survey = survey_data(TrainConfig(data=str(photos), skip_bad=True))
    inspections = [look.inspection for look in survey.looks]
    made = make_split(survey.folder, inspections, seed=0, val_fraction=0.3, test_fraction=0)
    assert [(i.path, i.reason) for i in made.of("out")] == [
        (f"red/{name}", REASONS[i % 2]) for i, name in enumerate(names)
    ]
    assert len(made.of("train")) + len(made.of("val")) == 24
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in photos.rglob("*")} == before


def test_a_good_folder_passes_strictly(photos):
    survey = survey_data(TrainConfig(data=str(photos)))
    assert [look.problem for look in survey.looks] == [None] * 24
