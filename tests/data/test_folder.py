"""The content of a data folder: layouts, foreign files, links, hostile names."""

import os
import subprocess
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from folders import as_ordinary_user, listing, make, names_in, open_folder, refusal, two_classes
from images import encoded, put
from PIL import Image

from xception_cli.data.folder import DataFolder, describe_ignored, images_below, read_folder
from xception_cli.data.images import read_image
from xception_cli.data.photo import Photo
from xception_cli.data.trainable import check_trainable
from xception_cli.errors import DataError
from xception_cli.regular import open_regular

PLAIN = [("cat/1.jpg", "cat", None), ("dog/1.jpg", "dog", None)]


# --- layouts -----------------------------------------------------------------------------------


def test_class_folders_are_classes_in_code_point_order(tmp_path):
    make(tmp_path, "apple/2.jpg", "apple/10.png", "Cat/a.webp", "éclair/x.gif", "10/x.bmp")
    found = read_folder(tmp_path)
    assert found == DataFolder(
        root=tmp_path,
        classes=("10", "Cat", "apple", "éclair"),
        images=(
            Photo("10/x.bmp", 0),
            Photo("Cat/a.webp", 1),
            Photo("apple/10.png", 2),
            Photo("apple/2.jpg", 2),
            Photo("éclair/x.gif", 3),
        ),
    )
    assert found.counts() == [1, 1, 2, 1]
    assert describe_ignored(found.ignored) == ""
    check_trainable(found, 4)


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val"), ("train", "val")),
        (("Train", "Valid", "Test"), ("train", "val", "test")),
        (("TRAIN", "validation"), ("train", "val")),
        (("test", "train"), ("train", "test")),
        (("train",), ("train",)),
    ],
    ids=str,
)
def test_split_folders_are_found_in_any_case(tmp_path, folders, splits):
    for folder in folders:
        make(tmp_path, f"{folder}/dog/1.jpg", f"{folder}/cat/1.jpg")
    found = read_folder(tmp_path)
    assert (found.classes, found.given_splits) == (("cat", "dog"), splits)
    name = {"train": folders[0], "val": folders[-1], "test": folders[-1]}
    if len(folders) == 3:
        name = dict(zip(splits, folders, strict=True))
    elif folders == ("test", "train"):
        name = {"train": "train", "test": "test"}
    assert listing(found) == [
        (f"{name[split]}/{label}/1.jpg", label, split)
        for split in splits
        for label in ("cat", "dog")
    ]
    assert [found.counts(split) for split in splits] == [[1, 1]] * len(splits)
    check_trainable(found, 2)


def test_a_class_may_be_called_train(tmp_path):
    make(tmp_path, "train/1.jpg", "bus/1.jpg", "car/1.jpg")
    found = read_folder(tmp_path)
    assert (found.classes, found.given_splits) == (("bus", "car", "train"), ())
    check_trainable(found)


@pytest.mark.parametrize(
    "names",
    [("train", "val", "extra"), ("train", "Train"), ("train", "val", "validation")],
    ids=str,
)
def test_ambiguous_splits_are_refused(tmp_path, names):
    for name in names:
        make(tmp_path, f"{name}/cat/1.jpg", f"{name}/dog/1.jpg")
    message = refusal(tmp_path).message
    if "extra" in names:
        assert message == "train, val next to extra: are these splits or classes?"
    elif "Train" in names:
        assert message == "two folders for the train split: Train, train"
    else:
        assert message == "two folders for the val split: val, validation"


def test_subfolders_of_a_class_belong_to_it(tmp_path):
    two_classes(tmp_path, "cat/young/a.jpg", "cat/young/very/b.jpg", "cat/old/.hidden/c.jpg")
    assert listing(read_folder(tmp_path)) == [
        ("cat/1.jpg", "cat", None),
        ("cat/young/a.jpg", "cat", None),
        ("cat/young/very/b.jpg", "cat", None),
        ("dog/1.jpg", "dog", None),
    ]


# --- ignored files -----------------------------------------------------------------------------


def test_hidden_and_foreign_folders_and_files_are_ignored_and_counted(tmp_path, without_heif):
    two_classes(
        tmp_path,
        "README.md", "Thumbs.db", "loose.jpg", "LICENSE",
        ".git/config", ".ipynb_checkpoints/x.jpg", "__MACOSX/cat/._1.jpg", "@eaDir/x.jpg",
        "cat/._1.jpg", "cat/.DS_Store", "cat/desktop.ini", "cat/notes.txt", "cat/.hidden/2.jpg",
        "dog/IMG.HEIC", "dog/a.heic", "dog/b.jpg.part",
    )  # fmt: skip
    found = read_folder(tmp_path)
    assert listing(found) == PLAIN
    assert found.ignored == {
        ".md": 1, ".jpg": 1, "no suffix": 1, "hidden": 9, ".txt": 1, ".heic": 2, ".part": 1,
    }  # fmt: skip
    assert describe_ignored(found.ignored) == (
        "16 files ignored: 9 hidden, 2 .heic, 1 no suffix, 1 .md, 1 .jpg"
        ", 2 of other kinds; to read 2 HEIC: pip install 'xception-cli[heif]'"
    )


