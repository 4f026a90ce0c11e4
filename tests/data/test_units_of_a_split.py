"""Units of a split: images of one group are in one split; and splits from a file."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from splits import Row, by_path, fabricate, given, many

from xception_cli.data.recorded import write_split
from xception_cli.data.split import Split, make_split
from xception_cli.errors import DataError, UsageError


def split_with(rows: list[Row], group_by: str | None = None, **more: object) -> Split:
    folder = replace(fabricate(rows), group_by=group_by)
    arguments = {"seed": 0, "val_fraction": 0.2, "test_fraction": 0.0, **more}
    return make_split(folder, **arguments)


def sides(split: Split, units: list[list[int]]) -> list[set[str]]:
    return [{split.images[i].split for i in unit} for unit in units]


# --- near-copies ---------------------------------------------------------------------------------


def test_near_copies_are_never_in_two_splits():
    rows = many(400)
    pairs = [[i, i + 200] for i in range(200)]
    apart = split_with(rows)
    together = split_with(rows, alike=pairs)
    assert any(len(found) == 2 for found in sides(apart, pairs))  # the control
    assert all(len(found) == 1 for found in sides(together, pairs))
    part = len(together.of("val")) / 400
    assert 0.13 < part < 0.28


def test_images_connected_by_a_third_stay_together_and_the_others_do_not_move():
    rows = many(100)
    apart, together = split_with(rows), split_with(rows, alike=[[0, 5], [5, 9], [40, 41, 42]])
    units = [[0, 5, 9], [40, 41, 42]]
    assert all(len(found) == 1 for found in sides(together, units))
    moved = {i for unit in units for i in unit}
    rest = [i for i in range(100) if i not in moved]
    assert [together.images[i] for i in rest] == [apart.images[i] for i in rest]


def test_the_reason_names_the_hash_and_the_unit():
    made = split_with(many(40), alike=[[0, 4]])
    assert made.images[0].reason.endswith(", 2 near-copies")
    assert made.images[0].reason == made.images[4].reason
    assert made.images[1].reason.startswith("hash 0.")


def test_a_near_copy_of_a_training_image_in_a_given_val_is_reported_as_a_pair():
    rows = given("train", 20) + given("val", 10)
    made = split_with(rows, alike=[[3, 24]])
    assert made.warnings == (
        "1 image of val or test is in train, too: metrics will be too optimistic\n"
        "  val: val/c0/4.jpg, of 2 near-copies, as is train/c1/3.jpg",
    )
    with pytest.raises(DataError, match="in train, too") as caught:
        split_with(rows, alike=[[3, 24]], strict=True)
    assert "--fixes" in caught.value.hint


def test_a_long_list_of_leaks_is_cut_with_its_count():
    rows = given("train", 40) + given("val", 40)
    (warning,) = split_with(rows, alike=[[i, 40 + i] for i in range(25)]).warnings
    assert len(warning.splitlines()) == 12
    assert warning.startswith("25 images")
    assert warning.endswith("and 15 more")


def test_a_given_test_is_kept_even_if_a_copy_of_it_is_in_train():
    rows = given("train", 40) + given("test", 10)
    made = split_with(rows, alike=[[0, 40]])
    assert {image.split for image in made.images[40:]} == {"test"}
    assert made.images[0].split in {"train", "val"}


# --- groups --------------------------------------------------------------------------------------


def visits(patients: int = 60, each: int = 5) -> list[Row]:
    return [
        (f"c{p % 2}", f"c{p % 2}/patient{p}_{n}.jpg", f"{p} {n}", None)
        for p in range(patients)
        for n in range(each)
    ]


def test_a_group_is_in_one_split_and_about_a_fifth_is_val():
    made = split_with(visits(), group_by=r"patient(\d+)_")
    of_patient = defaultdict(set)
    for image in made.images:
        of_patient[image.path.split("_")[0]].add(image.split)
    assert all(len(found) == 1 for found in of_patient.values())
    assert 0.1 < len(made.of("val")) / 300 < 0.3
    apart = split_with(visits())
    assert any(len({i.split for i in apart.images[n : n + 5]}) == 2 for n in range(0, 300, 5))


def test_new_photos_of_a_group_join_its_split():
    before = split_with(visits(each=3), group_by=r"patient(\d+)_")
    after = split_with(visits(each=5), group_by=r"patient(\d+)_")
    known = by_path(before)
    assert {path: side for path, side in by_path(after).items() if path in known} == known


def test_images_without_a_group_are_counted_and_assigned_individually():
    rows = [*visits(), ("c0", "c0/other.jpg", "x", None)]
    made = split_with(rows, group_by=r"patient(\d+)_")
    assert made.warnings == ("1 image does not match --group-by and will not be grouped",)


def test_a_pattern_that_matches_nothing_is_refused_with_an_example_path():
    with pytest.raises(UsageError, match=r"by video\(.\), for example c0/patient0_0"):
        split_with(visits(), group_by="video(.)")


def test_a_val_made_too_large_or_small_by_large_groups_is_reported():
    rows = [(f"c{i % 2}", f"c{i % 2}/g{i // 60}_{i}.jpg", str(i), None) for i in range(120)]
    (warning,) = split_with(rows, group_by=r"g(\d)_").warnings
    assert warning.endswith("of the images instead of 20%: images of one group stay together")


def test_a_test_split_that_got_no_images_is_reported():
    rows = [(f"c{i % 2}", f"c{i % 2}/g{i % 10}_{i}.jpg", str(i), None) for i in range(40)]
    every = [
        split_with(rows, group_by=r"g(\d)_", seed=seed, test_fraction=0.1) for seed in range(20)
    ]
    sentence = "test has no images: by chance, test_fraction 0.1 gave none of 10 units"
    reported = [sentence in made.warnings for made in every]
    assert reported == [not made.of("test") for made in every]
    assert set(reported) == {True, False}


# --- a split from a file -------------------------------------------------------------------------


def test_the_split_of_an_earlier_run_is_followed_exactly(tmp_path):
    rows = many(60)
    earlier = split_with(rows, seed=7, test_fraction=0.2)
    write_split(earlier, tmp_path / "split.csv")
    made = split_with(rows, split_file=tmp_path / "split.csv")
    assert by_path(made) == by_path(earlier)
    assert by_path(made) != by_path(split_with(rows))
    assert {image.reason for image in made.images} == {"as in split.csv"}


def test_a_split_written_by_hand_needs_two_columns_and_may_leave_images_out():
    rows = many(8, 2)
    lines = [f"{path},{('train', 'val', 'out')[i // 3]}" for i, (_, path, _, _) in enumerate(rows)]
    Path("mine.csv").write_text("path,split\n" + "\n".join(lines) + "\n")
    made = split_with(rows, split_file=Path("mine.csv"))
    assert [image.split for image in made.images] == ["train"] * 3 + ["val"] * 3 + ["out"] * 2


def test_a_split_file_saved_by_a_european_excel_is_followed():
    rows = [("ä", f"ä/{i}.jpg", str(i), None) for i in range(2)]
    Path("mine.csv").write_bytes("path;split\r\nä/0.jpg;val\r\nä/1.jpg;train\r\n".encode("cp1252"))
    made = split_with(rows, split_file=Path("mine.csv"))
    assert by_path(made) == {"ä/0.jpg": "val", "ä/1.jpg": "train"}


def test_a_split_file_that_does_not_match_is_refused_with_the_differences(tmp_path):
    write_split(split_with(many(8, 2)), tmp_path / "split.csv")
    rows = [*many(8, 2)[1:7], ("c1", "c1/7.jpg", "changed", None), ("c0", "c0/new.jpg", "n", None)]
    with pytest.raises(DataError) as caught:
        split_with(rows, split_file=tmp_path / "split.csv")
    assert caught.value.message.splitlines()[1:] == [
        "  changed since: c1/7.jpg",
        "  not in it: c0/new.jpg",
        "  missing now: c0/0.jpg",
    ]


def test_an_unknown_split_in_the_file_is_refused_with_its_line():
    Path("mine.csv").write_text("path,split\nc0/0.jpg,trainign\n")
    with pytest.raises(UsageError, match=r"line 2: split is 'trainign', expected train, val"):
        split_with(many(4, 2), split_file=Path("mine.csv"))


def test_a_copy_in_two_splits_of_a_split_file_is_a_leak():
    rows = [*many(8, 2), ("c0", "c0/copy.jpg", "0", None)]
    sides_ = ["train"] * 6 + ["val"] * 3
    lines = [f"{row[1]},{side}" for row, side in zip(rows, sides_, strict=True)]
    Path("mine.csv").write_text("path,split\n" + "\n".join(lines) + "\n")
    (warning,) = split_with(rows, split_file=Path("mine.csv")).warnings
    assert warning.endswith("val: c0/copy.jpg, identical to c0/0.jpg")
