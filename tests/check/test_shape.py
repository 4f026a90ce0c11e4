"""The shape of a data set."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from folders import make

from xception_cli.check.report import Problem
from xception_cli.check.scan import Look
from xception_cli.check.shape import check_shape
from xception_cli.check.survey import survey_data
from xception_cli.config import TrainConfig
from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.original import Original
from xception_cli.data.source import read_data
from xception_cli.data.trainable import check_trainable
from xception_cli.errors import DataError


def fabricated(folder: DataFolder) -> tuple[Look, ...]:
    """Looks at files that need not exist: each is a different image."""
    original = Original("JPEG", "RGB", 8, 8, 1, False, False, False, False)
    return tuple(Look(str(number), None, 1, original) for number in range(len(folder.images)))


def shape_of(root: Path) -> list[tuple[str, str, str]]:
    folder = read_folder(root)
    return [(p.name, p.severity, p.summary) for p in checked(folder, fabricated(folder))]


def checked(folder: DataFolder, looks: Sequence[Look]) -> list[Problem]:
    """Check a folder without groups or near-copies."""
    return check_shape(folder, looks, [look.digest for look in looks])


def many(counts: dict[str, int]) -> list[str]:
    return [f"{name}/{number}.jpg" for name, n in counts.items() for number in range(n)]


def test_an_even_set_of_enough_images_is_clean(tmp_path):
    assert shape_of(make(tmp_path, *many({"cat": 10, "dog": 30}))) == []
    splits = many({f"{split}/{c}": 10 for split in ("train", "val", "test") for c in ("a", "b")})
    assert shape_of(make(tmp_path / "splits", *splits)) == []


STOPPING = {
    "one class": ["cat/1.jpg"],
    "an empty class": ["cat/1.jpg", "dog/1.jpg", "cow/"],
    "a class only in val": ["train/cat/1.jpg", "train/dog/1.jpg", "val/cow/1.jpg"],
    "no train": ["val/cat/1.jpg", "val/dog/1.jpg", "test/cat/1.jpg"],
    "two forms of one name": [
        f"{unicodedata.normalize('NFC', 'é')}/1.jpg", f"{unicodedata.normalize('NFD', 'é')}/1.jpg",
    ],
}  # fmt: skip


@pytest.mark.parametrize("names", STOPPING.values(), ids=STOPPING)
def test_what_training_refuses_stops_in_its_own_words(tmp_path, names):
    make(tmp_path, *names)
    if len({path.name for path in tmp_path.iterdir()}) < len({n.split("/")[0] for n in names}):
        pytest.skip("this file system takes the two names for one")
    with pytest.raises(DataError) as refusal:
        check_trainable(read_folder(tmp_path))
    stops = [summary for _, severity, summary in shape_of(tmp_path) if severity == "stops"]
    assert stops == [refusal.value.message]


def test_everything_that_training_refuses_is_listed_at_once(tmp_path):
    names = [f"train/{c}/1.jpg" for c in ("cat", "dog")]
    make(tmp_path, *names, "val/Cat/1.jpg", "val/cow/1.jpg", "val/hen/1.jpg")
    stops = [summary for _, severity, summary in shape_of(tmp_path) if severity == "stops"]
    assert stops == [  # Cat is no further class without images in train
        f"one class has two names in {tmp_path}: 'cat' in train, 'Cat' in val",
        "no images in train for: cow, hen",
    ]
    with pytest.raises(DataError, match="one class has two names"):
        check_trainable(read_folder(tmp_path))


def test_a_class_in_two_unicode_forms_is_one_reason_and_not_two(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    names = [f"{place}/{n}.jpg" for n in "12" for place in (f"train/{composed}", "train/dog")]
    make(tmp_path, *names, f"val/{decomposed}/3.jpg", "val/dog/3.jpg")
    (stops,) = (summary for _, severity, summary in shape_of(tmp_path) if severity == "stops")
    assert stops.startswith("one class has two names")


def test_what_stops_training_has_the_hint_of_training(tmp_path):
    folder = read_folder(
        make(tmp_path, "images/1.jpg", "labels.csv", "a.xlsx", "~$a.xlsx", "b.txt")
    )
    (problem,) = checked(folder, fabricated(folder))[:1]
    with pytest.raises(DataError) as refusal:
        check_trainable(folder)
    assert problem.hint == refusal.value.hint
    tables = f"{tmp_path / 'a.xlsx'}, {tmp_path / 'labels.csv'}"
    named = f"give a table instead, if it has the labels: {tables}; or make one "
    assert problem.hint.startswith(named)


def test_classes_whose_images_are_all_broken_or_all_the_same_stop(tmp_path):
    folder = read_folder(make(tmp_path, *many({"cat": 10, "dog": 10})))
    looks = fabricated(folder)
    broken = [Look("x", "truncated")] * 10
    (problem,) = checked(folder, (*looks[:10], *broken))
    assert problem == Problem("folder", "stops", "no usable training image for dog")
    (problem,) = checked(folder, (*looks[:1] * 10, *looks[10:11] * 10))
    assert problem == Problem(
        "folder", "stops", "no image is left for validation: each class is one image or group"
    )
    assert checked(folder, (*looks[:1] * 10, *looks[10:])) == []


def test_classes_that_are_one_group_each_stop(tmp_path):
    folder = read_folder(make(tmp_path, *many({"cat": 10, "dog": 10})))
    looks = fabricated(folder)
    (problem,) = check_shape(folder, looks, ["cats"] * 10 + ["dogs"] * 10)
    assert (problem.severity, problem.summary) == (
        "stops", "no image is left for validation: each class is one image or group"
    )  # fmt: skip
    assert check_shape(folder, looks, ["cats"] * 9 + ["a cat"] + ["dogs"] * 10) == []


def test_a_class_of_one_image_cannot_be_validated(tmp_path):
    make(tmp_path, *many({"cat": 12, "cow": 1, "dog": 9}))
    assert shape_of(tmp_path) == [
        ("few images", "warning", "fewer than 10 images of cow (1), dog (9): too few to trust"),
        ("missing in split", "warning", "no image is left for validation of cow: nothing is "
         "measured there"),
        ("uneven classes", "warning", "cat has 12 times the images of cow: compare the recall of "
         "each class, not accuracy"),
    ]  # fmt: skip


def test_uneven_classes_are_a_note_before_they_are_a_warning(tmp_path):
    make(tmp_path, *many({"cat": 10, "dog": 30}))
    assert shape_of(tmp_path) == []
    make(tmp_path, "dog/one_more.jpg")
    assert [(name, severity) for name, severity, _ in shape_of(tmp_path)] == [
        ("uneven classes", "note")
    ]
    make(tmp_path, *many({"dog": 101}))
    assert [(name, severity) for name, severity, _ in shape_of(tmp_path)] == [
        ("uneven classes", "warning")
    ]


def test_nearly_equal_names_are_a_warning(tmp_path):
    counts = dict.fromkeys(("Cat", "cat", "dog", "Straße", "STRASSE"), 10)
    make(tmp_path, *many(counts))
    if len(list(tmp_path.iterdir())) < len(counts):
        pytest.skip("this file system takes two of the names for one")
    sentence = (
        "4 classes have names that hardly differ from another's (Cat and cat, STRASSE and Straße); "
        "on macOS and Windows they may be one folder"
    )
    assert shape_of(tmp_path) == [("alike", "warning", sentence)]


def test_nearly_equal_labels_of_a_table_are_a_warning_to_give_them_one_spelling(tmp_path):
    make(tmp_path, *many({"in": 20}))
    rows = [f"in/{at}.jpg,{'Cat' if at % 2 else 'cat'}\n" for at in range(20)]
    (tmp_path / "labels.csv").write_text("".join(["path,label\n", *rows]))
    folder = read_data(tmp_path / "labels.csv")
    assert [problem.summary for problem in checked(folder, fabricated(folder))] == [
        "Cat, cat are 2 classes, but their names hardly differ; if they are one class, give it one "
        "spelling in the table"
    ]


def test_many_pairs_of_nearly_equal_names_are_one_warning(tmp_path):
    names = [name for number in range(8) for name in (f"Cat{number}", f"cat{number}")]
    make(tmp_path, *many(dict.fromkeys(names, 10)))
    if len(list(tmp_path.iterdir())) < len(names):
        pytest.skip("this file system takes two of the names for one")
    ((name, severity, sentence),) = shape_of(tmp_path)
    assert (name, severity) == ("alike", "warning")
    assert sentence.startswith(
        "16 classes have names that hardly differ from another's (Cat0 and cat0, Cat1 and cat1, "
    )
    assert sentence.endswith("and 3 more); on macOS and Windows they may be one folder")


def test_a_class_that_val_lacks_and_a_val_larger_than_train_are_warnings(tmp_path):
    make(tmp_path, *many({"train/cat": 10, "train/dog": 10, "val/cat": 21, "test/dog": 1}))
    assert shape_of(tmp_path) == [
        ("missing in split", "warning", "no images in val for dog: nothing is measured there"),
        ("missing in split", "warning", "no images in test for cat: nothing is measured there"),
        ("large val", "warning", "val (21 images) is larger than train (20): are the two swapped?"),
    ]


def test_classes_with_dates_inside_are_a_warning_that_names_them(tmp_path):
    days = ("2026-06-12", "2026-07-03 Regen")
    make(tmp_path, *many({f"{c}/{day}": 5 for c in ("healthy", "rust") for day in days}))
    assert shape_of(tmp_path) == [
        ("sub-folders", "warning", "classes hold sub-folders of the same names (2026-06-12, "
         "2026-07-03 Regen): read as dates or numbers, so all images below a class folder are of "
         "its class"),
    ]  # fmt: skip


def test_a_class_in_sub_folders_next_to_a_flat_one_may_be_one_folder_too_high(tmp_path):
    inside = {f"Blätter 2026/{name}": 10 for name in ("gesund", "Mehltau", "Rost")}
    make(tmp_path, *many(inside | {"neue Bilder": 10, "old/a": 5, "old/b": 5}))
    assert shape_of(tmp_path) == [
        ("sub-folders", "warning", "all images of Blätter 2026 are in 3 sub-folders (Mehltau, "
         f"Rost, gesund); if these are the classes, give '{tmp_path}/Blätter 2026'"),
    ]  # fmt: skip
    make(tmp_path / "deep", *many({"outer/inner/a": 10, "outer/inner/b/c": 10, "flat": 10}))
    ((_, _, sentence),) = shape_of(tmp_path / "deep")
    assert sentence.endswith(
        f"in 2 sub-folders (a, b); if these are the classes, give {tmp_path}/deep/outer/inner"
    )


@pytest.mark.parametrize(
    "names",
    [("cat/in", "cat/out", "dog/young", "dog/old"), ("cat/in", "cat/out", "cat", "dog"),
     ("cat/in", "dog"), ("cat/2026-06-12", "cat/2026-06-19", "dog"),
     ("train/cat/in", "train/cat/out", "train/dog", "test/cat", "test/dog")],
)  # fmt: skip
def test_usual_sub_folders_of_classes_are_no_warning(tmp_path, names):
    summaries = [
        s
        for name, _, s in shape_of(make(tmp_path, *many(dict.fromkeys(names, 10))))
        if name == "sub-folders"
    ]
    assert summaries == []


def test_few_images_are_counted_in_train_if_there_is_one(tmp_path):
    make(tmp_path, *many({"train/cat": 10, "train/dog": 4, "val/cat": 4, "val/dog": 10}))
    assert shape_of(tmp_path) == [
        ("few images", "warning", "fewer than 10 images in train of dog (4): too few to trust"),
    ]


INSTALL = "pip install 'xception-cli[heif]'"


def test_ignored_files_are_noted_by_suffix_with_a_hint_for_heic(tmp_path, without_heif):
    make(tmp_path, *many({"cat": 20, "dog": 18}), "cat/a.heic", "cat/b.HEIC", "dog/c.txt", "d")
    note = f"4 files ignored: 2 .heic, 1 no suffix, 1 .txt; to read 2 HEIC: {INSTALL}"
    assert shape_of(tmp_path) == [("ignored", "note", note)]


def test_many_heic_photos_and_a_class_of_them_would_stop_training(tmp_path, without_heif):
    few = make(tmp_path / "few", *many({"cat": 19, "dog": 18}), "cat/a.heic", "cat/b.HEIC")
    unread = f"HEIC; reading them requires pillow-heif: {INSTALL}"
    for folder, summary in (
        (few, f"2 of 39 images in {few} are {unread}"),
        (
            make(tmp_path / "class", *many({"cat": 60, "dog": 60}), "bird/a.heif", "bird/b.hif"),
            f"2 of 122 images in {tmp_path / 'class'} are HEIC, among them all of bird; "
            f"reading them requires pillow-heif: {INSTALL}",
        ),
    ):
        assert ("HEIC", "stops", summary) in shape_of(folder)
        with pytest.raises(DataError) as refusal:
            survey_data(TrainConfig(data=str(folder)))
        assert refusal.value.message == summary


def test_hostile_class_names_are_shown_safely(tmp_path):
    names = ["\x1b[2J", "a\nb", os.fsdecode(b"caf\xe9")]
    make(tmp_path, *many(dict.fromkeys(names, 1)), *many({"dog": 12}))
    (summary,) = [text for name, _, text in shape_of(tmp_path) if name == "few images"]
    assert summary.startswith(r"fewer than 10 images of \x1b[2J (1), a\x0ab (1), caf\xe9 (1): too")
