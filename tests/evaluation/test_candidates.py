"""The optimism of selecting the best model: recorded, corrected, and absent without a choice."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from units import alone

from xception_cli.errors import ArtifactError
from xception_cli.evaluation.candidates import (
    FINAL,
    Candidates,
    no_candidates,
    read_candidates,
    start_candidates,
    write_candidates,
)
from xception_cli.evaluation.correction import correct_for_selection, paired_gain, select_candidate
from xception_cli.evaluation.intervals import wilson_interval


def drawn(images: int, candidates: int, *, accuracy: float = 0.8, seed: int = 0):
    """Draw equally accurate models that answer independently: the best is best by chance."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 4
    wrong = generator.random((candidates, images)) > accuracy
    predicted = np.where(wrong, (labels + 1) % 4, labels)
    losses = np.where(wrong, 2.0, 0.1) + generator.random((candidates, images)) / 100
    epochs = np.arange(candidates)
    return Candidates(
        epochs.astype(np.int32), predicted.astype(np.uint16), losses.astype(np.float32)
    ), labels


def test_the_best_of_many_equal_models_is_corrected_to_about_their_common_accuracy():
    candidates, labels = drawn(100, 20)
    best = (candidates.predicted == labels).mean(axis=1).max()
    found = correct_for_selection(candidates, labels, alone(labels), monitor="accuracy")
    assert best >= 0.86
    assert found.candidates == 20
    assert found.accuracy.value == pytest.approx(0.8, abs=0.04)
    assert (
        found.accuracy.low < 0.8 < found.accuracy.high < wilson_interval(round(100 * best), 100)[1]
    )
    again = correct_for_selection(candidates, labels, alone(labels), monitor="accuracy")
    assert again == found


def test_a_model_that_is_clearly_best_is_hardly_corrected():
    candidates, labels = drawn(200, 6, accuracy=0.5)
    predicted = candidates.predicted.copy()
    predicted[3] = np.where(np.arange(200) % 10 == 0, 3 - labels, labels)
    clear = Candidates(candidates.epochs, predicted, candidates.losses)
    right = float((predicted[3] == labels).mean())
    found = correct_for_selection(clear, labels, alone(labels), monitor="accuracy")
    assert found.accuracy.value == pytest.approx(right, abs=0.005)
    chance = correct_for_selection(candidates, labels, alone(labels), monitor="accuracy")
    assert chance.accuracy.value < (candidates.predicted == labels).mean(axis=1).max() - 0.02


def test_nothing_is_corrected_with_one_candidate_or_one_unit():
    candidates, labels = drawn(40, 1)
    assert correct_for_selection(candidates, labels, alone(labels), monitor="accuracy") is None
    candidates, labels = drawn(40, 5)
    together = np.full(40, "one")
    assert correct_for_selection(candidates, labels, together, monitor="accuracy") is None


def test_models_are_selected_by_the_metric_that_selected_the_runs_model():
    # The first model knows only the common class, the second one is better by macro recall.
    labels = np.repeat([0, 1], [90, 10])
    predicted = np.stack([np.zeros(100), np.where(np.arange(100) % 5 == 0, 1 - labels, labels)])
    losses = np.ones((2, 100), np.float32)
    candidates = Candidates(np.arange(2), predicted.astype(np.uint16), losses)
    by_accuracy = correct_for_selection(candidates, labels, alone(labels), monitor="accuracy")
    by_recall = correct_for_selection(candidates, labels, alone(labels), monitor="macro_recall")
    assert by_accuracy.accuracy.value == pytest.approx(0.9, abs=0.02)
    assert by_recall.accuracy.value == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("better", "low", "high"), [(0, 0.9, 1.0), (1, 0.0, 0.5)])
def test_of_equally_good_models_the_one_with_the_lower_loss_is_selected(better, low, high):
    # One model knows only the common class, the other one only the rare class. While both classes
    # are in a resample their macro recall is equal, and nearly all images left out are common.
    labels = np.repeat([0, 1], [40, 2])
    losses = np.ones((2, 42), np.float32)
    losses[better] = 0.5
    candidates = Candidates(np.arange(2), np.stack([np.zeros(42), np.ones(42)]), losses)
    found = correct_for_selection(candidates, labels, alone(labels), monitor="macro_recall")
    assert low <= found.accuracy.value <= high


def test_units_widen_the_interval_and_are_left_out_as_a_whole():
    candidates, labels = drawn(120, 8)
    groups = np.repeat(np.arange(20), 6).astype(str)
    # Each group is correct or wrong as a whole.
    whole = candidates.predicted[:, ::6].repeat(6, axis=1) * 0 + labels
    wrong = np.random.default_rng(3).random((8, 20)).repeat(6, axis=1) > 0.8
    together = Candidates(
        candidates.epochs, np.where(wrong, (labels + 1) % 4, whole), candidates.losses
    )
    by_unit = correct_for_selection(together, labels, groups, monitor="accuracy")
    by_image = correct_for_selection(together, labels, alone(labels), monitor="accuracy")
    width = by_image.accuracy.high - by_image.accuracy.low
    assert by_unit.accuracy.high - by_unit.accuracy.low > 1.8 * width


