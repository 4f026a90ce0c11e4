"""report.html: one safe page with the quality of the model and the next steps."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import draw_photos
from markdown_it import MarkdownIt
from pages import Page, faults_of
from runs import call, quick_settings, train_run

from xception_cli.check.report import CONFLICTING, LEAK, SUSPECT
from xception_cli.console import quoted, show
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import read_split
from xception_cli.data.units import have_groups
from xception_cli.evaluation.eval_report import read_report
from xception_cli.evaluation.scored import Scored
from xception_cli.files import file_digest
from xception_cli.numerals import duration
from xception_cli.records import KEPT_PROBE
from xception_cli.report import html, model_card
from xception_cli.report.advice import is_small, next_steps
from xception_cli.report.charts import (
    Chart,
    draw_calibration,
    draw_curves,
    number_axis,
)
from xception_cli.report.html import PAGES
from xception_cli.report.matrix import Matrix, confusion_order, draw_matrix
from xception_cli.report.methods import describe_methods
from xception_cli.report.pictures import draw_issues, without_settled
from xception_cli.report.run_page import _confident_correct, _matrices, read_facts
from xception_cli.rundir import RunDir, read_json, write_json

HOSTILE = "a<script>alert(1)&\"'"
GUARANTEED = "On new images like these, at least 90% of the answers are correct (85% confidence)."
NO_THRESHOLD = "do not show a confidence above which at least 90% of the answers are correct"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> RunDir:
    """A small run, one of whose classes has a hostile name."""
    folder = tmp_path_factory.mktemp("run")
    photos = draw_photos(folder / "photos")
    (photos / "red").rename(photos / HOSTILE)
    shutil.copy(photos / "blue" / "0.jpg", photos / "blue" / "copy.jpg")
    shutil.copy(photos / "blue" / "1.jpg", photos / "green" / "wrong.jpg")
    settings = quick_settings(photos, random_weights) | {"epochs": 2, "views": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return RunDir(folder / train_run(settings).run.path)


def test_the_page_is_valid_and_loads_and_runs_nothing(run: RunDir):
    text = run.report.read_text(encoding="utf-8")
    page = Page(text)
    assert faults_of(text) == []
    assert page.of("img")
    assert len(page.of("svg")) == 3 + 2 + 2 + 1  # curves, matrices, calibration, the network
    assert "<script" not in text
    assert HOSTILE in page.texts
    labelled = {label["for"] for label in page.of("label")}
    assert labelled == {given["id"] for given in page.of("input")} == {"order0", "order1"}
    assert run.report.stat().st_size < 2_000_000


def test_the_time_of_a_run_includes_its_report_which_the_page_leaves_out(run: RunDir):
    seconds = run.read_result().seconds
    *_, before, last = seconds
    assert last == "report"
    assert seconds[last] > 0
    page = run.report.read_text(encoding="utf-8")
    assert f", {before} {duration(seconds[before])}<" in page


def test_without_escaping_the_hostile_name_would_be_an_element(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(html, "PAGES", PAGES.overlay(autoescape=False))
    text = drawn_again(run, tmp_path)
    assert {"<script>", "</main> closes something else"} & set(faults_of(text))


def test_what_others_are_given_names_files_without_where_they_are(
    run: RunDir, random_weights: Path
):
    assert str(run.path.parent) in run.config.read_text(encoding="utf-8")
    for path in (run.report, run.card, run.model):
        content = path.read_bytes()
        assert random_weights.name.encode() in content
        for folder in (run.path.parent, random_weights.parent):
            assert str(folder).encode() not in content


def test_the_first_lines_have_accuracy_interval_and_next_steps(run: RunDir):
    start = Page(run.report.read_text(encoding="utf-8")).text[:2000]
    assert re.search(
        r"\d+\.\d% 95% CI \d+\.\d-\d+\.\d% is the accuracy to expect on new images like these\. "
        r"Measured on \d+ validation images"
        r"(?: in \d+ groups| \(\d+ independent\))?, "
        r"corrected for selecting the best of \d+ models on them\. "
        r"Only \d+ (?:independent )?images: the interval is wide\. The linear probe.*?\. "
        r"Classes are uneven in val: macro recall \d+\.\d% \(95% CI \d+\.\d-\d+\.\d%\)\. "
        r"Validation images are held back from training, to choose the model\. Kept: ",
        start,
    )
    assert "always predicting the largest class of these images" in start
    assert "expect a little less" not in start
    assert "What to do next" in start


def test_a_small_set_has_the_cross_validation_of_the_probe_next_to_the_accuracy(
    run: RunDir, tmp_path: Path
):
    log, found = run.log.read_text(encoding="utf-8"), read_json(run.result)["cross_validation"]
    folds, figures = re.search(
        r"train, by (\d)-fold cross-validation: accuracy (\d+\.\d% \(.*?\))", log
    ).groups()
    assert "small validation set: see also" in log
    assert found["folds"] == int(folds)
    assert figures.startswith(f"{found['accuracy']:.1%} (95% CI {100 * found['low']:.1f}-")
    assert f", {found['correct']} of {found['images']} images" in figures
    told = f"cross-validated on the training images: {figures}."
    card = re.sub(r"\\(?=\W)", "", run.card.read_text(encoding="utf-8"))
    assert told in Page(run.report.read_text(encoding="utf-8")).text
    assert told in card
    found |= {"untested": ["a", "b"]}
    text = Page(drawn_again(run, tmp_path / "rare", cross_validation=found)).text
    assert f"{told[:-1]}; 2 classes could not be tested." in text
    text = Page(drawn_again(run, tmp_path / "none", cross_validation={"folds": 0})).text
    assert re.search(r"\d% 95% CI .* is the accuracy .*Only .*: the interval is wide\. C", text)
    assert "cross-validated on" not in text


def test_the_interval_of_a_large_set_is_not_called_wide_and_earlier_runs_have_the_same_page(
    run: RunDir, tmp_path: Path
):
    before = r"\d+\.\d% is the accuracy to expect on .*? these\. 95% CI \S+, from \d+ validation"
    found = read_split(run.split, run.read_info().classes)
    assert min(found.counts("train")) < 10
    text = Page(drawn_again(run, tmp_path / "large", metrics={"groups": 500})).text
    assert "the interval is wide" not in text  # but a class has few training images
    assert "cross-validated on the training images" in text
    untested = {"metrics": {"groups": 500}, "cross_validation": {"folds": 0}}
    assert "<b></b>" not in drawn_again(run, tmp_path / "untested", **untested)
    text = Page(drawn_again(run, tmp_path / "earlier", cross_validation=None)).text
    assert re.search(before, text)
    assert "cross-validated on" not in text
    assert "the interval is wide" not in text
    report = replace(read_report(run, "val"), groups=200)
    many = replace(found, images=found.images * 10)
    assert not is_small(report, many)
    assert is_small(replace(report, groups=199), many)
    assert is_small(report, found)


def test_the_baselines_are_compared_uncorrected_on_the_same_images(run: RunDir, tmp_path: Path):
    metrics = read_json(run.evaluation("val") / "metrics.json")
    probe = read_json(run.result)["probe"]["accuracy"]
    text = Page(drawn_again(run, tmp_path, kept="fine-tuned, epoch 2")).text
    largest = max(row["n"] for row in metrics["per_class"]) / metrics["images"]
    assert metrics["corrected"]
    assert re.search(
        "Accuracy on the same images, without the correction "
        rf"this model {metrics['accuracy']:.1%} [0-9.]+-[0-9.]+% "
        rf"linear probe a classifier on the frozen network, the baseline {probe:.1%} "
        f"always predicting the largest class of these images {largest:.1%}",
        text,
    )
    assert "The dashed line marks the epoch" in text
    text = Page(drawn_again(run, tmp_path / "probe", kept="the linear probe")).text
    assert "the baseline" not in text
    assert "A linear probe is a classifier on the frozen pretrained network." in text
    assert "The dashed line marks the epoch" not in text
    assert "Fine-tuning did not beat the linear probe on validation images" in text


def test_the_page_has_all_results_of_a_run(run: RunDir):
    text = run.report.read_text(encoding="utf-8")
    page = Page(text)
    titles = [re.sub("<.*?>", "", title) for title in re.findall(r"<h2>(.*?)</h2>", text)]
    assert titles == [
        "What to do next", "Confusion matrix", "The most confident mistakes", "Metrics",
        "Correct, but least confident", "Suspect labels and copies", "Calibration", "The data",
        "Training", "What the network sees", "The network", "Settings, versions, hashes",
    ]  # fmt: skip
    groups = re.findall(r"<h3>(.*?)</h3>", text)
    assert {
        "Copies and near-copies in two classes: 1",
        "Copies and near-copies in a class: 1",
    } <= set(groups)
    assert "identical to blue/0.jpg blue/copy.jpg" in page.text
    assert "identical to green/wrong.jpg blue/1.jpg" in page.text
    assert "Frozen: entry flow, middle flow. Trained: exit flow and head." in page.text
    assert "Exit flow, trained" in page.text
    assert file_digest(run.model) in page.text
    assert run.read_info().data_fingerprint in page.text
    assert run.read_info().weights["digest"] in page.text
    assert "xception train --config run/config.toml repeats the run" in page.text


def test_the_model_card_has_the_numbers_of_the_report_and_shows_names_literally(run: RunDir):
    card, page = run.card.read_text(encoding="utf-8"), Page(run.report.read_text(encoding="utf-8"))
    expected = re.search(r"\n(\d+\.\d%) \((95% CI .*?)\) is .*?\. (Measured .*? on them\.)", card)
    claim = f"{expected[1]} {expected[2]} is the accuracy to expect on new images like these. "
    assert claim + expected[3] in page.text
    assert f"data: {run.read_info().data_fingerprint}\n" in card
    assert f"SHA-256 of model.safetensors: {file_digest(run.model)}\n" in card
    assert ". Licence: not known, these are not the published ImageNet weights." in card
    assert "xception export run --output model.onnx\n" in card
    assert len(card.splitlines()) < 90
    tokens = MarkdownIt("commonmark").enable("table").parse(card)
    cells = [token.content for token in tokens if token.type == "inline"]
    assert "blue" in cells
    hostile = [shown(name) for name in cells if "script" in name]
    assert hostile[0] == HOSTILE
    assert [name.partition(HOSTILE)[0] for name in hostile[1:]] == ["Not usable for "]
    assert "No groups were given. 2 near-copies were kept with their originals (" in card
    assert "network Xception (Chollet 2017, arXiv:1610.02357), with pretrained weights. " in card
    assert ". Near-copies were kept in one split. Accuracy on 13 validation images (" in card


def test_only_a_unit_that_is_not_named_by_an_image_is_a_group():
    digest = "a" * 32
    copies = [Photo(f"{name}.jpg", 0, "val", digest=digest, unit=digest) for name in "ab"]
    group = Photo("c.jpg", 0, "val", digest="c" * 32, unit="patient 1")
    assert not have_groups([image.unit for image in copies])
    assert have_groups([image.unit for image in (*copies, group)])


def shown(markdown: str) -> str:
    """Return the text of a line of Markdown; one that is more than text is an error."""
    (line,) = MarkdownIt("commonmark").enable("strikethrough").parseInline(markdown)
    assert {part.type for part in line.children} <= {"text", "text_special"}, markdown
    return "".join(part.content for part in line.children)


@pytest.mark.parametrize(
    "name",
    ["a|b", "<b>x</b>", "[a](http://b)", "![a](b)", "*a*", "_a_", "a_b", "__a__", "~~a~~", "`a`",
     "&amp;", "a\\|b", "<http://a.b>", "http://a.b", "WWW.a.b", "$x$", "\\"],
)  # fmt: skip
def test_a_name_is_literal_text_in_a_model_card(name: str):
    written = model_card.CARDS.from_string("{{ name }}").render(name=name)
    assert shown(written) == name
    assert not re.search(r"(?<!\\)(?:\||://)|www\.", written, re.IGNORECASE)


def drawn_again(
    run: RunDir, folder: Path, *, metrics: dict[str, Any] | None = None, **changes: Any
) -> str:
    """Render the page of a copy of the run, with another result and other metrics."""
    copy = RunDir(Path(shutil.copytree(run.path, folder / "again")))
    write_json(copy.result, read_json(copy.result) | changes)
    if metrics:
        found = read_json(copy.evaluation("val") / "metrics.json") | metrics
        write_json(copy.evaluation("val") / "metrics.json", found)
        if metrics.get("name") == "test":
            copy.evaluation("val").rename(copy.evaluation("test"))
    assert call("report", str(copy.path), "--device", "cpu") == 0
    return copy.report.read_text(encoding="utf-8")


def test_a_network_trained_from_random_weights_is_not_called_pretrained(
    run: RunDir, tmp_path: Path
):
    claim = "Fine-tuning trained the exit flow and head of the pretrained network on these classes."
    text = Page(drawn_again(run, tmp_path, kept="fine-tuned, epoch 2")).text
    assert claim in text
    again = RunDir(tmp_path / "again")
    again.update_info({"weights": {"source": "none", "digest": None}})
    assert call("report", str(again.path), "--device", "cpu") == 0
    text = Page(again.report.read_text(encoding="utf-8")).text
    assert "All layers were trained on these classes, from random weights." in text
    assert claim not in text


def test_copies_among_confident_predictions_are_no_groups():
    probabilities = np.array([[0.95, 0.05], [0.96, 0.04], [0.3, 0.7]], np.float32)
    photos = tuple(Photo(f"{n}.jpg", n // 2, unit=f"{min(n, 1)}") for n in range(3))
    scored = Scored(("a", "b"), (photos[1], photos[1], photos[2]), probabilities, (None,) * 3)
    for grouped, words in ((False, "1 independent"), (True, "1 group")):
        found = _confident_correct(scored, grouped=grouped)
        assert found.startswith("100.0% (95% CI ")
        assert found.endswith(f", 2 of 2 images, {words})")


def test_the_methods_name_the_views_that_the_probe_was_fitted_to(run: RunDir):
    facts = read_facts(run, run.read_info().classes, run.path, run.read_result())
    assert facts.result.views == 1  # as its settings ask
    for views, words in (
        (1, ", computed for 1 view of each training image."),
        (2, ", computed for 2 views of each training image."),
        (None, " layers."),
    ):
        changed = replace(facts, result=replace(facts.result, kept=KEPT_PROBE, views=views))
        written = describe_methods(changed, trained="exit flow", grouped=False)
        assert words in written


def test_the_methods_claim_no_test_fraction_if_it_gave_no_images(run: RunDir):
    facts = read_facts(run, run.read_info().classes, run.path, run.read_result())
    assert not facts.split.of("test")
    changed = replace(facts, settings={"val_fraction": 0.3, "test_fraction": 0.1})
    written = describe_methods(changed, trained="exit flow", grouped=False)
    assert " held out at random (validation 0.3; seed " in written


@pytest.mark.parametrize(("count", "words"), [(1, "1 was excluded."), (2, "2 were excluded.")])
def test_the_methods_count_the_excluded_images(run: RunDir, count: int, words: str):
    facts = read_facts(run, run.read_info().classes, run.path, run.read_result())
    images = list(facts.split.images)
    images[:count] = [replace(image, split="out") for image in images[:count]]
    changed = replace(facts, split=replace(facts.split, images=tuple(images)))
    assert f"; {words} " in describe_methods(changed, trained="exit flow", grouped=False)


@pytest.mark.parametrize(
    ("settings", "views", "kept_epoch", "augmentation"),
    [
        ({"unfreeze": "head"}, 1, 0, "none"),
        ({"unfreeze": "head"}, 2, 0, "mirroring"),
        ({"unfreeze": "head", "augment": "rotate90"}, 2, 0,
         "a rotation by a multiple of 90 degrees"),
        ({"unfreeze": "head", "flip": False}, 2, 0,
         "random crops with small changes of colour and geometry"),
        ({"unfreeze": "head"}, 3, 0,
         "random crops with small changes of colour and geometry, and mirroring"),
        ({"unfreeze": "exit", "views": 1}, 1, 2, "none"),
        ({"unfreeze": "all", "augment": "none"}, 1, 2, "random crops, and mirroring"),
        ({"unfreeze": "all"}, 1, 0, "none"),  # the probe was kept
    ],
)  # fmt: skip
def test_the_methods_claim_only_augmentations_that_training_saw(
    run: RunDir, settings, views, kept_epoch, augmentation
):
    facts = read_facts(run, run.read_info().classes, run.path, run.read_result())
    kept = f"fine-tuned, epoch {kept_epoch}" if kept_epoch else KEPT_PROBE
    result = replace(facts.result, kept=kept, views=views)
    changed = replace(facts, settings=settings, result=result)
    written = describe_methods(changed, trained="exit flow", grouped=False)
    assert f" Augmentation: {augmentation}; " in written


def test_the_page_shows_random_views_only_if_training_saw_them(run: RunDir, tmp_path: Path):
    again, per_image = RunDir(tmp_path / "again"), {}
    text = Page(drawn_again(run, tmp_path)).text
    settings = again.read_info().settings or {}
    for views in (1, 3):
        again.update_info({"settings": settings | {"views": views}})
        assert call("report", str(again.path), "--device", "cpu") == 0
        page = again.report.read_text(encoding="utf-8")
        per_image[views] = page.count("as in training")
        assert ("Training used no random augmentations" in Page(page).text) == (views == 1)
    assert "Training used no random augmentations" in text
    assert per_image[1] == 0 < per_image[3]
    result = read_json(again.result)
    del result["seconds"]["fine-tuning"]  # with 3 views in the settings, it was skipped
    write_json(again.result, result)
    assert call("report", str(again.path), "--device", "cpu") == 0
    page = again.report.read_text(encoding="utf-8")
    assert "Training used no random augmentations" in Page(page).text


def test_the_page_and_the_card_admit_copies_of_training_images(run: RunDir, tmp_path: Path):
    again, told = RunDir(tmp_path / "again"), "1 image of val is in train, too, as a copy,"
    assert told not in Page(drawn_again(run, tmp_path)).text
    assert "Near-copies were kept in one split." in again.card.read_text(encoding="utf-8")
    moved = {"train": "val", "val": "train"}
    lines = again.split.read_text(encoding="utf-8").splitlines()
    (row,) = (n for n, line in enumerate(lines) if line.startswith("blue/copy.jpg,"))
    cells = lines[row].split(",")
    lines[row] = ",".join([*cells[:2], moved[cells[2]], *cells[3:]])
    again.split.write_text("\n".join([*lines, ""]), encoding="utf-8")
    again.update_info({"split_checks": None})  # or the edited file would be refused
    assert call("report", str(again.path), "--device", "cpu") == 0
    assert told in Page(again.report.read_text(encoding="utf-8")).text
    card = again.card.read_text(encoding="utf-8")
    assert told in card
    assert "kept in one split." not in card
    assert "Near-copies were not all kept in one split, which concerns 1 of the " in card


def test_with_a_test_set_nothing_is_corrected_and_the_probe_is_not_compared(
    run: RunDir, tmp_path: Path
):
    metrics = {"name": "test", "corrected": None, "groups": 1, "grouped": True}
    text = drawn_again(run, tmp_path, metrics=metrics, kept="fine-tuned, epoch 2")
    assert faults_of(text) == []
    assert "held-out test images in 1 group. Only 1 group: the interval is wide." in Page(text).text
    card = RunDir(tmp_path / "again").card.read_text(encoding="utf-8")
    assert "\n- Few held-out test groups (1), so the intervals are wide.\n" in card
    assert "Held-out test images were used" in Page(text).text
    assert "Accuracy on the same images this model" in Page(text).text
    assert "corrected" not in Page(text).text
    assert "correction" not in Page(text).text
    assert "the baseline" not in Page(text).text


def test_the_page_and_the_card_name_the_classes_that_were_not_measured(run: RunDir, tmp_path: Path):
    rows = read_json(run.evaluation("val") / "metrics.json")["per_class"]
    assert rows[1]["name"] == "blue"
    unmeasured = dict.fromkeys(rows[1]) | {"name": "blue", "n": 0}
    told = f"1 of {len(rows)} classes has no images in val, and is not measured: blue."
    for name, row, count in (("measured", rows[1], 0), ("unmeasured", unmeasured, 1)):
        folder = tmp_path / name
        folder.mkdir()
        text = drawn_again(run, folder, metrics={"per_class": [rows[0], row, *rows[2:]]})
        assert Page(text).text.count(told) == count
        card = RunDir(folder / "again").card.read_text(encoding="utf-8")
        assert card.count(told) == count
        assert (f" of {len(rows) - 1} classes was " in card) == bool(count)


def test_with_an_uncorrected_validation_set_the_page_claims_less(run: RunDir, tmp_path: Path):
    note = "validation also selected this model: expect a little less on new images"
    text = drawn_again(run, tmp_path, metrics={"note": note, "corrected": None})
    assert faults_of(text) == []
    assert "is the accuracy on these images." in Page(text).text
    assert f"V{note[1:]}. Only " in Page(text).text
    assert "to expect on new images like these" not in Page(text).text


def test_next_steps_are_the_weakest_class_suspect_labels_and_the_data(run: RunDir, tmp_path: Path):
    found = read_json(run.evaluation("val") / "metrics.json")
    row = found["per_class"][0] | {"n": 9, "recall": 0.1, "recall_low": 0.0, "recall_high": 0.4}
    confused = [{"true": HOSTILE, "predicted": "blue", "n": 2, "part": 0.25}]
    metrics = {"per_class": [row, *found["per_class"][1:]], "confused": confused, "groups": 8,
        "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 1.0}  # fmt: skip
    before = run.issues.read_bytes()
    try:
        suspect = b'blue/2.jpg,suspect label,"looks like <b> (98%), not blue (1%)",,green\n'
        run.issues.write_bytes(before.splitlines(keepends=True)[0] + suspect)
        text = drawn_again(run, tmp_path, metrics=metrics)
    finally:
        run.issues.write_bytes(before)
    assert faults_of(text) == []
    shown = Page(text).text
    assert f"{HOSTILE} is predicted as blue most often (2 of 8)." in shown
    trained = read_split(run.split, run.read_info().classes).counts("train")[0]
    assert (
        "It has the lowest recall: 10.0% (95% CI 0.0-40.0%). "
        f"It has {trained} training images: add more."
    ) in shown
    assert "train with --fixes" in shown
    labels = sum(run.read_info().images.values())
    assert f"Check 1 suspect label of {labels}, below. Edit the column action of" in shown
    assert "--fixes" in shown
    assert "Suspect labels: 1 looks like <b> (98%), not blue (1%) blue/2.jpg" in shown
    assert "Measure on more images. 13 are few" in shown
    again = show(quoted(tmp_path / "again"))
    more = f"or use new ones: xception eval {again} --data DIR"
    assert f"13 are few: hold out more with --val-fraction {more}" in shown
    same = row | {"name": "blue"}
    tied = metrics | {"per_class": [row, same, *found["per_class"][2:]]}
    text = Page(drawn_again(run, tmp_path / "tied", metrics=tied)).text
    assert "It has the lowest recall, like 1 other class: 10.0% (95% CI 0.0-40.0%). " in text


def test_a_small_test_set_is_enlarged_by_its_own_fraction_and_a_given_split_by_none(
    run: RunDir, tmp_path: Path
):
    text = Page(drawn_again(run, tmp_path, metrics={"name": "test"})).text
    assert "are few: hold out more with --test-fraction or use new ones:" in text
    facts = read_facts(run, run.read_info().classes, run.path, run.read_result())
    split = facts.split
    given = tuple(replace(image, reason="given, 2 copies") for image in split.images)
    assert next_steps(facts, "photos")["fraction"] == "--val-fraction"
    by_folder = replace(facts, split=replace(split, images=given))
    assert next_steps(by_folder, "photos")["fraction"] is None
    by_file = replace(facts, settings=dict(facts.settings) | {"split_file": "split.csv"})
    assert next_steps(by_file, "photos")["fraction"] is None


def test_the_page_names_the_classes_that_more_images_would_help(run: RunDir, tmp_path: Path):
    parts = {"half": 0.5, "whole": 0.75, "verdict": "more"}
    gains = [{"name": name, **parts} for name in (HOSTILE, "blue", "green", "a fourth one")]
    found = read_json(run.evaluation("val") / "metrics.json")["per_class"]
    some = {"recall": 0.9, "recall_low": 0.1, "recall_high": 1.0}
    metrics = {"per_class": [row | some for row in found]}
    text = Page(drawn_again(run, tmp_path / "with", metrics=metrics, gains=gains)).text
    assert (
        f"More images of these classes are likely to help: {HOSTILE} "
        "(50% to 75%), blue (50% to 75%), green (50% to 75%)."
    ) in text
    assert "a fourth one" not in text
    assert "likely to help" not in drawn_again(run, tmp_path / "without", gains=[])  # the control
    metrics = {"per_class": [row | some | {"recall": 1.0} for row in found]}  # nothing to improve
    text = drawn_again(run, tmp_path / "perfect", metrics=metrics, gains=gains[:3])
    assert "likely to help" not in text


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({"confidence": 0.8}, GUARANTEED, NO_THRESHOLD),
        ({"confidence": None}, NO_THRESHOLD, GUARANTEED),
    ],
    ids=["with a threshold", "without one"],
)
def test_the_page_reports_the_guaranteed_precision_and_its_confidence(
    run: RunDir, tmp_path: Path, changes: dict[str, Any], said: str, unsaid: str
):
    found = read_json(run.result)["calibration"]
    found |= {"target_precision": 0.9, "precision_confidence": 0.85} | changes
    text = drawn_again(run, tmp_path, calibration=found)
    assert said in text
    assert unsaid not in text


def test_the_page_of_an_earlier_version_guarantees_nothing(run: RunDir, tmp_path: Path):
    found = read_json(run.result)["calibration"]
    del found["precision_confidence"]
    text = drawn_again(run, tmp_path, calibration=found)
    assert GUARANTEED.partition("90%")[0] not in text
    assert NO_THRESHOLD.partition("90%")[0] not in text


def doubt(number: int, problem: str = SUSPECT, detail: str = "looks like a (98%), not b (1%)"):
    return {"path": f"b/{number}.jpg", "problem": problem, "detail": detail}


def test_the_worst_of_many_issues_are_shown_and_the_others_counted(photos: Path):
    rows = [doubt(number) for number in range(30)]
    pairs = [(f"b/{n}.jpg", f"a/{n}.jpg") for n in range(20)]
    for one, other in pairs:  # listed twice, once for each file
        rows.append(doubt(0, CONFLICTING, f"nearly identical to {other}") | {"path": one})
        rows.append(doubt(0, CONFLICTING, f"nearly identical to {one}") | {"path": other})
    rows.append(doubt(1, "blurred", "sharpness 0.1"))
    drawn = draw_issues(rows, photos)
    assert [(group.title, group.count, len(group.cards)) for group in drawn] == [
        ("Suspect labels", 30, 12), ("Copies and near-copies in two classes", 20, 8),
    ]  # fmt: skip
    assert drawn[1].cards[0].path == "b/0.jpg"
    assert drawn[1].cards[0].message == "nearly identical to a/0.jpg"
    assert [card.images for group in drawn for card in group.cards] == [
        *[(None,)] * 12, *[(None, None)] * 8,
    ]  # fmt: skip
    assert draw_issues([doubt(1, "blurred")], photos) == []


def test_findings_of_images_that_the_fixes_exclude_are_not_counted():
    rows = [
        doubt(1, "broken", "cut off"),
        doubt(2, CONFLICTING, "identical to b/3.jpg"),
        doubt(3, CONFLICTING, "nearly identical to b/2.jpg"),
        doubt(4, "broken", "cut off"),
        doubt(5, "blurred", "sharpness 0.1"),
    ]
    reasons = ["excluded: broken", "excluded", "hash 0.5", "broken", "hash 0.1"]
    images = [
        Photo(f"b/{number}.jpg", 0, "train" if "hash" in reason else "out", reason=reason)
        for number, reason in enumerate(reasons, start=1)
    ]
    assert without_settled(rows, images) == rows[3:]
    assert without_settled(rows, images[2:]) == rows


def test_copies_in_two_classes_are_settled_if_one_is_relabelled_or_excluded():
    rows = [doubt(1, CONFLICTING, "identical to b/2.jpg"), doubt(2, LEAK, "identical to b/1.jpg")]
    one, other = (Photo(f"b/{number}.jpg", number, "train") for number in (1, 2))
    assert without_settled(rows, [one, other]) == rows
    assert without_settled(rows, [one, replace(other, label=1)]) == rows[1:]
    unknown = doubt(3, CONFLICTING, "in another version's words")
    assert without_settled([unknown], [one, other]) == [unknown]


def test_the_report_of_a_training_with_fixes_lists_only_what_is_left_to_do(
    settings: dict[str, Any], photos: Path
):
    (photos / "red" / "broken.jpg").write_bytes(b"no image")
    write = "path,problem,detail,action,label\nred/broken.jpg,broken,,exclude,\n"
    Path("fixes.csv").write_text(write)
    fixed = train_run(settings | {"unfreeze": "head", "fixes": "fixes.csv"}, "fixed").run
    left = train_run(settings | {"unfreeze": "head", "skip_bad": True}, "left").run
    assert b"red/broken.jpg" in fixed.issues.read_bytes()
    assert "(broken 1)" not in Page(fixed.report.read_text(encoding="utf-8")).text
    text = Page(left.report.read_text(encoding="utf-8")).text
    assert (
        "See the other findings of the data check (broken 1). To act on them, edit issues.csv and "
        "train with --fixes left/issues.csv. To see their images: xception check "
    ) in text


@pytest.mark.parametrize("content", [None, b"a;b\n1;2\n", b"path,action\nblue/0.jpg,exclude\n"])
def test_the_page_is_complete_if_issues_were_edited_or_removed(
    run: RunDir, content: bytes | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run.path.parent)
    before, page = run.issues.read_bytes(), run.report.read_bytes()
    try:
        run.issues.unlink()
        if content:
            run.issues.write_bytes(content)
        assert call("report", "run", "--device", "cpu") == 0
        readable = content is not None and b"path" in content
        said = b"There are none." if readable else b"issues.csv of this run cannot be read."
        assert said in run.report.read_bytes()
    finally:
        run.issues.write_bytes(before)
    assert call("report", "run", "--device", "cpu") == 0
    assert run.report.read_bytes() == page


def test_the_command_writes_the_same_page_again_with_gaps_for_missing_photos(
    run: RunDir,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(run.path.parent)
    before = run.report.read_bytes()
    assert call("report", "run", "--device", "cpu") == 0
    assert capsys.readouterr().out == "run/report.html\n"
    assert run.report.read_bytes() == before
    assert call("report", "run", "--data", "nowhere", "--device", "cpu") == 2
    assert run.report.read_bytes() == before
    part = shutil.copytree("photos", tmp_path / "part")
    shutil.rmtree(part / "green")
    assert call("report", "run", "--data", str(part), "--device", "cpu") == 0
    assert b"no image" in run.report.read_bytes()
    assert call("report", "run", "--device", "cpu") == 0
    assert run.report.read_bytes() == before


def test_classes_that_are_confused_with_each_other_are_neighbours():
    confusion = np.diag([9] * 6)
    confusion[0, 4] = confusion[4, 0] = 5
    order = confusion_order(confusion)
    assert sorted(order) == list(range(6))
    assert abs(order.index(0) - order.index(4)) == 1
    assert confusion_order(np.array([[1, 0], [0, 0]])) == [0, 1]


def svg(name: str, value: Matrix | Chart) -> str:
    """Render one chart."""
    source = f'{{% from "charts.html.j2" import {name} %}}{{{{ {name}(value) }}}}'
    return PAGES.from_string(source).render(value=value)


def test_the_matrix_shows_each_count_and_hostile_names_literally():
    drawn = svg("matrix", draw_matrix(np.array([[3, 1], [0, 0]]), ["<b>", "c\x1b"], [0, 1], "x"))
    assert re.findall(r"<title>(.*?)</title>", drawn) == [
        "&lt;b&gt;: 3 classified correctly (75.0%)", "&lt;b&gt;: 1 classified as c\\x1b (25.0%)",
    ]  # fmt: skip
    assert re.findall(r"<text[^>]*>(.*?)</text>", drawn) == [
        "predicted class", "true class", "3", "1", *["&lt;b&gt;"] * 2, *["c\\x1b"] * 2,
    ]  # fmt: skip
    assert "<b>" not in drawn


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_matrix_of_few_classes_has_room_for_its_titles_and_for_long_names(count: int):
    names = [f"Kraut- und Knollenfäule {number}" for number in range(count)]
    drawn = draw_matrix(np.eye(count, dtype=np.int64), names, list(range(count)), "x")
    assert [name for _, name in drawn.names] == names
    assert drawn.side == drawn.cell * count >= 5.4 * len("predicted class")
    assert drawn.margin + drawn.side <= drawn.size
    places = [drawn.margin + drawn.cell * (at + 0.5) for at in range(count)]
    assert [float(place) for place, _ in drawn.names] == pytest.approx([p + 3 for p in places])


def test_a_matrix_of_many_classes_has_small_cells_and_cuts_long_names():
    names = ["Kraut- und Knollenfäule der Kartoffel"] * 9
    drawn = draw_matrix(np.eye(9, dtype=np.int64), names, list(range(9)), "x")
    assert (drawn.cell, {name for _, name in drawn.names}) == (14, {"Kraut- und Knollenfäule…"})


def test_a_matrix_of_10_000_images_and_1000_classes_is_under_3_mb():
    generator = np.random.default_rng(0)
    confusion = np.zeros((1000, 1000), dtype=np.int64)
    np.add.at(confusion, tuple(generator.integers(0, 1000, (2, 10_000))), 1)
    names = [f"a class of number {number}" for number in range(1000)]
    assert len(svg("matrix", draw_matrix(confusion, names, list(range(1000)), "x"))) < 3_000_000


def test_a_matrix_of_up_to_100_classes_has_all_names_and_counts():
    for count, shown in ((81, 81), (100, 100), (101, 0)):
        names = [f"class {number}" for number in range(count)]
        drawn = draw_matrix(np.eye(count, dtype=np.int64), names, list(range(count)), "x")
        assert [name for _, name in drawn.names] == names[:shown]
        assert sum(cell.number == "1" for cell in drawn.cells) == shown


def test_a_matrix_is_not_offered_in_a_second_order_that_is_the_same(run: RunDir):
    report = read_report(run, "val")
    two = replace(report, per_class=report.per_class[:2], confusion=((3, 1), (0, 2)))
    assert [drawn.order for drawn in _matrices(two)] == ["by name"]
    apart = replace(report, confusion=((0, 0, 3), (0, 3, 0), (3, 0, 0)))
    assert [drawn.order for drawn in _matrices(apart)] == ["by name", "by similarity"]


def test_names_next_to_a_matrix_are_10_pixels_high_even_on_a_phone():
    drawn = draw_matrix(np.eye(100, dtype=np.int64), ["a class"] * 100, list(range(100)), "x")
    style = (Path(html.__file__).parent / "templates" / "run.css").read_text()
    (size,) = re.findall(r"\.matrix \{[^}]*font-size: ([\d.]+)px", style)
    assert float(size) * drawn.least / drawn.size >= 10
    assert f"min-width: {drawn.least}px" in svg("matrix", drawn)


# --- charts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "kind", "labels"),
    [
        ((0.46, 1.29), {}, "0.4 0.6 0.8 1.0 1.2 1.4"),
        ((0.1, 0.13), {}, "0.10 0.11 0.12 0.13"),
        ((0, 2e-4), {}, "0 0.5e-4 1e-4 1.5e-4 2e-4"),
        ((12, 345), {}, "0 100 200 300 400"),
        ((0.775, 0.883), {"in_percent": True}, "75% 80% 85% 90%"),
        ((0.925, 0.93), {"in_percent": True}, "92.5% 92.6% 92.7% 92.8% 92.9% 93%"),
        ((1, 1), {"in_percent": True}, "94% 96% 98% 100%"),
        ((0, 0), {"in_percent": True}, "0% 2% 4% 6%"),
        ((1, 1), {"whole": True}, "1"),
        ((1, 2), {"whole": True}, "1 2"),
        ((1, 7), {"whole": True}, "1 2 3 4 5 6 7"),
        ((1, 30), {"whole": True}, "1 5 10 15 20 25 30"),
        ((3, 104), {"whole": True}, "3 20 40 60 80 104"),
    ],
)
def test_tick_labels_are_exact_and_epochs_are_integers(
    ends: tuple[float, float], kind: dict[str, bool], labels: str
):
    axis = number_axis(*ends, **kind)
    written = [axis.label(tick) for tick in axis.ticks]
    assert written == labels.split()
    percent = 100 if "in_percent" in kind else 1
    numbers = [float(label.rstrip("%")) / percent for label in written]
    assert numbers == pytest.approx(axis.ticks, abs=1e-12)
    assert axis.ends[0] <= ends[0] <= ends[1] <= axis.ends[1]


@pytest.mark.parametrize("rate", [1e-300, 3.1e-10, 2e-5, 0.0, -4e-12])
def test_a_single_small_number_has_an_axis_around_it(rate: float):
    axis = number_axis(rate, rate)
    assert axis.ends[0] <= rate <= axis.ends[1]
    assert axis.ends[0] < axis.ends[1]
    assert rate == 0 or axis.ends[1] - axis.ends[0] < abs(rate)  # on its own scale
    assert len({axis.label(tick) for tick in axis.ticks}) == len(axis.ticks)


def test_the_curves_show_every_figure_and_are_the_same_only_for_the_same_rows():
    rows = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 1.1 / e, "accuracy": 0.5, "lr": 1e-4}
        for e in (1, 2)
    ]
    first = svg("drawing", draw_curves(rows, 1)[0])
    assert first == svg("drawing", draw_curves(rows, 1)[0])
    assert first != svg("drawing", draw_curves(rows[:1], 1)[0])
    drawn = [svg("drawing", chart) for chart in draw_curves(rows, 2)]
    assert [re.findall(r"<title>(.*?)</title>", text) for text in drawn] == [
        ["epoch 1: training 1", "epoch 2: training 0.5",
         "epoch 1: validation 1.1", "epoch 2: validation 0.55"],
        ["epoch 1: 50.0%", "epoch 2: 50.0%"],
        ["epoch 1: 0.0001", "epoch 2: 0.0001"],
    ]  # fmt: skip
    assert ["mark" in text for text in drawn] == [True] * 3
    assert "mark" not in svg("drawing", draw_curves(rows, 0)[0])


def test_the_reliability_diagram_of_calibrated_probabilities_is_its_diagonal():
    right = np.array([True, True, True, False] * 10)
    reliability, coverage = draw_calibration(np.full(40, 0.75), right, np.arange(40))
    (dot,) = reliability.dots
    assert (dot.x, dot.y) == (0.75, 0.75)
    assert dot.figures == "confidence 75%: accuracy 75% (95% CI 60-86%, 40 images)"
    assert [tuple(line.points) for line in coverage.lines if line.style == "wrong"] == [
        ((1.0, 0.75),)
    ]
    (band,) = (line.points for line in coverage.lines if line.style == "wrong band")
    assert min(coverage.y.ticks) <= min(low for _, low in band) < 0.6  # the accuracy's interval
    assert faults_of(svg("drawing", reliability))[0] == "no Content-Security-Policy"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_class_whose_name_is_not_utf_8_is_in_the_report_and_the_card(
    settings: dict[str, Any], photos: Path
) -> None:
    for name in ("blue", "green", "red"):
        (photos / name).rename(photos / f"{name}\udcfc")  # as unpacked from an old archive
    run = train_run(settings | {"unfreeze": "head"}).run
    before = run.report.read_text()
    assert "green\\xfc" in before
    assert "data:image" in before
    assert "no image" not in before
    assert call("report", str(run.path)) == 0
    assert run.report.read_text() == before
    assert "| green\\\\xfc | " in run.card.read_text()
