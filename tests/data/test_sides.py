"""What a run takes from an earlier one: its split and its settings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from images import draw, draw_photos
from runs import call
from splits import inspected_folder

from xception_cli.config import TrainConfig
from xception_cli.data.recorded import read_recorded
from xception_cli.data.sides import describe_changes
from xception_cli.data.split import Split, make_split
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings, resolve


def split_of(root: Path, seed: int, *, earlier: Split | None = None, alike=()) -> Split:
    """Make a split that has train, val and test."""
    return make_split(
        inspected_folder(root),
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
    paths = [image.path for image in inspected_folder(root).images]
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


def test_a_run_begins_with_the_layers_that_the_user_of_an_earlier_one_chose(probed: RunDir) -> None:
    begun = resolve({"from_": "run"}, None)
    assert begun.config.unfreeze == "head"  # given, although the default is `auto`
    assert begun.origins["unfreeze"] == "as in run"
    assert read_settings(probed)["balance"] == "none"
    assert begun.config.balance == "auto"  # the program decided, and decides again
    assert resolve({"from_": "run"}, None, effort="best").config.unfreeze == "auto"
    probed.update_info({"undecided": None})  # as in a run of an earlier version
    assert resolve({"from_": "run"}, None).config.unfreeze == "auto"


@pytest.mark.slow
def test_a_run_begins_with_the_settings_and_the_split_of_an_earlier_one(
    tmp_path: Path, probed: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    probed.path.rename("old")
    photos = tmp_path / "photos"
    for i in range(6):
        draw(photos / "kiwi" / f"{i}.jpg", (90, 120, 40), seed=900 + i)
    assert call("train", "--from", "old", "--output", "new") == 0
    said = capsys.readouterr().err
    assert "plan      beginning with old: 24 images known, 6 new" in " ".join(said.split("\n"))
    assert said.rstrip().endswith("next: xception compare old new")
    old, new = RunDir(Path("old")), RunDir(Path("new"))
    before, after = (read_recorded(run, run.read_info().classes) for run in (old, new))
    assert sides(before).items() <= sides(after).items()
    own = {"from_"} | {name for name, value in vars(TrainConfig()).items() if value == "auto"}
    kept = {k: v for k, v in read_settings(old).items() if k not in own}
    assert {k: v for k, v in read_settings(new).items() if k not in own} == kept
    # On the images of the three classes that both know; the page has the same sentences.
    held_out = [image for image in before.images if image.split == "val"]
    (first, *_), page = new.read_result().compared, new.report.read_text()
    expected = f"on the {len(held_out)} val images that both held out, of the 3 classes in common"
    assert expected in first
    assert expected in " ".join(said.split())
    assert expected in page
    assert old.read_result().compared == []
    assert call("compare", "old", "new") == 0
    # The model keeps features of all its training images: each is the nearest to itself.
    ask = ("embed", "photos", "--neighbours", "2")
    assert call(*ask, "--run", "old", "--output", "x.npz") == 0
    found = np.load("x.npz")
    assert found["nearest_kept_train_paths"].shape == found["feature_cosines"].shape == (30, 2)
    trained = {image.path for image in before.of("train")}
    nearest = dict(zip(found["paths"], found["nearest_kept_train_paths"][:, 0], strict=True))
    assert {path: nearest[f"photos/{path}"] for path in trained} == {path: path for path in trained}
    assert set(found["nearest_kept_train_paths"].ravel()) <= trained
    assert found["feature_cosines"].min() > 0
    assert call(*ask, "--model", "m", "--output", "y.npz") == 2
    # A Parquet file has the same, in a column for each.
    parquet = pytest.importorskip("pyarrow.parquet")
    assert call(*ask, "--run", "old", "--output", "x.parquet") == 0
    table = parquet.read_table("x.parquet").to_pydict()
    assert list(table) == [
        *("path", "digest", "nearest_kept_train_path_1", "feature_cosine_1"),
        *("nearest_kept_train_path_2", "feature_cosine_2", "features"),
    ]
    assert table["path"] == found["paths"].tolist()
    assert table["nearest_kept_train_path_2"] == found["nearest_kept_train_paths"][:, 1].tolist()
    assert np.array_equal(np.array(table["features"], np.float32), found["features"])
    draw_photos(tmp_path / "other")
    draw(tmp_path / "other" / "kiwi" / "0.jpg", (90, 120, 40), seed=1)
    assert call("train", "--from", "nowhere", "--data", "other") == 2
    assert "the run folder nowhere does not exist" in capsys.readouterr().err