def test_a_file_of_undecided_suffix_is_recognised_by_its_content(tmp_path):
    """One JPEG under many names: files with other suffixes, and pipes, are not even opened."""
    two_classes(tmp_path)
    jpeg, text = encoded(Image.new("RGB", (8, 8))), b"hello"
    for name in ("photo", "x.php", "x.fcgi", "x.jpg~", "x.JFIF"):
        put(tmp_path / "cat" / name, jpeg)
    put(tmp_path / "cat" / "webp", encoded(Image.new("RGB", (8, 8)), "WEBP"))
    for name in ("x.txt", "x.jpg_original", "x.thm"):
        put(tmp_path / "cat" / name, jpeg)
    for name in ("notes", "x.cgi", "empty"):
        put(tmp_path / "cat" / name, text * (name != "empty"))
    put(tmp_path / "cat" / "x.nef", encoded(Image.new("RGB", (8, 8)), "TIFF"))  # like a raw file
    os.mkfifo(tmp_path / "cat" / "pipe")
    found = read_folder(tmp_path)
    names = [Path(image.path).name for image in found.images if image.label == 0]
    assert names == ["1.jpg", "photo", "webp", "x.JFIF", "x.fcgi", "x.jpg~", "x.php"]
    assert images_below(tmp_path / "cat") == [tmp_path / "cat" / name for name in names]
    assert found.notes() == [
        "8 files ignored: 3 no suffix, 1 .cgi, 1 .jpg_original, 1 .nef, 1 .thm, 1 of other kinds",
        "5 files read as images by content: 2 no suffix, 1 .fcgi, 1 .jpg~, 1 .php",
    ]
    read_image(tmp_path / "cat" / "photo")


def test_a_file_of_undecided_suffix_is_opened_once(tmp_path, monkeypatch, without_heif):
    two_classes(tmp_path, "cat/notes", "cat/x.cgi")
    put(tmp_path / "cat" / "photo", encoded(Image.new("RGB", (8, 8))))
    opened = []

    def opening(path: Path, *, follow: bool) -> int:
        opened.append(path.name)
        return open_regular(path, follow=follow)

    monkeypatch.setattr("xception_cli.data.listing.open_regular", opening)
    assert read_folder(tmp_path).notes()
    assert sorted(opened) == ["notes", "photo", "x.cgi"]


def test_ignored_files_inside_split_folders_are_counted_once(tmp_path):
    for split in ("train", "val"):
        two_classes(tmp_path / split, "x.txt", "cat/y.csv", ".hidden/z.jpg")
    make(tmp_path, "x.txt")
    assert read_folder(tmp_path).ignored == {".txt": 3, ".csv": 2, "hidden": 2}


def test_one_ignored_file_is_reported_in_the_singular(tmp_path):
    found = read_folder(two_classes(tmp_path, "cat/a\x1b.tx\x1bt"))
    assert describe_ignored(found.ignored) == r"1 file ignored: 1 .tx\x1bt"


@pytest.mark.parametrize(
    "name",
    ["A.JPG", "b.JpEg", "c.jpe", "d.jfif", "e.gif", "f.avif", "g.tif", "h.TIFF", "i.pgm", "j.webp"],
)
def test_suffixes_are_recognised_in_any_case_and_rare_ones_too(tmp_path, name):
    found = read_folder(two_classes(tmp_path, f"cat/{name}"))
    assert f"cat/{name}" in {image.path for image in found.images}
    assert found.ignored == {}


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    found = read_folder(two_classes(tmp_path, "cat/x.jpg/inside.jpg", "cat/empty.jpg/"))
    assert listing(found) == [PLAIN[0], ("cat/x.jpg/inside.jpg", "cat", None), PLAIN[1]]


# --- links -------------------------------------------------------------------------------------


def test_link_cycles_are_not_followed(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "dog" / "up").symlink_to("..")
    (tmp_path / "dog" / "self").symlink_to(".")
    (tmp_path / "dog" / "sister").symlink_to("../cat")
    assert listing(read_folder(tmp_path)) == PLAIN
    assert read_folder(tmp_path).ignored == {}


