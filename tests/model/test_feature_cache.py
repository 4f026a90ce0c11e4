"""The feature cache: cached features equal computed ones, and it never stops a command."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented import check_documented
from images import SMALL, draw_photos
from networks import CPU
from runs import Crash, call, files_no_larger_than, outcome, quick_settings, train_run

from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.inputs import ImageInputs
from xception_cli.data.inspection import inspect
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import DataError, UsageError
from xception_cli.model import feature_store, features
from xception_cli.model.feature_cache import (
    LIMIT,
    FeatureCache,
    KeptView,
    kept_view,
    open_feature_cache,
)
from xception_cli.model.features import compute_pooled, compute_store
from xception_cli.model.layers import POOLED
from xception_cli.model.network import Segment, cut

COUNT, BLOCK = 11, 4
FOLDER = Path("cache")
NAMES = [f"{number:040x}" for number in range(100)]


def write(cache: FeatureCache, *names: str, size: int = 1000, kind: str = "activations") -> None:
    for name in names:
        cache.keep(kind, name, name.encode().ljust(size))


def known(*names: str, size: int = 1000, kind: str = "activations") -> list[str]:
    """Return which of these entries another process would find."""
    cache = FeatureCache(FOLDER, 1e9)
    return [name for name in names if cache.load(kind, name, size) == name.encode().ljust(size)]


def file_of(name: str, kind: str = "activations") -> Path:
    return FOLDER / kind / name[:2] / name


# Cached features equal computed ones


def pictures(root: Path, order: list[int]) -> tuple[ImageInputs, list[str]]:
    preprocessing = Preprocessing.for_size(SMALL)
    names = [f"{index}.png" for index in order]
    digests = [inspect(root / name).digest for name in names]
    dataset = ImageDataset(
        root, names, [0] * len(names), preprocessing.evaluation_transform(), digests=digests
    )
    batches = KeyedBatches(len(names), BLOCK, shuffle=False)
    inputs = ImageInputs(dataset, batches, preprocessing=preprocessing, runtime=CPU, workers=0)
    return inputs, digests


def view(digests: list[str], *, of: str = "a" * 64, cache: Path = FOLDER) -> KeptView:
    return kept_view(
        FeatureCache(cache, 1e9),
        weights=of,
        runtime=CPU,
        preprocessing=Preprocessing.for_size(SMALL),
        view="centre",
        digests=digests,
    )


def compute(network, root: Path, folder: str, order: list[int], **options) -> dict[str, bytes]:
    """Compute the store of some images into a folder, and return its files."""
    prefix, rest = cut(network, "exit")[0], Segment(network, "block12", "conv4").eval()
    inputs, digests = pictures(root, order)
    compute_store(Path(folder), "val", prefix, rest, [inputs], kept=[view(digests, **options)])
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of images in each batch that the network computes."""
    batches: list[int] = []

    def observed(activations: torch.Tensor, to_bits=features.to_bits):
        batches.append(len(activations))
        return to_bits(activations)

    monkeypatch.setattr(features, "to_bits", observed)
    return batches


def test_features_are_the_same_bytes_for_any_content_of_the_cache(network, root, computed):
    everything = list(range(COUNT))
    cold = compute(network, root, "cold", everything, cache=Path("empty"))
    assert computed == [4, 4, 3]
    compute(network, root, "some", [9, 2, 4])  # other batches, in another order
    computed.clear()
    assert compute(network, root, "partly", everything) == cold
    assert computed == [4, 4]
    computed.clear()
    assert compute(network, root, "warm", everything) == cold
    assert computed == []
    inputs, digests = pictures(root, everything)
    backbone = Segment(network, "conv1", "conv4").eval()
    alone = compute_pooled(backbone, inputs, "pooled")
    kept = compute_pooled(backbone, pictures(root, everything)[0], "pooled", view(digests))
    assert alone.tobytes() == kept.tobytes() == cold["val.pooled"]
    # The controls: entries that are found are used, and other weights find none.
    row = np.zeros(POOLED, np.float32)
    view(digests).keep(5, row + 7)
    assert compute(network, root, "wrong", everything) != cold
    assert computed == []
    assert compute(network, root, "others", everything, of="b" * 64) == cold
    assert computed == [4, 4, 3]


class Turn:
    """One of two processes that run one after the other, the leader first."""

    count = 2

    def __init__(self, rank: int, told: list[Any]) -> None:
        self.rank, self.told, self.leads = rank, told, rank == 0

    def once(self, make: Callable[[], Any]) -> Any:
        if self.leads:
            self.told.append(make())
        return self.told[-1]

    def wait(self) -> None:
        pass

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values


