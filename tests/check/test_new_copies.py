"""`eval --data`: near-copies of training images are not new images."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from networks import CPU
from PIL import Image, ImageOps
from runs import write_info
from splits import inspected_folder

from xception_cli.check.copies import set_copies_aside
from xception_cli.config import TrainConfig
from xception_cli.data.folder import read_folder
from xception_cli.data.recorded import write_split
from xception_cli.data.split import Split, make_split
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import DataError
from xception_cli.evaluation.eval_report import NEAR_COPY, TRAINED_ON, EvalReport
from xception_cli.evaluation.evaluate import run_evaluation
from xception_cli.evaluation.scored import read_scored
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, load_model, save_model
from xception_cli.model.network import build_seeded_network
from xception_cli.rundir import RunDir
from xception_cli.sample.run import draw_sample
from xception_cli.toml_files import to_toml

DATA, NEW = Path("food"), Path("new")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder with 15 images of each of two foods, 3 more than the run has, and a model."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_sample(folder / "foods", classes=2, images=15)
    about = About(read_folder(folder / "foods").classes, Preprocessing.for_size(71))
    save_model(folder / "model.safetensors", build_seeded_network(2, 0).state_dict(), about)
    return folder


@pytest.fixture
def run(drawn) -> tuple[RunDir, Split]:
    """A run on drawn foods, complete enough for evaluation; its model is untrained."""
    shutil.copytree(drawn / "foods", DATA, ignore=shutil.ignore_patterns("*_01[2-4].jpg"))
    folder = inspected_folder(DATA)
    run = RunDir(Path("runs/food"))
    run.path.mkdir(parents=True)
    shutil.copy(drawn / "model.safetensors", run.model)
    run.config.write_text(to_toml(TrainConfig(data=str(DATA))), encoding="utf-8")
    write_info(run, data=str(DATA.resolve()), classes=list(folder.classes))
    split = make_split(folder, seed=0, val_fraction=0.25, test_fraction=0.0)
    write_split(split, run.split)
    return run, split


def evaluate(run: RunDir, model: ModelBundle | None = None) -> EvalReport:
    return run_evaluation(
        run, model or load_model(run.model, CPU), data=NEW, split=None,
        ignore_extra_classes=False, workers=0, refine=partial(set_copies_aside, run),
    )  # fmt: skip


def save(image: Image.Image, split: Split, label: int, name: str) -> None:
    path = NEW / split.classes[label] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=80)


def new_images(drawn: Path, split: Split, count: int) -> None:
    """Save foods that are in no image of the run: numbers above those of the run."""
    known = {image.path for image in split.images}
    for label, name in enumerate(split.classes):
        every = sorted((drawn / "foods" / name).iterdir())
        fresh = [path for path in every if f"{name}/{path.name}" not in known]
        for path in fresh[:count]:
            save(Image.open(path), split, label, path.name)


def test_resaved_and_mirrored_training_images_are_left_out_and_reported(run, drawn):
    run, split = run
    new_images(drawn, split, 3)
    for number, image in enumerate(split.of("train")[:5]):
        small = Image.open(DATA / image.path).convert("RGB")
        small = small.resize((small.width * 3 // 4, small.height * 3 // 4))
        save(ImageOps.mirror(small) if number % 2 else small, split, image.label, f"x{number}.jpg")
    known = split.of("train")[5]
    shutil.copy(DATA / known.path, NEW / split.classes[known.label] / "known.jpg")
    report = evaluate(run)
    assert report.note == (
        "6 of 12 images left out: 1 the model was trained on, 5 near-copies of training images"
    )
    reasons = {Path(found.path).name: found.reason for found in report.left_out}
    assert reasons == {f"x{n}.jpg": NEAR_COPY for n in range(5)} | {"known.jpg": TRAINED_ON}
    assert (report.images, report.contaminated.trained_on, report.contaminated.images) == (6, 6, 12)
    scored = read_scored(run, "new")
    assert not any(Path(photo.path).name.startswith("x") for photo in scored.photos)
    assert scored.units.tolist() == [photo.digest for photo in scored.photos]


def test_new_images_are_all_kept_and_their_near_copies_are_one_unit(run, drawn):
    run, split = run
    new_images(drawn, split, 3)
    path = sorted((NEW / split.classes[0]).iterdir())[0]
    save(Image.open(path).rotate(90, expand=True), split, 0, "turned.jpg")
    report = evaluate(run)
    assert (report.images, report.groups, report.contaminated, report.note) == (7, 6, None, None)
    assert read_scored(run, "new").units.tolist().count(read_scored(run, "new").photos[0].unit) == 2


@pytest.mark.parametrize(
    ("group_by", "groups"), [("(day.)-", 2), ("(week.)-", 6), (None, 6)],
    ids=["a pattern of its names", "a pattern that matches none", "no pattern"],
)  # fmt: skip
def test_new_images_are_grouped_by_the_pattern_of_the_run_if_it_matches(
    run, drawn, group_by, groups
):
    run, split = run
    config = TrainConfig(data=str(DATA), group_by=group_by)
    run.config.write_text(to_toml(config), encoding="utf-8")
    new_images(drawn, split, 3)
    for number, path in enumerate(sorted(NEW.rglob("*.jpg"))):
        path.rename(path.with_name(f"day{number % 2}-{path.name}"))
    report = evaluate(run)
    assert (report.images, report.groups) == (6, groups)
    units = read_scored(run, "new").units
    assert len(set(units)) == groups
    assert (set(units) == {"day0", "day1"}) is (groups == 2)


def test_images_the_model_was_trained_on_count_by_their_groups_too(run, drawn):
    run, split = run
    config = TrainConfig(data=str(DATA), group_by="(day.)-")
    run.config.write_text(to_toml(config), encoding="utf-8")
    new_images(drawn, split, 2)
    for path in sorted(NEW.rglob("*.jpg")):
        path.rename(path.with_name(f"day0-{path.name}"))
    for number, image in enumerate(split.of("train")[:6]):
        folder = NEW / split.classes[image.label]
        shutil.copy(DATA / image.path, folder / f"day{1 + number % 2}-{number}.jpg")
    beside = evaluate(run).contaminated
    assert (beside.trained_on, beside.images, beside.groups) == (6, 10, 3)


def test_new_images_of_a_group_of_training_are_reported(run, drawn):
    run, split = run
    config = TrainConfig(data=str(DATA), group_by="(day.)-")
    run.config.write_text(to_toml(config), encoding="utf-8")
    new_images(drawn, split, 3)
    for number, path in enumerate(sorted(NEW.rglob("*.jpg"))):
        path.rename(path.with_name(f"day{number % 2}-{path.name}"))
    assert evaluate(run).note is None  # the control: no image of the run is of day0 or day1
    first, *others = split.of("train")
    images = (replace(first, unit="day1"), *others, *split.of("val"))
    write_split(replace(split, images=images), run.split)
    report = evaluate(run)
    assert report.note == (
        "3 of 6 images are of groups that the model was trained on, such as day1: expect less on "
        "other groups"
    )
    assert report.images == 6  # a group of that name may be another one


def test_a_near_copy_of_a_known_image_is_not_called_a_group_whose_name_is_a_digest(run):
    run, split = run
    image = min(split.of("train"), key=lambda image: image.digest)  # names the unit of both
    folder = NEW / split.classes[image.label]
    folder.mkdir(parents=True)
    shutil.copy(DATA / image.path, folder / "known.jpg")
    Image.open(DATA / image.path).save(folder / "copy.jpg", quality=85)
    DATA.rename("elsewhere")  # so that copies are not set aside
    report = evaluate(run)
    assert set(read_scored(run, "new").units) == {image.digest}
    assert "groups" not in (report.note or "")


def test_a_folder_with_near_copies_only_cannot_be_evaluated(run):
    run, split = run
    image = split.of("train")[0]
    save(Image.open(DATA / image.path).convert("RGB"), split, image.label, "copy.jpg")
    with pytest.raises(DataError, match="near-copy of a training image") as caught:
        evaluate(run)
    assert caught.value.exit_code == 3
    assert caught.value.hint == "leave --data out to evaluate on the images that the run held out"
    # Of another split, the run held out none for it.
    model = load_model(run.model, CPU)
    model = replace(model, about=replace(model.about, provenance={"data_fingerprint": "1"}))
    with pytest.raises(DataError, match="near-copy of a training image") as caught:
        evaluate(run, model)
    assert caught.value.hint == "give its own run, or other images"


def test_a_missing_training_folder_is_noted_because_copies_are_not_checked(run, drawn):
    run, split = run
    new_images(drawn, split, 2)
    DATA.rename("elsewhere")
    assert evaluate(run).note == "not checked for near-copies of training images: food not found"
