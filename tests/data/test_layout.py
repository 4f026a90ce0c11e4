"""Which folders are splits and which are classes: accepted and refused layouts."""

import shutil
import unicodedata
from pathlib import Path

import pytest
from folders import listing, make, refusal, two_classes

from xception_cli.data.folder import DataFolder, describe_ignored, read_folder
from xception_cli.data.trainable import check_trainable
from xception_cli.errors import DataError


def grid(root: Path, folders: str, inside: str = "cat dog", images: int = 1) -> Path:
    """Create images in sub-folders of each of the folders."""
    names = [
        f"{folder}/{name}/{i}.jpg"
        for folder in folders.split()
        for name in inside.split()
        for i in range(images)
    ]
    return make(root, *names)


def trainable(root: Path) -> DataFolder:
    found = read_folder(root)
    check_trainable(found)
    return found


def counts(found: DataFolder) -> dict[str, list[int]]:
    return {split: found.counts(split) for split in found.given_splits}


def error(root: Path) -> DataError:
    refused = refusal(root)
    assert isinstance(refused, DataError)
    assert refused.exit_code == 3
    assert refused.hint
    return refused


# --- splits of classes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ("Training Testing", "train test"),
        ("training_set test_set", "train test"),
        ("train_images val_images test_images", "train val test"),
        ("train dev test", "train val test"),
        ("TRAIN VAL", "train val"),
        ("train2017 val2017", "train val"),
        ("seg_train/seg_train seg_test/seg_test", "train test"),
        ("training_set/training_set test_set/test_set", "train test"),
        ("train/images Valid/Images", "train val"),
        ("train/Training_set eval/evaluation", "train val"),
        ("train/train/images test", "train test"),
        ("test", "test"),
    ],
)
def test_splits_with_other_names_and_nested_ones_are_accepted(tmp_path, folders, splits):
    found = read_folder(grid(tmp_path, folders))
    assert found.classes == ("cat", "dog")
    assert counts(found) == {split: [1, 1] for split in splits.split()}
    assert found.ignored == {}


def test_files_next_to_nested_splits_are_ignored_and_counted(tmp_path):
    grid(tmp_path, "seg_train/seg_train seg_test/seg_test")
    make(tmp_path, "a.txt", "seg_train/b.csv", "seg_train/seg_train/c.jpg")
    assert trainable(tmp_path).ignored == {".txt": 1, ".csv": 1, ".jpg": 1}


@pytest.mark.parametrize("folder", ["test", "Testing", "test1", "seg_pred", "seg_pred/seg_pred"])
def test_a_test_folder_without_classes_is_unlabelled_and_ignored(tmp_path, folder):
    grid(tmp_path, "train")
    found = trainable(make(tmp_path, f"{folder}/1.jpg", f"{folder}/2.jpg", f"{folder}/x.csv"))
    assert (found.classes, counts(found)) == (("cat", "dog"), {"train": [1, 1]})
    assert found.ignored == {"unlabelled": 2, ".csv": 1}
    assert describe_ignored(found.ignored) == "3 files ignored: 2 unlabelled, 1 .csv"


def test_a_train_folder_without_classes_cannot_be_trained_on_but_val_can_be_evaluated(tmp_path):
    make(grid(tmp_path, "val"), "train/1.jpg")
    assert counts(read_folder(tmp_path)) == {"val": [1, 1]}
    assert error(tmp_path).message == (
        f"{tmp_path} has val, but no train folder with class folders"
    )


@pytest.mark.parametrize("folders", ["train test1", "Training Testing", "val test", "train train1"])
def test_splits_without_class_folders_are_refused(tmp_path, folders):
    make(tmp_path, *(f"{folder}/cat.1.jpg" for folder in folders.split()))
    listed = ", ".join(sorted(folders.split()))
    assert error(tmp_path).message == f"{listed} look like splits, but hold no class folders"


def test_classes_may_be_called_test_1_and_test_2(tmp_path):
    assert trainable(make(tmp_path, "test1/1.jpg", "test2/1.jpg")).classes == ("test1", "test2")


@pytest.mark.parametrize(
    ("folders", "split"), [("Training train", "train"), ("dev val", "val"), ("test test1", "test")]
)
def test_two_folders_for_one_split_are_refused(tmp_path, folders, split):
    folders_ = ", ".join(folders.split())
    assert (
        error(grid(tmp_path, folders)).message == f"two folders for the {split} split: {folders_}"
    )


