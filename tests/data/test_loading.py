"""Batches: the same for any number of workers, and from any point of an epoch."""

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from images import SMALL, draw
from loaders import read_batches

from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.images import read_image
from xception_cli.data.inputs import ImageInputs
from xception_cli.data.loading import Batch, create_loader, read_parts, start_pass
from xception_cli.data.opening import turns
from xception_cli.data.transforms import Preprocessing
from xception_cli.data.workers import default_workers
from xception_cli.errors import DataError, MachineError
from xception_cli.runtime import Runtime, decide_runtime, release_freed_memory
from xception_cli.seeds import drawing_from

# torch's advice on a machine with a single core
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PREPROCESSING = Preprocessing.for_size(SMALL)


def dataset_of(photos, *, seed=0, augmented=True, count=11) -> ImageDataset:
    paths = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))[:count]
    transform = PREPROCESSING.evaluation_transform()
    if augmented:
        transform = PREPROCESSING.training_transform(augment="light", flip=True)
    return ImageDataset(
        photos, paths, [len(p) + i for i, p in enumerate(paths)], transform, seed=seed
    )


def epochs(dataset, *, workers=0, seed=0, count=2, start=0, shuffle=True) -> list[list[Batch]]:
    """Read some epochs through one loader; `start` applies to the first."""
    batches = KeyedBatches(len(dataset), 4, seed=seed, shuffle=shuffle)
    loader = create_loader(dataset, batches, workers=workers)
    read = []
    for epoch in range(count):
        batches.epoch, batches.start = epoch, start if epoch == 0 else 0
        read.append(list(read_batches(loader)))
    return read


def test_weighted_indices_are_sampled_by_weight_and_reproducibly():
    weights = torch.tensor([1.0, 1.0, 6.0] * 100)
    batches = KeyedBatches(300, 32, seed=3, shuffle=True, weights=weights)
    drawn = [index for keys in batches for _, index in keys]
    assert len(drawn) == 300
    assert 0.65 < sum(index % 3 == 2 for index in drawn) / 300 < 0.85
    assert [index for keys in batches for _, index in keys] == drawn
    batches.epoch = 1
    assert [index for keys in batches for _, index in keys] != drawn


def test_images_are_decoded_as_small_as_the_dataset_allows(tmp_path):
    draw(tmp_path / "large.jpg", (9, 120, 200), seed=1, size=400)
    sizes = []
    for least_side in (None, 200, 100, 101):
        dataset = ImageDataset(
            tmp_path, ["large.jpg"], [0], lambda image: image.size, least_side=least_side
        )
        sizes.append(dataset[0, 0][2])
    assert sizes == [(400, 400), (200, 200), (100, 100), (200, 200)]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.pixels, b.pixels)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.indices, b.indices)
        and a.failures == b.failures
        for a, b in zip(one, other, strict=True)
    )


def test_zero_and_two_workers_give_the_same_batches(photos):
    dataset = dataset_of(photos)
    alone, helped = epochs(dataset), epochs(dataset, workers=2)
    assert [same(a, b) for a, b in zip(alone, helped, strict=True)] == [True, True]
    other = epochs(dataset_of(photos, seed=1))
    assert not same(alone[0], other[0])  # the control: another seed differs


def test_another_epoch_has_another_order_and_other_views(photos):
    dataset = dataset_of(photos)
    first, second = (
        [torch.cat(parts) for parts in zip(*[b[:3] for b in e], strict=True)]
        for e in epochs(dataset)
    )
    assert sorted(first[2].tolist()) == sorted(second[2].tolist()) == list(range(11))
    assert first[2].tolist() != second[2].tolist()
    views = [dict(zip(e[2].tolist(), e[0], strict=True)) for e in (first, second)]
    assert not any(torch.equal(views[0][index], views[1][index]) for index in range(11))


def test_each_image_has_its_own_label_and_pixels(photos):
    dataset = dataset_of(photos, augmented=False)
    transform = PREPROCESSING.evaluation_transform()
    for batch in epochs(dataset, count=1)[0]:
        assert batch.pixels.dtype is torch.uint8
        assert (batch.labels.dtype, batch.indices.dtype) == (torch.int64, torch.int64)
        for pixels, label, index in zip(batch.pixels, batch.labels, batch.indices, strict=True):
            assert label == dataset.labels[index]
            assert torch.equal(pixels, transform(read_image(photos / dataset.paths[index])))


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_a_resumed_epoch_skips_exactly_its_first_batches(photos, start):
    dataset = dataset_of(photos)
    whole, resumed = epochs(dataset), epochs(dataset, start=start)
    assert len(whole[0]) == 3
    assert same(resumed[0], whole[0][start:])
    assert same(resumed[1], whole[1])


def test_a_pass_uses_no_global_random_generator(photos):
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    dataset = dataset_of(photos, count=5)
    before = states()
    epochs(dataset)
    assert states() == before
    torch.rand(1)
    assert states() != before  # the control


