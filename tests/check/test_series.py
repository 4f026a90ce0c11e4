"""Series: which file names suggest groups of images, and which do not."""

import random
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from images import photo, put
from PIL import Image

from xception_cli.check.duplicates import find_groups
from xception_cli.check.report import TORN, UNGROUPED, Problem
from xception_cli.check.run import run_check
from xception_cli.check.scan import scan_folder
from xception_cli.check.series import Series, find_series, series_problem, straddling
from xception_cli.check.steps import next_steps
from xception_cli.check.store import open_store
from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.inspection import Inspection
from xception_cli.data.photo import Photo
from xception_cli.data.split import make_split
from xception_cli.errors import DataError

Names = Callable[[str, int], Iterable[str]]  # the file names of a class, by its name and index


def folder_of(files: Mapping[str, Iterable[str]]) -> DataFolder:
    """A data folder with the given files of each class folder; `train/cat` is in a split."""
    classes = sorted({folder.rpartition("/")[2] for folder in files})
    images = [
        Photo(f"{where}/{name}", classes.index(where.rpartition("/")[2]), split or None)
        for where in sorted(files)
        for split in [where.rpartition("/")[0]]
        for name in sorted(files[where])
    ]
    splits = [split for split in ("train", "val", "test") if any(i.split == split for i in images)]
    return DataFolder(Path("data"), tuple(classes), tuple(images), {}, tuple(splits))


def named(names: Names, classes: Iterable[str] = ("cat", "dog")) -> DataFolder:
    return folder_of({name: list(names(name, index)) for index, name in enumerate(classes)})


def series_of(folder: DataFolder) -> Series | None:
    return find_series(folder, [image.path for image in folder.images])


def hexadecimal(*seed: object, digits: int = 8) -> str:
    return f"{random.Random(str(seed)).getrandbits(4 * digits):0{digits}x}"


# --- what is a series ----------------------------------------------------------------------------

# By convention: the names, the pattern, the groups and the images in them.
SERIES: dict[str, tuple[Names, str, int, int]] = {
    "Roboflow": (
        lambda c, _: [f"{c}{n}_jpg.rf.{hexadecimal(c, n, v)}.jpg" for n in range(9) for v in "abc"],
        r"([^/]*/?[^/]+)\.rf\.", 18, 54,
    ),
    "Roboflow, from 1 in each class": (
        lambda c, _: [f"{n}_jpg.rf.{hexadecimal(c, n, v)}.jpg" for n in range(9) for v in "abc"],
        r"([^/]*/?[^/]+)\.rf\.", 18, 54,
    ),
    "a letter": (
        lambda _, k: [f"scene{n + 50 * k:02d}_{v}.jpg" for n in range(9) for v in "ab"],
        r"/(scene\d+)", 18, 36,
    ),
    "a letter right after the number": (
        lambda _, k: [f"scene{n + 50 * k:02d}{v}.jpg" for n in range(9) for v in "ab"],
        r"/(scene\d+)", 18, 36,
    ),
    "a second number": (
        lambda _, k: [f"IMG_{n + 50 * k}{v}.jpg" for n in range(9) for v in ("", "_2")],
        r"/(IMG_\d+)", 18, 36,
    ),
    "a number in parentheses": (
        lambda _, k: [f"IMG_{n + 50 * k}{v}.jpg" for n in range(9) for v in ("", " (2)")],
        r"/(IMG_\d+)", 18, 36,
    ),
    "some with a second number": (
        lambda _, k: [
            f"IMG_{n + 50 * k}{v}.jpg" for n in range(9) for v in ("", "_2")[: 1 + n % 2]
        ],
        r"/(IMG_\d+)", 8, 16,
    ),
    "frames": (
        lambda _, k: [f"video{n + 9 * k}_frame_{v:04d}.png" for n in range(4) for v in range(30)],
        r"/(video\d+)", 8, 240,
    ),
    "patients, not their scans": (
        lambda _, k: [
            f"patient{n + 50 * k}_scan{scan}_{v}.png"
            for n in range(5) for scan in (1, 2) for v in range(3)
        ],
        r"/(patient\d+)", 10, 60,
    ),
    "dashes": (
        lambda _, k: [f"P{n + 50 * k:02d}-img-{v:03d}.png" for n in range(5) for v in range(3)],
        r"/(P\d+)", 10, 30,
    ),
    "clips, not their actors": (
        lambda c, _: [
            f"v_{c}_g{n:02d}_c{clip:02d}_{v}.jpg"
            for n in range(4) for clip in (1, 2) for v in range(3)
        ],
        "/([^/]+)_[^/_]+$", 16, 48,
    ),
    "augmentations of Keras": (
        lambda c, _: [f"{c}-{n}-_0_{100 * n + v}.jpg" for n in range(5) for v in range(4)],
        "/([^/]+)[_-][^/_-]+$", 10, 40,
    ),
    "bursts": (
        lambda _, k: [f"2024030{k}_1203{n}_{v}.jpg" for n in range(10, 20) for v in range(3)],
        r"/(\d+_\d+)", 20, 60,
    ),
    "left and right": (
        lambda _, k: [f"{n + 50 * k}_{v}.jpeg" for n in range(9) for v in ("left", "right")],
        r"/(\d+)", 18, 36,
    ),
    "sub-folders": (
        lambda _, k: [f"subject{n + 50 * k}/{v}.png" for n in range(4) for v in range(5)],
        "^[^/]+/([^/]+)/", 8, 40,
    ),
}  # fmt: skip
OF_FOLDERS = {"sub-folders", "Roboflow, from 1 in each class"}  # the names alone say nothing


