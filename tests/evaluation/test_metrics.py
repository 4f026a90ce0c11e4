"""Metrics of an evaluation, compared with calculations by hand and with scikit-learn."""

import json
import warnings
from dataclasses import replace
from io import BytesIO, StringIO
from math import log, sqrt

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image
from rich.console import Console
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    top_k_accuracy_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss
from units import alone

from xception_cli.csv_files import to_csv
from xception_cli.data.photo import Photo
from xception_cli.evaluation import metrics
from xception_cli.evaluation.confidence import calibration_error
from xception_cli.evaluation.described import (
    confused_line,
    headline,
    report_table,
    scores_table,
    uncorrected_line,
)
from xception_cli.evaluation.eval_report import (
    OTHER_CLASS,
    TRAINED_ON,
    ClassMetrics,
    Corrected,
    EvalReport,
    Uncounted,
)
from xception_cli.evaluation.files import write_evaluation
from xception_cli.evaluation.intervals import (
    Estimate,
    macro_interval,
    proportion_interval,
    texts,
    wilson_interval,
)
from xception_cli.evaluation.metrics import measure
from xception_cli.evaluation.plots import draw_confusion
from xception_cli.evaluation.scored import PREDICTIONS_HEADER, Scored
from xception_cli.evaluation.uneven import uneven_line, unmeasured_line

INTERVALS = {
    "top_k_accuracy", "macro_recall", "macro_f1", "weighted_f1", "cohen_kappa", "matthews",
    "mean_average_precision", "log_loss",
}  # fmt: skip


def with_units(labels, probabilities):
    return labels, probabilities, alone(labels)