def test_earlier_random_numbers_change_no_batch(photos):
    dataset = dataset_of(photos, count=5)
    with drawing_from("one"):
        first = epochs(dataset)
    with drawing_from("two"):
        torch.rand(5)
        second = epochs(dataset)
    assert [same(a, b) for a, b in zip(first, second, strict=True)] == [True, True]


# --- the keys of each batch --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch_size", "shuffle", "sizes"),
    [
        (11, 4, True, [4, 4, 3]),
        (9, 4, True, [4, 5]),
        (9, 4, False, [4, 4, 1]),
        (8, 4, True, [4, 4]),
        (5, 4, True, [5]),
        (1, 4, True, [1]),
        (3, 4, True, [3]),
        (0, 4, True, []),
        (0, 4, False, []),
    ],
)
def test_a_single_last_image_joins_the_batch_before_when_shuffled(
    count, batch_size, shuffle, sizes
):
    batches = KeyedBatches(count, batch_size, shuffle=shuffle)
    keys = list(batches)
    assert [len(batch) for batch in keys] == sizes
    assert len(batches) == len(sizes)
    assert sorted(index for batch in keys for _, index in batch) == list(range(count))
    assert {epoch for batch in keys for epoch, _ in batch} <= {0}


def test_a_set_smaller_than_a_batch_is_one_whole_batch():
    (batch,) = KeyedBatches(3, 32, shuffle=True)
    assert sorted(batch) == [(0, 0), (0, 1), (0, 2)]


def test_inference_on_a_gpu_computes_the_same_rows_for_a_small_set_as_for_a_large_one():
    for count in (5, 200):
        assert KeyedBatches(count, 128, shuffle=False).rows == 128
    assert KeyedBatches(5, 64, shuffle=True).rows == 5


def test_without_shuffling_the_order_is_the_folders_in_every_epoch():
    batches = KeyedBatches(5, 2, seed=3, shuffle=False)
    batches.epoch = 7
    assert list(batches) == [[(7, 0), (7, 1)], [(7, 2), (7, 3)], [(7, 4)]]


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        batches = KeyedBatches(50, 4, seed=seed, shuffle=True)
        batches.epoch = epoch
        return batches.order()

    assert order(1, 2) == order(1, 2)
    assert sorted(order(1, 2)) == list(range(50))
    assert len({tuple(order(*k)) for k in ((1, 2), (1, 3), (2, 2), (2, 1))}) == 4


def test_every_batch_is_in_the_epoch_wherever_the_pass_starts():
    batches = KeyedBatches(21, 4, seed=0, shuffle=True)
    whole = list(batches)
    for start in range(len(whole) + 1):
        batches.start = start
        assert list(batches) == whole[start:]


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanished_is_reported_and_the_others_are_read(photos, workers):
    dataset = dataset_of(photos, augmented=False)
    whole = epochs(dataset, shuffle=False, count=1)[0]
    (photos / dataset.paths[1]).unlink()
    (photos / dataset.paths[6]).write_bytes(b"no image at all")
    first, second, third = epochs(dataset, workers=workers, shuffle=False, count=1)[0]
    assert first.failures == [(1, "file not found")]
    assert [index for index, _ in second.failures] == [6]
    assert first.indices.tolist() == [0, 2, 3]
    assert torch.equal(first.pixels, whole[0].pixels[[0, 2, 3]])
    assert torch.equal(first.labels, whole[0].labels[[0, 2, 3]])
    dataset.require_all(third.failures)
    with pytest.raises(DataError) as caught:
        dataset.require_all(first.failures)
    assert caught.value.exit_code == 3
    assert caught.value.message == (
        f"{photos / dataset.paths[1]}: file not found; it was there when the run started"
    )


@pytest.mark.slow  # a spawned process loads torch
def test_a_spawned_worker_decodes_as_large_images_as_this_process(tmp_path, monkeypatch):
    draw(tmp_path / "a.png", (1, 2, 3), seed=0)
    dataset = ImageDataset(tmp_path, ["a.png"], [0], PREPROCESSING.evaluation_transform())
    monkeypatch.setattr(turns, "max_pixels", 9000)
    loader = create_loader(dataset, KeyedBatches(1, 1, shuffle=False), workers=1)
    loader.multiprocessing_context = "spawn"
    ((batch,),) = read_parts(loader)
    assert batch.failures == [(0, "96 x 96 is over 9,000 pixels (see --max-pixels)")]


def test_a_batch_of_failures_only_holds_no_pixels(photos):
    dataset = dataset_of(photos, count=2)
    for path in dataset.paths:
        (photos / path).write_bytes(b"")
    (batch,) = epochs(dataset, count=1, shuffle=False)[0]
    assert batch.failures == [(0, "empty file"), (1, "empty file")]
    assert [len(part) for part in batch[:3]] == [0, 0, 0]


