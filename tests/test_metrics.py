"""What an evaluation measures, against numbers worked by hand and scikit-learn's own."""

import json
from dataclasses import replace
from io import BytesIO, StringIO
from math import log, sqrt

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from sklearn.metrics import balanced_accuracy_score, f1_score, top_k_accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

from xception_cli.evaluation.metrics import EvalFailure, EvalReport, measure, wilson_interval
from xception_cli.evaluation.report import draw_confusion, headline, report_table


def drawn(classes: int, images: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels of every class and probabilities that lean to them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    logits = generator.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += 1.5
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return labels, probabilities.astype(np.float32)


def names(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def test_every_number_of_a_small_case_is_the_one_worked_by_hand():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.4, 0.5, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3]])
    report = measure(labels, probabilities, ["a", "b", "c"], name="val", data="photos")
    # Wilson (1927): z = 1.959964, n = 4, 3 right
    z, n, p = 1.9599639845400545, 4, 0.75
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = wilson_interval(1, 2)
    full_low, full_high = wilson_interval(2, 2)
    assert report.to_dict() == {
        "name": "val",
        "data": "photos",
        "images": 4,
        "correct": 3,
        "accuracy": 0.75,
        "accuracy_low": pytest.approx(centre - half),
        "accuracy_high": pytest.approx(centre + half),
        "top_k": 3,
        "top_k_accuracy": None,
        "macro_recall": 0.75,
        "log_loss": pytest.approx(-(log(0.8) + log(0.4) + log(0.7) + log(0.6)) / 4),
        "per_class": [
            {
                "name": "a", "n": 2, "precision": 1.0, "recall": 0.5, "recall_low": low,
                "recall_high": high, "f1": pytest.approx(2 / 3),
            },
            {
                "name": "b", "n": 2, "precision": pytest.approx(2 / 3), "recall": 1.0,
                "recall_low": full_low, "recall_high": full_high, "f1": pytest.approx(0.8),
            },
            {
                "name": "c", "n": 0, "precision": None, "recall": None, "recall_low": None,
                "recall_high": None, "f1": None,
            },
        ],
        "confusion": [[1, 1, 0], [0, 2, 0], [0, 0, 0]],
        "failures": [],
        "note": None,
    }  # fmt: skip


def test_the_numbers_equal_scikit_learns_and_those_of_other_labels_do_not():
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
        ]

    def measured(report: EvalReport) -> list[float]:
        return [
            report.accuracy,
            report.top_k_accuracy,
            report.macro_recall,
            report.log_loss,
            *(row.f1 for row in report.per_class),
        ]

    report = measure(labels, probabilities, names(12), name="val")
    assert measured(report) == pytest.approx(reference(labels))
    assert measured(report) != pytest.approx(reference(np.roll(labels, 1)))  # it can fail
    assert np.sum(report.confusion) == 89
    assert report.top_k == 5


def test_a_class_that_is_never_guessed_has_no_precision_and_one_without_images_has_nothing():
    labels = np.array([0, 1])
    probabilities = np.array([[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]])
    present, also_present, absent = measure(labels, probabilities, names(3), name="x").per_class
    assert (present.precision, present.recall, present.f1) == (None, 0.0, 0.0)
    assert also_present.n == 1
    # `class 2` was guessed twice; without images of it that says nothing about it
    assert (absent.n, absent.precision, absent.recall, absent.f1) == (0, None, None, None)


@pytest.mark.parametrize(("guessed", "accuracy"), [(0, 1.0), (1, 0.0)])
def test_one_image_of_two_classes_is_measured(guessed: int, accuracy: float):
    probabilities = np.array([[0.9, 0.1]]) if guessed == 0 else np.array([[0.1, 0.9]])
    report = measure(np.array([0]), probabilities, ["a", "b"], name="x")
    assert (report.images, report.accuracy, report.macro_recall) == (1, accuracy, accuracy)
    assert 0 <= report.accuracy_low <= accuracy <= report.accuracy_high <= 1
    assert report.top_k_accuracy is None


def test_a_certain_mistake_has_a_finite_log_loss():
    report = measure(np.array([0]), np.array([[0.0, 1.0]]), ["a", "b"], name="x")
    assert 30 < report.log_loss < 40
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_headline_says_the_accuracy_with_its_interval():
    report = measure(*drawn(3, 30, seed=3), names(3), name="val")
    report = replace(
        report, accuracy=84 / 89, accuracy_low=0.8754, accuracy_high=0.9758, correct=84, images=89
    )
    assert headline(report) == (
        "val: accuracy 94.4 % (95 % interval 87.5 to 97.6 %, 84 of 89 images)"
    )


def test_the_table_fits_80_columns_and_shows_hostile_names_literally():
    labels, probabilities = drawn(2, 5)
    classes = ["[red]a[/blue]:smile:\x1b[2J", "a_class_with_" + "a_very_long_name_" * 3, "absent"]
    probabilities = np.column_stack([probabilities, np.zeros(5, dtype=np.float32)])
    table = report_table(measure(labels, probabilities, classes, name="x"))
    output = StringIO()
    Console(width=80, file=output, markup=False, emoji=False).print(table)
    lines = output.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0].split() == ["class", "n", "precision", "recall", "95", "%", "interval", "f1"]
    assert lines[1].startswith("[red]a[/blue]:smile:\\x1b[2J")
    assert lines[-1].split() == ["absent", "0", "n/a", "n/a", "n/a", "n/a"]


def test_names_that_are_not_utf8_are_written_so_that_a_file_can_hold_them():
    labels, probabilities = drawn(2, 4)
    failure = EvalFailure("b\udcff/1.jpg", "truncated")
    report = measure(labels, probabilities, ["a", "b\udcff"], name="x", failures=[failure])
    written = report.to_dict()
    assert written["per_class"][1]["name"] == "b\\xff"
    assert written["failures"] == [{"path": "b\\xff/1.jpg", "reason": "truncated"}]


@pytest.mark.parametrize("count", [2, 3, 21])
def test_the_picture_of_the_confusions_is_the_same_for_the_same_report_only(count: int):
    report = measure(*drawn(count, 3 * count, seed=1), names(count), name="val")
    other = measure(*drawn(count, 4 * count, seed=2), names(count), name="val")
    picture = draw_confusion(report)
    assert picture == draw_confusion(report)
    assert picture != draw_confusion(other)
    with Image.open(BytesIO(picture)) as image:
        assert min(image.size) > 300
        assert "Software" not in image.info


def test_the_picture_draws_any_class_name_without_a_warning():
    labels, probabilities = drawn(4, 8)
    classes = ["$x^2$ $", "日本語", "b\x1b[2J\udcff", "long " * 50]
    assert draw_confusion(measure(labels, probabilities, classes, name="$v$"))