def drawn(classes: int, images: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels of every class and probabilities that favour them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    logits = generator.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += 1.5
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return labels, probabilities.astype(np.float32)


def names(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def test_metrics_and_files_computed_in_parts_have_the_bytes_of_a_plain_computation(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    labels, probabilities = drawn(23, 400)
    labels[labels == 7] = 8  # a class without images
    probabilities[:, 3] = np.round(probabilities[:, 3], 2)  # many are equal
    probabilities[:5], probabilities[5:9, :2] = 1 / 23, 0.5  # no best one
    units = np.array([f"unit {n // 2}" for n in range(400)])
    photos = [
        Photo(f"{n}.jpg", int(y), unit=u)
        for n, (y, u) in enumerate(zip(labels, units, strict=True))
    ]
    photos[11] = replace(photos[11], problem='broken, "very"')
    scored = Scored(tuple(names(23)), tuple(photos), probabilities, (None, "unsure") * 200)
    monkeypatch.setattr(metrics, "_AT_ONCE", 1000)  # 43 images, or 2 classes
    report = measure(labels, probabilities, units, names(23), name="val")
    write_evaluation(tmp_path, report, scored)

    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    places = np.argsort(-probabilities, axis=1, kind="stable")
    hits = places == labels[:, None]
    assert report.correct == hits[:, 0].sum()
    assert report.top_k_accuracy.value == hits[:, :5].any(axis=1).mean()
    every = np.arange(23)
    assert report.confusion == tuple(
        map(tuple, confusion_matrix(labels, places[:, 0], labels=every).tolist())
    )
    for label in every[every != 7]:
        found, true, given = report.per_class[label], labels == label, places[:, 0] == label
        assert found.average_precision.value == average_precision_score(true, exact[:, label])
        ends = proportion_interval(given[true], units[true])
        assert found.recall == Estimate(given[true].mean(), *ends)
    assert report.per_class[7] == ClassMetrics("class 7", 0)
    with warnings.catch_warnings():  # rows that do not sum to 1
        warnings.simplefilter("ignore")
        assert report.log_loss.value == sklearn_log_loss(labels, exact, labels=every)
    confidences = exact[np.arange(400), places[:, 0]]
    assert report.calibration_error.value == calibration_error(confidences, hits[:, 0])
    rows = [
        [photo.path, photo.digest, photo.unit, f"class {photo.label}"]
        + ([None] * 3 + [photo.problem] + [None] * 23 if photo.problem else
           [f"class {guess}", int(guess == photo.label), reason, None, *row.tolist()])
        for photo, guess, reason, row in zip(
            photos, places[:, 0], scored.unknown, probabilities, strict=True
        )
    ]  # fmt: skip
    header = [*PREDICTIONS_HEADER, *(f"p:{name}" for name in names(23))]
    assert (tmp_path / "predictions.csv").read_bytes() == to_csv(header, rows)


def test_every_number_of_a_small_case_is_the_one_worked_by_hand():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3]])
    report = measure(
        labels, probabilities, alone(labels), ["a", "b", "c"], name="val", data="photos"
    )
    # Wilson (1927): z = 1.959964, n = 4, 3 correct
    z, n, p = 1.9599639845400545, 4, 0.75
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = wilson_interval(1, 2)
    full_low, full_high = wilson_interval(2, 2)
    part_low, part_high = wilson_interval(2, 3)
    one_low, one_high = wilson_interval(1, 1)
    found = report.to_dict()
    intervals = found.pop("intervals")
    assert intervals.keys() == INTERVALS
    assert EvalReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert intervals["top_k_accuracy"] is None
    assert all(0 <= ends[0] <= found[name] <= ends[1] for name, ends in intervals.items() if ends)
    for row in found["per_class"]:
        assert row.pop("f1_low") is None or row["f1"] > 0
        assert row.pop("f1_high") is None or row["f1"] > 0
    # both classes are ranked perfectly in every resample
    average = dict.fromkeys(("average_precision_low", "average_precision_high"))
    average = {"average_precision": 1.0} | average
    assert found == {
        "name": "val",
        "data": "photos",
        "images": 4,
        "groups": 4,
        "grouped": True,
        "correct": 3,
        "accuracy": 0.75,
        "accuracy_low": pytest.approx(centre - half),
        "accuracy_high": pytest.approx(centre + half),
        "top_k": 3,
        "top_k_accuracy": None,
        "macro_recall": 0.75,
        "macro_f1": pytest.approx((2 / 3 + 0.8) / 2),
        "weighted_f1": pytest.approx((2 / 3 + 0.8) / 2),
        "cohen_kappa": pytest.approx((0.75 - 0.5) / (1 - 0.5)),
        "matthews": pytest.approx(2 / sqrt(12)),
        "mean_average_precision": 1.0,
        "log_loss": pytest.approx(-(log(0.8) + log(0.4) + log(0.7) + log(0.6)) / 4),
        "calibration_error": pytest.approx((0.2 + 0.5 + 0.3 + 0.4) / 4),
        "answered": None,
        "answered_correct": None,
        "per_class": [
            {
                "name": "a", "n": 2,
                "precision": 1.0, "precision_low": one_low, "precision_high": one_high,
                "recall": 0.5, "recall_low": low, "recall_high": high,
                "f1": pytest.approx(2 / 3), **average,
            },
            {
                "name": "b", "n": 2,
                "precision": pytest.approx(2 / 3), "precision_low": part_low,
                "precision_high": part_high,
                "recall": 1.0, "recall_low": full_low, "recall_high": full_high,
                "f1": pytest.approx(0.8), **average,
            },
            {
                "name": "c", "n": 0,
                "precision": None, "precision_low": None, "precision_high": None,
                "recall": None, "recall_low": None, "recall_high": None,
                "f1": None, **dict.fromkeys(average),
            },
        ],
        "confusion": [[1, 1, 0], [0, 2, 0], [0, 0, 0]],
        "confused": [{"true": "a", "predicted": "b", "n": 1, "part": 0.5}],
        "failures": [],
        "left_out": [],
        "note": None,
        "contaminated": None,
        "corrected": None,
    }  # fmt: skip