@pytest.mark.parametrize(
    "name", ["lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "@Recycle",
             "#recycle", "__MACOSX", "__macosx", "__pycache__", "LOST+FOUND", ".Trash-1000"],
)  # fmt: skip
def test_a_system_folder_is_neither_a_class_nor_a_split(tmp_path, name):
    found = trainable(make(grid(tmp_path / "split", "train val"), f"{name}/cat/1.jpg"))
    assert (found.classes, found.ignored) == (("cat", "dog"), {"hidden": 1})
    found = trainable(make(two_classes(tmp_path / "plain"), f"{name}/1.jpg", f"cat/{name}/1.jpg"))
    assert (found.classes, found.ignored) == (("cat", "dog"), {"hidden": 2})


@pytest.mark.parametrize("name", ["Thumbs.db", "THUMBS.DB", "Desktop.ini", "ehthumbs.db", "Icon\r"])
def test_a_system_file_is_hidden(tmp_path, name):
    assert read_folder(two_classes(tmp_path, name, f"cat/{name}")).ignored == {"hidden": 2}


# --- links -------------------------------------------------------------------------------------


def test_splits_may_be_links(tmp_path):
    grid(tmp_path, "far/one far/two")
    data = tmp_path / "data"
    data.mkdir()
    (data / "train").symlink_to(tmp_path / "far" / "one")
    (data / "Testing").symlink_to("../far/two")
    found = trainable(data)
    assert counts(found) == {"train": [1, 1], "test": [1, 1]}
    assert [image.path for image in found.images] == [
        "train/cat/0.jpg", "train/dog/0.jpg", "Testing/cat/0.jpg", "Testing/dog/0.jpg",
    ]  # fmt: skip


def test_a_link_to_the_data_folder_itself_is_not_a_test_split(tmp_path):
    (two_classes(tmp_path) / "test").symlink_to(".")
    found = trainable(tmp_path)
    assert (found.classes, found.given_splits, len(found.images)) == (("cat", "dog"), (), 2)


# --- a split next to class folders -------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "splits"),
    [("test", "test"), ("Testing", "test"), ("val", "val"), ("dev test_set", "val test"),
     ("seg_test/seg_test", "test")],
)  # fmt: skip
def test_a_split_next_to_the_class_folders_makes_them_train(tmp_path, folders, splits):
    found = trainable(grid(two_classes(tmp_path), folders))
    assert found.classes == ("cat", "dog")
    assert counts(found) == {split: [1, 1] for split in ("train", *splits.split())}
    assert listing(found)[:2] == [("cat/1.jpg", "cat", "train"), ("dog/1.jpg", "dog", "train")]


def test_a_test_folder_that_lacks_one_class_of_many_is_accepted(tmp_path):
    make(tmp_path, *(f"{name}/1.jpg" for name in "abcde"))
    found = trainable(grid(tmp_path, "test", "a b c d"))
    assert counts(found) == {"train": [1] * 5, "test": [1, 1, 1, 1, 0]}