class DeadlyDataset(ImageDataset):
    """Its tenth image ends the process that reads it, like an out-of-memory killer."""

    def __getitem__(self, at):
        if at[1] == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(at)


def test_a_dead_worker_is_a_machine_error_only_when_its_batch_is_requested(photos):
    dataset = dataset_of(photos)
    deadly = DeadlyDataset(photos, dataset.paths, dataset.labels, dataset.transform)
    loader = create_loader(deadly, KeyedBatches(11, 4, shuffle=False), workers=1)
    reading = read_batches(loader)
    read = next(reading).indices.tolist()
    time.sleep(0.5)  # it dies meanwhile; torch's own SIGCHLD handler would raise here
    with pytest.raises(MachineError, match="a process that decodes images died: ") as caught:
        read.extend(index for batch in reading for index in batch.indices.tolist())
    assert caught.value.exit_code == 5
    assert read in ([0, 1, 2, 3], list(range(8)))  # batches that it had sent may be lost with it


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        ConnectionResetError("reset by peer"),
        EOFError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_report_of_a_workers_death_is_a_machine_error(error):
    def torn():
        yield from ()
        raise error

    loader = create_loader(
        ImageDataset(Path(), [], [], str), KeyedBatches(0, 4, shuffle=False), workers=0
    )
    with pytest.raises(MachineError, match="a process that decodes images died: "):
        list(read_parts(loader, torn()))


class BrokenDataset(ImageDataset):
    """Has a bug."""

    def __getitem__(self, at):
        raise RuntimeError("a bug")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_worker_is_not_a_machine_error(photos, workers):
    dataset = dataset_of(photos)
    broken = BrokenDataset(photos, dataset.paths, dataset.labels, dataset.transform)
    with pytest.raises(RuntimeError, match="a bug"):
        epochs(broken, workers=workers)


# --- inputs of the network ---------------------------------------------------------------------


def test_the_death_of_an_idle_worker_is_noticed_with_the_next_batch(photos):
    inputs = ImageInputs(
        dataset_of(photos, augmented=False, count=24),
        KeyedBatches(24, 8, shuffle=False),
        preprocessing=PREPROCESSING,
        runtime=Runtime(torch.device("cpu"), "fp32"),
        workers=2,
    )
    reading = iter(inputs)
    next(reading)
    next(reading)
    process = inputs.loader._iterator._workers[1]  # the last part belongs to the other worker
    time.sleep(0.5)  # it is idle: it no longer has the lock of the queue, which the other one needs
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(MachineError, match=f"worker {process.pid} ended with -9"):
        next(reading)


def test_the_inputs_of_the_network_are_the_normalized_batches(photos):
    dataset = dataset_of(photos, augmented=False)
    batches = KeyedBatches(len(dataset), 4, shuffle=False)
    inputs = ImageInputs(
        dataset,
        batches,
        preprocessing=PREPROCESSING,
        runtime=Runtime(torch.device("cpu"), "fp32"),
        workers=0,
    )
    assert len(inputs) == 3
    for made, batch in zip(inputs, epochs(dataset, shuffle=False, count=1)[0], strict=True):
        expected = batch.pixels.float() / 127.5 - 1
        assert torch.allclose(made.values, expected, atol=1e-6, rtol=0)
        assert made.values.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(made.labels, batch.labels)
        assert torch.equal(made.indices, batch.indices)
    (photos / dataset.paths[5]).unlink()
    with pytest.raises(DataError, match="file not found"):
        list(inputs)


def test_there_are_few_workers_if_the_network_is_on_the_cpu():
    assert 1 <= default_workers(Runtime(torch.device("cpu"), "fp32")) <= 2
    assert 1 <= default_workers(Runtime(torch.device("cuda"), "fp32")) <= 16


@pytest.mark.skipif(sys.platform != "linux", reason="cores cannot be assigned")
def test_a_process_that_is_limited_to_one_core_starts_one_worker():
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(usable)})
        assert default_workers(Runtime(torch.device("cpu"), "fp32")) == 1
        assert default_workers(Runtime(torch.device("cuda"), "fp32")) == 1
    finally:
        os.sched_setaffinity(0, usable)


def private_memory(process: str = "self") -> int:
    """Memory of a process that is of no file, in bytes."""
    (line,) = re.findall(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return 1024 * int(line)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep freed memory")
def test_a_worker_does_not_hold_memory_that_was_freed_before_it_started(photos):
    decide_runtime()  # from now on, freed memory is kept
    release_freed_memory()
    before = private_memory()
    torch.ones(100_000_000)
    assert private_memory() > before + 300e6
    loader = create_loader(dataset_of(photos), KeyedBatches(11, 4, shuffle=False), workers=1)
    begun = start_pass(loader)
    assert private_memory(str(loader._iterator._workers[0].pid)) < before + 100e6
    assert len(list(read_parts(loader, begun))) == 3