def test_the_numbers_equal_scikit_learns_and_differ_for_other_labels():
    labels, probabilities = drawn(12, 89)
    guesses = probabilities.argmax(axis=1)

    def reference(labels: np.ndarray) -> list[float]:
        exact = probabilities.astype(np.float64)
        exact /= exact.sum(axis=1, keepdims=True)
        every = np.arange(12)
        return [
            float((labels == guesses).mean()),
            float(top_k_accuracy_score(labels, probabilities, k=5, labels=every)),
            float(balanced_accuracy_score(labels, guesses)),
            float(sklearn_log_loss(labels, exact, labels=every)),
            *f1_score(labels, guesses, average=None).tolist(),
            float(f1_score(labels, guesses, average="macro")),
            float(f1_score(labels, guesses, average="weighted")),
            float(cohen_kappa_score(labels, guesses)),
            float(matthews_corrcoef(labels, guesses)),
            float(average_precision_score(np.eye(12)[labels], exact, average="macro")),
        ]

    def measured(report: EvalReport) -> list[float]:
        return [
            estimate.value
            for estimate in (
                report.accuracy,
                report.top_k_accuracy,
                report.macro_recall,
                report.log_loss,
                *(row.f1 for row in report.per_class),
                report.macro_f1,
                report.weighted_f1,
                report.cohen_kappa,
                report.matthews,
                report.mean_average_precision,
            )
        ]

    report = measure(labels, probabilities, alone(labels), names(12), name="val")
    assert measured(report) == pytest.approx(reference(labels))
    assert measured(report) != pytest.approx(reference(np.roll(labels, 1)))  # the control
    assert np.sum(report.confusion) == 89
    assert report.top_k == 5


def test_a_class_never_predicted_has_no_precision_and_one_without_images_no_metrics():
    labels = np.array([0, 1])
    probabilities = np.array([[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]])
    present, also_present, absent = measure(
        labels, probabilities, alone(labels), names(3), name="x"
    ).per_class
    assert (present.precision, present.recall.value, present.f1.value) == (None, 0.0, 0.0)
    assert also_present.n == 1
    # `class 2` was predicted twice; without images of it that proves nothing
    assert (absent.n, absent.precision, absent.recall, absent.f1) == (0, None, None, None)


