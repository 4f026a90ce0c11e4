"""The linear probe: equal to scikit-learn's logistic regression, but faster; and unbiased."""

import numpy as np
import pytest
import torch
from networks import drawn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from units import alone

from xception_cli.data.units import unit_folds
from xception_cli.evaluation.intervals import proportion_interval
from xception_cli.model import probe as probes
from xception_cli.model.logistic import fit, new_model
from xception_cli.model.network import FEATURES, build_seeded_network
from xception_cli.model.probe import count_fitted, cross_validate, fit_head, fit_probe


def scaled(features: np.ndarray) -> np.ndarray:
    return (features - features.mean(0)) / features.std()


# Equal to scikit-learn


@pytest.mark.parametrize(
    ("count", "width", "classes"), [(45, FEATURES, 3), (40, FEATURES, 2), (120, 30, 4), (90, 20, 2)]
)
def test_the_logits_are_those_of_scikit_learn_on_the_same_features(count, width, classes):
    features, labels = drawn(count, width, classes, distance=0.15)
    found = fit_probe(features, labels, alone(labels), class_count=classes, seed=0)
    reference = LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8)
    reference.fit(scaled(features).astype(np.float64), labels)
    new, _ = drawn(50, width, classes, distance=0.15, seed=9)
    new_scaled = (new - features.mean(0)) / features.std()
    expected = reference.decision_function(new_scaled)
    logits = found.logits(new).double().numpy()
    if classes == 2:  # scikit-learn returns the difference of the two
        logits = logits[:, 1] - logits[:, 0]
    else:
        expected, logits = (v - v.mean(1, keepdims=True) for v in (expected, logits))
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())
    assert np.abs(logits - expected[::-1]).max() > 0.5 * np.abs(expected).max()
    probabilities = torch.softmax(found.logits(new), 1).numpy()
    np.testing.assert_allclose(probabilities, reference.predict_proba(new_scaled), atol=0.01)


def test_the_strength_is_the_best_in_cross_validation_and_its_hits_are_counted():
    features, labels = drawn(90, 100, 3, distance=0.2)
    labels = np.where(np.arange(90) % 7 == 0, 0, labels)
    found = fit_probe(features, labels, alone(labels), class_count=3, seed=4)
    order = np.random.default_rng(4).permutation(90)
    values, targets = scaled(features)[order], labels[order]
    folds = StratifiedKFold(5, shuffle=True, random_state=4)
    hits, losses = {}, {}
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        model = LogisticRegression(C=strength, max_iter=1000)
        likely = cross_val_predict(model, values, targets, cv=folds, method="predict_proba")
        hits[strength] = int((likely.argmax(1) == targets).sum())
        losses[strength] = log_loss(targets, likely)
    assert len(set(hits.values())) > 2  # otherwise there is nothing to choose
    assert found.strength == min(losses, key=losses.get)
    assert found.hits.sum() == hits[found.strength]
    assert (found.tested.sum(), found.folds) == (90, 5)


def test_strengths_beyond_the_edge_are_tried_if_the_best_one_is_at_the_edge():
    features, labels = drawn(90, 20, 3, distance=3.0)
    how = {"class_count": 3, "seed": 0}
    found = fit_probe(features, labels, alone(labels), **how)
    assert found.strength in {10.0, 100.0}
    at_edge = cross_validate(features, labels, alone(labels), **how, strength=1.0)[0]
    losses = [-rows[np.arange(90), labels].mean() for rows in (found.held_out, at_edge)]
    assert losses[0] < losses[1]
    tried = [1e-4, 1e-2, 1.0]
    assert [probes._beyond(tried, best) for best in tried] == [1e-5, None, 10.0]
    assert [probes._beyond([1e-6, 100.0], best) for best in (1e-6, 100.0)] == [None, None]


def test_the_probe_is_the_head_of_the_network():
    features, labels = drawn(30, FEATURES, 3, distance=0.5)
    found = fit_probe(features, labels, alone(labels), class_count=3, seed=0)
    head = build_seeded_network(3, 0).last_linear
    head.load_state_dict({"weight": found.weight, "bias": found.bias})
    with torch.no_grad():
        expected = head(torch.from_numpy(features))
    torch.testing.assert_close(found.logits(features), expected)
    assert (found.logits(features).argmax(1).numpy() == labels).all()


# It learns, but not noise


def test_separable_classes_are_learned_and_shuffled_labels_are_not():
    features, labels = drawn(300, 20, 3, distance=3.0)
    found = fit_probe(features, labels, alone(labels), class_count=3, seed=0)
    assert found.hits.sum() == found.tested.sum() == 300
    shuffled = np.random.default_rng(1).permutation(labels)
    chance = fit_probe(features, shuffled, alone(shuffled), class_count=3, seed=0)
    assert 0.2 < chance.hits.mean() < 0.45


