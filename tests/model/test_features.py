"""Features: computed once, also after interruptions, and equal to features computed again."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from images import SMALL
from networks import CPU
from runs import files_no_larger_than
from torch import nn

from xception_cli.config import TrainConfig
from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.images import DECODER
from xception_cli.data.inputs import ImageInputs, Inputs
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import MachineError
from xception_cli.model import feature_store, features
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.feature_store import FeatureStore
from xception_cli.model.features import compute_pooled, compute_store
from xception_cli.model.layers import POOLED
from xception_cli.model.network import FIRST_TRAINED, Segment, cut
from xception_cli.training.costs import disk_bytes

COUNT, BLOCK, VIEWS = 10, 4, 2  # blocks of 4, 4 and 2 images in each view
SEED = 3
LABELS = torch.arange(COUNT) % 3


def pictures(root: Path, *, augmented: bool = False, count: int = COUNT, workers: int = 0):
    preprocessing = Preprocessing.for_size(SMALL)
    transform = preprocessing.evaluation_transform()
    if augmented:
        transform = preprocessing.training_transform(augment="light", flip=True)
    names = [f"{index}.png" for index in range(count)]
    return ImageInputs(
        ImageDataset(root, names, LABELS[:count].tolist(), transform, seed=SEED),
        KeyedBatches(count, BLOCK, seed=SEED, shuffle=False),
        preprocessing=preprocessing,
        runtime=CPU,
        workers=workers,
    )


def compute(
    folder: Path,
    network: nn.Module,
    root: Path,
    *,
    workers: int = 0,
    views: int = VIEWS,
    unfreeze: str = "exit",
    **asked: Callable[[np.ndarray, int], bool],
):
    prefix, _ = cut(network, unfreeze)
    rest = Segment(network, FIRST_TRAINED[unfreeze], "conv4").eval()
    random = pictures(root, augmented=True, workers=workers)
    inputs = [pictures(root, workers=workers), *[random] * (views - 1)]
    return compute_store(folder, "train", prefix, rest, inputs, **asked)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(network, root, tmp_path_factory):
    """A store without interruptions: its folder, the store and the pooled features."""
    folder = tmp_path_factory.mktemp("run") / "features"
    return folder, *compute(folder, network, root)


# Stored features equal computed ones


@torch.no_grad()
def test_training_from_the_store_gives_the_logits_of_the_whole_network(network, root, whole):
    _, store, _ = whole
    trained = cut(network, "exit")[1].eval()
    in_order = FeatureInputs(store, LABELS, KeyedBatches(COUNT, BLOCK, shuffle=False), CPU)
    found = torch.cat([trained(inputs.values) for inputs in in_order])
    centre = torch.cat([network(inputs.values) for inputs in pictures(root)])
    # bf16 keeps 8 bits, so each activation is off by at most 0.4%. Measured on the logits: 0.012 at
    # most, where another view of the image is off by at least 0.32.
    tolerance = 0.025
    assert (found - centre).abs().max() < tolerance
    shuffled = FeatureInputs(store, LABELS, KeyedBatches(COUNT, 3, seed=1, shuffle=True), CPU)
    random = pictures(root, augmented=True)
    random.batches.epoch = 1  # view 1
    by_view = torch.stack([centre, torch.cat([network(i.values) for i in random])])
    seen = set()
    for inputs in shuffled:
        logits = trained(inputs.values)
        assert torch.equal(inputs.labels, LABELS[inputs.indices])
        for row, index in zip(logits, inputs.indices.tolist(), strict=True):
            distance = (by_view - row).abs().amax(2)  # (views, images)
            view = int(distance[:, index].argmin())
            assert distance[view, index] < tolerance
            distance[view, index] = float("inf")
            assert distance[:, index].min() > 5 * tolerance  # another view of this image
            seen.add(view)
    assert seen == {0, 1}
    assert torch.pdist(centre, float("inf")).median() > 5 * tolerance  # another image


def test_the_store_has_bf16_and_returns_it_in_channels_last_memory(network, root, whole):
    _, store, _ = whole
    indices = torch.tensor([7, 0, 3])
    values = store.read(indices, torch.zeros(3, dtype=torch.int64))
    assert values.dtype == torch.bfloat16
    assert values.shape == (3, 728, 5, 5)
    assert values.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        batches = [cut(network, "exit")[0](inputs.values) for inputs in pictures(root)]
    assert torch.equal(values, torch.cat(batches)[indices].bfloat16())


def test_pooled_features_equal_those_of_the_whole_backbone_exactly(network, root, whole):
    _, _, pooled = whole
    backbone = Segment(network, "conv1", "conv4").eval()
    random = pictures(root, augmented=True)
    random.batches.epoch = 1
    expected = [compute_pooled(backbone, inputs, "pooled") for inputs in (pictures(root), random)]
    assert pooled.shape == (VIEWS, COUNT, POOLED)
    assert pooled.tobytes() == np.stack(expected).tobytes()
    assert abs(pooled[0] - pooled[0, ::-1]).max() > 0.1
    assert abs(pooled[0] - pooled[1]).max() > 0.1


# Interruptions


@pytest.mark.parametrize("interrupted_at", [2, 5])
def test_an_interrupted_computation_resumes_after_the_last_committed_block(
    network, root, whole, monkeypatch, interrupted_at
):
    folder, write, notes = Path("features"), feature_store.write_durably, []
    monkeypatch.setattr(feature_store, "_BETWEEN_COMMITS", 0.0)  # after each batch

    def interrupt(path: Path, content: bytes) -> None:
        notes.append(content)
        if len(notes) == interrupted_at:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store, "write_durably", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compute(folder, network, root)
    assert contents(folder)["train.bin"] != contents(whole[0])["train.bin"]
    computed: list[int] = []
    prefix = cut(network, "exit")[0]
    monkeypatch.setattr(
        features,
        "to_bits",
        lambda activations, to_bits=features.to_bits: (
            computed.append(len(activations)),
            to_bits(activations),
        )[1],
    )
    assert prefix is not None
    store, pooled = compute(folder, network, root)
    assert computed == [4, 4, 2, 4, 4, 2][interrupted_at - 1 :]
    assert contents(folder) == contents(whole[0])
    assert (store.rows == whole[1].rows).all()
    assert (pooled == whole[2]).all()


def test_a_finished_store_is_not_computed_again(network, root, whole, monkeypatch):
    monkeypatch.setattr(features, "to_bits", lambda _: pytest.fail("computed again"))
    before = contents(whole[0])
    store, pooled = compute(whole[0], network, root)
    assert (pooled == whole[2]).all()
    assert (store.rows == whole[1].rows).all()
    assert contents(whole[0]) == before


def test_a_manifest_without_its_files_is_ignored(network, root):
    prefix, _ = cut(network, "exit")
    rest, few = Segment(network, "block12", "conv4").eval(), pictures(root, count=3)
    _, pooled = compute_store(Path("features"), "val", prefix, rest, [few])
    before = contents(Path("features"))
    for name in ("val.bin", "val.pooled"):
        Path("features", name).unlink()
        _, again = compute_store(Path("features"), "val", prefix, rest, [pictures(root, count=3)])
        assert (again == pooled).all()
        assert contents(Path("features")) == before
    assert pooled.any()


def test_workers_change_no_byte(network, root, whole):
    compute(Path("features"), network, root, workers=2)
    assert contents(Path("features")) == contents(whole[0])


def test_the_views_of_an_image_differ_so_that_equal_bytes_are_significant(whole):
    rows = whole[1].rows
    assert all((rows[index] != rows[COUNT + index]).mean() > 0.5 for index in range(COUNT))
    assert len({row.tobytes() for row in rows}) == VIEWS * COUNT


def test_a_disk_that_is_too_small_is_reported_before_anything_is_computed(
    network, root, monkeypatch
):
    monkeypatch.setattr(features, "to_bits", lambda _: pytest.fail("computed"))
    message = r"cannot store .* GB of features in features/train\.bin"
    with files_no_larger_than(100_000), pytest.raises(MachineError, match=message):
        compute(Path("features"), network, root)
    assert list(Path("features").iterdir()) == []


@pytest.mark.parametrize("unfreeze", ["exit", "middle"])
@pytest.mark.parametrize("views", [1, 3])
def test_the_files_are_as_large_as_planned(network, root, unfreeze, views):
    compute(Path("features"), network, root, views=views, unfreeze=unfreeze)
    config = TrainConfig(unfreeze=unfreeze, views=views, image_size=SMALL)
    files = [Path("features", f"train.{kind}").stat().st_size for kind in ("bin", "pooled")]
    assert sum(files) == disk_bytes(config, COUNT, 0)
    each = 5 * 5 * 728 * 2 + POOLED * 4
    of_val = disk_bytes(config, COUNT, 7) - disk_bytes(config, COUNT, 0)
    assert of_val == 7 * views * each
    as_it_is = config.replace(refit=False, tta="none")
    assert disk_bytes(as_it_is, COUNT, 7) - disk_bytes(as_it_is, COUNT, 0) == 7 * each


@pytest.mark.parametrize("size", [71, 150, 299])
def test_a_row_has_the_shape_of_the_activations(network, size):
    for unfreeze in ("exit", "middle"):
        prefix, _ = cut(network, unfreeze)
        with torch.no_grad():
            _, channels, height, width = prefix(torch.zeros(1, 3, size, size)).shape
        assert feature_store.row_shape(size, prefix.steps[-1]) == (height, width, channels)
        row = height * width * channels * 2
        assert feature_store.activation_bytes(size, unfreeze) == row + POOLED * 4


# Deciding on another view


def test_no_view_is_computed_after_the_last_one_that_is_wanted(network, root, whole):
    asked = []

    def another(pooled: np.ndarray, _: int) -> bool:
        asked.append(pooled)
        return len(pooled) < VIEWS

    store, pooled = compute(Path("features"), network, root, views=4, another=another)
    assert [given.shape for given in asked] == [(1, COUNT, POOLED), (2, COUNT, POOLED)]
    assert all((given == whole[2][: len(given)]).all() for given in asked)
    assert (store.count, store.views) == (COUNT, VIEWS)
    assert store.rows.tobytes() == whole[1].rows.tobytes()
    assert (pooled == whole[2]).all()
    (note,) = whole[0].glob("train-*.json")
    assert Path("features", note.name).read_bytes() == note.read_bytes()


def test_no_further_view_is_considered_after_the_last_one(network, root, whole):
    asked = []
    store, _ = compute(
        Path("features"), network, root, another=lambda pooled, _: asked.append(len(pooled)) or True
    )
    assert asked == [1]
    assert store.rows.tobytes() == whole[1].rows.tobytes()


def test_the_decision_gets_the_number_of_images_computed_by_this_process(network, root):
    asked = []

    def another(pooled: np.ndarray, computed: int) -> bool:
        asked.append((len(pooled), computed))
        return len(pooled) < 2

    compute(Path("features"), network, root, views=4, another=another)
    assert asked == [(1, COUNT), (2, 2 * COUNT)]
    compute(Path("features"), network, root, views=4, another=another)
    assert asked[2:] == [(2, 0)]  # another process, which has not computed any


@pytest.mark.parametrize("views", [1, 2])
def test_a_file_for_more_views_is_used_unchanged(network, root, whole, monkeypatch, views):
    compute(Path("features"), network, root, views=3, another=lambda pooled, _: len(pooled) < 2)
    before = contents(Path("features"))
    monkeypatch.setattr(features, "to_bits", lambda _: pytest.fail("computed again"))
    store, pooled = compute(Path("features"), network, root, views=views)
    assert (store.views, len(store.rows)) == (views, views * COUNT)
    assert store.rows.tobytes() == whole[1].rows[: views * COUNT].tobytes()
    assert (pooled == whole[2][:views]).all()
    assert contents(Path("features")) == before


def test_a_file_for_fewer_views_is_written_again(network, root, whole):
    compute(Path("features"), network, root, views=1)
    assert contents(Path("features")) != contents(whole[0])
    store, _ = compute(Path("features"), network, root)
    assert store.rows.tobytes() == whole[1].rows.tobytes()
    assert contents(Path("features")) == contents(whole[0])


# Damage of stored features


@pytest.mark.parametrize("name", ["train.bin", "train.pooled"])
def test_a_view_with_a_flipped_bit_is_computed_again(network, root, whole, capsys, name):
    compute(Path("features"), network, root)
    with Path("features", name).open("r+b") as file:
        file.seek(-40, os.SEEK_END)  # in the second view
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    assert contents(Path("features")) != contents(whole[0])
    capsys.readouterr()
    asked = []

    def another(pooled: np.ndarray, computed: int) -> bool:
        asked.append((len(pooled), computed))
        return True

    compute(Path("features"), network, root, another=another)
    assert asked == [(1, 0)]  # the first one is good
    assert f"features/train-{DECODER}.json or its features are damaged" in capsys.readouterr().err
    assert contents(Path("features")) == contents(whole[0])


# Reading the next batch ahead


def equal(one: Inputs, other: Inputs) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("epoch", "start"), [(0, 0), (1, 0), (3, 1)])
def test_batches_read_ahead_are_the_same_in_the_same_order(whole, shuffle, epoch, start):
    batches = KeyedBatches(COUNT, 3, seed=1, shuffle=shuffle)
    inputs = FeatureInputs(whole[1], LABELS, batches, CPU)
    batches.epoch, batches.start = epoch, start
    found = list(inputs)
    direct = [inputs._read(keys) for keys in batches]
    assert len(found) == len(direct) == len(batches) - start
    assert all(equal(a, b) for a, b in zip(found, direct, strict=True))
    assert [i.indices.tolist() for i in found] == [[index for _, index in k] for k in batches]
    assert not equal(found[0], found[1])  # the control
    if shuffle:
        batches.epoch += 1
        assert not equal(next(iter(inputs)), found[0])


def reading(whole, monkeypatch) -> tuple[FeatureInputs, list[int], threading.Event]:
    """Inputs of batches of 2, the images that were read, and an event for the second batch."""
    inputs = FeatureInputs(whole[1], LABELS, KeyedBatches(COUNT, 2, shuffle=False), CPU)
    read, begun, second = FeatureStore.read, [], threading.Event()

    def observed(store: FeatureStore, indices: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        begun.append(int(indices[0]))
        if len(begun) == 2:
            second.set()
        return read(store, indices, view)

    monkeypatch.setattr(FeatureStore, "read", observed)
    return inputs, begun, second


def test_one_batch_is_read_while_the_one_before_is_processed(whole, monkeypatch):
    inputs, begun, second = reading(whole, monkeypatch)
    threads = threading.active_count()
    iterator = iter(inputs)
    assert next(iterator).indices.tolist() == [0, 1]
    assert second.wait(10)
    assert begun == [0, 2]  # only one, because memory would grow
    iterator.close()
    assert begun == [0, 2]
    assert threading.active_count() == threads  # an abandoned pass leaves no thread


def test_a_batch_that_cannot_be_read_is_an_error_when_its_turn_comes(whole, monkeypatch):
    read = FeatureStore.read

    def fail_at_4(store: FeatureStore, indices: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        if 4 in indices:
            raise OSError("the disk is gone")
        return read(store, indices, view)

    monkeypatch.setattr(FeatureStore, "read", fail_at_4)
    iterator = iter(FeatureInputs(whole[1], LABELS, KeyedBatches(COUNT, 2, shuffle=False), CPU))
    assert [next(iterator).indices.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)


# Views take turns


def turns(*, epochs: int, shuffle: bool, seed: int = 0) -> list[dict[int, int]]:
    """Return for each epoch the view of each image, read from a numbered store."""
    count, views = 12, 5
    numbers = torch.arange(count * views, dtype=torch.float32).bfloat16()  # exact up to 256
    rows = numbers.view(torch.int16).numpy().view("uint16").reshape(-1, 1, 1, 1)
    batches = KeyedBatches(count, 5, seed=seed, shuffle=shuffle)
    inputs = FeatureInputs(
        FeatureStore(rows, count, views), torch.zeros(count, dtype=torch.int64), batches, CPU
    )
    seen = []
    for epoch in range(epochs):
        batches.epoch = epoch
        seen.append({})
        for values, _, indices in inputs:
            assert values.dtype == torch.float32
            for number, index in zip(values.flatten().tolist(), indices.tolist(), strict=True):
                view, image = divmod(int(number), count)
                assert image == index
                assert index not in seen[-1]
                seen[-1][index] = view
        assert sorted(seen[-1]) == list(range(count))
    return seen


def test_in_as_many_epochs_as_views_each_image_is_seen_in_each_view_once():
    seen = turns(epochs=5, shuffle=True)
    for image in range(12):
        assert sorted(epoch[image] for epoch in seen) == [0, 1, 2, 3, 4]
    assert all(len(set(epoch.values())) > 1 for epoch in seen)  # not all the same view at a time
    assert turns(epochs=6, shuffle=True)[5] == {i: seen[0][i] for i in range(12)}
    assert turns(epochs=5, shuffle=True, seed=1) != seen


def test_a_pass_in_order_always_reads_the_evaluation_crop():
    assert all(set(epoch.values()) == {0} for epoch in turns(epochs=3, shuffle=False))