@pytest.mark.parametrize(("names", "pattern", "groups", "images"), SERIES.values(), ids=SERIES)
def test_a_series_is_found_with_the_pattern_that_keeps_it_together(names, pattern, groups, images):
    folder = named(names)
    found = series_of(folder)
    assert found is not None
    assert (found.pattern, found.groups, found.images) == (pattern, groups, images)
    assert shlex.split(f"--group-by '{found.pattern}'") == ["--group-by", found.pattern]
    of_group = defaultdict(set)
    for image in folder.images:
        if match := re.search(found.pattern, image.path):
            of_group[match[1]].add(image.label)
    assert all(len(labels) == 1 for labels in of_group.values())


def in_one_folder(folder: DataFolder) -> DataFolder:
    """The same images next to each other, as a table lists them: `cat/1.jpg` becomes `1.jpg`."""
    images = [replace(image, path=image.path.rpartition("/")[2]) for image in folder.images]
    return replace(folder, images=tuple(images))


@pytest.mark.parametrize("kind", sorted(SERIES.keys() - OF_FOLDERS))
def test_a_series_is_found_in_a_table_of_images_in_one_folder(kind):
    names, pattern, groups, images = SERIES[kind]
    found = series_of(in_one_folder(named(names)))
    assert found is not None
    expected = re.sub("^/", "^", pattern)
    assert (found.pattern, found.groups, found.images) == (expected, groups, images)


def test_classes_whose_names_have_different_numbers_of_words_share_a_pattern():
    folder = named(
        lambda c, _: [f"{c}_s{n:02d}_{v:03d}.jpg" for n in range(5) for v in range(6)],
        ("cat", "hot_dog", "red_panda_bear"),
    )
    assert series_of(folder) == Series(
        "/([^/]+)_[^/_]+$", 15, 90, "cat_s00 (cat_s00_000.jpg, cat_s00_001.jpg)"
    )


def test_a_series_is_found_among_images_named_differently():
    """As in the chest X-rays of Kermany et al. (2018)."""
    normal = [f"NORMAL2-IM-{n:04d}-0001.jpeg" for n in range(40)]
    folder = folder_of(
        {
            "normal": [*normal, *(f"IM-{n:04d}-0001.jpeg" for n in range(20))],
            "pneumonia": [
                f"person{n}_{kind}_{n + v}.jpeg"
                for n in range(30)
                for v, kind in enumerate(("virus", "bacteria"))
            ],
        }
    )
    found = series_of(folder)
    assert found is not None
    assert (found.pattern, found.groups, found.images) == (r"/(person\d+)", 30, 60)


# --- what is not a series ------------------------------------------------------------------------

