"""Intervals: nominal coverage, and resampled metrics that equal scikit-learn's."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    matthews_corrcoef,
)
from units import alone

from xception_cli.data.inspection import content_digest
from xception_cli.data.photo import Photo
from xception_cli.data.units import assign_units, have_groups
from xception_cli.evaluation import resampling
from xception_cli.evaluation.confidence import calibration_error
from xception_cli.evaluation.intervals import (
    design_effect,
    evidence,
    proportion_interval,
    scaled_interval,
    scaled_intervals,
    wilson_interval,
)
from xception_cli.evaluation.resampling import average_precision_draws, percentile_interval, tally

ACCURACIES = (0.9, 0.92, 0.94, 0.96, 0.98)


def drawn(images: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw labels of all but the last class, coarse probabilities (many are equal), predictions."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes - 1, images)
    logits = generator.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += 1.5
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1)
    return labels, probabilities, logits.argmax(axis=1)


@pytest.mark.parametrize("n", [100, 500])
@pytest.mark.parametrize("accuracy", ACCURACIES)
def test_wilsons_interval_has_its_nominal_coverage(n: int, accuracy: float):
    ends = np.array([wilson_interval(k, n) for k in range(n + 1)])
    covers = (ends[:, 0] <= accuracy) & (accuracy <= ends[:, 1])
    # exactly, from the binomial distribution, and in 1000 samples
    assert 0.93 <= binom.pmf(np.arange(n + 1), n, accuracy)[covers].sum() <= 0.97
    correct = np.random.default_rng(1).binomial(n, accuracy, 1000)
    assert 0.92 <= covers[correct].mean() <= 0.98
    naive = np.sqrt(accuracy * (1 - accuracy) / n)  # one standard error: the control
    assert (np.abs(correct / n - accuracy) <= naive).mean() < 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "accuracy"), [(12, 0.92), (12, 0.8), (3, 0.95)])
def test_the_bootstrap_covers_the_true_macro_f1_of_500_images(classes: int, accuracy: float):
    generator = np.random.default_rng(1)
    wrong = generator.dirichlet(np.ones(classes) / 2, size=classes)
    np.fill_diagonal(wrong, 0)
    wrong /= wrong.sum(axis=1, keepdims=True)
    right = np.clip(accuracy + generator.normal(0, 0.03, classes), 0.5, 0.995)
    joint = (wrong * (1 - right)[:, None] + np.diag(right)) / classes
    truth = np.mean(2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1)))
    covered = 0
    for _ in range(400):
        cells = generator.choice(classes**2, size=500, p=joint.ravel())
        tallies = tally(
            cells // classes, cells % classes, np.zeros(500), alone(cells // classes), classes
        )
        low, high = percentile_interval(tallies.macro_f1)
        covered += low <= truth <= high
    print(f"\n{classes} classes, accuracy {accuracy}: covered {covered / 400:.1%}")
    assert 0.91 <= covered / 400 <= 0.98


@pytest.mark.parametrize("images", [100, 500])
def test_the_calibration_error_has_no_interval_because_its_bootstrap_does_not_cover(
    images: int,
):
    generator, covered, errors = np.random.default_rng(1), {0: 0, 0.1: 0}, []
    for gap in covered:
        for _ in range(100):
            # confident like a good model, and as accurate as its confidence, or less by the gap
            confidences = 0.1 + 0.9 * generator.beta(5, 0.8, images)
            right = generator.random(images) < np.clip(confidences - gap, 0, 1)
            draws = []
            for _ in range(100):
                drawn_ = generator.integers(0, images, images)
                draws.append(calibration_error(confidences[drawn_], right[drawn_]))
            low, high = np.quantile(draws, (0.025, 0.975))
            covered[gap] += low <= gap <= high
            errors += [calibration_error(confidences, right)] if gap == 0 else []
    print(f"\n{images} images: calibrated, error {np.mean(errors):.3f}, covered {covered}")
    assert covered[0] < 10  # of 100
    assert covered[0.1] > 60  # far from 0, chance adds less


def test_the_bootstrap_of_five_images_does_not_cover_the_true_log_loss():
    generator = np.random.default_rng(1)

    def losses(images: int) -> np.ndarray:
        confidences = 0.1 + 0.9 * generator.beta(5, 0.8, images)  # of two classes, calibrated
        right = generator.random(images) < confidences
        return -np.log(np.where(right, confidences, 1 - confidences))

    truth, covered = losses(1_000_000).mean(), {5: 0, 200: 0}
    for images in covered:
        same = np.zeros(images, dtype=int)
        for _ in range(200):
            draws = tally(same, same, losses(images), np.arange(images), 2).log_loss
            low, high = percentile_interval(draws)
            covered[images] += int(low <= truth <= high)
    print(f"\nlog loss {truth:.3f}, covered {covered} of 200")
    assert covered[5] < 150 < 180 < covered[200]


def test_the_metrics_of_each_resample_equal_scikit_learns():
    labels, probabilities, guesses = drawn(60, 4)
    losses = np.random.default_rng(1).random(60)
    tallies = tally(labels, guesses, losses, alone(labels), 4)
    ranked = average_precision_draws(labels, probabilities, np.ones(60), alone(labels))
    weights = np.concatenate(list(resampling.unit_weights(alone(labels), resampling.RESAMPLES)))
    assert weights.shape == (1000, 60)
    assert set(weights.sum(axis=1)) == {60}
    for draw in (0, 1, 999):
        of = {"sample_weight": weights[draw]}
        f1 = f1_score(labels, guesses, average=None, labels=[0, 1, 2, 3], zero_division=0, **of)
        assert tallies.f1[draw, :3] == pytest.approx(f1[:3])
        assert np.isnan(tallies.f1[draw, 3])  # it has no images
        assert tallies.macro_f1[draw] == pytest.approx(f1[:3].mean())
        weighted = f1_score(labels, guesses, average="weighted", zero_division=0, **of)
        assert tallies.weighted_f1[draw] == pytest.approx(weighted)
        assert tallies.cohen_kappa[draw] == pytest.approx(cohen_kappa_score(labels, guesses, **of))
        assert tallies.matthews[draw] == pytest.approx(matthews_corrcoef(labels, guesses, **of))
        assert tallies.log_loss[draw] == pytest.approx(np.average(losses, weights=weights[draw]))
        for label in range(3):
            average = average_precision_score(labels == label, probabilities[:, label], **of)
            assert ranked[draw, label] == pytest.approx(average)
    assert tallies.macro_f1[0] != pytest.approx(tallies.macro_f1[1])  # the control
    assert np.isnan(ranked[:, 3]).all()


def test_resampling_in_chunks_gives_the_same_resamples(monkeypatch: pytest.MonkeyPatch):
    labels, _, guesses = drawn(60, 4)
    whole = tally(labels, guesses, np.ones(60), alone(labels), 4)
    monkeypatch.setattr(resampling, "_CHUNK", 600)  # ten resamples at a time
    pieces = tally(labels, guesses, np.ones(60), alone(labels), 4)
    assert np.array_equal(pieces.right, whole.right)
    assert np.array_equal(pieces.guessed, whole.guessed)


def test_there_is_no_interval_if_all_resamples_are_equal():
    assert percentile_interval(np.ones(1000)) is None  # every image was correct
    assert percentile_interval(np.full(1000, np.nan)) is None
    assert percentile_interval(np.zeros(0)) is None
    low, high = percentile_interval(np.linspace(0, 1, 1001))
    assert (low, high) == pytest.approx((0.025, 0.975))


def test_too_many_images_and_classes_have_no_bootstrap_of_average_precision():
    ones, units = np.ones((600, 1000)), alone(range(600))
    assert len(average_precision_draws(np.zeros(600, int), ones, ones[:, 0], units)) == 0


def test_intervals_of_many_proportions_are_those_of_each_and_of_scipy():
    images = np.arange(1, 90)
    shares = np.minimum(np.arange(1, 90) % 7, images) / images
    for effect in (1.0, 2.5):
        ends = np.stack(scaled_intervals(shares, images, effect), axis=1)
        expected = [scaled_interval(*pair, effect) for pair in zip(shares, images, strict=True)]
        np.testing.assert_allclose(ends, expected, rtol=0, atol=1e-15)
    for successes, trials in ((0, 3), (3, 3), (43, 84), (1, 2), (199, 1000)):
        exact = binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson_interval(successes, trials) == (exact.low, exact.high)


# Units


def test_if_each_image_is_a_unit_the_interval_is_wilsons():
    hits = np.arange(89) % 7 > 0
    assert proportion_interval(hits, alone(hits)) == wilson_interval(int(hits.sum()), 89)
    assert design_effect(hits, alone(hits)) == 1.0


def test_whole_groups_count_as_one_image_each_and_mixed_groups_as_more():
    units = np.repeat(np.arange(30), 6)
    whole = np.repeat(np.arange(30) % 3 > 0, 6)
    mixed = np.tile(np.arange(6) % 3 > 0, 30)
    assert design_effect(whole, units) == pytest.approx(6, rel=0.1)
    assert design_effect(mixed, units) < 1.3  # not under 1: a value below random is not used
    low, high = proportion_interval(whole, units)
    few_low, few_high = wilson_interval(20, 30)
    assert high - low == pytest.approx(few_high - few_low, rel=0.1)
    assert low < whole.mean() < high
    plain = wilson_interval(120, 180)
    assert high - low > 2 * (plain[1] - plain[0])


@pytest.mark.parametrize("right", [False, True])
def test_groups_of_copies_have_an_interval_about_as_wide_as_one_image_per_group(
    right,
):
    hits, units = np.full(84, right), np.repeat(np.arange(14), 6)
    low, high = proportion_interval(hits, units)
    few = wilson_interval(14 * right, 14)
    assert (low, high) == (pytest.approx(few[0], abs=0.06), pytest.approx(few[1], abs=0.06))
    plain = wilson_interval(84 * right, 84)
    assert high - low > 2 * (plain[1] - plain[0])


def test_a_single_unit_gives_a_very_wide_interval():
    low, high = proportion_interval(np.arange(20) % 5 > 0, np.zeros(20))
    assert high - low > 0.9


def test_resamples_take_whole_units_and_equal_image_resamples_for_single_images():
    units = np.repeat(np.arange(10), 3)
    drawn_weights = np.concatenate(list(resampling.unit_weights(units, 50)))
    assert (drawn_weights.reshape(50, 10, 3) == drawn_weights[:, ::3, None]).all()
    assert (drawn_weights[:, ::3].sum(axis=1) == 10).all()
    single = np.concatenate(list(resampling.unit_weights(alone(range(30)), 50)))
    expected = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=50)
    assert np.array_equal(single, expected)


def test_the_evidence_counts_groups_or_independent_images_if_there_are_fewer():
    assert evidence(43, 84, 14) == "43 of 84 images, 14 groups"
    assert evidence(1043, 2084, 2084) == "1,043 of 2,084 images"
    assert evidence(3, 4, 1) == "3 of 4 images, 1 group"
    assert evidence(98, 101, 100, grouped=False) == "98 of 101 images, 100 independent"
    digests = [content_digest(content) for content in (b"one", b"one", b"other")]
    photos, _ = assign_units([Photo(f"{n}.jpg", 0, digest=d) for n, d in enumerate(digests)])
    assert not have_groups([photo.unit for photo in photos])
    assert have_groups([photos[0].unit, "patient 1"])