def test_a_class_called_train_is_a_class_of_the_test_folder_too(tmp_path):
    make(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")
    found = trainable(grid(tmp_path, "test", "bus car train"))
    assert (found.classes, found.given_splits) == (("bus", "car", "train"), ("train", "test"))


def test_unlabelled_images_next_to_val_and_class_folders_are_not_a_class(tmp_path):
    found = trainable(make(grid(two_classes(tmp_path), "val"), "test/1.jpg"))
    assert (found.classes, found.ignored) == (("cat", "dog"), {"unlabelled": 1})


@pytest.mark.parametrize(
    ("inside", "others"),
    [
        ("x y", "cat dog"),
        ("cat", "cat dog"),
        ("cat dog", "cat dog fox cow"),
        ("cat dog", "other"),
        ("cat", "cat"),
    ],
)
def test_a_split_next_to_folders_that_do_not_match_is_refused(tmp_path, inside, others):
    grid(make(tmp_path, *(f"{name}/1.jpg" for name in others.split())), "test", inside)
    refused = error(tmp_path)
    rest = ", ".join(sorted(others.split()))
    assert refused.message == f"test next to {rest}: are these splits or classes?"
    assert f"make {tmp_path}/train and move {rest} into it" in refused.hint


@pytest.mark.parametrize(
    ("folders", "other"),
    [("train", "other/1.jpg"), ("Training", "other/cat/1.jpg"),
     ("train", "cat/1.jpg"), ("seg_train/seg_train", "sample/1.jpg")],
)  # fmt: skip
def test_train_next_to_any_other_folder_is_never_a_class(tmp_path, folders, other):
    grid(tmp_path, folders)
    refused = error(make(tmp_path, other))
    name = Path(other).parts[0]
    assert f" next to {name}: are these splits" in refused.message
    assert f"move {name} out of {tmp_path}" in refused.hint


def test_folders_without_images_next_to_splits_are_ignored(tmp_path):
    grid(tmp_path, "train test")
    folder = trainable(make(tmp_path, "docs/readme.txt", "annotations/cat/1.xml", "output/"))
    assert (folder.classes, folder.given_splits) == (("cat", "dog"), ("train", "test"))
    make(tmp_path, "docs/1.jpg")
    assert error(tmp_path).message == "test, train next to docs: are these splits or classes?"


def test_train_next_to_folders_of_its_classes_is_refused_as_well(tmp_path):
    refused = error(grid(two_classes(tmp_path), "train"))
    assert refused.message == "train next to cat, dog: are these splits or classes?"


def test_a_class_called_train_with_subfolders_is_refused_with_what_to_do(tmp_path):
    refused = error(make(tmp_path, "train/steam/1.jpg", "bus/1.jpg"))
    assert "if they are classes, rename train, for example to class_train" in refused.hint
    (tmp_path / "train").rename(tmp_path / "class_train")
    assert trainable(tmp_path).classes == ("bus", "class_train")


def test_a_long_list_of_folders_is_cut_with_its_count(tmp_path):
    make(grid(tmp_path, "train"), *(f"x{i}/1.jpg" for i in range(9)))
    assert error(tmp_path).message == (
        "train next to x0, x1, x2, x3, x4, and 4 more: are these splits or classes?"
    )


# --- sub-folders of the same names -------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "inside", "look"),
    [("fold1 fold2", "cat dog", ""), ("batch_1 batch_2", "cat dog", ""),
     ("setA setB", "Cat Dog", ""), ("Part2 other", "2026-06-12 2026-06-19", ""),
     ("2023 2024", "a b", "?"), ("entrenamiento prueba", "cat dog", "?"),
     ("site_a/images site_b/photos", "cat dog", "?"), ("healthy rust", "Mon Tue", "?"),
     ("2025 2026", "100CANON 101CANON", "?"), ("healthy rust", "2026-06-12 Mon Tue", "?")],
)  # fmt: skip
def test_folders_that_hold_the_same_names_are_not_classes(tmp_path, folders, inside, look):
    refused = error(grid(tmp_path, folders, inside))
    top = [name.partition("/")[0] for name in folders.split()]
    common = ", ".join(inside.split())
    look = "are these splits or classes?" if look else "they look like splits, not classes"
    assert refused.message == f"{', '.join(top)} hold folders of the same names ({common}): {look}"
    assert f"or give one of them: {tmp_path / top[0]};" in refused.hint


def test_the_hint_for_folders_of_the_same_names_loses_neither_images_nor_their_groups(tmp_path):
    grid(tmp_path, "healthy rust", "mon tue")
    hint = error(tmp_path).hint
    assert "give each sub-folder a name of its own, such as healthy/mon-healthy, or list" in hint
    for name in ("healthy", "rust"):
        for day in ("mon", "tue"):
            (tmp_path / name / day).rename(tmp_path / name / f"{day}-{name}")
    assert trainable(tmp_path).counts() == [2, 2]
    grid(tmp_path / "nested", "leaf\u00a0rust/a healthy/a", "x y")
    assert "such as healthy/a/x-healthy, or" in error(tmp_path / "nested").hint