def test_an_image_that_a_second_process_computes_again_counts_once(network, root):
    """One image is missing from the cache; the other process computes one that is in it."""
    everything, told, found = list(range(COUNT)), [], []
    backbone = Segment(network, "conv1", "conv4").eval()
    inputs, digests = pictures(root, everything)
    alone = compute_pooled(backbone, inputs, "pooled", view(digests))
    for rank in (0, 1):
        inputs, _ = pictures(root, everything)
        inputs.batches.processes = Turn(rank, told)
        inputs.runtime = replace(CPU, processes=inputs.batches.processes)
        found.append(compute_pooled(backbone, inputs, "pooled", view(["?", *digests[1:]])))
    assert told == [[0, 1]]
    np.testing.assert_allclose(found[0] + found[1], alone, rtol=1e-3, atol=1e-5)


def test_a_changed_image_is_not_cached_under_its_old_content(network, root, tmp_path):
    (tmp_path / "0.png").write_bytes((root / "0.png").read_bytes())
    inputs, digests = pictures(tmp_path, [0])
    (tmp_path / "0.png").write_bytes((root / "1.png").read_bytes())
    backbone = Segment(network, "conv1", "conv4").eval()
    with pytest.raises(DataError, match=r"0\.png: its content has changed"):
        compute_pooled(backbone, inputs, "pooled", view(digests))
    assert not FOLDER.exists()


# Damage, limits, and other processes


def test_a_damaged_entry_is_dropped_and_rewritten():
    first, second, *others = NAMES[:6]
    write(FeatureCache(FOLDER, 1e9), first, second, *others)
    assert known(*NAMES[:6]) == NAMES[:6]
    sound = file_of(first).read_bytes()
    flipped = bytes([*sound[:500], sound[500] ^ 1, *sound[501:]])
    for content in (b"", sound[:-1], sound + b"x", flipped, bytes(len(sound)), sound * 3):
        file_of(first).write_bytes(content)
        assert known(first) == []
        write(FeatureCache(FOLDER, 1e9), first)
        assert known(first) == [first]
    file_of(first).write_bytes(file_of(second).read_bytes())  # under the name of another entry
    assert known(first) == []
    file_of(first).unlink(missing_ok=True)
    file_of(first).symlink_to(file_of(second).absolute())
    assert known(first) == []
    assert known(second, *others) == [second, *others]


def test_the_least_recently_used_entries_of_other_processes_are_removed(monkeypatch):
    write(FeatureCache(FOLDER, 1e9), *NAMES[:10])
    write(FeatureCache(FOLDER, 1e9), *NAMES[:10], kind="pooled")
    for number, name in enumerate(NAMES[:10]):
        for kind in ("activations", "pooled"):
            os.utime(file_of(name, kind), (1000 + number, 1000 + number))
    assert known(NAMES[0]) == [NAMES[0]]  # used again
    os.utime(file_of(NAMES[0]), (2000, 2000))
    limit = 10_500 / 0.8  # ten activations
    write(FeatureCache(FOLDER, limit), NAMES[10])
    assert known(*NAMES[:11]) == [NAMES[0], *NAMES[2:11]]
    assert known(*NAMES[:10], kind="pooled") == NAMES[:10]
    cache = FeatureCache(FOLDER, limit)
    os.utime(file_of(NAMES[5]), (time.time() + 9,) * 2)  # as if used by this process
    write(cache, *NAMES[20:60])
    left = known(*NAMES)
    assert NAMES[5] in left
    assert left[1:] == NAMES[20 : 20 + len(left) - 1]  # a larger run keeps some entries
    assert 7 <= len(left) <= 10


def test_concurrent_processes_find_the_right_bytes_or_none():
    stop, wrong = time.monotonic() + 1.0, []

    def work(number: int) -> None:
        while time.monotonic() < stop:
            cache = FeatureCache(FOLDER, 30_000)
            for name in NAMES[number:40:2]:
                write(cache, name)
                found = cache.load("activations", name, 1000)
                if found not in {None, name.encode().ljust(1000)}:
                    wrong.append(name)

    workers = [threading.Thread(target=work, args=(number % 2,)) for number in range(4)]
    for worker in workers:
        worker.start()
    while time.monotonic() < stop:
        for path in FOLDER.glob("*/??/*"):
            path.unlink(missing_ok=True)
    for worker in workers:
        worker.join()
    assert wrong == []
    write(FeatureCache(FOLDER, 1e9), NAMES[0])
    assert known(NAMES[0]) == [NAMES[0]]