def test_a_link_back_into_a_split_folder_adds_no_image(tmp_path):
    two_classes(tmp_path / "train", "stray.jpg")
    two_classes(tmp_path / "val")
    (tmp_path / "train" / "dog" / "up").symlink_to("..")
    (tmp_path / "train" / "dog" / "other").symlink_to("../../val")
    assert [path for path, _, _ in listing(read_folder(tmp_path))] == [
        "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg",
    ]  # fmt: skip


def test_a_link_to_itself_is_ignored_or_reported_by_the_check_if_named_like_an_image(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "dog" / "loop").symlink_to("loop")
    (tmp_path / "dog" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "loop").symlink_to("loop")
    found = read_folder(tmp_path)
    assert listing(found) == [*PLAIN, ("dog/loop.jpg", "dog", None)]
    assert found.ignored == {"no suffix": 2}


def test_links_to_images_and_folders_outside_are_followed(tmp_path):
    make(tmp_path, "outside/far.jpg", "elsewhere/1.jpg")
    data = make(tmp_path / "data", "cat/1.jpg")
    (data / "cat" / "near.jpg").symlink_to(tmp_path / "outside" / "far.jpg")
    (data / "cat" / "more").symlink_to(tmp_path / "outside")
    (data / "dog").symlink_to(tmp_path / "elsewhere")
    assert [path for path, _, _ in listing(read_folder(data))] == [
        "cat/1.jpg", "cat/more/far.jpg", "cat/near.jpg", "dog/1.jpg",
    ]  # fmt: skip
    assert images_below(data / "cat") == [
        data / "cat" / name for name in ("1.jpg", "more/far.jpg", "near.jpg")
    ]


# --- names -------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf_8_is_kept_unchanged(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    make(tmp_path, f"{name}/{name}.jpg", "dog/1.jpg")
    found = read_folder(tmp_path)
    assert found.classes == (name, "dog")
    assert (found.root / found.images[0].path).is_file()
    check_trainable(found)


@pytest.mark.parametrize("name", ["a\nb.jpg", 'a,"b".jpg', "=1+1.jpg", "[/].jpg", "\u202egpj.jpg"])
def test_a_hostile_name_is_kept_unchanged(tmp_path, name):
    found = read_folder(two_classes(tmp_path, f"cat/{name}"))
    assert f"cat/{name}" in {image.path for image in found.images}


def test_two_unicode_forms_of_one_class_name_are_refused(tmp_path):
    composed = unicodedata.normalize("NFC", "café")
    make(tmp_path, f"{composed}/1.jpg", f"{unicodedata.normalize('NFD', composed)}/1.jpg")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes the two names for one")
    error = refusal(tmp_path)
    assert isinstance(error, DataError)
    assert error.message.startswith(f"2 class folders look the same ({composed}): ")


def test_one_class_name_in_a_decomposed_form_is_accepted(tmp_path):
    make(tmp_path, f"{unicodedata.normalize('NFD', 'é')}/1.jpg", "e/1.jpg")
    check_trainable(read_folder(tmp_path), 2)


# --- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "found no class folders in {root}"),
        (("a.jpg", "b.png", "c.txt"), "found 2 images but no class folders in {root}"),
        ((".hidden/1.jpg",), "found no class folders in {root}"),
        (("cat/1.jpg", ".git/1.jpg"), "found only one class in {root}: cat; need at least 2"),
        (("cat/1.jpg", "dog/", "cow/x.txt"), "no images for: cow, dog"),
        (("train/cat/1.jpg", "train/dog/1.jpg", "val/cow/1.jpg", "val/cat/1.jpg"),
         "no images in train for: cow"),
        (("train/cat/1.jpg", "train/dog/", "val/dog/1.jpg"), "no images in train for: dog"),
    ],
    ids=["nothing", "flat", "only hidden", "one class", "empty classes", "class only in val",
         "class empty in train"],
)  # fmt: skip
def test_a_folder_without_training_data_is_refused(tmp_path, names, message):
    error = refusal(make(tmp_path, *names))
    assert error.exit_code == 3
    assert error.message == message.format(root=tmp_path)
    if "class" in message:
        assert "  food/apple/1.jpg\n  food/pear/1.jpg\n" in error.hint  # the layout


def test_for_images_in_one_folder_the_hint_is_the_table_that_has_their_labels(tmp_path):
    hint = refusal(make(tmp_path / "all scans", "a.jpg", "b.jpg")).hint
    assert hint is not None
    assert hint.endswith(
        f"\nor give the table that has the labels: labels.csv --root '{tmp_path}/all scans'"
    )
    assert "labels.csv" not in refusal(make(tmp_path / "empty")).hint