@pytest.mark.parametrize("classes", [2, 3])
def test_fitting_a_probe_is_reproducible(classes):
    features, labels = drawn(60, 100, classes, distance=0.3)
    first, again = (
        fit_probe(features, labels, alone(labels), class_count=classes, seed=7) for _ in range(2)
    )
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    assert (first.strength, first.hits.sum()) == (again.strength, again.hits.sum())
    other = fit_probe(
        features[:-classes],
        labels[:-classes],
        alone(labels[:-classes]),
        class_count=classes,
        seed=7,
    )
    assert not torch.equal(first.weight, other.weight)


# Few images and many images


def test_a_class_of_one_image_is_fitted_and_the_others_are_cross_validated():
    features, labels = drawn(21, 50, 3, distance=2.0)
    labels = np.where(np.arange(21) == 20, 2, labels % 2)
    features[20] += 1.0
    found = fit_probe(features, labels, alone(labels), class_count=3, seed=0)
    assert (found.hits.sum(), found.tested.sum(), found.folds) == (20, 20, 5)
    assert np.isnan(found.held_out[20]).all()
    assert np.isneginf(found.held_out[:20, 2]).all()
    assert found.weight.shape == (3, 50)
    assert found.logits(features)[20].argmax() == 2


def test_two_images_of_a_class_are_held_out_one_at_a_time():
    features, labels = drawn(20, 50, 2, distance=2.0)
    labels = np.where(np.arange(20) < 2, 1, 0)
    features[:2] += 1.0
    found = fit_probe(features, labels, alone(labels), class_count=2, seed=0)
    assert (found.hits.sum(), found.tested.sum(), found.folds) == (20, 20, 5)