NONE: dict[str, Names] = {
    "class and number": lambda c, _: [f"{c}_{n:03d}.jpg" for n in range(200)],
    "class, dot and number": lambda c, _: [f"{c}.{n}.jpg" for n in range(200)],
    "class and number in parentheses": lambda c, _: [f"{c} ({n}).jpg" for n in range(200)],
    "a class that ends with a number": lambda _, k: [f"type{k}_{n}.jpg" for n in range(200)],
    "numbers": lambda *_: [f"{n:03d}.jpg" for n in range(200)],
    "a camera's numbers": lambda _, k: [f"IMG_{n + 500 * k}.jpg" for n in range(200)],
    "varieties": lambda c, _: [
        f"{kind}-{c}_{n:03d}.jpg" for kind in ("Red", "Green", "Pink", "Golden") for n in range(40)
    ],
    "days": lambda _, k: [
        f"IMG_202403{day + 10 * k:02d}_{hour:02d}{day:02d}{hour:02d}.jpg"
        for day in range(10, 16) for hour in range(20)
    ],
    "days and hours": lambda _, k: [
        f"Photo 2024-03-{day + 10 * k:02d} at {hour:02d}.{minute}.jpg"
        for day in range(10, 16) for hour in range(9) for minute in (11, 23, 47)
    ],
    "ImageNet": lambda _, k: [f"n0144{k}764_{37 * n}.JPEG" for n in range(200)],
    "Flickr": lambda c, _: [f"{7919 * n}_{hexadecimal(c, n)}.jpg" for n in range(200)],
    "digests": lambda c, _: [f"{hexadecimal(c, n, digits=32)}.jpg" for n in range(200)],
    "short digests": lambda c, _: {f"{hexadecimal(c, n, digits=4)}.jpg" for n in range(2000)},
    "sizes": lambda _, k: [f"{n + 500 * k}_640_480.jpg" for n in range(200)],
    "sides of one image": lambda _, k: [f"{n + 500 * k}-{n % 7}.jpg" for n in range(200)],
    "conditions": lambda *_: [f"{at}/{n}.png" for at in ("day", "night", "rain") for n in range(9)],
    "turns, numbered anew in each class": lambda *_: [
        f"{side}{n}_100.jpg" for side in ("", "r_") for n in range(100)
    ],
    "one image of each class": lambda *_: ["a.jpg"],
    "none at all": lambda *_: [],
}  # fmt: skip


@pytest.mark.parametrize("names", NONE.values(), ids=NONE)
def test_names_that_are_only_numbered_are_not_a_series(names):
    assert series_of(named(names)) is None


@pytest.mark.parametrize("names", NONE.values(), ids=NONE)
def test_names_that_are_only_numbered_are_not_a_series_in_a_table(names):
    assert series_of(in_one_folder(named(names))) is None


def scenes(count: int = 10, views: str = "ab", singles: int = 0) -> Names:
    def names(_: str, index: int) -> Iterable[str]:
        first = 100 * index
        yield from (f"scene{first + n}_{view}.jpg" for n in range(count) for view in views)
        yield from (f"scene{first + 50 + n}_a.jpg" for n in range(singles))

    return names


def test_the_groups_must_hold_a_fifth_of_the_images():
    assert series_of(named(scenes(count=4, singles=32))) is not None
    assert series_of(named(scenes(count=4, singles=33))) is None


def test_the_median_class_must_have_three_groups():
    assert series_of(named(scenes(count=3))) is not None
    assert series_of(named(scenes(count=2))) is None


def test_groups_of_several_classes_are_not_a_series():
    def shared(classes: int) -> DataFolder:
        return named(lambda _, k: [f"s{n + 100 * (k % classes)}_{k}{v}.jpg" for n in range(9)
                                   for v in "ab"])  # fmt: skip

    assert series_of(shared(2)) is not None
    assert series_of(shared(1)) is None


def test_a_few_wrong_labels_do_not_hide_a_series():
    folder = named(scenes(count=15))

    def swapped(count: int) -> DataFolder:
        wrong = range(0, 2 * count, 2)  # one image of each of the first scenes
        images = [
            replace(image, label=1 - image.label) if at in wrong else image
            for at, image in enumerate(folder.images)
        ]
        return replace(folder, images=tuple(images))

    assert series_of(swapped(3)) is not None
    assert series_of(swapped(4)) is None


def test_a_class_in_one_group_is_not_a_series():
    few = {"cat": [f"s{n}_{v}.jpg" for n in range(4) for v in range(4)]}
    assert series_of(folder_of(few | {"dog": ["x.jpg"] * 1})) is not None
    assert series_of(folder_of(few | {"dog": [f"s9_{v}.jpg" for v in range(16)]})) is None


def test_equal_names_in_two_splits_are_no_evidence():
    files = {f"{split}/{c}": [f"{c}{n}.jpg" for n in range(40)]
             for split in ("train", "val") for c in ("cat", "dog")}  # fmt: skip
    assert series_of(folder_of(files)) is None
    views = {where: [f"s_{n}_{v}.jpg" for n in range(20) for v in "ab"] for where in files}
    assert series_of(folder_of(views)) is None