def test_a_cache_that_cannot_be_written_is_reported_once_and_stops_nothing(capsys):
    Path("file").write_text("")
    write(FeatureCache(Path("file/cache"), 1e9), *NAMES[:3])
    assert capsys.readouterr().err.count("note") == 1
    with files_no_larger_than(500):
        write(FeatureCache(FOLDER, 1e9), *NAMES[:3])
    shown = capsys.readouterr().err
    assert "note      features cannot be cached in cache: File too large" in shown
    assert shown.count("note") == 1
    assert [path for path in FOLDER.rglob("*") if path.is_file()] == []
    write(FeatureCache(FOLDER, 0), *NAMES[:3])
    assert known(*NAMES[:3]) == []


def test_a_limit_that_is_not_a_number_is_refused(monkeypatch):
    for text in ("much", "-1", "inf", "nan"):
        monkeypatch.setenv(LIMIT, text)
        with pytest.raises(UsageError, match=f"{LIMIT} is .{text}., expected gigabytes"):
            open_feature_cache()


def test_the_cache_is_listed_and_cleared_by_kind_and_other_files_are_kept(capsys, monkeypatch):
    monkeypatch.setenv("XCEPTION_CACHE", str(FOLDER))
    write(FeatureCache(FOLDER / "features", 1e9), *NAMES[:3], size=1_000_000)
    (FOLDER / "scans").mkdir()
    (FOLDER / "scans" / "0.sqlite").write_bytes(bytes(200_000))
    (FOLDER / "scans" / "mine.txt").write_text("mine")
    (FOLDER / "xception-imagenet-0.safetensors").write_bytes(b"")
    assert call("cache", "ls") == 0
    assert capsys.readouterr().out.splitlines() == [
        "kind      what                                          files    size",
        "weights   ImageNet weights, downloaded                      1  0.0 MB",
        "scans     results of data checks, by folder                 1  0.2 MB",
        "features  features of the pretrained network, by image      3  3.0 MB",
    ]
    assert call("cache", "ls", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    check_documented("cache ls", found)
    assert [kind["files"] for kind in found["kinds"]] == [1, 1, 3]
    assert found["kinds"][1]["bytes"] == 200_000
    assert call("cache", "clear", "feature") == 2
    shown = capsys.readouterr().err
    assert "has no kind 'feature', expected weights, scans, features" in shown
    assert "did you mean features?" in shown
    assert call("cache", "clear") == 0
    assert capsys.readouterr().err.splitlines() == [
        "removed   scans: 1 file, 0.2 MB",
        "removed   features: 3 files, 3.0 MB",
        "next: xception cache ls",
    ]
    left = sorted(path.as_posix() for path in FOLDER.rglob("*"))
    assert left == ["cache/scans", "cache/scans/mine.txt", "cache/xception-imagenet-0.safetensors"]


# A second training


@pytest.fixture
def settings(tmp_path: Path, random_weights: Path) -> Iterator[dict[str, object]]:
    photos = draw_photos(tmp_path / "photos")
    return quick_settings(photos, random_weights) | {"views": 3, "epochs": 1}


@pytest.mark.slow
def test_a_second_training_computes_no_features_and_gives_the_same_bytes(
    settings, monkeypatch, computed
):
    monkeypatch.setenv("XCEPTION_CACHE", str(FOLDER))
    train_run(settings | {"seed": 1}, "cold")
    assert not FOLDER.joinpath("features").exists()
    monkeypatch.setenv(LIMIT, "1")
    train_run(settings, "first")
    computed.clear()
    train_run(settings | {"seed": 1}, "warm")
    assert computed == []
    assert outcome("warm") == outcome("cold") != outcome("first")
    write_note, notes = feature_store.write_durably, []

    def crash_at_the_second(path: Path, content: bytes) -> None:
        notes.append(path)
        if len(notes) == 2:
            raise Crash
        write_note(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store, "write_durably", crash_at_the_second)
        with pytest.raises(Crash):
            train_run(settings | {"seed": 1}, "resumed")
    assert call("cache", "clear", "features") == 0
    train_run({}, "resumed", resume=True)
    assert computed != []
    assert outcome("resumed") == outcome("cold")
