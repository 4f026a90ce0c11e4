"""What the name of a folder means by itself: a split, a part of a data set, a date."""

import pytest

from xception_cli.data.names import is_date, is_part, split_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAINING training_set training-set trainset trainingSet"),
        ("train", "train_images seg_train Train_Data 01_train train2017 train_1 data_train"),
        ("val", "val valid VALIDATION dev Eval evaluation val_set valid_images validation_data"),
        ("test", "test Testing TEST testing_set testSet test-images seg_test test1 testdata"),
        ("unlabelled", "pred seg_pred single_prediction unlabeled unlabelled_images"),
        (None, "cat trains testament device valley set images data seg 2017 trainval train_cat"),
        (None, "train_test preset protest"),
        ("test", "Testbilder test_bilder Testdaten testpics testimg Test-Pictures"),
        ("train", "Trainingsbilder Trainingsdaten trainimages TrainBilder"),
        (None, "Bilder Schaubilder Wetterdaten Kontestbilder Testbild"),
    ],
)  # fmt: skip
def test_a_split_is_recognised_by_its_name(split, names):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize("name", ["train set", " Train ", "", "###", "\udce9", "test测试"])
def test_a_name_without_latin_letters_is_not_a_split(name):
    assert split_of(name) == ("train" if "rain" in name else None)


@pytest.mark.parametrize(
    ("is_one", "names"),
    [
        (True, "fold1 FOLD_2 batch-3 setA part2 Data dataset_1 train testing subset2 session1"),
        (False, "a B 2024 1 healthy parts rust_2 leaf_part site_a batches setting"),
    ],
)
def test_a_part_of_a_data_set_is_recognised_by_its_name(is_one, names):
    assert {name: is_part(name) for name in names.split()} == dict.fromkeys(names.split(), is_one)


@pytest.mark.parametrize(
    ("is_one", "names"),
    [
        (True, "2026-06-12,2026_06_12,2026.06.12,20260612,2026-06,2026-W24,12.06.2026,6-12-26"),
        (True, "2026-07-03 Regen,Regen 2026-07-03,20260612_143000,IMG_20260612,14h30,14.30.05"),
        (True, "001,2026,100CANON,101_PANA,10260612"),
        (False, "12,06,10-19,1.5 g,Mon,June,class101,n02007558,BMW X5 2012,100_euro,001.Albatross"),
    ],
)
def test_a_date_a_time_or_a_long_number_is_recognised_by_its_name(is_one, names):
    assert {n: is_date(n) for n in names.split(",")} == dict.fromkeys(names.split(","), is_one)
