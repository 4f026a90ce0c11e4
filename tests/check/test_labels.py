"""Suspect labels, and whether more images would help: on features with a known answer."""

import json

import numpy as np
import pytest
from networks import drawn
from runs import call
from safetensors.torch import save_file
from scipy.special import log_softmax, softmax
from units import alone

from xception_cli.check import deep as deep_module
from xception_cli.check import features as features_module
from xception_cli.check import labels as labels_module
from xception_cli.check.curve import classes_to_add, learning_curve
from xception_cli.check.labels import find_suspects, judge_labels, suspects_problem
from xception_cli.check.report import SUSPECT
from xception_cli.evaluation.intervals import wilson_interval
from xception_cli.model.probe import fit_probe
from xception_cli.sample.run import draw_sample


def swapped(count: int = 400):
    """Features of four classes, and labels of which some were swapped at random."""
    features, labels = drawn(count, 64, 4, distance=0.4, seed=3)
    return features, labels, *swap(labels, seed=8)


def held_out(features, labels):
    return fit_probe(features, labels, alone(labels), class_count=4, seed=0).held_out


def calibrated(count: int = 600, classes: int = 6, seed: int = 0):
    """Labels sampled from the probabilities themselves: a quarter of the images are hard."""
    generator = np.random.default_rng(seed)
    likely = log_softmax(generator.normal(0, 3, (count, classes)), axis=1)
    labels = np.array([generator.choice(classes, p=row) for row in softmax(likely, axis=1)])
    return labels, likely


