"""Labels in doubt, and whether more photos would help: on features with a known answer."""

import numpy as np
import pytest
from test_probe import drawn

from xception_cli.check.curve import learning_curve
from xception_cli.check.labels import find_suspects, rank_labels, suspects_problem
from xception_cli.model.probe import fit_probe


def swapped(count: int = 400, part: float = 0.05):
    """Features of four classes, and labels of which some were swapped at random."""
    features, labels = drawn(count, 64, 4, distance=0.4, seed=3)
    generator = np.random.default_rng(8)
    wrong = generator.choice(count, round(part * count), replace=False)
    mixed = labels.copy()
    mixed[wrong] = (labels[wrong] + generator.integers(1, 4, len(wrong))) % 4
    return features, labels, mixed, wrong


def held_out(features, labels):
    return fit_probe(features, labels, class_count=4, seed=0).held_out


def test_swapped_labels_are_at_the_top_of_the_ranking_and_suggested_back():
    features, labels, mixed, wrong = swapped()
    found = held_out(features, mixed)
    top = rank_labels(mixed, found)[: round(0.08 * len(mixed))]
    assert len(set(top) & set(wrong)) >= 0.8 * len(wrong)
    suspects = find_suspects(mixed, found)
    of_wrong = [s for s in suspects if s.index in wrong]
    assert len(of_wrong) >= 0.8 * len(wrong)
    assert sum(s.suggested == labels[s.index] for s in of_wrong) >= 0.9 * len(of_wrong)
    # the control: where nothing was swapped, hardly anything is in doubt
    assert len(find_suspects(labels, held_out(features, labels))) < len(suspects) / 2


def test_a_sure_threshold_is_each_classs_own():
    likely = np.log([[0.9, 0.1], [0.8, 0.2], [0.45, 0.55], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    # means: class 0 (0.9 + 0.8 + 0.45) / 3 = 0.717, class 1 (0.6 + 0.7 + 0.4) / 3 = 0.567
    assert find_suspects(labels, likely) == []
    likely[2] = np.log([0.4, 0.6])
    (suspect,) = find_suspects(labels, likely)
    assert (suspect.index, suspect.suggested) == (2, 1)
    assert (suspect.probability, suspect.own) == (pytest.approx(0.6), pytest.approx(0.4))


def test_images_that_nothing_is_known_of_are_in_no_ranking():
    likely = np.log([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    likely[1] = np.nan
    assert rank_labels(np.array([0, 1, 1]), likely).tolist() == [2, 0]


def test_a_doubtful_label_is_told_with_both_classes_and_without_an_action():
    features, _, mixed, _ = swapped(200)
    suspects = find_suspects(mixed, held_out(features, mixed))
    paths = [f"{i}.jpg" for i in range(200)]
    (problem,) = suspects_problem(suspects, paths, mixed.tolist(), ["a", "b", "c", "d"])
    first = problem.findings[0]
    assert (problem.name, problem.severity, first.action) == ("doubtful label", "note", "")
    assert first.detail.startswith(f"looks like {first.label} (")
    assert suspects_problem([], paths, mixed.tolist(), ["a", "b", "c", "d"]) == []


def test_the_curve_rises_with_the_photos_and_names_who_would_gain():
    easy, labels = drawn(300, 200, 3, distance=0.25)
    # The third class is two clouds, one of them rare: it goes on gaining.
    curve = learning_curve(easy, labels, ["a", "b", "c"], strength=0.01)
    assert [point.fraction for point in curve.points] == [0.12, 0.25, 0.5, 1.0]
    assert [point.images for point in curve.points] == [29, 60, 120, 240]
    accuracies = [point.accuracy for point in curve.points]
    assert accuracies[0] < accuracies[-1] - 0.05
    assert all(point.low < point.accuracy < point.high for point in curve.points)
    assert curve == learning_curve(easy, labels, ["a", "b", "c"], strength=0.01)


def test_photos_are_enough_where_nothing_is_left_to_gain():
    features, labels = drawn(200, 64, 2, distance=2.0)
    curve = learning_curve(features, labels, ["a", "b"], strength=0.01)
    assert {gain.verdict for gain in curve.classes} == {"enough"}
    assert curve.points[-1].accuracy == 1


def test_the_whole_of_the_curve_is_the_probes_own_cross_validation():
    features, labels = drawn(120, 40, 3, distance=0.2)
    probe = fit_probe(features, labels, class_count=3, seed=5)
    curve = learning_curve(features, labels, ["a", "b", "c"], strength=probe.strength, seed=5)
    assert curve.points[-1].accuracy == probe.correct / probe.tested


def test_a_class_of_one_image_is_in_neither():
    features, labels = drawn(61, 40, 3, distance=0.5)
    labels = np.where(np.arange(61) == 60, 2, labels % 2)
    probe = fit_probe(features, labels, class_count=3, seed=0)
    assert np.isnan(probe.held_out[60]).all()
    assert probe.tested == 60
    curve = learning_curve(features, labels, ["a", "b", "c"], strength=probe.strength)
    assert [gain.name for gain in curve.classes] == ["a", "b"]
    assert 60 not in rank_labels(labels, probe.held_out)
