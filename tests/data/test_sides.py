"""What a run takes from an earlier one: its split and its settings."""

from dataclasses import replace
from pathlib import Path

import pytest
from images import draw, draw_photos
from runs import call, quick_settings

from xception_cli.config import TrainConfig
from xception_cli.data.folder import read_folder
from xception_cli.data.images import inspect_all
from xception_cli.data.recorded import read_recorded
from xception_cli.data.sides import describe_changes
from xception_cli.data.split import Split, make_split
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings


def split_of(root: Path, seed: int, *, earlier: Split | None = None, alike=()) -> Split:
    """Make a split that has train, val and test."""
    folder = read_folder(root)
    return make_split(
        folder,
        inspect_all([root / image.path for image in folder.images]),
        seed=seed,
        val_fraction=0.3,
        test_fraction=0.3,
        alike=alike,
        earlier=() if earlier is None else earlier.images,
    )


def sides(split: Split) -> dict[str, str]:
    return {image.path: image.split for image in split.images}


def test_known_images_keep_their_split_and_only_new_ones_are_assigned(tmp_path: Path) -> None:
    root = draw_photos(tmp_path / "photos")
    before = split_of(root, seed=0)
    for i in range(20):
        draw(root / "kiwi" / f"{i}.jpg", (90, 120, 40), seed=900 + i)
    after = split_of(root, seed=5, earlier=before)
    known = sides(before)
    assert {path: side for path, side in sides(after).items() if path in known} == known
    assert {side for path, side in sides(after).items() if path not in known} == {
        "train",
        "val",
        "test",
    }
    drawn = sides(split_of(root, seed=5))  # the control
    assert {path: drawn[path] for path in known} != known
    assert describe_changes(after.images, after.classes, before.images, before.classes) == (
        "24 images known, 20 new; new class: kiwi"
    )
    relabelled = [replace(image, label=0) for image in before.images[5:]]
    assert describe_changes(relabelled, ("lime",), before.images, before.classes) == (
        "19 images known, 19 with another class, 5 gone; new class: lime; removed classes: "
        "blue, green, red"
    )


def test_a_new_near_copy_joins_the_split_of_its_original(
    tmp_path: Path,
) -> None:
    root = draw_photos(tmp_path / "photos")
    before = split_of(root, seed=0)
    test, train = before.of("test")[0], before.of("train")[0]
    for i, colour in enumerate(((1, 2, 3), (4, 5, 6))):
        draw(root / "blue" / f"new{i}.jpg", colour, seed=900 + i)
    paths = [image.path for image in read_folder(root).images]
    at = {path: index for index, path in enumerate(paths)}
    alike = [(at[test.path], at["blue/new0.jpg"])]
    after = split_of(root, seed=0, earlier=before, alike=alike)
    assert sides(after)["blue/new0.jpg"] == "test"
    alike = [(at[test.path], at["blue/new1.jpg"], at[train.path])]
    after = split_of(root, seed=0, earlier=before, alike=alike)
    (linking,) = (image for image in after.images if image.path == "blue/new1.jpg")
    assert linking.split == "out"
    assert linking.reason.endswith("which the earlier run has in two splits")
    assert sides(after)[test.path] == "test"
    assert sides(after)[train.path] == "train"


@pytest.mark.slow
def test_a_run_begins_with_the_settings_and_the_split_of_an_earlier_one(
    tmp_path: Path, random_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = draw_photos(tmp_path / "photos")
    settings = quick_settings(photos, random_weights) | {"unfreeze": "head", "seed": 3}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    assert call("train", *flags, "--output", "old") == 0
    draw(photos / "red" / "new.jpg", (200, 60, 40), seed=900)
    assert call("train", "--from", "old", "--output", "new") == 0
    said = capsys.readouterr().err
    assert "plan      beginning with old: 24 images known, 1 new" in " ".join(said.split("\n"))
    assert said.rstrip().endswith("next: xception compare old new")
    old, new = RunDir(Path("old")), RunDir(Path("new"))
    before, after = (read_recorded(run, run.read_info().classes) for run in (old, new))
    assert sides(before).items() <= sides(after).items()
    own = {"from_"} | {name for name, value in vars(TrainConfig()).items() if value == "auto"}
    kept = {k: v for k, v in read_settings(old).items() if k not in own}
    assert {k: v for k, v in read_settings(new).items() if k not in own} == kept
    assert call("compare", "old", "new") == 0
    draw_photos(tmp_path / "other")
    draw(tmp_path / "other" / "kiwi" / "0.jpg", (90, 120, 40), seed=1)
    assert call("train", "--from", "nowhere", "--data", "other") == 2
    assert "nowhere is not a run folder" in capsys.readouterr().err