@pytest.mark.parametrize(
    "inside",
    ["2026-06-12 2026-06-19", "20260612_143000 20260612_150000", "12.6.26 19.6.26",
     "100CANON 101CANON", "001 002", "14h30 16h00", "2026-W24 2026-W25", "2026-06 2026-07 Misc"],
)  # fmt: skip
def test_dates_and_numbers_inside_classes_are_sub_folders_of_them(tmp_path, inside):
    found = trainable(grid(tmp_path, "healthy leaf_rust", inside))
    names = inside.split()
    dates = tuple(name for name in names if name != "Misc")
    assert (found.classes, found.given_splits) == (("healthy", "leaf_rust"), ())
    assert (found.counts(), found.dates) == ([len(names)] * 2, dates)
    grid(tmp_path / "split", "train/healthy train/rust test/healthy test/rust", inside)
    found = trainable(tmp_path / "split")
    assert (counts(found)["test"], found.dates) == ([len(names)] * 2, dates)


def test_a_date_with_a_comment_is_a_date(tmp_path):
    make(tmp_path, *(f"{c}/{d}/1.jpg" for c in "ab" for d in ("2026-07-03 Regen", "2026-07-10")))
    assert trainable(tmp_path).dates == ("2026-07-03 Regen", "2026-07-10")


@pytest.mark.parametrize(
    ("one", "two"),
    [("Cat Dog", "cat dog"), ("cat dog", "cat dog fox cow"), ("caf\xe9 dog", "cafe\u0301 dog")],
)
def test_names_are_the_same_in_another_spelling_and_if_some_are_missing(tmp_path, one, two):
    grid(grid(tmp_path, "fold1", one), "fold2", two)
    assert error(tmp_path).message.startswith("fold1, fold2 hold folders of the same names (")


def test_a_few_stray_images_and_a_third_folder_do_not_make_classes_of_folds(tmp_path):
    grid(tmp_path, "fold1 fold2", images=12)
    make(tmp_path, "fold1/preview.jpg", "other/1.jpg")
    assert error(tmp_path).message.startswith("fold1, fold2 hold folders of the same names (")


def test_folds_inside_a_split_are_refused_too(tmp_path):
    assert error(grid(tmp_path, "train/a train/b val/a")).message.startswith("a, b hold folders of")


@pytest.mark.parametrize("name", ["holdout", "backup", "train/train"])
def test_a_copy_of_the_classes_next_to_them_is_not_a_class(tmp_path, name):
    place = tmp_path / Path(name).parent
    two_classes(place)
    refused = error(grid(tmp_path, name))
    assert refused.message == (
        f"{Path(name).name} holds folders with the names of its neighbours (cat, dog): it looks "
        "like a split, not a class"
    )
    assert str(place) in refused.hint


@pytest.mark.parametrize(
    ("one", "two"),
    [("cat/images", "dog/images"),
     ("cat/young cat/old", "dog/young dog/puppy"),
     ("cat/a cat/b cat/c cat/d cat/e", "dog/a dog/b dog/x dog/y dog/z"),
     ("cat/a cat/b", "dog/c dog/d"),
     ("cat/in cat/out cat", "dog/in dog/out dog")],
)  # fmt: skip
def test_subfolders_that_share_a_name_by_chance_belong_to_their_class(tmp_path, one, two):
    names = [*one.split(), *two.split()]
    found = trainable(make(tmp_path, *(f"{name}/1.jpg" for name in names)))
    assert (found.classes, found.given_splits) == (("cat", "dog"), ())
    assert sum(found.counts()) == len(names)


@pytest.mark.parametrize(
    "names",
    [
        "train_cat test_cat train_dog test_dog",
        "cat-Train cat-val dog",
        "trainCat trainDog testCat testDog",
        "CatTrain CatTest Dog",
    ],
)
def test_classes_with_the_split_in_their_names_are_refused(tmp_path, names):
    refused = error(make(tmp_path, *(f"{name}/1.jpg" for name in names.split())))
    assert refused.message.endswith(" look like splits of one class")
    assert f" to {tmp_path}/train/cat; " in refused.hint


@pytest.mark.parametrize(("name", "split"), [("{}_test", "test"), ("Val{}", "val")])
def test_classes_next_to_their_names_with_a_split_are_refused(tmp_path, name, split):
    make(two_classes(tmp_path), *(f"{name.format(one)}/1.jpg" for one in ("Cat", "Dog")))
    refused = error(tmp_path)
    assert refused.message == f"{name.format('Cat')}, cat look like splits of one class"
    (tmp_path / split).mkdir()
    for one in ("Cat", "Dog"):  # as the hint says
        assert one == "Dog" or f" to {tmp_path}/{split}/cat; " in refused.hint
        (tmp_path / name.format(one)).rename(tmp_path / split / one.lower())
    assert counts(trainable(tmp_path)) == {"train": [1, 1], split: [1, 1]}


