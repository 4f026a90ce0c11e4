"""Simulations of the coverage of intervals and guarantees, each with a control that fails."""

import numpy as np
import pytest
from scipy.stats import norm
from units import alone

from xception_cli.evaluation.candidates import Candidates
from xception_cli.evaluation.confidence import coverage_curve
from xception_cli.evaluation.correction import correct_for_selection
from xception_cli.evaluation.intervals import macro_interval, proportion_interval
from xception_cli.evaluation.resampling import percentile_interval, tally
from xception_cli.evaluation.thresholds import confidence_threshold

pytestmark = pytest.mark.slow


def clustered(generator, *, groups: int, size, icc: float, accuracy: float):
    """Draw hits of images whose groups differ: beta-binomial, with an intra-cluster correlation.

    `size` is the size of each group, or of all of them.
    """
    spread = 1 / icc - 1
    shares = generator.beta(accuracy * spread, (1 - accuracy) * spread, groups)
    units = np.repeat(np.arange(groups), size)
    return generator.random(len(units)) < shares[units], units


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.9])
def test_the_interval_by_units_covers_the_truth_and_one_by_images_does_not(
    accuracy,
):
    generator = np.random.default_rng(0)
    by_unit, by_image = [], []
    for _ in range(2000):
        hits, units = clustered(generator, groups=30, size=6, icc=0.8, accuracy=accuracy)
        for covered, names in ((by_unit, units), (by_image, np.arange(len(units)))):
            low, high = proportion_interval(hits, names)
            covered.append(low <= accuracy <= high)
    print(f"30 groups of 6, accuracy {accuracy}: {np.mean(by_unit):.1%}, {np.mean(by_image):.1%}")
    assert 0.93 <= np.mean(by_unit) <= 0.97
    assert np.mean(by_image) < 0.8


@pytest.mark.parametrize("sizes", [[40] * 3 + [1] * 30, [100] + [1] * 40, [1] * 150 + [6] * 10])
@pytest.mark.parametrize("accuracy", [0.7, 0.9])
def test_the_interval_covers_the_truth_if_a_few_units_have_most_images(sizes, accuracy):
    generator = np.random.default_rng(4)
    covered = []
    for _ in range(500):
        hits, units = clustered(
            generator, groups=len(sizes), size=sizes, icc=0.8, accuracy=accuracy
        )
        low, high = proportion_interval(hits, units)
        covered.append(low <= accuracy <= high)
    print(f"{len(sizes)} groups of {min(sizes)} to {max(sizes)}: {np.mean(covered):.1%}")
    assert np.mean(covered) >= 0.93


def test_the_interval_of_macro_recall_covers_the_truth_and_one_by_images_does_not():
    generator = np.random.default_rng(1)
    by_unit, by_image = [], []
    for _ in range(2000):
        hits, units = clustered(generator, groups=60, size=6, icc=0.8, accuracy=0.8)
        labels = units % 2
        for covered, names in ((by_unit, units), (by_image, np.arange(len(units)))):
            low, high = macro_interval(hits, labels, names)
            covered.append(low <= 0.8 <= high)
    print(f"60 groups of 6: {np.mean(by_unit):.1%}, {np.mean(by_image):.1%}")
    assert 0.93 <= np.mean(by_unit) <= 0.97
    assert np.mean(by_image) < 0.8


@pytest.mark.parametrize(
    ("sizes", "recalls"),
    [
        ([1, 15, 6, 5, 30], [0.1, 0.8, 0.9, 0.4, 0.95]),
        ([1, 15, 6, 5, 30], [0.5, 0.8, 0.9, 0.4, 0.95]),
        ([1, 1, 15, 30], [0.5, 0.5, 0.8, 0.95]),
        ([3, 15, 6, 5, 30], [0.5, 0.8, 0.9, 0.4, 0.95]),
        ([8] * 12, [0.92] * 12),
    ],
)
def test_the_interval_of_macro_recall_covers_the_truth_if_a_class_is_rare(sizes, recalls):
    generator, labels = np.random.default_rng(2), np.repeat(np.arange(len(sizes)), sizes)
    units, truth = np.arange(len(labels)), np.mean(recalls)
    covered, bootstrap = [], []
    for number in range(2000):
        hits = generator.random(len(labels)) < np.take(recalls, labels)
        low, high = macro_interval(hits, labels, units)
        covered.append(low <= truth <= high)
        if number < 200:  # the control: resamples, the recalls of the classes that they have
            tallies = tally(
                labels, np.where(hits, labels, (labels + 1) % len(sizes)), units, units, len(sizes)
            )
            known = np.where(tallies.true > 0, tallies.right / np.maximum(tallies.true, 1), np.nan)
            low, high = percentile_interval(np.nanmean(known, axis=1)) or (1.0, 0.0)
            bootstrap.append(low <= truth <= high)
    print(f"{sizes}, {recalls}: {np.mean(covered):.1%}, bootstrap {np.mean(bootstrap):.1%}")
    assert np.mean(covered) >= 0.93
    if min(sizes) == 1:
        assert np.mean(bootstrap) < 0.92