def test_the_file_is_read_back_equal_and_a_resumed_epoch_replaces_later_ones(tmp_path):
    path = tmp_path / "candidates.safetensors"
    assert len(read_candidates(path, 7).epochs) == 0
    kept = no_candidates(7)
    for epoch in (0, 1, 2, 3):
        answers = np.full(7, epoch), np.full(7, epoch / 10)
        kept = kept.with_epoch(epoch, *answers)
        write_candidates(kept, path)
    first = path.read_bytes()
    again = read_candidates(path, 7).with_epoch(2, np.full(7, 2), np.full(7, 0.2))
    assert again.epochs.tolist() == [0, 1, 2]
    write_candidates(again.with_epoch(3, np.full(7, 3), np.full(7, 0.3)), path)
    assert path.read_bytes() == first
    assert load_file(path)["predicted"].tolist() == [[epoch] * 7 for epoch in range(4)]
    assert path.stat().st_size < 600


def test_a_damaged_file_or_one_of_other_images_is_refused(tmp_path):
    path = tmp_path / "candidates.safetensors"
    write_candidates(no_candidates(7).with_epoch(0, np.zeros(7), np.zeros(7)), path)
    with pytest.raises(ArtifactError, match="does not fit 8 validation images"):
        read_candidates(path, 8)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match="cannot use"):
        read_candidates(path, 7)
    save_file({"epochs": np.zeros(1)}, path)
    with pytest.raises(ArtifactError, match="cannot use"):
        read_candidates(path, 7)


# The probe, or the fine-tuned network


def pair_of(
    gain: float, *, images: int = 100, spread: float = 0.3
) -> tuple[Candidates, np.ndarray]:
    """Draw a probe, and a network whose mean log loss is lower by exactly this much."""
    generator = np.random.default_rng(1)
    losses = generator.random(100) + 1
    noise = generator.normal(0, 0.3, 100)
    others = losses - gain - (noise - noise.mean())
    labels = np.arange(100) % 3
    predicted = np.stack([labels, labels])
    return Candidates(
        np.array([0, FINAL], np.int32),
        predicted.astype(np.uint16),
        np.stack([losses, others]).astype(np.float32),
    ), labels


def test_the_standard_error_is_that_of_the_mean_and_counts_units():
    candidates, labels = pair_of(0.1)
    gain, error = paired_gain(candidates.losses, alone(labels))
    differences = (candidates.losses[0] - candidates.losses[1]).astype(np.float64)
    assert gain == pytest.approx(0.1, abs=1e-6)
    assert error == pytest.approx(differences.std(ddof=1) / 10)
    doubled = np.repeat(candidates.losses, 2, axis=1)
    assert paired_gain(doubled, np.repeat(alone(labels), 2))[1] == pytest.approx(error, rel=0.01)
    assert paired_gain(doubled, alone(np.empty(200)))[1] == pytest.approx(error / 2**0.5, rel=0.01)
    assert paired_gain(doubled, np.full(200, "one"))[1] == float("inf")


@pytest.mark.parametrize(("gain", "chosen"), [(-0.1, 0), (0.0, 0), (0.02, 0), (0.04, 1), (0.5, 1)])
def test_the_probe_is_replaced_only_beyond_the_standard_error(gain: float, chosen: int):
    candidates, labels = pair_of(gain)
    assert 0.02 < paired_gain(candidates.losses, alone(labels))[1] < 0.04
    assert select_candidate(candidates, labels, alone(labels), monitor="last") == chosen


def test_the_correction_repeats_the_choice_between_probe_and_network():
    candidates, labels = drawn(100, 2, accuracy=0.8)
    pair = Candidates(np.array([0, FINAL], np.int32), candidates.predicted, candidates.losses)
    chosen = select_candidate(pair, labels, alone(labels), monitor="last")
    found = correct_for_selection(pair, labels, alone(labels), monitor="last")
    measured = (pair.predicted[chosen] == labels).mean()
    assert found.candidates == 2
    assert measured - 0.05 < found.accuracy.value <= measured


def test_a_selected_epoch_is_corrected_with_its_final_head():
    epochs, labels = drawn(100, 6, accuracy=0.7)
    probe = np.where(np.arange(100) % 2 == 0, labels, 3 - labels)  # half of them correct
    final = np.where(np.arange(100) % 10 == 0, (labels + 1) % 4, labels)  # nine of ten correct
    candidates = Candidates(
        np.array([0, *range(1, 7), FINAL], np.int32),
        np.stack([probe, *epochs.predicted, final]).astype(np.uint16),
        np.stack([np.full(100, 3.0), *epochs.losses, np.full(100, 0.1)]).astype(np.float32),
    )
    found = correct_for_selection(candidates, labels, alone(labels), monitor="accuracy")
    assert found.candidates == 8
    # Not the epoch with its trained head: the final model is correct nine times out of ten.
    assert 0.8 < found.accuracy.value < 0.9


def test_the_probe_of_a_resumed_run_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "candidates.safetensors"
    old = no_candidates(3).with_epoch(0, np.zeros(3), np.ones(3))
    write_candidates(old.with_epoch(1, np.ones(3), np.zeros(3)), path)
    start_candidates(path, np.full(3, 2), np.full(3, 0.5))
    found = read_candidates(path, 3)
    assert found.epochs.tolist() == [0, 1]
    assert found.predicted.tolist() == [[2, 2, 2], [1, 1, 1]]
    assert found.losses.tolist() == [[0.5] * 3, [0.0] * 3]
