"""Calibration: probabilities that are accurate, and thresholds that reach their target."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.neighbors import NearestNeighbors
from units import alone

from xception_cli.evaluation.calibration import (
    calibrate,
    calibration_line,
    fit_temperature,
    unknown_line,
)
from xception_cli.evaluation.confidence import (
    best_guesses,
    calibration_error,
    coverage_curve,
    reliability,
)
from xception_cli.evaluation.files import coverage_csv
from xception_cli.evaluation.intervals import proportion_interval
from xception_cli.evaluation.plots import draw_calibration
from xception_cli.evaluation.thresholds import (
    confidence_threshold,
    distance_threshold,
    images_needed,
)
from xception_cli.model.unknown import NEIGHBOURS, UNLIKE, UNSURE, Reference, UnknownRule, remember


def drawn(images: int, *, seed: int = 0, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits that are `sharpness` times too large for their accuracy."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (images, 4))
    labels = np.array([generator.choice(4, p=row) for row in softmax(logits, axis=1)])
    return (sharpness * logits).astype(np.float32), labels


def features(count: int, place: int, seed: int) -> np.ndarray:
    """Draw features of one kind of image: some channels are active, the others hardly."""
    found = np.abs(np.random.default_rng(seed).normal(0, 0.2, (count, 2048)))
    found[:, place * 300 : place * 300 + 300] += 1
    return found.astype(np.float32)


def test_the_temperature_is_the_factor_that_sharpened_the_logits():
    logits, labels = drawn(4000)
    assert fit_temperature(logits, labels) == pytest.approx(3, rel=0.08)
    assert fit_temperature(logits / 6, labels) == pytest.approx(0.5, rel=0.08)
    assert fit_temperature(logits, np.roll(labels, 1)) > 10  # the control: nothing is certain


def test_a_temperature_fitted_on_one_half_calibrates_the_other():
    logits, labels = drawn(400)
    temperature = fit_temperature(logits[:200], labels[:200])
    before, after = softmax(logits[200:], axis=1), softmax(logits[200:] / temperature, axis=1)
    errors = [calibration_error(*best_guesses(p, labels[200:])) for p in (before, after)]
    assert errors[1] < 0.6 * errors[0]
    every = np.arange(4)
    assert log_loss(labels[200:], after, labels=every) < log_loss(
        labels[200:], before, labels=every
    )
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()


@pytest.mark.parametrize("count", [1, 20])
def test_a_split_without_a_mistake_does_not_make_the_model_overconfident(count: int):
    logits = np.eye(3)[np.arange(count) % 3] * 2
    temperature = fit_temperature(logits, np.arange(count) % 3)
    assert temperature > 0.3
    assert softmax(logits / temperature, axis=1).max() < 0.995


def test_the_calibration_error_equals_a_calculation_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.91, 0.09], [0.4, 0.6], [0.35, 0.65]])
    # one bin has 0.9 and 0.91, one correct; 0.6 and 0.65 are in the bins from 9 and 9 15ths
    labels = np.array([0, 1, 1, 1])
    guesses = best_guesses(probabilities, labels)
    bins = [(entry.images, entry.accuracy) for entry in reliability(*guesses)]
    assert bins == [(2, 1.0), (2, 0.5)]
    expected = (2 * abs(0.625 - 1) + 2 * abs(0.905 - 0.5)) / 4
    assert calibration_error(*guesses) == pytest.approx(expected)
    assert calibration_error(*best_guesses(np.eye(2)[labels], labels)) == 0


def test_the_coverage_curve_counts_equal_confidences_together():
    confidences = np.array([0.5, 0.9, 0.7, 0.7])
    right = np.array([False, True, True, False])
    thresholds, coverage, precision = coverage_curve(confidences, right)
    assert thresholds.tolist() == [0.9, 0.7, 0.5]
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert precision == pytest.approx([1, 2 / 3, 0.5])


def test_the_distance_threshold_accepts_95_percent_of_new_images_like_val():
    generator = np.random.default_rng(0)
    kept = []
    for _ in range(300):
        distances = generator.exponential(1, 60)
        kept.append(np.exp(-distance_threshold(distances)))
    assert 0.94 <= 1 - np.mean(kept) <= 0.97
    assert distance_threshold(np.array([0.25])) == pytest.approx(0.25, rel=0.002)


def cosines_of(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return 1 - unit @ unit.T


def test_the_distance_separates_images_unlike_the_training_images():
    train = np.concatenate([features(20, 0, 1), features(20, 1, 2)])
    reference = remember(train, np.repeat([0, 1], 20))
    like, unlike = reference.distances(features(20, 1, 3)), reference.distances(features(20, 4, 4))
    assert like.max() < unlike.min()
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(train)
    cosines, _ = neighbours.kneighbors(features(20, 1, 3))
    assert like == pytest.approx(cosines.mean(axis=1), abs=1e-3)  # levels are rounded
    assert like != pytest.approx(cosines[:, 0], abs=1e-3)
    assert reference.distances(5 * features(20, 1, 3)) == pytest.approx(like, abs=1e-5)
    few = remember(train[:2], np.array([0, 0]))
    assert few.distances(train[:2]) == pytest.approx(cosines_of(train[:2]).mean(axis=1), abs=1e-3)
    again = Reference.from_dict(reference.to_dict(), 2048)
    assert np.array_equal(again.levels, reference.levels)
    with pytest.raises(ValueError):
        Reference.from_dict({"levels": "AAAA"}, 2048)
    with pytest.raises(ValueError):
        Reference.from_dict({"levels": ""}, 2048)


def test_each_class_has_the_same_number_of_reference_images():
    labels = np.repeat([0, 1, 2], [900, 300, 7])
    reference = remember(np.abs(np.random.default_rng(0).normal(size=(1207, 8))), labels)
    assert len(reference.levels) == 166 + 166 + 7


def rule_of(*, seed: int = 0, target: float = 0.7, candidates: int = 1):
    logits, labels = drawn(200, seed=seed)
    train = np.concatenate([features(40, place, place) for place in range(4)])
    val = np.concatenate([features(50, place, 9 + place) for place in range(4)])
    return calibrate(
        logits=logits, labels=labels, units=alone(labels), features=val, train_features=train,
        train_labels=np.repeat(np.arange(4), 40), target_precision=target,
        candidates=candidates, seed=0,
    ), val  # fmt: skip


def test_the_rule_rejects_uncertain_or_unlike_images_and_reaches_its_precision_on_val():
    calibration, val = rule_of()
    assert calibration.to_dict() == rule_of()[0].to_dict()  # it is deterministic
    rule = calibration.unknown
    assert calibration.error_after < calibration.error_before
    assert calibration.precision > 0.7
    assert 0.05 < calibration.coverage < 0.95
    thresholds, near = rule.thresholds, rule.reference.distances(val[:1])[0]
    (far,) = rule.reference.distances(features(1, 5, 77))
    assert thresholds.judge(0.99, near) is None
    assert thresholds.judge(thresholds.confidence - 0.01, near) == UNSURE
    assert thresholds.judge(0.99, far) == UNLIKE
    without = replace(thresholds, confidence=None)  # the distance is still used
    assert without.judge(0.01, near) is None
    assert without.judge(1.0, far) == UNLIKE
    again = UnknownRule.from_dict(rule.to_dict(), 2048)
    assert again.to_dict() == rule.to_dict()
    assert f"temperature {calibration.temperature:.3g}, " in calibration_line(calibration)
    assert unknown_line(calibration) == (
        f"with --unknown auto, {calibration.coverage:.1%} of validation images get an answer; of "
        "such answers on new images, at least 70% are correct (90% confidence)"
    )


def test_the_line_of_a_temperature_of_1_gives_the_reason():
    calibration = replace(rule_of(target=0.8)[0], temperature=1.0, error_before=0.04)

    def line(fitted: float, after: float) -> str:
        return calibration_line(replace(calibration, fitted=fitted, error_after=after))

    assert line(0.967, 0.05) == (
        "temperature 1, because 0.967 would make it worse: ECE 0.040 -> 0.050 (cross-validated)"
    )
    assert line(0.967, 0.03) == (
        "temperature 1, because 0.967 would not lower the log loss (cross-validated); ECE 0.040"
    )
    assert line(0.9998, 0.05) == "temperature 1, as fitted; ECE 0.040"


def test_a_precision_that_val_cannot_prove_leaves_only_the_distance_threshold():
    calibration, val = rule_of(target=0.8)
    rule = calibration.unknown
    assert rule.thresholds.confidence is None
    assert calibration.needed is None  # there are enough images, but accuracy is too low
    assert unknown_line(calibration) == (
        "--unknown auto refuses only images unlike the training images; no confidence threshold "
        "guarantees 80% precision (90% confidence)"
    )
    few = rule_of(target=0.99)[0]
    assert few.needed == 241
    assert unknown_line(few).endswith("takes at least 241 validation images, not 200")
    assert rule.thresholds.judge(0.01, *rule.reference.distances(val[:1])) is None
    assert rule_of(target=1.0)[0].needed is None


def test_with_many_candidates_a_threshold_is_stricter_or_needs_more_images():
    alone_, many = (
        rule_of(target=0.65, candidates=count)[0].unknown.thresholds.confidence for count in (1, 13)
    )
    assert many is None or many > alone_ > 0
    assert rule_of(target=0.99, candidates=13)[0].needed == 509


def test_as_many_images_as_are_needed_are_enough_although_some_are_unlike_the_training_images():
    def judge(count: int) -> tuple[float | None, int | None]:
        distances = np.arange(1.0, count + 1)
        near = distances <= distance_threshold(distances)
        right = np.ones(near.sum(), dtype=bool)
        confidences = np.linspace(0.6, 0.9, len(right))
        return (
            confidence_threshold(confidences, right, 0.98, alone(right)),
            images_needed(right, 0.98, alone(right)),
        )

    assert judge(19) == judge(114) == judge(117) == (None, 118)
    assert judge(118) == (0.0, None)


def test_a_threshold_close_to_1_is_not_rounded_past_a_confidence():
    """Six digits would give 0.999998, which the wrong answers reach, too."""
    confidences = np.repeat([0.9999984, 0.9999981], [200, 100])
    right = confidences > 0.9999982
    found = confidence_threshold(confidences, right, 0.98, alone(right))
    assert ((confidences >= found) == right).all()
    far = np.where(right, 0.9, 0.7)
    assert confidence_threshold(far, right, 0.98, alone(right)) == 0.8


def test_one_val_image_is_calibrated():
    calibration = calibrate(
        logits=np.array([[1.0, 2.0]]), labels=np.array([0]), units=alone([0]),
        features=features(1, 0, 1),
        train_features=features(2, 0, 2), train_labels=np.array([0, 1]),
        target_precision=0.98, candidates=1, seed=0,
    )  # fmt: skip
    assert calibration.error_after is None
    assert (calibration.temperature, calibration.coverage, calibration.precision) == (1, 1, 0)


def test_coverage_plot_and_table_are_equal_only_for_equal_numbers():
    logits, labels = drawn(60)
    confidences, right = best_guesses(softmax(logits, axis=1), labels)
    units = alone(labels)
    image = draw_calibration(confidences, right, units)
    assert image == draw_calibration(confidences, right, units)
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30}):  # as in a matplotlibrc
        assert image == draw_calibration(confidences, right, units)
    assert image != draw_calibration(confidences[::-1], right, units)
    assert image != draw_calibration(confidences, right, np.arange(60) // 3)
    two = coverage_csv(np.array([0.9, 0.6]), np.array([True, False]), alone([0, 1])).decode()
    assert two.splitlines()[:2] == [
        "threshold,coverage,precision,precision_low,precision_high",
        "0.9,0.5,1,0.206549,1",
    ]
    assert draw_calibration(np.array([0.9]), np.array([False]), alone([1]))  # one image


@pytest.mark.parametrize("size", [1, 3, 20])
def test_if_every_image_is_answered_the_interval_of_the_precision_is_that_of_the_accuracy(size):
    logits, labels = drawn(60)
    confidences, right = best_guesses(softmax(logits, axis=1), labels)
    units = np.arange(60) // size
    last = coverage_csv(confidences, right, units).decode().splitlines()[-1]
    ends = proportion_interval(right, units)
    assert last.split(",")[1:] == ["1", *(f"{number:.6g}" for number in (right.mean(), *ends))]