@pytest.mark.skipif(os.name == "nt", reason="the command is one of a POSIX shell")
def test_images_whose_names_begin_with_the_class_are_moved_by_the_command_of_the_hint(tmp_path):
    root = make(
        tmp_path / "my pets", *(f"{c}{n}.jpg" for c in ("cat.", "dog_", "c") for n in "123")
    )
    hint = refusal(root).hint
    assert hint is not None
    assert hint.startswith("if the names begin with the class (c, cat, dog), move the images: for ")
    command = hint.partition("images: ")[2].partition("; or make one folder")[0]
    assert "/${c}[^a-zA-Z]*" in command  # for zsh, too
    subprocess.run(["bash", "-c", command], check=True)
    assert read_folder(root).counts() == [3, 3, 3]
    assert names_in(root) == ["c", "cat", "dog"]
    cameras = [f"{name}_{n}.jpg" for name in ("IMG", "DSC") for n in range(3)]
    for at, names in enumerate((cameras, ["a1.jpg", "b1.jpg"], ["1.jpg", "2.jpg", "3.jpg"])):
        assert refusal(make(tmp_path / str(at), *names)).hint.startswith(
            "make one folder per class"
        )


@pytest.mark.parametrize(
    ("expected", "difference"), [(12, "10 missing"), (3, "1 missing"), (1, "1 too many")], ids=str
)
def test_another_number_of_classes_than_expected_is_refused_with_the_names(
    tmp_path, expected, difference
):
    error = refusal(make(tmp_path, "cat/1.jpg", "d\x1bog/1.jpg"), expected)
    assert error.exit_code == 2
    assert error.message == (
        f"expected {expected} classes, found 2 ({difference}) in {tmp_path}: cat, d\\x1bog"
    )
    assert error.hint == "--classes 2, or leave it out"


def test_a_missing_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    for name, what in (("gone", "does not exist"), ("file", "is not a folder")):
        error = refusal(tmp_path / name)
        assert error.exit_code == 2
        assert error.message == f"the data folder {tmp_path / name} {what}"


def test_an_unreadable_folder_is_named():
    with open_folder() as root:
        two_classes(root)
        (root / "cat").chmod(0)
        with as_ordinary_user():
            error = refusal(root)
            inner = refusal(root / "cat" / "deeper")
    assert error.exit_code == inner.exit_code == 3
    assert error.message == f"cannot read the folder {root / 'cat'}: Permission denied"
    assert inner.message == f"cannot read the folder {root / 'cat' / 'deeper'}: Permission denied"


@contextmanager
def nested(root: Path, name: str, levels: int) -> Iterator[None]:
    """Create nested folders with an image in the last; the path may be longer than allowed.

    They are removed again, because pytest's own removal recurses into each level and fails on
    so many.
    """
    root.mkdir(parents=True)
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("1.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        yield
    finally:
        subprocess.run(["rm", "-r", root], check=True)


def test_an_image_a_thousand_folders_deep_is_found(tmp_path):
    with nested(two_classes(tmp_path) / "cow", "d", 1200):
        images = read_folder(tmp_path).images
    assert [image.path for image in images if image.label == 1] == [f"cow/{'d/' * 1200}1.jpg"]


def test_folders_deeper_than_the_longest_path_are_refused(tmp_path):
    with nested(two_classes(tmp_path) / "cow", "d" * 100, 60):
        error = refusal(tmp_path)
    assert error.exit_code == 3
    assert error.message.startswith(f"cannot read the folder {tmp_path}/cow/ddd")
    assert error.message.endswith("…: File name too long")


# --- the user's folder is the user's -----------------------------------------------------------


def snapshot(root: Path) -> list[tuple[str, int, int]]:
    paths = [root, *sorted(root.rglob("*"))]
    return [(str(p), p.stat().st_mtime_ns, p.stat().st_mode) for p in paths]


def test_a_read_only_folder_is_enough_and_nothing_in_it_is_touched():
    with open_folder() as root:
        two_classes(root, "cat/more/2.jpg", "x.txt")
        folders = [root / "cat" / "more", root / "cat", root / "dog", root]
        for folder in folders:
            folder.chmod(0o555)
        before = snapshot(root)
        time.sleep(0.01)
        with as_ordinary_user():
            found = read_folder(root)
            check_trainable(found, 2)
        assert snapshot(root) == before
        assert len(found.images) == 3


def test_val_and_test_without_train_can_be_evaluated_but_not_trained_on(tmp_path):
    for split in ("val", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            (tmp_path / "data" / split / name / "1.jpg").touch()
    folder = read_folder(tmp_path / "data")
    assert folder.classes == ("cat", "dog")
    assert [(image.path, image.split) for image in folder.images] == [
        ("val/cat/1.jpg", "val"),
        ("val/dog/1.jpg", "val"),
        ("test/cat/1.jpg", "test"),
        ("test/dog/1.jpg", "test"),
    ]
    with pytest.raises(DataError, match="has val and test, but no train folder"):
        check_trainable(folder)