def test_groups_that_the_units_keep_together_are_not_suggested():
    folder = named(scenes())
    scene = [image.path.rpartition("_")[0] for image in folder.images]
    assert find_series(folder, scene) is None
    # The control: one image is not in the unit of its scene.
    scene[0] = "alone"
    assert find_series(folder, scene) == Series(
        r"/(scene\d+)", 20, 40, "scene0 (scene0_a.jpg, scene0_b.jpg)"
    )


def test_the_frames_of_a_video_are_a_series_even_if_some_are_known_copies():
    folder = named(
        lambda _, k: [
            f"video{n + 10 * k}-{frame}_jpg.rf.{v}{hexadecimal(n, frame, v)}.jpg"
            for n in range(4) for frame in range(10) for v in "ab"
        ]
    )  # fmt: skip
    found = series_of(folder)
    assert found is not None
    assert (found.pattern, found.groups) == (r"([^/]*/?[^/]+)\.rf\.", 80)
    frames = [image.path.partition(".rf.")[0] for image in folder.images]
    found = find_series(folder, frames)
    assert found is not None
    assert (found.pattern, found.groups) == (r"/(video\d+)", 8)


def test_unused_images_do_not_count():
    folder = named(scenes())
    units = [image.path if image.path.endswith("_a.jpg") else "" for image in folder.images]
    assert find_series(folder, units) is None


@pytest.mark.parametrize("names", ["l'été{n}_{v}.jpg", "\udce9t{n}_{v}.jpg", "猫{n}_{v}.jpg"])
def test_the_pattern_has_no_characters_special_to_a_shell(names):
    folder = named(lambda _, k: [names.format(n=n + 50 * k, v=v) for n in range(9) for v in (1, 2)])
    found = series_of(folder)
    assert found is not None
    assert found.pattern.isascii()
    assert "'" not in found.pattern
    assert (found.groups, found.images) == (18, 36)
    found.example.encode()


# --- what is reported ----------------------------------------------------------------------------


def problems_in(root: Path) -> list[Problem]:
    folder = read_folder(root)
    with open_store(root) as store:
        looks = scan_folder(folder, store)
        return series_problem(folder, looks, find_groups(folder, looks, store))


def test_a_series_of_different_photos_is_a_warning_with_the_option_to_type(tmp_path):
    for number, name in enumerate(scenes(count=4)("", 0)):
        put(tmp_path / "cat" / name, photo(number, 64, 48))
        put(tmp_path / "dog" / f"{name[0]}1{name[1:]}", photo(100 + number, 64, 48))
    put(tmp_path / "dog" / "scene9_c.jpg", b"no image")
    (problem,) = problems_in(tmp_path)
    assert (problem.name, problem.severity, problem.findings) == ("series", "warning", ())
    assert problem.summary == (
        "file names suggest series: 16 images in 8 groups, such as scene0 (scene0_a.jpg, "
        r"scene0_b.jpg); keep each group in one split with --group-by '/([^/]+)_[^/_]+$'"
    )


def test_a_series_of_copies_is_found_without_its_names(tmp_path):
    mirror = Image.Transpose.FLIP_LEFT_RIGHT
    for label, name in enumerate(("cat", "dog")):
        for number in range(4):
            picture = photo(10 * label + number)
            put(tmp_path / name / f"{name}{number}_jpg.rf.a1.jpg", picture)
            put(tmp_path / name / f"{name}{number}_jpg.rf.b2.jpg", picture.transpose(mirror))
    assert problems_in(tmp_path) == []
    # The control: with one more photo of each name, the copies do not hold all of a group.
    for label, name in enumerate(("cat", "dog")):
        for number in range(4):
            put(tmp_path / name / f"{name}{number}_jpg.rf.c3.jpg", photo(50 + 10 * label + number))
    assert [problem.name for problem in problems_in(tmp_path)] == ["series"]


