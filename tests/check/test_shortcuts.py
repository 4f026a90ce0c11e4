"""Properties of the files that predict the class."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import encoded, photo, put
from PIL import Image
from units import alone

from xception_cli.check import shortcuts
from xception_cli.check.scan import scan_folder
from xception_cli.check.shortcuts import find_shortcuts
from xception_cli.check.store import open_store
from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.photo import Photo
from xception_cli.data.units import unit_folds

Writer = Callable[[int, int], tuple[str, bytes]]  # (class, number) -> name, content


def sentences(
    root: Path,
    write: Writer,
    classes: int = 2,
    count: int = 20,
    unit: Callable[[Photo], str] = lambda image: image.path,
) -> list[str]:
    for label in range(classes):
        for number in range(count):
            name, content = write(label, number)
            put(root / f"class{label}" / name, content)
    folder = read_folder(root)
    with open_store(root) as store:
        units = [unit(image) for image in folder.images]
        problems = find_shortcuts(folder, scan_folder(folder, store), units)
    assert {(p.name, p.severity, p.findings) for p in problems} <= {("shortcut", "warning", ())}
    return [problem.summary for problem in problems]


def plain(label: int, number: int) -> tuple[str, bytes]:
    return f"{number}.jpg", encoded(photo(100 * label + number, 64, 48))


def by_format(label: int, number: int) -> tuple[str, bytes]:
    picture = photo(100 * label + number, 64, 48)
    return f"{number}.jpg", encoded(picture, "PNG" if label else "JPEG")  # the name is no evidence


def mostly_by_format(label: int, number: int) -> tuple[str, bytes]:
    return by_format(label if number else 1 - label, 100 * label + number)


def by_size(label: int, number: int) -> tuple[str, bytes]:
    side = 60 + 30 * label + number % 3
    return f"{number}.jpg", encoded(photo(100 * label + number, side, side))


def by_shape(label: int, number: int) -> tuple[str, bytes]:
    width = 90 + 7 * (number % 5)
    return f"{number}.jpg", encoded(
        photo(100 * label + number, width, round(width * (0.7, 1.4)[label]))
    )


def by_brightness(label: int, number: int) -> tuple[str, bytes]:
    pixels = np.asarray(photo(100 * label + number, 64, 48)) * (1, 0.5)[label]
    return f"{number}.jpg", encoded(Image.fromarray(pixels.astype(np.uint8)))


def by_mode(label: int, number: int) -> tuple[str, bytes]:
    picture = photo(100 * label + number, 64, 48)
    return f"{number}.jpg", encoded(picture.convert("L") if label else picture)


def by_folder(label: int, number: int) -> tuple[str, bytes]:
    return f"camera{label}/{number}.jpg", plain(label, number)[1]


def test_ordinary_photos_have_no_shortcut(tmp_path):
    assert sentences(tmp_path, plain) == []


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (by_format, ["file format alone predicts the class with 100% recall (chance: 50%)"]),
        (mostly_by_format, ["file format alone predicts the class with 95% recall (chance: 50%)"]),
        (by_mode, ["colour mode alone predicts the class with 100% recall (chance: 50%)"]),
        (by_size, ["image size alone predicts the class with 100% recall (chance: 50%)"]),
        (by_brightness, ["brightness alone predicts the class with 100% recall (chance: 50%)"]),
        (by_folder, ["sub-folder alone predicts the class with 100% recall (chance: 50%)"]),
    ],
    ids=["format", "mostly the format", "mode", "size", "brightness", "sub-folder"],
)
def test_a_property_that_predicts_the_class_is_named(tmp_path, write, expected):
    assert sentences(tmp_path, write) == expected


def test_the_aspect_ratio_is_a_shortcut_at_any_size(tmp_path):
    assert "aspect ratio alone predicts the class with 100% recall (chance: 50%)" in sentences(
        tmp_path, by_shape
    )


def test_a_single_class_that_a_property_separates_is_named(tmp_path):
    def write(label: int, number: int) -> tuple[str, bytes]:
        return by_format(int(label == 3), 100 * label + number)

    assert sentences(tmp_path, write, classes=6) == [
        "file format alone separates class3 from the other classes"
    ]


def test_sub_folders_that_are_kinds_of_their_class_are_not_a_shortcut(tmp_path):
    def write(label: int, number: int) -> tuple[str, bytes]:
        return f"kind{2 * label + number % 2}/{number}.jpg", plain(label, number)[1]

    assert sentences(tmp_path, write) == []


def test_sub_folders_that_classes_share_unevenly_are_a_shortcut(tmp_path):
    def write(label: int, number: int) -> tuple[str, bytes]:
        day = f"day{label if number % 10 else 1 - label}"
        if number % 10 == 1:  # its own: folders of the same names would look like splits
            day = f"own{2 * label + number % 20 // 10}"
        return f"{day}/{number}.jpg", plain(label, number)[1]

    (sentence,) = sentences(tmp_path, write, count=40)
    assert sentence.startswith("sub-folder alone predicts the class with ")


def test_sub_folders_are_searched_below_the_class_of_a_split(tmp_path):
    image = Photo("train/cat/day1/x/1.jpg", 0, "train")
    assert shortcuts._sub_folder(image) == "day1/x"
    assert shortcuts._sub_folder(Photo("cat/1.jpg", 0)) == ""


def test_a_property_of_single_groups_is_not_a_shortcut(tmp_path):
    def write(label: int, number: int) -> tuple[str, bytes]:
        side = 60 + 3 * (2 * (number % 8) + label)  # of one group; the next size is the other class
        picture = photo(100 * label + number, side, side)
        return f"group{number % 8}-{number}.jpg", encoded(picture)

    def group(image: Photo) -> str:
        return image.path.partition("-")[0]

    assert sentences(tmp_path, write, count=40, unit=group) == []
    # the control: if each image is a unit, the sizes of the groups are memorised
    assert sentences(tmp_path, write, count=40) == [
        "image size alone predicts the class with 100% recall (chance: 50%)"
    ]


def test_a_few_images_are_no_evidence(tmp_path):
    assert sentences(tmp_path, by_format, count=9) == []


def test_chance_in_small_sets_is_not_a_shortcut():
    """Hardly any of 200 sets with random properties gets a warning."""
    rng = np.random.default_rng(0)
    folder = DataFolder(Path(), ("a", "b"), ())
    labels = np.repeat([0, 1], 12)
    folds = unit_folds(alone(labels), folds=5, seed=0, labels=labels)
    warned = 0
    for _ in range(200):
        values = [(float(value),) for value in rng.normal(size=24)]
        predicted = shortcuts._predict(values, labels, folds)
        warned += bool(shortcuts._verdict("x", folder, labels, predicted))
    assert warned <= 2


def test_a_sample_of_a_large_set_is_predicted(tmp_path, monkeypatch):
    monkeypatch.setattr(shortcuts, "_MOST", 10)
    asked = []
    real = shortcuts._predict

    def counting(values, labels, folds):
        asked.append(len(labels))
        return real(values, labels, folds)

    monkeypatch.setattr(shortcuts, "_predict", counting)
    assert len(sentences(tmp_path, by_format, count=50)) == 1
    assert max(asked) == 50  # of 100: 20 or more of each class