def test_splits_and_classes_in_one_word_are_refused_if_there_are_two(tmp_path):
    make(tmp_path, *(f"{name}/1.jpg" for name in ("trainer", "tester", "Traincat", "valley")))
    assert len(trainable(tmp_path).classes) == 4
    make(tmp_path, *(f"{name}/1.jpg" for name in ("traindog", "testcat", "testdog", "valdog")))
    refused = error(tmp_path)
    assert refused.message == "Traincat, testcat look like splits of one class"
    assert f" to {tmp_path}/train/cat; " in refused.hint


def test_pairs_of_names_among_many_others_are_classes_and_the_hint_makes_them_classes(tmp_path):
    make(tmp_path, *(f"{name}/1.jpg" for name in ("covid", "covid test", "flu", "flu test")))
    refused = error(tmp_path)
    assert refused.message == "covid, covid test look like splits of one class"
    assert refused.hint.endswith(
        "; if they are classes, rename covid test, for example to 'class_covid test'"
    )
    (tmp_path / "covid test").rename(tmp_path / "class_covid test")
    assert len(trainable(tmp_path).classes) == 4
    (tmp_path / "class_covid test").rename(tmp_path / "covid test")
    make(tmp_path, *(f"{name}/1.jpg" for name in ("mask", "glove", "swab", "vial")))
    assert len(trainable(tmp_path).classes) == 8
    shutil.rmtree(tmp_path / "vial")  # the control
    assert error(tmp_path).message == refused.message


def test_names_with_a_word_of_splits_are_classes_if_no_other_split_has_the_same(tmp_path):
    names = ["bullet_train", "steam_train", "steam", "toy", "toy_train", "crash", "crash_test"]
    make(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert len(trainable(tmp_path).classes) == 7


@pytest.mark.parametrize(
    "name",
    [
        "test",
        "Validation",
        "unlabeled",
        "test photos",
        "Test_Pics",
        "held-out",
        "Training",
        "trainset",
        "Testbilder",
    ],
)
def test_images_of_a_split_without_classes_are_not_a_class(tmp_path, name):
    refused = error(make(two_classes(tmp_path), f"{name}/1.jpg"))
    assert refused.message.startswith(f"{name} next to cat, dog, but without class folders: ")
    valid = ["valid/1.jpg", "invalid/dark/1.jpg", "invalid/empty/1.jpg", "unknown/1.jpg"]
    assert trainable(make(tmp_path / "v", *valid[:3])).counts() == [2, 1]
    assert trainable(make(tmp_path / "w", *valid)).counts() == [2, 1, 1]
    assert trainable(make(two_classes(tmp_path / "t"), "train/1.jpg")).counts() == [1, 1, 1]


@pytest.mark.parametrize(
    ("apart", "classes"),
    [("test", "images"), ("Validation", "food"), ("unlabeled", "labeled"), ("test", "a/data")],
)
def test_images_of_a_split_next_to_one_folder_of_classes_are_not_a_class(tmp_path, apart, classes):
    refused = error(make(grid(tmp_path, classes), f"{apart}/1.jpg"))
    name = Path(classes).parts[0]
    assert refused.message.startswith(f"{apart} next to {name}, but without class folders: ")
    assert refused.hint.startswith(f"if it is a split, give {tmp_path / classes}; ")
    dated = grid(tmp_path / "d", "rust", "2026-06-12 2026-06-13")
    assert trainable(make(dated, "test/1.jpg")).counts() == [2, 1]


def test_pictures_of_two_kinds_with_the_same_dates_inside_are_classes(tmp_path):
    found = trainable(grid(tmp_path, "photos drawings", "2026-06-12 2026-06-13"))
    assert found.classes == ("drawings", "photos")


@pytest.mark.parametrize(
    ("folders", "other", "advice"),
    [("test", "trainval", "rename trainval to train; "),
     ("Training", "holdout", "move holdout out of {root}, or rename it to val or test; "),
     ("train test", "test_old", "move test_old out of {root}, or rename it to val; "),
     ("train val test", "backup", "move backup out of {root}; "),
     ("test", "fold1 fold2", "make {root}/train and move fold1, fold2 into it; ")],
)  # fmt: skip
def test_a_folder_with_the_classes_of_a_split_may_be_the_missing_split(
    tmp_path, folders, other, advice
):
    refused = error(grid(tmp_path, f"{folders} {other}"))
    assert refused.hint.startswith("if these are splits, " + advice.format(root=tmp_path))


def test_an_empty_val_folder_is_refused_with_what_to_do(tmp_path):
    for name in ("cat", "dog"):
        (grid(tmp_path, "train") / "val" / name).mkdir(parents=True)
    assert error(tmp_path).message == f"no images in the val split of {tmp_path}"
    (tmp_path / "val").rename(tmp_path / "test")  # val is then sampled
    assert counts(trainable(tmp_path)) == {"train": [1, 1], "test": [0, 0]}


# --- splits inside the class folders -----------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "splits"),
    [("train val", "train val"), ("Training Testing", "train test"), ("train", "train"),
     ("train dev test_set", "train val test")],
)  # fmt: skip
def test_splits_inside_every_class_folder_are_accepted(tmp_path, inside, splits):
    grid(tmp_path, "cat dog", inside)
    found = trainable(make(tmp_path, "cat/x.txt", "cat/train_notes.txt", "dog/.hidden"))
    assert found.classes == ("cat", "dog")
    assert counts(found) == {split: [1, 1] for split in splits.split()}
    assert found.ignored == {".txt": 2, "hidden": 1}
    first = inside.split()[0]
    assert listing(found)[0] == (f"cat/{first}/0.jpg", "cat", "train")