@pytest.mark.parametrize(("guessed", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_one_image_of_two_classes_is_measured(guessed: int, accuracy: float):
    probabilities = np.array([[0.9, 0.1]]) if guessed == 0 else np.array([[0.1, 0.9]])
    report = measure(np.array([0]), probabilities, alone([0]), ["a", "b"], name="x")
    assert (report.images, report.accuracy.value) == (1, accuracy)
    assert 0 <= report.accuracy.low <= accuracy <= report.accuracy.high <= 1
    assert report.top_k_accuracy is None
    # one image shows nothing about chance or about other images
    assert report.matthews is None
    assert report.cohen_kappa == (None if guessed == 0 else Estimate(0))
    assert report.macro_f1 == report.weighted_f1 == Estimate(accuracy)
    intervals = report.to_dict()["intervals"]
    assert width(report.macro_recall) > 0.7
    assert {name for name, ends in intervals.items() if ends} == {"macro_recall"}
    assert len(report.confused) == guessed
    json.dumps(report.to_dict(), allow_nan=False)


def test_every_interval_contains_its_number_and_is_reproducible():
    report = measure(*with_units(*drawn(12, 89, seed=5)), names(12), name="val")
    assert report == measure(*with_units(*drawn(12, 89, seed=5)), names(12), name="val")
    for name in INTERVALS:
        found = getattr(report, name)
        assert found.low < found.value < found.high, name
    narrow = measure(*with_units(*drawn(12, 1000, seed=5)), names(12), name="val")
    assert width(narrow.macro_f1) < 0.5 * width(report.macro_f1)
    for row in report.per_class:
        for name in ("precision", "recall", "f1", "average_precision"):
            found = getattr(row, name)
            assert found.low is None or found.low <= found.value <= found.high


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def widths(report: EvalReport) -> dict[str, float]:
    """Return the width of each interval of a report; those of the classes by `name, class`."""
    named = {"accuracy", "coverage", "answer_precision", *INTERVALS}
    found = {name: width(getattr(report, name)) for name in named}
    for row in report.per_class:
        for name in ("precision", "recall", "f1", "average_precision"):
            found[f"{name}, {row.name}"] = width(getattr(row, name))
    return found


def test_grouped_images_widen_every_interval_and_change_no_other_number():
    labels, probabilities = (values.repeat(5, axis=0) for values in drawn(8, 96))
    groups = np.arange(96).repeat(5).astype(str)  # five equal answers each, one piece of evidence
    answered = probabilities.max(axis=1) > 0.4
    grouped, single = (
        measure(labels, probabilities, units, names(8), name="x", answered=answered)
        for units in (groups, alone(labels))
    )
    wide, narrow = widths(grouped), widths(single)
    assert [name for name in wide if wide[name] < 1.5 * narrow[name]] == []
    assert (grouped.groups, single.groups) == (96, 480)
    recalls = ([row.recall.value for row in report.per_class] for report in (grouped, single))
    assert next(recalls) == next(recalls)
    # the control: a group for each image widens nothing
    named = np.char.add("group ", alone(labels))
    again = measure(labels, probabilities, named, names(8), name="x", answered=answered)
    assert again == single


def test_a_result_of_uneven_classes_names_those_that_are_not_recognised():
    labels = np.array([0] * 12 + [1] * 5 + [2])
    guesses = np.array([0] * 12 + [0, 0, 0, 0, 1] + [0])
    report = measure(*with_units(labels, np.eye(3)[guesses]), ["a", "b", "c"], name="val")
    low, high = macro_interval(labels == guesses, labels, np.arange(18))
    interval = f"95% CI {100 * low:.1f}-{100 * high:.1f}%"
    assert uneven_line(report) == (
        f"classes are uneven in val: macro recall 40.0% ({interval}); lowest recall: "
        "c (0 of 1), b (1 of 5)"
    )
    even = measure(*with_units(*drawn(3, 30)), names(3), name="val")
    assert uneven_line(even) is None


@pytest.mark.parametrize(
    ("measured", "line"),
    [
        (12, None),
        (11, "1 of 12 classes has no images in val, and is not measured: class 11"),
        (3, "9 of 12 classes have no images in val, and are not measured: class 3, class 4, "
            "class 5, class 6, class 7, and 4 more"),
    ],
)  # fmt: skip
def test_a_result_names_the_classes_that_no_image_measured(measured, line):
    labels = np.arange(60) % measured
    report = measure(*with_units(labels, np.eye(12)[labels]), names(12), name="val")
    assert unmeasured_line(report) == line


def test_a_class_whose_images_were_all_left_out_is_not_said_to_have_none():
    labels = np.arange(60) % 11
    report = measure(*with_units(labels, np.eye(12)[labels]), names(12), name="new")
    line = "1 of 12 classes has no images{} in new, and is not measured: class 11"
    assert unmeasured_line(report) == line.format("")
    other = replace(report, left_out=(Uncounted("other/0.jpg", OTHER_CLASS),))
    assert unmeasured_line(other) == line.format("")
    known = Uncounted("class 11/0.jpg", TRAINED_ON)
    for uncounted in ({"left_out": (known,)}, {"failures": (known,)}):
        assert unmeasured_line(replace(report, **uncounted)) == line.format(" left")


def test_means_over_classes_have_no_bootstrap_interval_if_a_class_has_three_images():
    labels, probabilities = drawn(4, 80)
    for rare, has_interval in ((3, False), (4, True)):  # the second is the control
        kept = np.flatnonzero((labels < 3) | (np.cumsum(labels == 3) <= rare))
        report = measure(*with_units(labels[kept], probabilities[kept]), names(4), name="x")
        found = (report.macro_f1, report.mean_average_precision, report.per_class[3].f1)
        assert [estimate.ends is not None for estimate in found] == [has_interval] * 3
        assert report.per_class[0].f1.ends
        assert report.macro_recall.ends
        assert report.weighted_f1.ends


@pytest.mark.parametrize(("images", "size"), [(9, 1), (10, 1), (18, 2), (20, 2)])
def test_fewer_than_ten_units_have_no_bootstrap_interval_in_groups_or_not(images: int, size: int):
    labels, guesses = np.arange(images) % 2, np.arange(images) % 3 % 2
    units = np.array([f"group {number}" for number in np.arange(images) // size])
    report = measure(labels, np.eye(2)[guesses] * 0.6 + 0.2, units, ["a", "b"], name="x")
    found = [getattr(report, name) for name in ("weighted_f1", "cohen_kappa", "log_loss")]
    assert [estimate.ends is not None for estimate in found] == [images // size >= 10] * 3
    assert report.accuracy.ends is not None  # it needs no resampling


def test_the_most_confused_pairs_come_first():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    guessed = np.array([1, 1, 0, 0, 2, 1, 2, 2, 0])
    report = measure(
        labels, np.eye(3)[guessed] * 0.7 + 0.1, alone(labels), ["a", "b", "[c]\x1b"], name="x"
    )
    assert [(c.true, c.predicted, c.n, c.part) for c in report.confused] == [
        ("a", "b", 2, 0.5),
        ("b", "[c]\x1b", 1, 0.5),
        ("[c]\x1b", "a", 1, pytest.approx(1 / 3)),
    ]
    assert (
        confused_line(report)
        == "a predicted as b (2), b predicted as [c]\\x1b (1), [c]\\x1b predicted as a (1)"
    )
    perfect = measure(*with_units(labels, np.eye(3)[labels]), names(3), name="x")
    assert confused_line(perfect) is None


def test_thousands_of_images_are_counted_with_separators():
    labels = np.array([0] * 8000 + [1] * 2000)
    guesses = np.array([0] * 8000 + [0] * 1500 + [1] * 500)
    report = measure(*with_units(labels, np.eye(2)[guesses]), ["a", "b"], name="x")
    assert confused_line(report) == "b predicted as a (1,500)"
    assert uneven_line(report).endswith("; lowest recall: b (500 of 2,000)")


def test_one_mistake_among_thousands_is_not_rounded_to_100_percent():
    labels = np.arange(2500) % 2
    report, opposite = (
        measure(*with_units(labels, np.eye(2)[guesses]), ["a", "b"], name="x")
        for guesses in (np.append(labels[:-1], 0), np.append(1 - labels[:-1], 1))
    )
    assert headline(report) == "x: accuracy 99.9% (95% CI 99.8-100.0%, 2,499 of 2,500 images)"
    assert headline(opposite) == "x: accuracy 0.1% (95% CI 0.0-0.2%, 1 of 2,500 images)"
    every, none = (
        texts(Estimate(*ends), percent=True) for ends in ((1.0, 0.9996, 1.0), (0.0, 0.0, 0.0004))
    )
    assert every == ("100.0%", "99.9-100.0%")  # what is certain is neither
    assert none == ("0.0%", "0.0-0.1%")


def test_an_interval_that_begins_below_0_has_a_word_between_its_ends():
    assert texts(Estimate(0.06, -0.046, 0.161), percent=False) == ("0.060", "-0.046 to 0.161")
    assert texts(Estimate(-0.06, -0.161, -0.0004), percent=False) == ("-0.060", "-0.161 to 0.000")
    assert texts(Estimate(0.06, 0.046, 0.161), percent=False) == ("0.060", "0.046-0.161")


def test_the_table_over_all_classes_has_every_number_with_its_interval():
    report = measure(*with_units(*drawn(12, 89)), names(12), name="val")
    output = StringIO()
    Console(width=80, file=output).print(scores_table(report))
    lines = output.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) == 3 + len(INTERVALS)  # the title, accuracy and the calibration error
    found = report.macro_f1
    shown = [f"{found.value:.3f}", f"{found.low:.3f}-{found.high:.3f}"]
    assert lines[4].split() == ["macro", "F1", *shown]


def test_a_mistake_with_probability_1_has_a_finite_log_loss():
    report = measure(np.array([0]), np.array([[0.0, 1.0]]), alone([0]), ["a", "b"], name="x")
    assert 30 < report.log_loss.value < 40
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_headline_has_the_accuracy_with_its_interval():
    report = measure(*with_units(*drawn(3, 30, seed=3)), names(3), name="val")
    report = replace(
        report, accuracy=Estimate(84 / 89, 0.8754, 0.9758), correct=84, images=89, groups=89
    )
    assert headline(report) == ("val: accuracy 94.4% (95% CI 87.5-97.6%, 84 of 89 images)")
    assert uncorrected_line(report) is None


def test_the_uncorrected_accuracy_is_printed_only_if_it_differs_from_the_corrected_one():
    report = measure(*with_units(*drawn(3, 30, seed=3)), names(3), name="val")
    report = replace(report, accuracy=Estimate(1.0, 0.862, 1.0), correct=24, images=24, groups=24)
    less = replace(report, corrected=Corrected(2, Estimate(0.98, 0.84, 1.0)))
    assert headline(less) == "val: accuracy 98.0% (95% CI 84.0-100.0%), corrected for selection"
    assert uncorrected_line(less) == "uncorrected: 100.0% (24 of 24 images), the best of 2 models"
    same = replace(report, accuracy=Estimate(23 / 24, 0.798, 0.993), correct=23)
    same = replace(same, corrected=Corrected(2, Estimate(0.958, 0.7976, 0.9926)))
    assert headline(same) == (
        "val: accuracy 95.8% (95% CI 79.8-99.3%, 23 of 24 images), corrected for selection"
    )
    assert uncorrected_line(same) is None


def test_the_table_fits_80_columns_and_shows_hostile_names_literally():
    labels, probabilities = drawn(2, 5)
    classes = ["[red]a[/blue]:smile:\x1b[2J", "a_class_with_" + "a_very_long_name_" * 3, "absent"]
    probabilities = np.column_stack([probabilities, np.zeros(5, dtype=np.float32)])
    table = report_table(measure(labels, probabilities, alone(labels), classes, name="x"))
    output = StringIO()
    Console(width=80, file=output, markup=False, emoji=False).print(table)
    lines = output.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0].split() == ["class", "n", "precision", "recall", "95%", "CI", "f1"]
    assert lines[1].startswith("[red]a[/blue]:smile:\\x1b[2J")
    assert lines[-1].split() == ["absent", "0", "n/a", "n/a", "n/a", "n/a"]


def test_names_that_are_not_utf8_are_escaped_in_files():
    labels, probabilities = drawn(2, 4)
    failure = Uncounted("b\udcff/1.jpg", "truncated")
    report = measure(
        labels, probabilities, alone(labels), ["a", "b\udcff"], name="x", failures=[failure]
    )
    written = report.to_dict()
    assert written["per_class"][1]["name"] == "b\\xff"
    assert written["failures"] == [{"path": "b\\xff/1.jpg", "reason": "truncated"}]


@pytest.mark.parametrize("count", [2, 3, 21])
def test_the_plot_of_the_confusion_matrix_is_the_same_only_for_the_same_report(count: int):
    report = measure(*with_units(*drawn(count, 3 * count, seed=1)), names(count), name="val")
    other = measure(*with_units(*drawn(count, 4 * count, seed=2)), names(count), name="val")
    picture = draw_confusion(report)
    assert picture == draw_confusion(report)
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30}):  # as in a matplotlibrc
        assert picture == draw_confusion(report)
    assert picture != draw_confusion(other)
    with Image.open(BytesIO(picture)) as image:
        assert min(image.size) > 300
        assert "Software" not in image.info


def test_the_plot_explains_grey_rows_only_if_a_class_has_no_images(monkeypatch):
    written, annotate = [], Axes.annotate

    def recorded(axes, text, *where, **how):
        written.append(text)
        return annotate(axes, text, *where, **how)

    monkeypatch.setattr(Axes, "annotate", recorded)
    labels = np.arange(9) % 3
    for count, explained in ((3, False), (4, True)):
        written.clear()
        draw_confusion(measure(*with_units(labels, np.eye(count)[labels]), names(count), name="x"))
        assert any("grey: no images" in line for line in written) == explained


def test_the_plot_shows_any_class_name_without_a_warning():
    labels, probabilities = drawn(4, 8)
    classes = ["$x^2$ $", "日本語", "b\x1b[2J\udcff", "long " * 50]
    assert draw_confusion(measure(labels, probabilities, alone(labels), classes, name="$v$"))
