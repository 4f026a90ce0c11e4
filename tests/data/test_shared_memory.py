"""Decoded images are in shared memory, and are not overwritten while in use."""

import gc
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from images import SMALL, draw
from loaders import read_batches

from xception_cli.data import loading
from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.inputs import ImageInputs
from xception_cli.data.loading import create_loader, read_parts
from xception_cli.data.slots import Slots, can_share
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import MachineError
from xception_cli.runtime import Runtime

pytestmark = [
    pytest.mark.skipif(not can_share(), reason="loader processes are not forked here"),
    # torch's advice on a machine with a single core
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
COUNT = 41
CPU = Runtime(torch.device("cpu"), "fp32")


class Numbered(ImageDataset):
    """Image `i` in epoch `e` has the value of both everywhere; some cannot be decoded."""

    def __init__(self, count: int = COUNT, *, broken: tuple[int, ...] = ()) -> None:
        super().__init__(Path(), ["x"] * count, list(range(count)), lambda image: image)
        self.broken = broken

    def __getitem__(self, at):
        epoch, index = at
        if index in self.broken:
            return index, index, "broken"
        value = (50 * epoch + index) % 251
        return index, index, torch.full((3, SMALL, SMALL), value, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(loading, "PART", 4)


def a_loader(dataset=None, *, batch_size=10, shuffle=True, workers=2, passes=100, side=SMALL):
    dataset = dataset or Numbered()
    batches = KeyedBatches(len(dataset), batch_size, seed=1, shuffle=shuffle)
    return create_loader(dataset, batches, workers=workers, passes=passes, side=side), batches


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("side", [SMALL, None])
def test_every_batch_has_the_pixels_of_its_own_images_in_every_epoch(workers, side):
    loader, batches = a_loader(workers=workers, side=side)
    for epoch in range(4):
        batches.epoch = epoch
        wanted = [[index for _, index in keys] for keys in batches]
        for indices, batch in zip(wanted, read_batches(loader), strict=True):
            assert batch.indices.tolist() == batch.labels.tolist() == indices
            values = batch.pixels.flatten(1)
            assert torch.equal(values.amin(1), values.amax(1))
            assert values[:, 0].tolist() == [(50 * epoch + i) % 251 for i in indices]


def test_the_parts_of_a_batch_are_valid_until_the_next_batch_is_requested():
    loader, _ = a_loader(shuffle=False)
    reading = read_parts(loader)
    first = next(reading)
    assert [len(part.pixels) for part in first] == [4, 4, 2]
    kept = torch.cat([part.pixels for part in first])
    places = {part.pixels.data_ptr() for part in first}
    seen = set()
    for parts in reading:
        seen |= {part.pixels.data_ptr() for part in parts}
    assert seen & places  # slots were reused, which the next line relies on
    assert kept[:, 0, 0, 0].tolist() == list(range(10))


def test_images_that_cannot_be_decoded_leave_no_gap():
    loader, _ = a_loader(Numbered(broken=(0, 5, 6, 7, 20)), shuffle=False)
    batches = list(read_batches(loader))
    assert [[index for index, _ in batch.failures] for batch in batches] == [
        [0, 5, 6, 7],
        [],
        [20],
        [],
        [],
    ]
    assert batches[0].indices.tolist() == [1, 2, 3, 4, 8, 9]
    assert batches[0].pixels[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 8, 9]


def test_an_abandoned_pass_does_not_affect_the_next():
    loader, batches = a_loader(batch_size=4)
    for epoch in range(6):
        batches.epoch = epoch
        reading = read_batches(loader)
        for _ in range(epoch):
            next(reading)
        reading.close()
    batches.epoch = 2
    found = [batch.pixels[:, 0, 0, 0].tolist() for batch in read_batches(loader)]
    assert found == [[100 + index for _, index in keys] for keys in batches]


def test_an_epoch_begun_ahead_has_the_same_batches():
    def inputs() -> ImageInputs:
        batches = KeyedBatches(COUNT, 10, seed=1, shuffle=True)
        return ImageInputs(
            Numbered(), batches, preprocessing=Preprocessing.for_size(SMALL), runtime=CPU, workers=2
        )

    def epoch(made: ImageInputs, number: int) -> list[list[int]]:
        made.batches.epoch = number
        return [batch.indices.tolist() for batch in made]

    plain, ahead = inputs(), inputs()
    ahead.begin(0)
    for number in range(3):
        assert epoch(ahead, number) == epoch(plain, number)
        ahead.begin(number + 1)
    # Another epoch is requested than was begun; and a start inside of it.
    assert epoch(ahead, 7) == epoch(plain, 7)
    ahead.begin(8)
    ahead.batches.start = plain.batches.start = 2
    assert epoch(ahead, 8) == epoch(plain, 8)
    plain.batches.start = 2
    assert len(epoch(plain, 8)) == 2  # 41 in batches of 10; the last joins the batch before


def test_there_are_as_many_slots_as_can_be_in_use_and_they_are_allocated_late():
    loader, _ = a_loader(Numbered(200), batch_size=40, workers=1)
    slots = loader.batch_sampler.slots
    assert len(slots.pixels) == 0
    reading = read_parts(loader)
    next(reading)
    assert len(slots.pixels) == 2 * 1 + 4 * 10 + 2
    assert len(slots._free) >= 2 * 10 - 2


@pytest.mark.parametrize(
    ("count", "passes", "expected"),
    [(1, 1, 1), (16, 1, 1), (17, 1, 2), (200, 1, 4), (200, 12, 13), (800, 1, 8), (800, 12, 16)],
)
def test_workers_that_take_longer_to_start_than_they_save_are_not_started(count, passes, expected):
    loader, _ = a_loader(Numbered(count), workers=16, passes=passes)
    assert loader.num_workers == expected


def test_there_are_no_more_workers_than_parts():
    for count, workers, parts in ((41, 16, 12), (41, 3, 12), (5, 16, 2), (4, 0, 1)):
        loader, batches = a_loader(Numbered(count), workers=workers)
        assert loader.num_workers == min(workers, parts)
        if workers:
            slots = loader.batch_sampler.slots
            assert (slots._shape[0] if slots else 0) == min(parts, 2 * workers + 4 * 3 + 2)
    loader, batches = a_loader(Numbered(9), batch_size=5, workers=16)  # as many slots as parts
    for batches.epoch in range(3):
        found = [batch.pixels[:, 0, 0, 0].tolist() for batch in read_batches(loader)]
        assert found == [[50 * epoch + index for epoch, index in keys] for keys in batches]


def test_a_slot_is_not_taken_twice_before_it_is_returned():
    slots = Slots(3, 2, 4, torch.device("cpu"))
    slots.allocate()
    assert slots.pixels.shape == (3, 2, 3, 4, 4)
    slots.begin()
    taken = [slots.take() for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    with pytest.raises(LookupError, match="read the loader with read_parts"):
        slots.take()
    slots.give_back(taken[:1])
    assert slots.take() == taken[0]
    slots.begin()
    assert sorted(slots.take() for _ in range(3)) == [0, 1, 2]


def test_memory_that_a_gpu_cannot_lock_is_used_as_it_is(monkeypatch):
    """CUDA keeps the error of a call that failed, and torch raises it after its next kernel."""
    pending = []

    class Runtime:
        cudaError = SimpleNamespace(success=0)  # noqa: N815 - its name in CUDA

        @staticmethod
        def cudaHostRegister(*_: object) -> int:  # noqa: N802
            pending.append("operation not supported")
            return 1

    def launch(*_: object, **__: object) -> None:
        if pending:
            raise torch.AcceleratorError(f"CUDA error: {pending.pop()}")

    monkeypatch.setattr(torch.cuda, "cudart", Runtime)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=launch))
    monkeypatch.setattr(torch, "ones", launch)
    slots = Slots(3, 2, 4, torch.device("cuda"))
    slots.allocate()
    for _ in range(2):  # tried once
        slots.begin()
    assert not pending
    assert slots.pixels.fill_(1).all()


def test_a_pass_ends_when_another_one_has_started():
    """DataLoader gives both the same iterator: the first would read the second's batches."""
    loader, batches = a_loader()
    first = read_batches(loader)
    next(first)
    batches.epoch = 1
    second = read_parts(loader)
    values = [value for part in next(second) for value in part.pixels[:, 0, 0, 0].tolist()]
    assert list(first) == []
    for parts in second:
        values += [value for part in parts for value in part.pixels[:, 0, 0, 0].tolist()]
    assert sorted(values) == sorted((50 + index) % 251 for index in range(COUNT))


def test_a_dead_worker_is_also_a_machine_error_when_the_next_epoch_begins(monkeypatch):
    batches = KeyedBatches(COUNT, 10, seed=1, shuffle=True)
    inputs = ImageInputs(
        Numbered(), batches, preprocessing=Preprocessing.for_size(SMALL), runtime=CPU, workers=1
    )

    def fail(_: object) -> None:
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    monkeypatch.setattr("xception_cli.data.inputs.start_pass", fail)
    with pytest.raises(MachineError, match="a process that decodes images died: "):
        inputs.begin(1)


def test_large_images_are_decoded_in_smaller_parts(monkeypatch):
    monkeypatch.setattr(loading, "PART", 16)
    batches = KeyedBatches(64, 32, shuffle=False)
    for side, rows in ((71, 16), (299, 16), (600, 4), (2048, 1)):
        loader = create_loader(Numbered(64), batches, workers=0, side=side)
        assert loader.batch_sampler.rows == rows


class Mortal:
    """Ends the process that collects it, like a GPU tensor in a fork."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self.itself = self

    def __del__(self) -> None:
        if os.getpid() != self.parent:
            os._exit(1)


class Collecting(Numbered):
    """Collects garbage while reading."""

    def __getitem__(self, at):
        gc.collect()
        return super().__getitem__(at)


def test_workers_do_not_collect_inherited_garbage():
    gc.disable()
    try:
        Mortal()  # an unreachable cycle
        loader, _ = a_loader(Collecting(8), batch_size=4)
        assert sum(len(batch.indices) for batch in read_batches(loader)) == 8
    finally:
        gc.enable()


def test_images_from_files_are_the_same_with_and_without_shared_memory(tmp_path):
    for index in range(9):
        draw(tmp_path / f"{index}.png", (20 * index, 90, 200), seed=index)
    transform = Preprocessing.for_size(SMALL).evaluation_transform()
    dataset = ImageDataset(tmp_path, [f"{i}.png" for i in range(9)], [0] * 9, transform)
    batches = KeyedBatches(9, 5, shuffle=False)
    read = [
        torch.cat([batch.pixels for batch in read_batches(loader)]).numpy()
        for loader in (
            create_loader(dataset, batches, workers=2, side=SMALL),
            create_loader(dataset, batches, workers=2),
            create_loader(dataset, batches, workers=0, side=SMALL),
        )
    ]
    assert np.array_equal(read[0], read[1])
    assert np.array_equal(read[0], read[2])
    assert read[0].std() > 10
