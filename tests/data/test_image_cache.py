"""The cache of decoded images: no result depends on it, whatever happens to its files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from images import SMALL, draw
from loaders import read_batches
from PIL import Image
from runs import files_no_larger_than

from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.image_cache import ImageCache, cached_fraction
from xception_cli.data.images import read_image
from xception_cli.data.loading import create_loader
from xception_cli.data.transforms import Preprocessing

PREPROCESSING = Preprocessing.for_size(SMALL)
FOLDER = Path("decoded")


@pytest.fixture
def picture(tmp_path: Path) -> Image.Image:
    draw(tmp_path / "one.png", (40, 160, 90), seed=1, size=200)
    return read_image(tmp_path / "one.png")


def counted(picture: Image.Image):
    """Return a function that reads the image, and a list of its calls."""
    reads = []
    return lambda: (reads.append(1), picture)[1], reads


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "prepare", [PREPROCESSING.training_source, PREPROCESSING.evaluation_crop()]
)
def test_a_cached_image_is_read_once_and_equals_the_decoded_one(picture, prepare):
    kept, (read, reads) = ImageCache(FOLDER, "train", prepare, 5), counted(picture)
    first, second = kept.get(3, read), kept.get(3, read)
    assert len(reads) == 1
    assert same(first, prepare(picture))
    assert same(first, second)
    assert [path.name for path in FOLDER.iterdir()] == ["train-00000003.rgb"]
    other = ImageCache(FOLDER, "train", prepare, 5)  # another process
    assert same(other.get(3, read), first)
    assert len(reads) == 1


def test_images_after_the_last_cached_one_are_read_each_time(picture):
    kept, (read, reads) = ImageCache(FOLDER, "val", lambda image: image, 2), counted(picture)
    assert same(kept.get(2, read), kept.get(2, read))
    assert len(reads) == 2
    assert list(FOLDER.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"half", b"\0" * 8, b"\1\0\0\0\1\0\0\0\0\0"])
def test_an_incomplete_file_is_written_again(picture, content):
    kept, (read, reads) = ImageCache(FOLDER, "train", lambda image: image, 5), counted(picture)
    (FOLDER / "train-00000000.rgb").write_bytes(content)
    assert same(kept.get(0, read), picture)
    assert same(kept.get(0, read), picture)
    assert len(reads) == 1


def test_a_full_disk_only_costs_time(picture):
    kept, (read, reads) = ImageCache(FOLDER, "train", lambda image: image, 5), counted(picture)
    with files_no_larger_than(1000):
        found = [kept.get(index, read) for index in (0, 1, 0)]
    assert all(same(image, picture) for image in found)
    assert len(reads) == 3
    assert list(FOLDER.iterdir()) == []


def test_a_signal_while_an_image_is_cached_leaves_no_partial_file(picture, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    kept, (read, _) = ImageCache(FOLDER, "train", lambda image: image, 5), counted(picture)
    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        kept.get(0, read)
    assert list(FOLDER.iterdir()) == []


def test_nothing_is_cached_if_the_folder_cannot_be_created(picture):
    kept, (read, reads) = (
        ImageCache(Path("gone/decoded"), "train", lambda image: image, 5),
        (counted(picture)),
    )
    assert same(kept.get(0, read), picture)
    assert same(kept.get(0, read), picture)
    assert len(reads) == 2


def test_at_most_half_of_the_free_disk_is_used(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert cached_fraction(Path(), 400, 1e9) == 1.0
    assert cached_fraction(Path(), 1000, 1e9) == 0.5
    assert cached_fraction(Path(), 1000, 100) == 0.1
    assert cached_fraction(Path(), 1000, 0) == 0.0


def test_only_the_smallest_quarter_of_the_training_crops_is_enlarged():
    full = Preprocessing()
    assert full.source_side == 400
    picture = Image.fromarray(np.zeros((800, 1200, 3), np.uint8))
    assert full.training_source(picture).size == (600, 400)
    small = Image.fromarray(np.zeros((300, 500, 3), np.uint8))
    assert full.training_source(small) is small
    # A crop of a fraction `a` of a square image has sqrt(a) of its side, and `a` is uniform in 0.35
    # to 1: 299 of 400 pixels are sqrt(a) > 0.7475, a > 0.559.
    assert (1 - (299 / 400) ** 2) / (1 - 0.35) > 0.67


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_the_same_pixels_with_and_without_the_cache(photos, workers):
    paths = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))[:11]
    transform = PREPROCESSING.training_transform(augment="light", flip=True)

    def epochs(count: int) -> list[torch.Tensor]:
        kept = ImageCache(FOLDER, f"{count}", PREPROCESSING.training_source, count)
        dataset = ImageDataset(photos, paths, [0] * 11, transform, cache=kept)
        batches = KeyedBatches(11, 4, shuffle=True)
        loader = create_loader(dataset, batches, workers=workers, side=SMALL)
        read = []
        for epoch in range(3):
            batches.epoch = epoch
            read.append(torch.cat([batch.pixels for batch in read_batches(loader)]))
        return read

    with_files, without, some = epochs(11), epochs(0), epochs(5)
    assert all(torch.equal(a, b) for a, b in zip(with_files, without, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(some, without, strict=True))
    assert not torch.equal(without[0], without[1])
    assert len(list(FOLDER.glob("11-*.rgb"))) == 11