def test_constant_features_are_accepted():
    features = np.full((12, 30), 0.25, dtype=np.float32)
    found = fit_probe(features, np.arange(12) % 3, alone(np.arange(12) % 3), class_count=3, seed=0)
    assert torch.isfinite(found.weight).all()
    np.testing.assert_allclose(torch.softmax(found.logits(features), 1).numpy(), 1 / 3, atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_rare_class_may_be_missing_among_the_images_that_are_cross_validated(
    monkeypatch, classes
):
    monkeypatch.setattr(probes, "LARGEST_SEARCH", 30)
    # Class 0 has 3 images, none of which is among the first 30 sampled with this seed.
    rare = np.random.default_rng(5).permutation(60)[[31, 40, 50]]
    labels = 1 + np.arange(60) % (classes - 1)
    labels[rare] = 0
    generator = np.random.default_rng(2)
    centres = generator.normal(0, 3, (classes, 20))
    features = (centres[labels] + generator.normal(0, 1, (60, 20))).astype(np.float32)
    found = fit_probe(features, labels, alone(labels), class_count=classes, seed=5)
    first = found.logits(features)[:, 0]
    assert first[labels == 0].min() > first[labels != 0].max()
    if classes == 2:  # a single class is left
        assert (found.hits.sum(), found.tested.sum(), found.folds) == (0, 0, 0)
    else:  # the strength is chosen on 30 images, then all are left out once
        assert found.tested.sum() == 60
        assert found.hits.sum() >= 57


# Left-out predictions


def test_held_out_predictions_equal_those_of_scikit_learn():
    features, labels = drawn(90, 30, 3, distance=0.2)
    found = fit_probe(features, labels, alone(labels), class_count=3, seed=4)
    order = np.random.default_rng(4).permutation(90)
    likely = cross_val_predict(
        LogisticRegression(C=found.strength, max_iter=1000),
        scaled(features)[order],
        labels[order],
        cv=StratifiedKFold(5, shuffle=True, random_state=4),
        method="predict_proba",
    )
    np.testing.assert_allclose(np.exp(found.held_out[order]), likely, atol=1e-3)
    fitted = torch.softmax(found.logits(features), 1).numpy()
    assert np.abs(fitted - np.exp(found.held_out)).max() > 0.05  # the control


def test_class_weights_act_like_repeated_images():
    features, labels = drawn(90, 30, 3, distance=0.2)
    labels = np.where(np.arange(90) % 4 == 0, 0, labels)
    twice = np.flatnonzero(labels == 1)
    reference = LogisticRegression(C=1e-2, max_iter=5000, tol=1e-8)
    reference.fit(scaled(features)[[*range(90), *twice]], [*labels, *labels[twice]])
    weights = np.array([1.0, 2.0, 1.0])[labels]
    weight, _ = fit(new_model(), scaled(features), labels, weights, 1e-2, 3)
    np.testing.assert_allclose(weight, reference.coef_, atol=0.02 * np.abs(weight).max())
    plain, _ = fit(new_model(), scaled(features), labels, np.ones(90), 1e-2, 3)
    assert np.abs(weight - plain).max() > 0.05 * np.abs(weight).max()


# Units


def versions(scenes: int, each: int, *, seed: int = 0):
    """Draw versions of scenes with unrelated labels."""
    generator = np.random.default_rng(seed)
    places = generator.normal(0, 1, (scenes, 60)).repeat(each, axis=0)
    features = 0.5 + 0.1 * (places + generator.normal(0, 0.2, places.shape))
    labels = generator.integers(0, 2, scenes).repeat(each)
    units = np.array([f"scene{n}" for n in range(scenes)]).repeat(each)
    return features.astype(np.float32), labels, units


def test_random_labels_of_groups_are_at_chance_only_if_groups_are_kept_whole():
    features, labels, units = versions(60, 3)
    by_unit = fit_probe(features, labels, units, class_count=2, seed=0)
    low, high = proportion_interval(by_unit.hits, units)
    assert low < 0.5 < high
    by_image = fit_probe(features, labels, alone(labels), class_count=2, seed=0)  # the control
    assert by_image.hits.mean() > 0.75


def test_a_class_of_a_single_unit_is_neither_tested_nor_predicted():
    features, labels, units = versions(20, 3)
    labels[:3] = 2
    found = fit_probe(features, labels, units, class_count=3, seed=0)
    assert found.tested.tolist() == [False] * 3 + [True] * 57
    assert np.isneginf(found.held_out[3:, 2]).all()
    assert fit_probe(features, labels, alone(labels), class_count=3, seed=0).tested.all()


def test_there_are_fewer_folds_for_few_units():
    features, _, _ = versions(20, 3)
    labels = (np.arange(60) // 15) % 2  # four runs of scenes
    names = (np.arange(60) // 15).astype(str)
    found = fit_probe(features, labels, names, class_count=2, seed=0)
    assert (found.folds, found.tested.sum()) == (2, 60)


def test_a_fraction_of_the_units_has_whole_units_and_is_part_of_larger_fractions():
    labels = np.repeat([0, 1], 12)
    units = np.arange(24) // 3
    every = np.arange(24)
    half = probes._first_of_each(labels, units, every, 0.5)
    assert sorted(set(units[half].tolist())) == [0, 1, 4, 5]
    assert len(half) == 12
    assert set(half) < set(probes._first_of_each(labels, units, every, 0.75))
    assert len(probes._first_of_each(labels, units, every, 0.01)) == 6


@pytest.mark.parametrize("fraction", [0.12, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [[5, 16, 1], [3, 2, 2], [40, 40, 40]])
def test_the_images_that_a_probe_is_fitted_to_are_counted(sizes: list[int], fraction: float):
    labels = np.repeat([0, 1, 2], sizes)
    units, tested = alone(labels), np.repeat(np.array(sizes) > 1, sizes)
    known, names = labels[tested], units[tested]
    parts = unit_folds(names, folds=min(5, max(sizes)), seed=0, labels=known)
    found = [len(probes._first_of_each(known, names, others, fraction)) for others, _ in parts]
    assert count_fitted(labels, units, 3, fraction) == pytest.approx(np.mean(found), abs=0.6)


# Several views of each image


def test_a_repeated_view_changes_nothing():
    features, labels = drawn(60, 30, 3, distance=0.3)
    once = fit_probe(features, labels, alone(labels), class_count=3, seed=0)
    twice = fit_probe(np.stack([features] * 2), labels, alone(labels), class_count=3, seed=0)
    assert twice.strength == once.strength
    assert (twice.tested.sum(), twice.folds) == (60, 5)
    np.testing.assert_allclose(twice.held_out, once.held_out, atol=0.02)
    logits = [found.logits(features).numpy() for found in (once, twice)]
    np.testing.assert_allclose(*logits, atol=0.02)
    other, _ = drawn(60, 30, 3, distance=0.3, seed=1)
    different = fit_probe(np.stack([features, other]), labels, alone(labels), class_count=3, seed=0)
    assert (different.logits(features) - once.logits(features)).abs().max() > 0.2


def test_the_views_of_an_image_are_never_on_both_sides_of_a_fold():
    features, _ = drawn(120, 100, 2, distance=0.0)
    labels = np.random.default_rng(0).permutation(np.arange(120) % 2)  # nothing to learn
    views = np.stack([features, features + 1e-4])
    found = fit_probe(views, labels, alone(labels), class_count=2, seed=0)
    assert 0.35 < found.hits.mean() < 0.65
    # The control: as separate images, a copy would reveal the label.
    images = np.concatenate(views)
    names = alone(images)
    leaking = fit_probe(images, np.tile(labels, 2), names, class_count=2, seed=0)
    assert leaking.hits.mean() > 0.9


def test_a_head_of_a_given_strength_is_the_probes_own():
    features, labels = drawn(45, 50, 3, distance=0.3)
    probe = fit_probe(features, labels, alone(labels), class_count=3, seed=0)
    weight, bias = fit_head(features, labels, strength=probe.strength, class_count=3)
    assert torch.equal(weight, probe.weight)
    assert torch.equal(bias, probe.bias)
    other, _ = fit_head(features, labels, strength=probe.strength / 10, class_count=3)
    assert other.norm() < weight.norm()


def test_fewer_views_are_used_with_many_images(monkeypatch):
    monkeypatch.setattr(probes, "MOST_ROWS", 130)
    features, labels = drawn(60, 30, 3, distance=0.3)
    views = np.stack([features, features[:, ::-1], np.full_like(features, np.nan)])
    found = fit_probe(views, labels, alone(labels), class_count=3, seed=0)  # the third is not read
    assert torch.isfinite(found.weight).all()