def candidates_of(generator, images: int):
    """Draw 13 models of similar accuracy with correlated answers: 12 epochs and a probe."""
    spread = generator.uniform(0.01, 0.02)  # of their accuracies; it affects the coverage
    accuracies = np.clip(0.8 + spread * generator.standard_normal(13), 0, 1)
    common, own = generator.standard_normal((1, images)), generator.standard_normal((13, images))
    margins = norm.ppf(accuracies)[:, None] + np.sqrt(0.7) * common + np.sqrt(0.3) * own
    losses = np.log1p(np.exp(-2 * margins)).astype(np.float32)
    return Candidates(np.arange(13), (margins < 0).astype(np.uint16), losses), accuracies


@pytest.mark.parametrize("images", [89, 200, 500])
def test_only_the_corrected_interval_of_the_best_of_13_covers_the_truth(
    images,
):
    generator = np.random.default_rng(2)
    labels = np.zeros(images, np.int64)
    corrected, plain, bias = [], [], []
    for _ in range(400):
        candidates, accuracies = candidates_of(generator, images)
        hits = candidates.predicted == 0
        keys = list(zip(hits.mean(axis=1), -candidates.losses.mean(axis=1), strict=True))
        best = max(range(13), key=keys.__getitem__)
        found = correct_for_selection(candidates, labels, alone(labels), monitor="accuracy")
        corrected.append(found.accuracy.low <= accuracies[best] <= found.accuracy.high)
        low, high = proportion_interval(hits[best], alone(labels))
        plain.append(low <= accuracies[best] <= high)
        bias.append((found.accuracy.value - accuracies[best], hits[best].mean() - accuracies[best]))
    assert 0.93 <= np.mean(corrected) <= 0.97
    assert np.mean(plain) < 0.92
    after, before = np.mean(bias, axis=0)
    print(f"{images} images: corrected {np.mean(corrected):.1%}, bias {after:+.2%}; ", end="")
    print(f"plain {np.mean(plain):.1%}, bias {before:+.2%}")
    assert abs(after) < 0.006
    assert before > 0.012


def lowest_empirical(confidences, right, target: float) -> float | None:
    """Choose the lowest threshold whose empirical precision is sufficient: the control."""
    thresholds, _, precision = coverage_curve(confidences, right)
    enough = np.flatnonzero(precision >= target)
    return float(thresholds[enough[-1]]) if len(enough) else None


# Validation images, and the least share of images that a threshold answers on average.
@pytest.mark.parametrize(("images", "answered"), [(200, 0.01), (500, 0.1), (2000, 0.2)])
def test_unknown_auto_reaches_its_precision_on_new_images_nine_times_out_of_ten(images, answered):
    generator = np.random.default_rng(3)
    many, target = 300_000, 0.98
    chances = generator.beta(6, 0.6, many)  # a model that is correct on 91% of the images
    confidences = chances**0.7 * 0.98 + 0.02 * generator.random(many)
    right = generator.random(many) < chances
    order = np.argsort(-confidences)
    precisions = chances[order].cumsum() / np.arange(1, many + 1)
    kept, control, coverage = [], [], []
    for _ in range(300):
        some = generator.integers(0, many, images)
        found = confidence_threshold(confidences[some], right[some], target, alone(some))
        plain = lowest_empirical(confidences[some], right[some], target)
        for threshold, result in ((found, kept), (plain, control)):
            count = 0 if threshold is None else int((confidences >= threshold).sum())
            result.append(count == 0 or precisions[count - 1] >= target)
        coverage.append(0 if found is None else (confidences >= found).mean())
    print(f"{images} images: target reached in {np.mean(kept):.1%}, ", end="")
    print(f"answers {np.mean(coverage):.1%}; control {np.mean(control):.1%}")
    assert np.mean(kept) >= 0.9
    assert np.mean(control) < 0.6
    assert np.mean(coverage) >= answered


@pytest.mark.parametrize(("images", "target"), [(1000, 0.95), (1000, 0.9), (500, 0.9)])
def test_the_best_of_13_models_reaches_the_precision_only_if_their_number_is_given(images, target):
    generator = np.random.default_rng(6)
    many = 100_000
    kept, control = [], []
    for _ in range(200):
        common, own = generator.standard_normal(images), generator.standard_normal((13, images))
        chances = norm.cdf(1.0 + 1.3 * np.sort(common))  # those of one model: all are equally good
        confidences = chances + 1e-6 * generator.random(images)
        outcome = np.sqrt(0.7) * generator.standard_normal(images) + np.sqrt(0.3) * own
        hits = norm.cdf(outcome) < chances
        best = hits[hits.mean(axis=1).argmax()]
        exact = norm.cdf(1.0 + 1.3 * generator.standard_normal(many))
        for candidates, result in ((13, kept), (1, control)):
            found = confidence_threshold(confidences, best, target, alone(best), candidates)
            answered = exact[exact >= found] if found is not None else np.zeros(0)
            result.append(not len(answered) or answered.mean() >= target)
    print(f"best of 13, {images} images, {target}: {np.mean(kept):.1%}; {np.mean(control):.1%}")
    assert np.mean(kept) >= 0.9
    assert np.mean(control) < 0.9