def test_splits_inside_a_wrapper_in_each_class_are_accepted(tmp_path):
    found = trainable(grid(tmp_path, "cat/images dog/images", "train val"))
    assert (found.classes, counts(found)) == (("cat", "dog"), {"train": [1, 1], "val": [1, 1]})


def test_splits_inside_each_class_may_have_their_images_in_a_folder_of_images(tmp_path):
    found = trainable(grid(tmp_path, "cat dog", "train/images val/images"))
    assert (found.classes, counts(found)) == (("cat", "dog"), {"train": [1, 1], "val": [1, 1]})
    make(tmp_path, "bird/1.jpg")
    refused = error(tmp_path).message
    assert refused.endswith("look like splits, but bird cannot be split in this way")
    # A folder of another name may be a class: cat is a data folder then.
    refused = error(grid(tmp_path / "pets", "cat dog", "train/tabby val/tabby")).message
    assert "splits with class folders: cat is not a class" in refused


def test_a_class_may_lack_a_split_inside_but_train_is_required(tmp_path):
    make(tmp_path, "cat/train/1.jpg", "cat/val/1.jpg", "dog/train/1.jpg")
    assert counts(trainable(tmp_path)) == {"train": [1, 1], "val": [1, 0]}
    assert error(make(tmp_path, "cow/val/1.jpg")).message == "no images in train for: cow"


@pytest.mark.parametrize(
    ("more", "odd"),
    [("cat/1.jpg", "cat"), ("dog/more/1.jpg", "dog"), ("cow/1.jpg", "cow"),
     ("dog/Training/1.jpg", "dog"), ("cow/more/1.jpg", "cow")],
)  # fmt: skip
def test_splits_inside_some_classes_only_are_refused(tmp_path, more, odd):
    refused = error(make(grid(tmp_path, "cat dog", "train val"), more))
    assert refused.message.endswith(
        f", which look like splits, but {odd} cannot be split in this way"
    )
    assert refused.hint.startswith("give each class folder a train and a val folder")


