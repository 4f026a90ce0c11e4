"""The same image twice: identical or nearly so, in a class, across splits, across classes."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from images import encoded, photo, put, two_classes
from PIL import Image, ImageEnhance, ImageFilter

from xception_cli.check import duplicates, near
from xception_cli.check.duplicates import find_duplicates, find_groups
from xception_cli.check.measures import SIDE, fingerprint
from xception_cli.check.near import Images, near_copies, near_pairs
from xception_cli.check.report import Problem
from xception_cli.check.scan import scan_folder
from xception_cli.check.store import open_store
from xception_cli.data.folder import read_folder


def found_in(root: Path) -> dict[str, Problem]:
    folder = read_folder(root)
    with open_store(root) as store:
        looks = scan_folder(folder, store)
        groups = find_groups(folder, looks, store)
    return {problem.name: problem for problem in find_duplicates(folder, looks, groups)}


def rows(problem: Problem) -> list[tuple[str, str, str, str]]:
    return [(f.path, f.detail, f.action, f.label) for f in problem.findings]


# --- how they are reported ------------------------------------------------------------------------


def test_different_images_are_not_duplicates(tmp_path):
    assert found_in(two_classes(tmp_path, 20)) == {}


def test_all_but_the_first_of_identical_files_in_a_class_may_be_excluded(tmp_path):
    two_classes(tmp_path)
    for name in ("b.jpg", "c.jpg"):
        shutil.copy(tmp_path / "cat" / "0.jpg", tmp_path / "cat" / name)
    found = found_in(tmp_path)
    assert list(found) == ["duplicate"]
    assert found["duplicate"].severity == "note"
    assert found["duplicate"].summary == "2 identical copies of images in the same class"
    assert rows(found["duplicate"]) == [
        ("cat/b.jpg", "identical to cat/0.jpg", "exclude", ""),
        ("cat/c.jpg", "identical to cat/0.jpg", "exclude", ""),
    ]


def test_an_image_in_two_classes_is_a_conflict_that_a_person_decides(tmp_path):
    two_classes(tmp_path)
    shutil.copy(tmp_path / "cat" / "0.jpg", tmp_path / "dog" / "x.jpg")
    found = found_in(tmp_path)
    assert list(found) == ["conflicting labels"]
    assert found["conflicting labels"].severity == "warning"
    assert found["conflicting labels"].summary == "1 image is in more than one class"
    assert rows(found["conflicting labels"]) == [
        ("cat/0.jpg", "identical to dog/x.jpg", "", ""),
        ("dog/x.jpg", "identical to cat/0.jpg", "", ""),
    ]


def test_an_image_in_two_splits_is_a_leak_and_the_training_copy_may_be_excluded(tmp_path):
    two_classes(tmp_path / "train")
    for number, (split, source) in enumerate(
        [("val", "cat/0"), ("test", "cat/1"), ("val", "dog/2")]
    ):
        target = tmp_path / split / source[:3] / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "train" / f"{source}.jpg", target)
    put(tmp_path / "test" / "dog" / "1.jpg", photo(90))
    found = found_in(tmp_path)
    assert list(found) == ["leak"]
    assert found["leak"].severity == "warning"
    assert found["leak"].summary == (
        "3 images are in more than one split: metrics measured there will be too optimistic"
    )
    assert rows(found["leak"]) == [
        ("train/cat/0.jpg", "identical to val/cat/0.jpg", "exclude", ""),
        ("train/cat/1.jpg", "identical to test/cat/1.jpg", "exclude", ""),
        ("train/dog/2.jpg", "identical to val/dog/2.jpg", "exclude", ""),
    ]


def test_one_copy_in_test_is_kept_of_an_image_in_all_splits(tmp_path):
    for number, (split, names) in enumerate({"train": "ab", "val": "c", "test": "de"}.items()):
        put(tmp_path / split / "dog" / "1.jpg", photo(number))
        for name in names:
            put(tmp_path / split / "cat" / f"{name}.jpg", photo(1000))
    found = found_in(tmp_path)
    assert [row[0] for row in rows(found.pop("leak"))] == [
        "train/cat/a.jpg", "train/cat/b.jpg", "val/cat/c.jpg",
    ]  # fmt: skip
    assert rows(found.pop("duplicate")) == [
        ("test/cat/e.jpg", "identical to test/cat/d.jpg", "exclude", "")
    ]
    assert found == {}


def test_a_leak_may_also_be_a_conflict_and_the_identical_copy_is_named_first(tmp_path):
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "val", 0)
    put(tmp_path / "val" / "cat" / "1.jpg", photo(70))
    put(tmp_path / "val" / "dog" / "a.jpg", encoded(photo(0), quality=60))
    put(tmp_path / "val" / "dog" / "b.jpg", photo(0))
    found = found_in(tmp_path)
    assert rows(found.pop("leak")) == [
        ("train/cat/0.jpg", "identical to val/dog/b.jpg", "exclude", "")
    ]
    assert rows(found.pop("conflicting labels")) == [
        ("train/cat/0.jpg", "identical to val/dog/b.jpg", "", ""),
        ("val/dog/a.jpg", "nearly identical to train/cat/0.jpg", "", ""),
        ("val/dog/b.jpg", "identical to train/cat/0.jpg", "", ""),
    ]
    assert rows(found.pop("near-copy")) == [
        ("val/dog/b.jpg", "nearly identical to val/dog/a.jpg", "", "")
    ]
    assert found == {}


def test_near_copies_in_a_class_are_reported_without_an_action(tmp_path):
    two_classes(tmp_path)
    put(tmp_path / "cat" / "small.png", photo(0).resize((100, 75)))
    found = found_in(tmp_path)
    assert list(found) == ["near-copy"]
    assert found["near-copy"].severity == "note"
    assert found["near-copy"].summary == (
        "1 near-copy of images in the same class, possibly mirrored or rotated"
    )
    assert rows(found["near-copy"]) == [("cat/small.png", "nearly identical to cat/0.jpg", "", "")]


def test_identical_broken_files_are_not_duplicates(tmp_path):
    two_classes(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        put(tmp_path / "cat" / name, b"<html>")
        put(tmp_path / "dog" / name, b"")
    assert found_in(tmp_path) == {}


# --- which images are near-copies ----------------------------------------------------------------


def images_of(pictures: Sequence[Image.Image], labels: Sequence[int] | int = 0) -> Images:
    seen = [fingerprint(image.convert("RGB")) for image in pictures]
    cells = np.array([list(each.cells) for each in seen], np.uint8).reshape(len(seen), 48)
    greys = np.array([list(each.grey) for each in seen], np.uint8).reshape(-1, SIDE, SIDE)
    classes = np.broadcast_to(np.array(labels, np.int64), len(seen))
    return Images(cells, lambda wanted: greys[wanted], classes)


def pairs_of(
    pictures: Sequence[Image.Image], labels: Sequence[int] | int = 0
) -> list[tuple[int, int]]:
    return near_pairs(images_of(pictures, labels))


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def cropped(image: Image.Image, *parts: float) -> Image.Image:
    """Crop fractions of the sides: left, top, right, bottom."""
    width, height = image.size
    left, top, right, bottom = parts
    box = (left * width, top * height, width - right * width, height - bottom * height)
    return image.crop(tuple(round(at) for at in box))


SAME = {
    "quality 30": lambda p: decoded(encoded(p, quality=30)),
    "webp": lambda p: decoded(encoded(p, "WEBP", quality=50)),
    "half the size": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC),
    "nearest": lambda p: p.resize((p.width * 2, p.height * 2), Image.Resampling.NEAREST),
    "another shape": lambda p: p.resize((200, 200)),
    "cropped": lambda p: cropped(p, 0.04, 0.04, 0.04, 0.04),
    "cropped at a corner": lambda p: cropped(p, 0.05, 0.05, 0, 0),
    "cropped by a sixth": lambda p: cropped(p, 0.08, 0.08, 0.08, 0.08),
    "cropped below": lambda p: cropped(p, 0, 0, 0, 0.08),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
    "a little softer": lambda p: p.filter(ImageFilter.GaussianBlur(1)),
    "black and white": lambda p: decoded(encoded(p.convert("L"))),
    "all of it": lambda p: decoded(
        encoded(cropped(p, 0.03, 0.01, 0.02, 0.05).resize((90, 70)), quality=60)
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_a_copy_is_found_among_other_images_after_any_modification(change):
    pictures = [photo(seed, 320, 240) for seed in range(12)]
    copies = [change(image) for image in pictures[:4]]
    expected = [(number, 12 + number) for number in range(4)]
    assert pairs_of(pictures + copies) == expected
    assert pairs_of(copies + pictures) == [(n, 4 + n) for n in range(4)]


def scene(seed: int, left: int = 0, top: int = 0, objects: int = 0) -> Image.Image:
    """A view of a larger scene, like another photo from the hand."""
    whole = np.asarray(photo(seed, 480, 360)).copy()
    rng = np.random.default_rng(objects)
    for _ in range(objects):
        x, y = int(rng.integers(60, 300)), int(rng.integers(40, 200))
        whole[y : y + 90, x : x + 90] = rng.integers(0, 256, 3)
    return Image.fromarray(whole[20 + top : 260 + top, 40 + left : 360 + left])


OTHER = {
    "another image": lambda seed: photo(seed + 500, 320, 240),
    "the next photo, to the right": lambda seed: scene(seed, 32, 0),
    "the next photo, below": lambda seed: scene(seed, 0, 30),
    "the next photo, oblique": lambda seed: scene(seed, -24, 20),
    "other things there": lambda seed: scene(seed, objects=3),
}


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
def test_a_burst_of_photos_and_other_images_are_not_copies(other):
    pictures = [scene(seed) for seed in range(6)]
    assert pairs_of(pictures + [other(seed) for seed in range(6)]) == []
    # The control: the copies themselves are found.
    assert len(pairs_of(pictures + [cropped(scene(s), 0.03, 0, 0, 0.03) for s in range(6)])) == 6


TURNS = {
    "turned left": Image.Transpose.ROTATE_90,
    "upside down": Image.Transpose.ROTATE_180,
    "turned right": Image.Transpose.ROTATE_270,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "mirrored from top to bottom": Image.Transpose.FLIP_TOP_BOTTOM,
    "mirrored at a diagonal": Image.Transpose.TRANSPOSE,
    "mirrored at the other diagonal": Image.Transpose.TRANSVERSE,
}
turns = pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)


@turns
def test_a_rotated_or_mirrored_copy_is_found_in_its_class_after_any_modification(turn):
    pictures = [photo(seed, 320, 240) for seed in range(12)]
    copies = [SAME["all of it"](image.transpose(turn)) for image in pictures[:4]]
    assert pairs_of(pictures + copies) == [(number, 12 + number) for number in range(4)]
    assert pairs_of(copies + pictures) == [(number, 4 + number) for number in range(4)]


@turns
def test_a_rotated_or_mirrored_image_in_another_class_is_not_a_copy(turn):
    pictures = [photo(seed, 320, 240) for seed in range(6)]
    classes = [0] * 6 + [1] * 6
    assert pairs_of(pictures + [p.transpose(turn) for p in pictures], classes) == []
    # The control: upright copies are found in any class.
    expected = [(number, 6 + number) for number in range(6)]
    assert pairs_of(pictures + pictures, classes) == expected


def coin(seed: int, lit: bool = True) -> Image.Image:
    """A dark disc on a bright table, with relief if it is lit."""
    y, x = np.mgrid[-1:1:240j, -1:1:240j]
    relief = np.asarray(photo(seed, 240, 240).convert("L"), float) - 128
    disc = np.clip((0.7 - np.hypot(x, y)) * 20 + 0.5, 0, 1)
    grey = (1 - disc) * (200 + 4 * x) + disc * (90 + 0.4 * relief * lit)
    return Image.fromarray(np.stack([grey, grey * 0.8, grey * 0.7], 2).astype(np.uint8))


def test_round_objects_are_not_copies_of_each_other_in_any_rotation(monkeypatch):
    coins = [coin(seed) for seed in range(8)]
    assert pairs_of(coins) == []
    copies = [decoded(encoded(each.resize((150, 150)), quality=80)) for each in coins[:4]]
    expected = [(number, 8 + number) for number in range(4)]
    assert pairs_of(coins + copies) == expected
    turned = [copy.transpose(Image.Transpose.ROTATE_90) for copy in copies]
    assert pairs_of(coins + turned) == expected
    # The control: without the comparison of orientations, coins are confused.
    monkeypatch.setattr(near, "_RIVAL", np.inf)
    assert len(pairs_of(coins)) > 10


def test_a_copy_of_a_symmetric_image_is_found():
    blank = coin(0, lit=False)
    others = [photo(seed, 240, 240) for seed in range(5)]
    copy = decoded(encoded(blank.resize((150, 150)), quality=80))
    assert pairs_of([*others, blank, copy]) == [(5, 6)]


def test_images_are_recognised_in_another_set_of_images():
    known = [photo(seed, 320, 240) for seed in range(8)]
    mirror = Image.Transpose.FLIP_LEFT_RIGHT
    new = {
        "another": (photo(100, 320, 240), 0),
        "the same": (photo(0, 320, 240), 0),
        "the same in another class": (photo(1, 320, 240), 1),
        "cropped": (cropped(photo(2, 320, 240), 0.04, 0, 0, 0.04), 0),
        "mirrored": (photo(3, 320, 240).transpose(mirror), 0),
        "mirrored in another class": (photo(4, 320, 240).transpose(mirror), 1),
        "of a class that only this set has": (photo(5, 320, 240), 7),
        "another, twice": (photo(100, 320, 240).resize((100, 75)), 0),
    }
    pictures, labels = zip(*new.values(), strict=True)
    found = near_copies(images_of(pictures, labels), images_of(known))
    assert [name for name, copy in zip(new, found, strict=True) if copy] == [
        "the same",
        "the same in another class",
        "cropped",
        "mirrored",
        "of a class that only this set has",
    ]


@pytest.mark.parametrize("way", [None, Image.Transpose.FLIP_LEFT_RIGHT])
def test_a_black_and_white_copy_is_recognised_in_another_set_and_so_is_its_original(way):
    colour = [photo(seed, 320, 240) for seed in range(4)]
    grey = [(p if way is None else p.transpose(way)).convert("L") for p in colour[:2]]
    others = [photo(100, 320, 240).convert("L"), photo(200, 320, 240)]
    known = images_of([*colour, photo(300, 320, 240).convert("L")])
    found = near_copies(images_of([*others, *grey]), known).tolist()
    assert found == [False, False, True, True]
    found = near_copies(known, images_of([*others, *grey])).tolist()
    assert found == [True, True, False, False, False]
    in_another_class = near_copies(images_of([*others, *grey], 1), known).tolist()
    assert in_another_class == [False, False, way is None, way is None]


def test_many_copies_in_one_set_do_not_hide_copies_in_the_other():
    many = [decoded(encoded(photo(0), quality=40 + 2 * number)) for number in range(25)]
    known = [*many, photo(1), photo(2)]
    new = [photo(2), *many, photo(3), *many, photo(1).rotate(90, expand=True)]
    found = near_copies(images_of(new), images_of(known)).tolist()
    assert found == [True] * 26 + [False] + [True] * 26


def test_an_empty_set_has_no_copies():
    some, none = images_of([photo(0)] * 3), images_of([])
    assert near_copies(none, some).tolist() == []
    assert near_copies(some, none).tolist() == [False] * 3
    assert near_pairs(none) == []


def test_uniform_and_noisy_images_match_no_other():
    rng = np.random.default_rng(0)
    flat = [Image.new("RGB", (64, 64), (90 + n, 90, 90)) for n in range(5)]
    noisy = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(5)]
    patches = [
        Image.fromarray(
            np.clip(rng.normal((200, 50, 40), 30, (64, 64, 3)), 0, 255).astype(np.uint8)
        )
        for _ in range(20)
    ]
    slope = np.linspace(0, 255, 64)
    slopes = [
        Image.fromarray(
            np.stack([np.add.outer(slope * a, slope * (1 - a))] * 3, 2).astype(np.uint8)
        )
        for a in (0.2, 0.4, 0.6, 0.8)
    ]
    assert pairs_of([*flat, *noisy, *patches, *slopes]) == []


def test_the_block_size_does_not_change_the_pairs(monkeypatch):
    pictures = [photo(seed % 15, 64, 48) for seed in range(40)]
    expected = [(a, b) for a in range(40) for b in range(a + 1, 40) if a % 15 == b % 15]
    assert pairs_of(pictures) == expected
    turned = [p.rotate(90 * (n // 15), expand=True) for n, p in enumerate(pictures)]
    assert pairs_of(turned) == expected
    assert len(pairs_of(turned, range(40))) == 0
    monkeypatch.setattr(near, "_BLOCK", 40 * 7)
    monkeypatch.setattr(near, "_PAIRS", 3)
    assert pairs_of(pictures) == expected
    assert pairs_of(turned) == expected


@pytest.mark.parametrize("count", [0, 1, 2])
def test_zero_or_one_image_works(tmp_path, count):
    assert pairs_of([photo(1, 64, 48)] * count or [photo(1)])[:1] == [(0, 1)][: count - 1]
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    for number in range(count):
        put(tmp_path / "cat" / f"{number}.jpg", photo(number))
    assert found_in(tmp_path) == {}


def test_planted_copies_are_found_and_nothing_else(tmp_path):
    """At least 95 in 100 is the target; here all are found, in any format and size."""
    rng = np.random.default_rng(3)
    planted = set()
    for number in range(80):
        image = photo(number, 240, 180)
        put(tmp_path / "train" / f"c{number % 4}" / f"{number}.jpg", image)
        if number % 2:
            scale = rng.uniform(0.4, 1.5)
            copy = cropped(image, *rng.uniform(0, 0.05, 4))
            copy = copy.resize((round(copy.width * scale), round(copy.height * scale)))
            suffix = ("jpg", "png", "webp")[number % 3]
            put(tmp_path / "val" / f"c{number % 4}" / f"copy{number}.{suffix}", copy)
            planted.add(f"train/c{number % 4}/{number}.jpg")
        else:
            put(
                tmp_path / "val" / f"c{number % 4}" / f"{number}.jpg", photo(number + 300, 240, 180)
            )
    found = found_in(tmp_path)
    assert list(found) == ["leak"]
    assert {finding.path for finding in found["leak"].findings} == planted


# --- kept between runs ---------------------------------------------------------------------------


def test_the_pairs_are_computed_once_until_an_image_changes(tmp_path, monkeypatch):
    two_classes(tmp_path)
    put(tmp_path / "cat" / "small.png", photo(0).resize((100, 75)))
    calls = []
    real = near_pairs

    def counting(*arguments):
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(duplicates, "near_pairs", counting)
    first = found_in(tmp_path)
    assert found_in(tmp_path) == first
    assert len(calls) == 1
    put(tmp_path / "cat" / "other.png", photo(1).resize((100, 75)))
    found = found_in(tmp_path)
    assert len(calls) == 2
    assert set(found) == {"near-copy", "conflicting labels"}


def test_a_mirrored_copy_is_found_until_it_moves_to_another_class(tmp_path):
    two_classes(tmp_path)
    mirrored = photo(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    path = put(tmp_path / "cat" / "mirrored.png", mirrored)
    assert [row[:2] for row in rows(found_in(tmp_path)["near-copy"])] == [
        ("cat/mirrored.png", "nearly identical to cat/0.jpg")
    ]
    path.rename(tmp_path / "dog" / "mirrored.png")
    assert found_in(tmp_path) == {}


def test_an_image_missing_in_the_cache_matches_no_other(tmp_path):
    two_classes(tmp_path)
    put(tmp_path / "cat" / "small.png", photo(0).resize((100, 75)))
    folder = read_folder(tmp_path)
    with open_store(tmp_path) as store:
        looks = scan_folder(folder, store)
        store._database.execute("DELETE FROM pictures")
        assert find_groups(folder, looks, store) == []