def test_in_given_splits_only_groups_on_both_sides_are_a_problem(tmp_path):
    for split in ("train", "val", "test"):
        for k, name in enumerate(("cat", "dog")):
            for n in range(4):
                for v in "ab":
                    scene = f"{'tv'[split != 'train']}{n + 10 * k}"
                    seed = 1000 * len(split) + 100 * k + 10 * n + ord(v)
                    path = tmp_path / split / name / f"{scene}_{v}{split}.jpg"
                    put(path, photo(seed, 64, 48))
    assert problems_in(tmp_path) == []
    put(tmp_path / "val" / "cat" / "t0_c.jpg", photo(9000))
    (problem,) = problems_in(tmp_path)
    assert problem.summary == (
        "file names suggest series: 49 images in 16 groups, such as t0 (t0_atrain.jpg, "
        "t0_c.jpg). Images of 1 group are in train and in another split: metrics measured "
        "there will be too optimistic; train with --group-by '/([^/]+)_[^/_]+$' to list them"
    )


def seen(folder: DataFolder) -> DataFolder:
    """Return the folder as if all its images were different."""
    return folder.inspected(Inspection(f"{n:032x}") for n in range(len(folder.images)))


def test_the_pattern_keeps_groups_in_one_split():
    folder = named(scenes(count=30, views="abcd"))
    found = series_of(folder)
    assert found is not None
    folder = seen(folder)
    drawn = {"seed": 0, "val_fraction": 0.2, "test_fraction": 0.1}
    torn = make_split(folder, **drawn)
    assert straddling(found, torn.images) > 20
    kept = make_split(replace(folder, group_by=found.pattern), **drawn)
    assert straddling(found, kept.images) == 0
    assert kept.of("val")


def test_groups_straddle_only_train_and_another_split():
    found = Series(r"/(s\d)_", 0, 0, "")
    photos = [
        Photo(f"cat/s{number}_{v}.jpg", 0, split)
        for number, splits in enumerate([
            ("train", "val"), ("train", "test"), ("val", "test"), ("train", "out"),
            ("train", "train"), ("train", None),
        ])
        for v, split in enumerate(splits)
    ]  # fmt: skip
    assert straddling(found, photos) == 2
    assert straddling(found, [Photo("cat/x.jpg", 0, "train"), Photo("cat/y.jpg", 0, "val")]) == 0


def test_a_named_group_in_train_and_in_another_split_is_a_warning_of_check_as_of_train(tmp_path):
    for split, numbers in (("train", (1, 2)), ("val", (1, 3)), ("test", (2, 3))):
        for label, name in enumerate(("cat", "dog")):
            for n in numbers:
                seed = 100 * len(split) + 10 * label + n
                put(tmp_path / split / name / f"p{n}-{split}.jpg", photo(seed, 64, 48))
    folder = read_folder(tmp_path)
    assert not [p for p in run_check(folder).problems if p.name == TORN]
    report = run_check(replace(folder, group_by=r"/(p\d)-"))
    assert next_steps(report).undecided == 4  # only a person can choose what to exclude
    (found,) = [p for p in report.problems if p.name == TORN]
    assert (found.severity, found.summary) == (
        "warning",
        "4 images of val or test are of groups in train: metrics measured there will be too "
        "optimistic",
    )
    assert [(finding.path, finding.detail) for finding in found.findings] == [
        (f"{split}/{name}/p{n}-{split}.jpg", f"of group p{n}, as is train/cat/p{n}-train.jpg")
        for split, n in (("val", 1), ("test", 2))
        for name in ("cat", "dog")
    ]
    folder = replace(seen(folder), group_by=r"/(p\d)-")
    with pytest.raises(DataError, match="4 images of val or test are in train, too"):
        make_split(folder, seed=0, val_fraction=0.2, test_fraction=0.0, strict=True)


def test_images_that_the_pattern_does_not_group_are_a_warning_of_check_as_of_train(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for n in range(3):
            put(tmp_path / name / f"{name}{n}.jpg", photo(10 * label + n, 64, 48))
    folder = read_folder(tmp_path)
    every, some = (replace(folder, group_by=pattern) for pattern in ("(...)", r"(cat\d)"))
    assert not [p for p in run_check(every).problems if p.name == UNGROUPED]
    (found,) = [p for p in run_check(some).problems if p.name == UNGROUPED]
    assert found.severity == "warning"
    grouped = replace(seen(folder), group_by=r"(cat\d)")
    split = make_split(grouped, seed=0, val_fraction=0.2, test_fraction=0.0)
    assert found.summary in split.warnings
    images = tuple(replace(image, group="one") for image in folder.images)  # as in a table
    report = run_check(replace(folder, images=images, group_by="(...)"))
    assert not [p for p in report.problems if p.name == UNGROUPED]  # all are grouped by the pattern