def test_splits_inside_a_single_class_of_two_are_refused(tmp_path):
    refused = error(make(grid(tmp_path, "cat", "train val"), "dog/1.jpg"))
    assert refused.message == (
        "cat holds train, val, which look like splits, but dog cannot be split in this way"
    )
    assert refused.hint.endswith(", give each a name of its own, such as cat/train-cat")
    for name in ("train", "val"):
        (tmp_path / "cat" / name).rename(tmp_path / "cat" / f"{name}-cat")
    assert trainable(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize("names", ["cat/test dog/test", "cat/val cat/test dog/val dog/test"])
def test_splits_inside_the_classes_without_train_are_refused(tmp_path, names):
    refused = error(make(tmp_path, *(f"{name}/1.jpg" for name in names.split())))
    assert refused.message.endswith(", which look like splits, but there is no train")
    first = min(names.split())
    assert refused.hint.endswith(f", give each a name of its own, such as {first}-cat")
    for name in names.split():
        (tmp_path / name).rename(tmp_path / f"{name}-{Path(name).parent}")
    assert trainable(tmp_path).classes == ("cat", "dog")


def test_a_single_class_keeps_its_subfolder_named_like_a_split(tmp_path):
    found = trainable(make(tmp_path, "cat/1.jpg", "cat/test/2.jpg", "dog/1.jpg"))
    assert (found.given_splits, found.counts()) == ((), [2, 1])


# --- a folder around the data folder -----------------------------------------------------------


@pytest.mark.parametrize("name", ["food", "my food", "outer/inner"])
def test_a_folder_around_the_class_folders_is_named_in_the_hint(tmp_path, name):
    two_classes(tmp_path / name)
    refused = error(tmp_path)
    assert refused.message.startswith(f"found only one class in {tmp_path}: ")
    path = f"{tmp_path}/{name}"
    assert refused.hint.endswith(f"that holds them: {repr(path) if ' ' in path else path}")
    trainable(tmp_path / name)
    assert refusal(tmp_path, 2).hint == refused.hint


@pytest.mark.parametrize("splits", ["train val", "Training Testing", "seg_train/seg_train"])
def test_a_folder_around_splits_is_named_in_the_hint(tmp_path, splits):
    grid(tmp_path / "chest", splits)
    hint = error(tmp_path).hint
    assert hint is not None
    trainable(Path(hint.rpartition(": ")[2]))


def test_folds_with_splits_of_their_own_are_refused_with_one_of_them_in_the_hint(tmp_path):
    refused = error(grid(tmp_path, "fold1/train fold1/val fold2/train fold2/val"))
    assert refused.message == (
        "fold1, fold2 hold train, val, splits with class folders: fold1 is not a class but a data "
        "folder"
    )
    assert refused.hint == f"give it instead: {tmp_path}/fold1"


def test_class_folders_nested_in_each_split_are_named_in_the_hint(tmp_path):
    refused = error(grid(tmp_path, "train/stuff val/stuff"))
    assert refused.hint.endswith(f"move them up, out of {tmp_path}/train/stuff")


def test_a_folder_of_one_class_can_be_read_for_an_evaluation(tmp_path):
    grid(tmp_path, "test/cat", "young old")
    assert read_folder(tmp_path / "test").classes == ("cat",)
    found = read_folder(tmp_path)
    assert (found.classes, counts(found)) == (("cat",), {"test": [2]})


# --- one class in two spellings ----------------------------------------------------------------


@pytest.mark.parametrize("split", ["val", "Testing"])
def test_a_class_in_other_case_in_another_split_is_refused_with_the_command(tmp_path, split):
    grid(grid(tmp_path, "train", "Cat dog"), split)
    refused = error(tmp_path)
    name = "val" if split == "val" else "test"
    assert refused.message == (
        f"one class has two names in {tmp_path}: 'Cat' in train, 'cat' in {name}"
    )
    assert refused.hint.endswith(f": mv {tmp_path}/{split}/cat {tmp_path}/{split}/Cat")
    assert refusal(tmp_path, 2).message == refused.message  # not a count of three


def test_a_class_in_another_unicode_form_in_val_is_refused(tmp_path):
    composed = unicodedata.normalize("NFC", "café")
    grid(grid(tmp_path, "train", f"{composed} dog"), "val", "cafe\u0301 dog")
    assert error(tmp_path).message.endswith(r": 'caf\xe9' in train, 'cafe\u0301' in val")


def test_a_class_in_other_case_next_to_test_is_refused(tmp_path):
    refused = error(grid(make(tmp_path, "Cat/1.jpg", "Dog/1.jpg"), "test"))
    assert "'Cat' in train, 'cat' in test" in refused.message


def test_two_classes_that_differ_in_case_in_every_split_are_two_classes(tmp_path):
    assert trainable(grid(tmp_path, "train val", "Cat cat")).classes == ("Cat", "cat")