def swap(labels, seed: int, part: float = 0.05):
    """Replace some labels by another class at random; return them, and their indices."""
    generator = np.random.default_rng(seed)
    wrong = generator.choice(len(labels), round(part * len(labels)), replace=False)
    mixed, classes = labels.copy(), labels.max() + 1
    mixed[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    return mixed, wrong


def indices(suspects):
    return [suspect.index for suspect in suspects]


def test_swapped_labels_are_the_first_suspects_with_the_original_class_suggested():
    features, labels, mixed, wrong = swapped()
    found = held_out(features, mixed)
    suspects = find_suspects(mixed, found)
    top = indices(suspects)[: len(wrong)]
    assert len(set(top) & set(wrong)) >= 0.8 * len(wrong)
    of_wrong = [s for s in suspects if s.index in wrong]
    assert len(of_wrong) >= 0.8 * len(wrong)
    assert sum(s.suggested == labels[s.index] for s in of_wrong) >= 0.9 * len(of_wrong)
    # the control: without swaps, no more than 1% is listed
    assert len(find_suspects(labels, held_out(features, labels))) <= 0.01 * len(labels)


def test_hard_images_with_correct_labels_are_not_listed():
    listed = swaps_listed = 0
    for seed in range(10):
        labels, likely = calibrated(seed=seed)
        assert 0.1 < (likely.argmax(1) != labels).mean() < 0.4  # misclassified, and yet correct
        listed += len(find_suspects(labels, likely))
        mixed, wrong = swap(labels, seed)
        swaps_listed += len(set(indices(find_suspects(mixed, likely))) & set(wrong))
    assert listed <= 0.01 * 10 * 600
    assert swaps_listed >= 0.6 * 10 * 30  # the control: swaps among them are


def test_probabilities_at_another_temperature_have_the_same_suspects():
    mixed, _ = swap(calibrated()[0], seed=1)
    likely = calibrated()[1]
    suspects = indices(find_suspects(mixed, likely))
    assert len(suspects) > 10
    assert indices(find_suspects(mixed, log_softmax(likely / 2, axis=1))) == suspects
    # the control: other probabilities, other suspects
    assert indices(find_suspects(mixed, calibrated(seed=1)[1])) != suspects


@pytest.mark.parametrize(("count", "wrong"), [(70, 5), (970, 20), (170, 1), (50, 0)])
def test_the_fitted_share_equals_the_share_of_wrong_labels(count, wrong):
    # If every label is certain to be correct or wrong, the share is their fraction. It shows in a
    # label that is equally probable in both cases: its probability of being wrong is the share.
    correct = np.r_[np.ones(count - wrong), np.zeros(wrong), 0.5]
    opposite = np.where(correct == 0.5, 0.5, 1 - correct)
    _, chances = labels_module._fit_share(correct, opposite, np.ones(len(correct)))
    assert chances[-1] == pytest.approx(wrong / count, abs=1e-5)
    assert chances[:-1].round().sum() == wrong


def test_the_most_suspect_label_comes_first_with_the_probabilities_of_the_probe():
    labels = np.arange(300) % 3
    likely = np.full((300, 3), 0.01)
    likely[np.arange(300), labels] = 0.98
    likely[4], likely[7] = (0.99, 0.005, 0.005), (0.55, 0.001, 0.449)  # both are labelled 1
    first, second = find_suspects(labels, np.log(likely))
    assert (first.index, first.suggested) == (7, 0)  # its label is the least probable one
    assert (first.probability, first.own) == (pytest.approx(0.55), pytest.approx(0.001))
    assert (second.index, second.suggested) == (4, 0)


def test_images_without_a_prediction_are_not_suspects():
    likely = np.log([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    likely[1] = np.nan
    assert find_suspects(np.array([0, 1, 1]), np.full((3, 2), np.nan)) == []
    assert find_suspects(np.array([0, 0, 1]), likely[[0, 2, 1]]) == []  # only one class is left


def test_classes_unknown_to_a_probe_have_no_effect():
    labels, likely = calibrated()
    labels, _ = swap(labels, seed=1)
    suspects = find_suspects(labels, likely)
    assert suspects
    more = np.column_stack([likely, np.full(len(likely), -np.inf)])  # no image has its label
    assert find_suspects(labels, more) == suspects
    unknown = np.full((1, more.shape[1]), -np.inf)
    unknown[0, 0] = 0  # certainly the first class, but the label's class was unknown
    assert find_suspects(np.r_[labels, 6], np.r_[more, unknown]) == suspects
    unknown[0, 6] = -50  # the control
    assert len(labels) in indices(find_suspects(np.r_[labels, 6], np.r_[more, unknown]))


def test_a_suspect_label_is_reported_with_both_classes_and_without_an_action():
    features, _, mixed, _ = swapped(200)
    suspects = find_suspects(mixed, held_out(features, mixed))
    paths = [f"{i}.jpg" for i in range(200)]
    (problem,) = suspects_problem(suspects, paths, mixed.tolist(), ["a", "b", "c", "d"])
    first = problem.findings[0]
    assert (problem.name, problem.severity, first.action) == (SUSPECT, "note", "")
    assert first.detail.startswith(f"looks like {first.label} (")
    assert problem.summary == (
        f"{len(suspects)} suspect labels (hard images with correct labels are listed too)"
    )
    (one,) = suspects_problem(suspects[:1], paths, mixed.tolist(), ["a", "b", "c", "d"])
    assert one.summary.startswith("1 suspect label (")
    assert suspects_problem([], paths, mixed.tolist(), ["a", "b", "c", "d"]) == []


@pytest.mark.parametrize(("count", "judged"), [(9, False), (10, True)])
def test_the_labels_of_a_class_with_few_images_are_not_judged(count: int, judged: bool):
    labels, likely = calibrated()
    labels, rare = np.r_[labels, np.full(count, 6)], np.full((count, 7), -6.0)
    rare[:, 0] = 6  # the probe finds each of them improbable
    likely = np.r_[np.c_[likely, np.full(len(likely), -20.0)], log_softmax(rare, axis=1)]
    paths = [f"{'abcdefg'[label]}/{at}.jpg" for at, label in enumerate(labels)]
    problems = judge_labels(labels, likely, alone(labels), paths, list("abcdefg"))
    of_rare = [f for p in problems for f in p.findings if f.path.startswith("g/")]
    assert len(of_rare) == (count if judged else 0)
    sentence = "g (9): labels cannot be judged, with fewer than 10 different images"
    assert (sentence in [problem.summary for problem in problems]) is not judged


@pytest.mark.slow
@pytest.mark.weights
def test_the_drawn_sample_is_of_medium_difficulty_and_hardly_any_label_is_suspect(
    imagenet, tmp_path, monkeypatch, capsys
):
    draw_sample(tmp_path / "food")
    save_file(imagenet.backbone, "imagenet.safetensors")  # the cache is the test's own
    compute, computed, probes = features_module.compute_pooled, [], []

    def compute_upright(*given):  # rotated images have no part in suspect labels
        computed.append(computed[0] if len(computed) % 2 else compute(*given))
        return computed[-1]

    def fit(*given, **named):
        probes.append(fit_probe(*given, **named))
        return probes[-1]

    monkeypatch.setattr(features_module, "compute_pooled", compute_upright)
    monkeypatch.setattr(deep_module, "fit_probe", fit)
    assert len(suspects_of_check(tmp_path / "food", capsys)) <= 0.01 * 480
    assert 0.70 <= probes[0].hits.mean() <= 0.95  # a linear probe finds it neither trivial nor hard
    assert len(probes[0].hits) == 480
    # the control: most of 24 images in the folder of another class are listed
    images = sorted((tmp_path / "food").rglob("*.jpg"))
    folders = sorted({image.parent for image in images})
    for number, image in enumerate(images[::20]):
        image.rename(folders[(number // 2 + 5) % 12] / image.name)
    suspects = suspects_of_check(tmp_path / "food", capsys)
    misplaced = [path for path in suspects if path.split("/")[0] not in path.split("/")[1]]
    assert len(misplaced) >= 0.6 * 24


def suspects_of_check(folder, capsys) -> list[str]:
    weights = ["--weights", "imagenet.safetensors"]
    assert call("check", str(folder), "--deep", "--json", *weights) == 0
    problems = json.loads(capsys.readouterr().out)["problems"]
    return [
        finding["path"]
        for problem in problems
        if problem["name"] == SUSPECT
        for finding in problem["findings"]
    ]


def test_the_curve_rises_and_names_the_classes_that_would_gain():
    easy, labels = drawn(300, 200, 3, distance=0.25)
    # The third class is two clouds, one of them rare: more images keep helping.
    curve = learning_curve(easy, labels, alone(labels), ["a", "b", "c"], strength=0.01)
    assert [point.fraction for point in curve.points] == [0.12, 0.25, 0.5, 1.0]
    assert [point.images for point in curve.points] == [30, 60, 120, 240]
    accuracies = [point.accuracy for point in curve.points]
    assert accuracies[0] < accuracies[-1] - 0.05
    assert all(point.low < point.accuracy < point.high for point in curve.points)
    assert curve == learning_curve(easy, labels, alone(labels), ["a", "b", "c"], strength=0.01)


def test_the_curve_keeps_groups_whole_and_counts_each_once():
    groups = np.arange(40).repeat(6)
    labels = groups % 2
    # A group is a tight cloud in its own place, which hardly predicts its class.
    generator = np.random.default_rng(0)
    places = generator.normal(0, 1, (40, 30)) + 0.2 * (np.arange(40) % 2)[:, None]
    features = (places[groups] + generator.normal(0, 0.05, (240, 30))).astype(np.float32)
    by_group, by_image = (
        learning_curve(features, labels, units, ["a", "b"], strength=1.0)
        for units in (groups.astype(str), alone(labels))
    )
    for point, other in zip(by_group.points, by_image.points, strict=True):
        low, high = wilson_interval(round(240 * point.accuracy), 240)
        assert point.high - point.low > 1.5 * (high - low)
        assert (other.low, other.high) == wilson_interval(round(240 * other.accuracy), 240)
    # the control: if each image is a unit, its group is in the other folds
    assert by_group.points[-1].accuracy < 0.75
    assert by_image.points[-1].accuracy > 0.95


def test_classes_to_add_are_those_that_gain_in_the_curve():
    features, labels = drawn(900, 200, 4, distance=0.1)
    features[labels == 0] += 4  # a class that is easy with any number of images
    units, classes = alone(labels), ["a", "b", "c", "d"]
    added = classes_to_add(features, labels, units, classes, strength=0.01, seed=0)
    order = np.random.default_rng(0).permutation(900)
    curve = learning_curve(features[order], labels[order], units[order], classes, strength=0.01)
    more = [gain for gain in curve.classes if gain.verdict == "more"]
    assert {gain.name for gain in more} <= {"b", "c", "d"}
    assert len(more) > 1
    assert added == sorted(more, key=lambda gain: gain.half - gain.whole)


def test_no_class_is_to_be_added_if_none_can_be_tested():
    features, labels = drawn(40, 20, 2, distance=0.5)
    units = labels.astype(str)  # each class is one group
    assert classes_to_add(features, labels, units, ["a", "b"], strength=0.01, seed=0) == []


def test_photos_are_enough_if_there_is_nothing_to_gain():
    features, labels = drawn(200, 64, 2, distance=2.0)
    curve = learning_curve(features, labels, alone(labels), ["a", "b"], strength=0.01)
    assert {gain.verdict for gain in curve.classes} == {"enough"}
    assert curve.points[-1].accuracy == 1


def test_a_class_of_few_images_is_not_enough_because_none_of_them_is_recognised():
    features, labels = drawn(200, 64, 2, distance=2.0)
    verdicts = {}
    for few in (6, 12):  # of a third class, which looks like the first
        third = np.where(np.cumsum(labels == 0) <= few, np.where(labels == 0, 2, labels), labels)
        curve = learning_curve(features, third, alone(labels), ["a", "b", "c"], strength=0.01)
        *_, verdicts[few] = curve.classes
    assert [(gain.half, gain.whole) for gain in verdicts.values()] == [(0, 0)] * 2
    assert [gain.verdict for gain in verdicts.values()] == ["unclear", "enough"]


def test_the_last_point_of_the_curve_is_the_probes_own_cross_validation():
    features, labels = drawn(120, 40, 3, distance=0.2)
    probe = fit_probe(features, labels, alone(labels), class_count=3, seed=5)
    curve = learning_curve(
        features, labels, alone(labels), ["a", "b", "c"], strength=probe.strength, seed=5
    )
    assert curve.points[-1].accuracy == probe.hits.mean()


def test_a_class_of_one_image_neither_gains_nor_is_enough():
    features, labels = drawn(61, 40, 3, distance=0.5)
    labels = np.where(np.arange(61) == 60, 2, labels % 2)
    probe = fit_probe(features, labels, alone(labels), class_count=3, seed=0)
    assert np.isnan(probe.held_out[60]).all()
    assert probe.tested.sum() == 60
    curve = learning_curve(
        features, labels, alone(labels), ["a", "b", "c"], strength=probe.strength
    )
    assert [gain.name for gain in curve.classes] == ["a", "b"]
    assert 60 not in indices(find_suspects(labels, probe.held_out))


def test_images_of_one_unit_count_once_for_the_share_of_wrong_labels():
    mixed, wrong = swap(calibrated()[0], seed=1)
    likely = calibrated()[1]
    times = np.ones(len(mixed), int)
    times[wrong] = 12  # a burst of each mislabelled image
    units = np.arange(len(mixed)).repeat(times).astype(str)
    rows = np.arange(len(mixed)).repeat(times)
    once = set(indices(find_suspects(mixed, likely)))
    assert {rows[i] for i in indices(find_suspects(mixed[rows], likely[rows], units))} == once
    # the control: as independent images they make every label suspect
    assert {rows[i] for i in indices(find_suspects(mixed[rows], likely[rows]))} != once
