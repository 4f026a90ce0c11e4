"""Evaluation: the right images, the right labels, the right files."""

import csv
import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from images import COLOURS, SMALL, draw
from runs import write_info
from splits import inspected_folder

from xception_cli.config import TrainConfig
from xception_cli.data.folder import read_folder
from xception_cli.data.images import read_image
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import write_split
from xception_cli.data.split import Split, make_split
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import DataError, UsageError
from xception_cli.evaluation.candidates import add_candidate
from xception_cli.evaluation.described import contaminated_line
from xception_cli.evaluation.eval_report import (
    OTHER_CLASS,
    TRAINED_ON,
    Contaminated,
    EvalReport,
    Uncounted,
)
from xception_cli.evaluation.evaluate import run_evaluation
from xception_cli.evaluation.intervals import Estimate, wilson_interval
from xception_cli.evaluation.scored import PREDICTIONS_HEADER
from xception_cli.evaluation.scoring import evaluate_images
from xception_cli.evaluation.selection import _name, map_classes
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, load_model, save_model
from xception_cli.model.network import build_seeded_network
from xception_cli.rundir import RunDir
from xception_cli.runtime import Runtime
from xception_cli.toml_files import to_toml

CPU = Runtime(torch.device("cpu"), "fp32")
CLASSES = tuple(COLOURS)
FILES = [
    "calibration.png", "confusion.csv", "confusion.png", "coverage.csv", "metrics.json",
    "per_class.csv", "predictions.csv",
]  # fmt: skip


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    """An untrained Xception of three classes, sharpened so that images differ."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    state = build_seeded_network(3, 0).state_dict()
    save_model(
        path,
        state,
        About(CLASSES, Preprocessing.for_size(SMALL), temperature=0.05),
    )
    return path


@pytest.fixture(scope="module")
def bundle(model_file) -> ModelBundle:
    return load_model(model_file, CPU)


def make_run(model_file: Path, data: Path, *, test_fraction: float = 0.0) -> tuple[RunDir, Split]:
    """Create the run folder that training on `data` writes, complete enough for evaluation."""
    run = RunDir(Path("runs/photos"))
    run.path.mkdir(parents=True)
    run.model.symlink_to(model_file)
    run.config.write_text(to_toml(TrainConfig(data=str(data))), encoding="utf-8")
    write_info(run, data=str(data.resolve()))
    folder = inspected_folder(data)
    split = make_split(folder, seed=0, val_fraction=0.25, test_fraction=test_fraction)
    write_split(split, run.split)
    return run, split


def evaluate(run: RunDir, data: Path | None = None, **options) -> EvalReport:
    options = {"split": None, "ignore_extra_classes": False, "workers": 0} | options
    return run_evaluation(run, load_model(run.model, CPU), data=data, **options)


def paths_of(run: RunDir, name: str) -> list[str]:
    with (run.evaluation(name) / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def paths_in(split: Split, name: str) -> list[str]:
    return [image.path for image in split.of(name)]


def images_of(photos: Path, step: int) -> list[Photo]:
    return [Photo(image.path, image.label) for image in read_folder(photos).images[::step]]


def test_the_report_is_computed_from_the_models_probabilities(bundle, photos):
    images = images_of(photos, 2)
    report, scored = evaluate_images(bundle, photos, images, name="val", workers=0)
    transform = bundle.preprocessing.evaluation_transform()
    pictures = [transform(read_image(photos / image.path)) for image in images]
    expected = bundle.probabilities(torch.stack(pictures)).numpy()
    labels = np.array([image.label for image in images])
    assert np.allclose(scored.probabilities, expected, atol=1e-5)
    assert not np.allclose(scored.probabilities, expected[::-1], atol=1e-5)
    assert scored.guesses.tolist() == expected.argmax(axis=1).tolist()
    assert list(scored.photos) == images
    assert report.correct == (expected.argmax(axis=1) == labels).sum()
    right = np.log(expected[np.arange(12), labels])
    assert report.log_loss.value == pytest.approx(-right.mean(), abs=1e-4)
    assert (report.name, report.images, report.failures) == ("val", 12, ())


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (2, 2)])
def test_workers_and_batch_size_change_no_number(bundle, photos, monkeypatch, workers, batch_size):
    images = images_of(photos, 4)
    (photos / images[2].path).write_bytes(b"no image")
    first, first_scored = evaluate_images(bundle, photos, images, name="x", workers=0)
    monkeypatch.setattr(Runtime, "inference_batch", batch_size)
    again, scored = evaluate_images(bundle, photos, images, name="x", workers=workers)
    assert scored.photos == first_scored.photos
    assert [f.path for f in again.failures] == [f.path for f in first.failures] == [images[2].path]
    expected = first_scored.probabilities
    assert np.allclose(scored.probabilities, expected, atol=1e-5, equal_nan=True)
    assert again.log_loss == pytest.approx(first.log_loss, abs=1e-5)
    assert again.confusion == first.confusion


def test_undecodable_images_are_error_rows_in_order_and_do_not_count(bundle, photos):
    (photos / "blue/0.jpg").write_bytes((photos / "blue/0.jpg").read_bytes()[:400])
    images = [
        Photo("gone.jpg", 0),
        Photo("blue/1.jpg", 0),
        Photo("blue/0.jpg", 0),
        Photo("blue/2.jpg", 0, problem="changed since the run was started"),
    ]
    report, scored = evaluate_images(bundle, photos, images, name="x", workers=0)
    reasons = ["file not found", None, "truncated", "changed since the run was started"]
    assert [photo.problem for photo in scored.photos] == reasons
    assert np.isnan(scored.probabilities).all(axis=1).tolist() == [True, False, True, True]
    assert report.images == 1
    assert [(f.path, f.reason) for f in report.failures] == [
        ("gone.jpg", "file not found"),
        ("blue/0.jpg", "truncated"),
        ("blue/2.jpg", "changed since the run was started"),
    ]
    assert [row.n for row in report.per_class] == [1, 0, 0]


def test_an_evaluation_without_usable_images_is_an_error_with_the_reason(bundle, photos):
    with pytest.raises(DataError, match=r"(?s)none of 1 image .*gone\.jpg: file not found"):
        evaluate_images(bundle, photos, [Photo("gone.jpg", 0)], name="x", workers=0)


def test_by_default_val_is_scored_and_reported_to_have_selected_the_model(model_file, photos):
    run, split = make_run(model_file, photos)
    report = evaluate(run)
    assert paths_of(run, "val") == paths_in(split, "val")
    assert 0 < report.images == len(split.of("val"))
    assert report.note == "validation also selected this model: expect a little less on new images"
    assert [row.n for row in report.per_class] == split.counts("val")
    with pytest.raises(UsageError, match="no test split") as caught:
        evaluate(run, split="test")
    assert caught.value.hint == "--split val"


def test_a_test_split_is_scored_before_val(model_file, photos):
    run, split = make_run(model_file, photos, test_fraction=0.25)
    report = evaluate(run)
    assert (report.name, report.note) == ("test", None)
    assert paths_of(run, "test") == paths_in(split, "test")
    assert evaluate(run, split="val").name == "val"
    assert sorted(p.name for p in (run.path / "eval").iterdir()) == ["test", "val"]
    assert paths_of(run, "val") == paths_in(split, "val")


def test_an_evaluation_writes_exactly_its_files_and_no_absolute_path(model_file, photos):
    run, _ = make_run(model_file, photos)
    report = evaluate(run)
    folder = run.evaluation("val")
    assert sorted(p.name for p in folder.iterdir()) == FILES
    for path in folder.iterdir():
        assert str(photos.parent).encode() not in path.read_bytes()
    assert json.loads((folder / "metrics.json").read_text()) == report.to_dict()
    assert report.data == "photos"
    with (folder / "confusion.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["true", "predicted:blue", "predicted:green", "predicted:red"]
    assert [[int(cell) for cell in row[1:]] for row in rows] == report.to_dict()["confusion"]
    with (folder / "predictions.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header == [*PREDICTIONS_HEADER, "p:blue", "p:green", "p:red"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    evaluate(run)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_image_that_cannot_be_read_is_in_no_count_of_those_that_selected_the_model(
    model_file, photos
):
    run, split = make_run(model_file, photos)
    (photos / "blue" / "text.jpg").write_bytes(b"no image")
    report = evaluate(run, data=photos)
    held_out = len(split.of("val"))
    assert (report.images, len(report.failures)) == (held_out, 1)
    assert f"; {held_out} of {held_out} images also selected the model (val): " in report.note


def test_only_held_out_images_of_the_training_folder_are_scored(model_file, bundle, photos):
    run, split = make_run(model_file, photos)
    report = evaluate(run, data=photos)
    assert paths_of(run, "photos") == paths_in(split, "val")
    trained, held_out = len(split.of("train")), len(split.of("val"))
    assert report.note == (
        f"{trained} of 24 images left out: {trained} the model was trained on; "
        f"{held_out} of {held_out} images also selected the model (val): expect a little less"
    )
    assert report.images == held_out
    beside = report.contaminated
    assert (beside.trained_on, beside.images) == (trained, 24)
    every, _ = evaluate_images(bundle, photos, images_of(photos, 1), name="all", workers=0)
    assert beside.correct == every.correct
    assert report.correct < beside.correct < 24
    low, high = wilson_interval(beside.correct, 24)
    assert beside.accuracy == Estimate(beside.correct / 24, low, high)
    written = json.loads((run.evaluation("photos") / "metrics.json").read_text())
    assert EvalReport.from_dict(written).contaminated == beside
    accuracy = Estimate(0.9, 0.5958, 0.9821)
    shown = dataclasses.replace(report, contaminated=Contaminated(3, 10, 9, 9, accuracy))
    assert contaminated_line(shown) == (
        "with the 3 images that it was trained on, or near-copies of them: accuracy 90.0% (95% CI "
        "59.6-98.2%, 9 of 10 images, 9 independent); that shows nothing about new images"
    )
    assert contaminated_line(dataclasses.replace(report, contaminated=None)) is None
    # with --split, the run's own split is used
    assert evaluate(run, data=photos, split="val").name == "val"


def test_training_images_in_another_folder_are_left_out_by_content(model_file, photos):
    run, split = make_run(model_file, photos)
    known, other = split.of("train")[0], Path("other")
    label = CLASSES[known.label]
    draw(other / label / "new.jpg", COLOURS[label], seed=999)
    shutil.copy(photos / known.path, other / label / "renamed.jpg")
    report = evaluate(run, data=other)
    assert paths_of(run, "other") == [f"{label}/new.jpg"]
    assert report.note == "1 of 2 images left out: 1 the model was trained on"
    assert report.left_out == (Uncounted(f"{label}/renamed.jpg", TRAINED_ON),)
    assert [row.n for row in report.per_class] == [int(name == label) for name in CLASSES]
    assert (report.contaminated.trained_on, report.contaminated.images) == (1, 2)
    (other / label / "new.jpg").unlink()
    with pytest.raises(DataError, match="trained on every image") as caught:
        evaluate(run, data=other)
    assert caught.value.exit_code == 3


def test_classes_of_another_folder_are_mapped_by_name(model_file, photos):
    run, _ = make_run(model_file, photos)
    other = Path("other")
    for i, name in enumerate(("aardvark", "red", "blue")):
        draw(other / name / "1.jpg", COLOURS.get(name, (0, 0, 0)), seed=500 + i)
    with pytest.raises(DataError, match=r"does not know 1 .* aardvark") as caught:
        evaluate(run, data=other)
    assert "--ignore-extra-classes" in caught.value.hint
    report = evaluate(run, data=other, ignore_extra_classes=True)
    assert report.note == "1 of 3 images left out: 1 of classes that the model does not know"
    assert report.left_out == (Uncounted("aardvark/1.jpg", OTHER_CLASS),)
    assert [(row.name, row.n) for row in report.per_class] == [
        ("blue", 1),
        ("green", 0),
        ("red", 1),
    ]
    with (run.evaluation("other") / "predictions.csv").open(newline="") as file:
        rows = [(row["path"], row["true"]) for row in csv.DictReader(file)]
    assert rows == [("blue/1.jpg", "blue"), ("red/1.jpg", "red")]


def test_a_folder_without_a_known_class_is_an_error_even_if_extra_ones_are_ignored(photos):
    with pytest.raises(DataError, match="none of the model's classes"):
        map_classes(read_folder(photos), ["cat", "dog"], ignore_extra=True)


def test_a_class_written_in_another_way_is_not_guessed_but_named():
    draw(Path("other/Cat/1.jpg"), (0, 0, 0), 1)
    with pytest.raises(DataError, match="does not know 1 of the classes in other: Cat") as caught:
        map_classes(read_folder(Path("other")), ["cat", "dog"], ignore_extra=False)
    assert caught.value.hint.startswith("rename Cat if it is cat; --ignore-extra-classes ")


def test_a_class_name_is_found_in_either_unicode_form():
    draw(Path("other/cafe\u0301/1.jpg"), (0, 0, 0), 1)
    draw(Path("other/the\u0301/1.jpg"), (0, 0, 0), 2)
    mapped = map_classes(read_folder(Path("other")), ["caf\xe9", "th\xe9"], ignore_extra=False)
    assert [image.label for image in mapped] == [0, 1]


def test_the_test_images_of_a_folder_with_splits_are_evaluated(model_file, photos):
    run, _ = make_run(model_file, photos)
    for i, part in enumerate(("train", "valid", "test")):
        draw(Path("other") / part / "red" / f"{part}.jpg", COLOURS["red"], seed=600 + i)
    assert evaluate(run, data=Path("other")).name == "other-test"
    assert paths_of(run, "other-test") == ["test/red/test.jpg"]
    assert evaluate(run, data=Path("other"), split="val").name == "other-val"
    assert paths_of(run, "other-val") == ["valid/red/valid.jpg"]


@pytest.mark.parametrize(
    ("folder", "name"), [("val", "other-val"), ("-val", "other--val"), ("Test", "other-Test")]
)
def test_another_folder_never_overwrites_the_runs_own_evaluation(model_file, photos, folder, name):
    run, _ = make_run(model_file, photos)
    draw(Path("other", folder, "red/1.jpg"), COLOURS["red"], seed=700)
    assert evaluate(run, data=Path("other", folder)).name == name
    assert [p.name for p in (run.path / "eval").iterdir()] == [name]


def test_folders_of_one_name_keep_an_evaluation_each(model_file, photos, capsys):
    run, _ = make_run(model_file, photos)
    for at, site in enumerate("abc"):
        for seed in range(3):
            draw(Path(site, "new", "red", f"{seed}.jpg"), COLOURS["red"], seed=700 + 10 * at + seed)
    assert [evaluate(run, data=Path(site, "new")).name for site in "ab"] == ["new", "new-2"]
    assert (
        "note      runs/photos/eval/new is of other images, and is kept" in capsys.readouterr().err
    )
    draw(Path("b/new/red/later.jpg"), COLOURS["red"], seed=799)
    Path("b/new/red/0.jpg").unlink()
    names = [evaluate(run, data=Path(site, "new")).name for site in "cba"]
    assert names == ["new-3", "new-2", "new"]
    assert paths_of(run, "new-2") == [f"red/{name}.jpg" for name in (1, 2, "later")]
    path = run.evaluation("new") / "predictions.csv"
    path.write_text(re.sub(r"[^,\n]+\n", "edited\n", path.read_text("utf-8")), "utf-8")
    assert evaluate(run, data=Path("c/new")).name == "new-3"
    path.unlink()  # damaged: it is written again
    assert evaluate(run, data=Path("c/new")).name == "new"


def test_a_folder_mounted_at_the_root_is_not_named_like_a_split_either():
    assert [_name(Path(place), None) for place in ("/val", "/test", "/food")] == [
        "data-val", "data-test", "food",
    ]  # fmt: skip


def test_another_model_is_not_corrected_by_the_answers_of_the_runs_own(model_file, photos):
    run, split = make_run(model_file, photos)
    labels = np.array([image.label for image in split.of("val")])
    for epoch in (0, 1):  # each was right on every image
        add_candidate(run.candidates, epoch, labels, np.zeros(len(labels)))
    own, other = (evaluate(run, split="val", variant=name) for name in (None, "int8.onnx"))
    assert (own.expected.value, own.note) == (1.0, None)
    assert (other.name, other.corrected) == ("val-int8.onnx", None)
    assert other.expected == own.accuracy != own.expected
    assert other.note == "validation also selected this model: expect a little less on new images"


def test_a_missing_split_is_a_usage_error(model_file, photos):
    run, _ = make_run(model_file, photos)
    draw(Path("other/red/1.jpg"), COLOURS["red"], seed=700)
    with pytest.raises(UsageError, match="has no test folder"):
        evaluate(run, data=Path("other"), split="test")
    with pytest.raises(UsageError, match="no split train"):
        evaluate(run, split="train")
    with pytest.raises(UsageError, match="does not exist"):
        evaluate(run, data=Path("nowhere"))


def test_a_vanished_or_changed_file_of_the_split_is_an_error_row(model_file, photos):
    run, split = make_run(model_file, photos)
    vanished, changed, *others = paths_in(split, "val")
    (photos / vanished).unlink()
    draw(photos / changed, (0, 0, 0), seed=800)
    report = evaluate(run)
    assert [(f.path, f.reason) for f in report.failures] == [
        (vanished, "file not found"),
        (changed, "changed since the run was started"),
    ]
    assert report.images == len(others)
    assert paths_of(run, "val") == [vanished, changed, *others]


def test_moved_data_of_a_run_is_reported_and_the_new_place_is_accepted(model_file, photos):
    run, split = make_run(model_file, photos)
    moved = photos.rename(photos.with_name("moved"))
    with pytest.raises(UsageError, match="no longer exists") as caught:
        evaluate(run)
    assert "--data DIR" in caught.value.hint
    evaluate(run, data=moved)
    assert paths_of(run, "moved") == paths_in(split, "val")


def test_a_split_of_the_run_is_evaluated_where_its_data_has_moved_to(model_file, photos):
    """As the error about moved data suggests; a folder of other images has no such split."""
    run, split = make_run(model_file, photos, test_fraction=0.25)
    moved = photos.rename(photos.with_name("moved"))
    for name in ("test", "val"):
        assert evaluate(run, data=moved, split=name).name == name
        assert paths_of(run, name) == paths_in(split, name)
    table = Path("labels.csv")  # its labels may be others
    table.write_text("".join(["path,label\n", *(f"{i.path},red\n" for i in split.images)]), "utf-8")
    with pytest.raises(UsageError, match="has no test"):
        evaluate(run, data=table, root=moved, split="test")
    for image in split.images:  # the paths alone do not make it the run's data
        draw(moved / image.path, (0, 0, 0), seed=800)
    with pytest.raises(UsageError, match="has no test folder"):
        evaluate(run, data=moved, split="test")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_whose_name_is_not_utf8_is_found_again(model_file, photos):
    _, split = make_run(model_file, photos)
    shutil.rmtree("runs")
    held_out = split.of("val")[0].path
    strange = Path(held_out).with_name("\udcff.jpg")
    (photos / held_out).rename(photos / strange)
    run, split = make_run(model_file, photos)  # the hash of the content assigns it to val again
    assert str(strange) in paths_in(split, "val")
    report = evaluate(run)
    assert report.failures == ()
    assert str(strange).replace("\udcff", "\\xff") in paths_of(run, "val")
    assert dataclasses.asdict(report)["images"] == len(split.of("val"))
