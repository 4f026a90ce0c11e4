"""Which image is in which split, and why."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
from images import draw
from splits import Row, by_path, digest, fabricate, given, inspected_folder, many

from xception_cli.data.fixes import Fix
from xception_cli.data.folder import DataFolder
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import match_split, read_split, write_split
from xception_cli.data.split import Split, make_split
from xception_cli.errors import ArtifactError, DataError, UsageError
from xception_cli.seeds import key


def split_rows(rows: list[Row], *, seed=0, val=0.2, test=0.0) -> Split:
    return make_split(fabricate(rows), seed=seed, val_fraction=val, test_fraction=test)


def content_at(low: float, high: float, number: int = 0, seed: int = 0) -> str:
    """Return the n-th content whose hash is between two fractions."""
    contents = (f"at {i}" for i in range(100_000))
    found = (c for c in contents if low <= key(seed, "split", digest(c)) / 2**63 < high)
    for _ in range(number):
        next(found)
    return next(found)


# --- splits by hash ----------------------------------------------------------------------------


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.1, 0.3), (0.5, 0.4)], ids=str)
def test_the_splits_of_2000_images_have_about_the_requested_sizes(val, test):
    made = split_rows(many(2000), val=val, test=test)
    sizes = Counter(image.split for image in made.images)
    for split, fraction in (("val", val), ("test", test), ("train", 1 - val - test)):
        assert sizes[split] / 2000 == pytest.approx(fraction, abs=0.03)
        assert sum(made.counts(split)) == len(made.of(split)) == sizes[split]
    assert set(sizes) <= {"train", "val", "test"}
    assert made.warnings == ()
    assert [image.path for image in made.images] == [row[1] for row in many(2000)]


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    one, again, other = (split_rows(many(200), seed=seed) for seed in (1, 1, 2))
    assert one == again
    moved = sum(by_path(one)[path] != split for path, split in by_path(other).items())
    assert 30 < moved < 100  # of 200; the expected share is 2 * 0.2 * 0.8


def test_the_split_depends_on_neither_name_nor_order_nor_class():
    rows = many(200)
    renamed = [(name, f"renamed/{path}", content, None) for name, path, content, _ in rows[::-1]]
    moved = by_path(split_rows(renamed))
    assert moved == {f"renamed/{path}": split for path, split in by_path(split_rows(rows)).items()}


def test_the_reason_of_an_image_is_its_hash():
    for image in split_rows(many(50), test=0.2).images:
        at = key(0, "split", image.digest) / 2**63
        assert image.reason == f"hash {at:.4f}"
        assert image.split == ("val" if at < 0.2 else "test" if at < 0.4 else "train")


def test_identical_files_are_never_in_two_splits():
    rows = [(f"c{i % 4}", f"c{i % 4}/{i}.jpg", str(i % 150), None) for i in range(600)]
    made = split_rows(rows, val=0.3, test=0.2)
    sides: dict[str, set[str]] = {}
    for image in made.images:
        sides.setdefault(image.digest, set()).add(image.split)
    assert {len(splits) for splits in sides.values()} == {1}
    assert {next(iter(splits)) for splits in sides.values()} == {"train", "val", "test"}


@pytest.mark.parametrize("test", [0.0, 0.2])
def test_new_photos_do_not_move_old_ones(test):
    old, new = many(300), many(300, prefix="new")
    before, after = by_path(split_rows(old, test=test)), by_path(split_rows(old + new, test=test))
    assert {path: after[path] for path in before} == before
    assert len(after) == 600


def test_new_photos_move_an_old_one_only_if_it_replaced_a_missing_val():
    train = [("a", f"a/{i}.jpg", content_at(0.3, 1.0, i), None) for i in range(4)]
    other = [("b", f"b/{i}.jpg", str(i), None) for i in range(40)]
    before = by_path(split_rows(train + other))
    assert [before[row[1]] for row in train].count("val") == 1
    arrived = ("a", "a/new.jpg", content_at(0.0, 0.2), None)
    after = by_path(split_rows([*train, *other, arrived]))
    assert [after[row[1]] for row in train] == ["train"] * 4
    assert after["a/new.jpg"] == "val"
    assert {p: after[p] for p in before if p.startswith("b")} == {
        p: before[p] for p in before if p.startswith("b")
    }


# --- small classes -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [(0.0, 0.2), (0.3, 1.0)], ids=["hash in val", "hash in train"])
def test_a_class_of_one_image_stays_in_train_with_a_warning(at):
    made = split_rows([*many(40, 2), ("lone\x1b", "lone/1.jpg", content_at(*at), None)])
    assert by_path(made)["lone/1.jpg"] == "train"
    assert made.warnings == (r"no validation image for class lone\x1b",)


def test_a_class_of_copies_of_one_image_stays_in_train():
    rows = [("copies", f"copies/{i}.jpg", content_at(0.0, 0.2), None) for i in range(3)]
    made = split_rows([*many(40, 2), *rows])
    assert [by_path(made)[row[1]] for row in rows] == ["train"] * 3
    assert made.warnings == ("no validation image for class copies",)


def test_a_class_without_val_gives_its_lowest_hash():
    contents = [content_at(low, low + 0.1) for low in (0.6, 0.3, 0.8)]
    rows = [("few", f"few/{i}.jpg", content, None) for i, content in enumerate(contents)]
    made = split_rows([*many(40, 2), *rows])
    assert [by_path(made)[row[1]] for row in rows] == ["train", "val", "train"]
    assert [i.reason for i in made.images if i.path == "few/1.jpg"] == ["lowest hash of its class"]
    assert made.warnings == ()


def test_a_class_with_less_than_half_of_its_share_in_val_is_warned_about():
    """25 images, of which 5 should be in val: 2 are too few, 3 are not."""
    spread = [content_at(0.3, 1.0, i) for i in range(23)]
    rows = [("few", f"few/{i}.jpg", content, None) for i, content in enumerate(spread)]
    low = [("few", f"few/low{i}.jpg", content_at(0.0, 0.2, i), None) for i in range(3)]
    others = many(40, 2)
    assert split_rows([*others, *rows, *low[:2]]).warnings == (
        "val has few images of some classes, by chance: few 2 of 25; their recall is uncertain "
        "(--split-file sets the split)",
    )
    assert split_rows([*others, *rows[:22], *low]).warnings == ()


def test_a_small_class_that_would_be_all_val_keeps_its_highest_hash_in_train():
    contents = [content_at(low, low + 0.03) for low in (0.05, 0.15, 0.1)]
    rows = [("few", f"few/{i}.jpg", content, None) for i, content in enumerate(contents)]
    made = split_rows([*many(40, 2), *rows])
    assert [by_path(made)[row[1]] for row in rows] == ["val", "train", "val"]
    assert [i.reason for i in made.images if i.path == "few/1.jpg"] == ["highest hash of its class"]


def test_a_folder_without_an_image_to_spare_for_val_is_refused():
    with pytest.raises(DataError, match=r"\(val is empty\)") as caught:
        split_rows([("a", "a/1.jpg", "x", None), ("b", "b/1.jpg", "y", None)])
    assert caught.value.hint == (
        "add images: at least one class needs two different ones that are not of one group"
    )


def test_given_splits_are_kept():
    rows = given("train", 30) + given("val", 20) + given("test", 10)
    made = split_rows(rows, val=0.9)
    assert by_path(made) == {row[1]: row[3] for row in rows}
    assert {image.reason for image in made.images} == {"given"}
    assert made.warnings == ("val_fraction is not used: the split is given",)


def test_given_train_and_test_val_comes_from_train_only():
    rows = given("train", 200) + given("test", 50)
    made = split_rows(rows, val=0.3, test=0.5)
    found = by_path(made)
    assert {found[row[1]] for row in rows if row[3] == "test"} == {"test"}
    drawn = Counter(found[row[1]] for row in rows if row[3] == "train")
    assert set(drawn) == {"train", "val"}
    assert drawn["val"] / 200 == pytest.approx(0.3, abs=0.1)


def test_a_given_test_larger_than_train_does_not_make_val_look_small():
    made = split_rows(given("train", 100) + given("test", 200))
    assert len(made.of("val")) > 10
    assert made.warnings == ()


def test_a_train_folder_alone_is_split_like_class_folders():
    rows = given("train", 100)
    plain = [(name, path, content, None) for name, path, content, _ in rows]
    assert by_path(split_rows(rows, test=0.2)) == by_path(split_rows(plain, test=0.2))


@pytest.mark.parametrize(
    ("split", "what"), [("val", "the split is given"), ("test", "the test split is given")]
)
def test_a_test_fraction_that_is_not_used_is_warned_about(split, what):
    rows = given("train", 100) + given(split, 20)
    made = split_rows(rows, test=0.2)
    expected = {path for _, path, _, part in rows if part == split}
    assert {image.path for image in made.of(split)} == expected
    assert len(made.of("test")) == (20 if split == "test" else 0)
    assert made.warnings == (f"test_fraction is not used: {what}",)


def test_a_val_fraction_that_is_not_used_is_warned_about_unless_it_is_the_default():
    rows = given("train", 100) + given("val", 20)
    warning = "val_fraction is not used: the split is given"
    assert split_rows(rows, val=0.3).warnings == (warning,)
    assert split_rows(rows, val=0.2).warnings == ()
    assert warning not in split_rows(given("train", 100) + given("test", 20), val=0.3).warnings


def test_a_class_without_a_given_val_image_is_warned_about():
    rows = [*given("train", 30, 3), *given("val", 20, 2)]
    assert split_rows(rows).warnings == ("no validation image for class c2",)


def test_classes_without_a_given_val_image_are_one_warning():
    rows = [*given("train", 90, 9), *given("val", 20, 1)]
    assert split_rows(rows).warnings == (
        "no validation image for 8 classes: c1, c2, c3, c4, c5, and 3 more",
    )


@pytest.mark.parametrize(
    ("copies", "warnings"),
    [
        ([], ()),
        (["val"], ("1 image of val or test is in train, too: metrics will be too optimistic",
                   "val: val/copy0.jpg, identical to train/c0/0.jpg")),
        (["val", "test"], (
            "2 images of val or test are in train, too: metrics will be too optimistic",
            "val: val/copy0.jpg, identical to train/c0/0.jpg",
            "test: test/copy1.jpg, identical to train/c1/1.jpg",
        )),
    ],
    ids=["none", "one", "two"],
)  # fmt: skip
def test_identical_files_in_two_given_splits_are_warned_about_in_pairs(copies, warnings):
    rows = given("train", 20) + given("val", 10) + given("test", 10)
    rows += [(f"c{i % 2}", f"{s}/copy{i}.jpg", f"train{i}", s) for i, s in enumerate(copies)]
    assert split_rows(rows).warnings == (("\n  ".join(warnings),) if warnings else ())
    folder = fabricate(rows)
    if copies:
        with pytest.raises(DataError, match="in train, too"):
            make_split(folder, seed=0, val_fraction=0, test_fraction=0, strict=True)


# --- images that cannot be decoded -------------------------------------------------------------


def test_bad_images_are_left_out_with_their_reason_and_move_no_other():
    rows = many(100)
    bad = [(name, path, f"!{content}", None) if i % 10 == 0 else (name, path, content, None)
           for i, (name, path, content, _) in enumerate(rows)]  # fmt: skip
    made = split_rows(bad)
    without = split_rows([row for row in rows if row not in rows[::10]])
    assert [image.path for image in made.of("out")] == [row[1] for row in rows[::10]]
    assert {image.reason for image in made.of("out")} == {"truncated"}
    assert tuple(i for i in made.images if i.split != "out") == without.images
    assert made.warnings[-1] == "10 images left out, see split.csv"


def test_a_class_whose_images_are_all_bad_is_refused():
    rows = [*many(40, 2), ("ill", "ill/1.jpg", "!", None), ("ill", "ill/2.jpg", "!x", None)]
    with pytest.raises(DataError, match=r"^no usable training image for: ill$"):
        split_rows(rows)


def test_a_large_val_of_many_small_classes_is_not_blamed_on_groups():
    val = "val has 50% of the images instead of 20%"
    assert f"{val}: it has an image of each class" in split_rows(many(200, 100), val=0.2).warnings


def test_hundreds_of_classes_without_a_usable_image_are_counted():
    bad = [(f"c{i:03}", f"c{i:03}/1.jpg", "!", None) for i in range(300)]
    named = "c000, c001, c002, c003, c004, and 295 more"
    with pytest.raises(DataError, match=f"^no usable training image for: {named}$"):
        split_rows([*many(40, 2), *bad])


# --- split.csv ---------------------------------------------------------------------------------

NAMES = [
    "plain.jpg", "two\nlines.jpg", "carriage\rreturn.jpg", "a,b.jpg", 'say "hi".jpg', "=1+1.jpg",
    "-x.jpg", "'quoted'.jpg", "crème.jpg", "\u202egpj.jpg", "\x1b[2J.jpg", " space .jpg",
    os.fsdecode(b"caf\xe9.jpg"),
]  # fmt: skip
CLASSES = ("=HYPERLINK()", "caf\udce9", "two\nlines")


def hostile_split() -> Split:
    images = [
        Photo(name, i % 3, ("train", "val", "out")[i % 3], digest(str(i)), f"u{i}", f"reason, {i}")
        for i, name in enumerate(NAMES)
    ]
    return Split(CLASSES, tuple(images))


def test_a_split_is_read_back_equal_with_undecodable_bytes_escaped(tmp_path):
    split = hostile_split()
    write_split(split, tmp_path / "split.csv")
    found = read_split(tmp_path / "split.csv", CLASSES)
    assert found.images[:-1] == split.images[:-1]
    assert found.images[-1].path == r"caf\xe9.jpg"
    assert (found.images[-1].label, found.classes) == (split.images[-1].label, CLASSES)
    assert found.fingerprint == split.fingerprint
    with (tmp_path / "split.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "split", "reason", "digest", "unit"]
    assert rows[1] == ["plain.jpg", "'=HYPERLINK()", "train", "reason, 0", digest("0"), "u0"]
    assert len(rows) == 1 + len(NAMES)


def test_the_fingerprint_covers_paths_classes_and_contents_but_not_the_split():
    rows = many(60)
    prints = {
        name: split_rows(changed, seed=seed).fingerprint
        for name, changed, seed in (
            ("same", rows, 0),
            ("drawn anew", rows, 5),
            ("in another order", rows[::-1], 0),
            ("renamed", [(rows[0][0], "c0/x.jpg", *rows[0][2:]), *rows[1:]], 0),
            ("changed", [(*rows[0][:2], "x", None), *rows[1:]], 0),
            ("moved", [("c1", *rows[0][1:]), *rows[1:]], 0),
            ("fewer", rows[1:], 0),
        )
    }
    assert prints["same"] == prints["drawn anew"] == prints["in another order"]
    assert len(set(prints.values())) == 5


def test_a_split_file_with_an_unknown_class_is_refused_with_the_row(tmp_path):
    write_split(hostile_split(), tmp_path / "split.csv")
    with pytest.raises(ArtifactError, match=r"split\.csv, row \d+: .* has an unknown class caf"):
        read_split(tmp_path / "split.csv", [name for name in CLASSES if name != "caf\udce9"])


def test_a_split_file_with_an_unknown_split_is_refused_with_the_row(tmp_path):
    write_split(hostile_split(), tmp_path / "split.csv")
    text = (tmp_path / "split.csv").read_text(encoding="utf-8")
    (tmp_path / "split.csv").write_text(text.replace(",train,", ",tpain,", 1), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"split\.csv, row \d+: .* an unknown split 'tpain'"):
        read_split(tmp_path / "split.csv", CLASSES)


# --- a faulty split file -----------------------------------------------------------------------


def follow(path: Path, text: str) -> Split:
    path.write_text(text, encoding="utf-8", newline="")
    folder = fabricate(many(8, 2))
    return make_split(folder, seed=0, val_fraction=0.2, test_fraction=0, split_file=path)


ROWS = "".join(f"c{i % 2}/{i}.jpg,{'val' if i > 5 else 'train'}\n" for i in range(8))


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        (f"path,split\n{ROWS}c0/0.jpg,val\n", "train in line 2", "val in line 10"),
        (f"path,split\n\n{ROWS}\n\nc1/7.jpg,out\n", "val in line 10", "out in line 13"),
        ("split,path\nout,\"c0\n.jpg\"\nval,\"c0\n.jpg\"\n", "out in line 3", "val in line 5"),
    ],
    ids=["rows", "blank lines", "a line break in the path"],
)  # fmt: skip
def test_a_path_listed_twice_with_two_splits_is_refused_with_both_lines(
    tmp_path, text, first, second
):
    with pytest.raises(UsageError) as caught:
        follow(tmp_path / "mine.csv", text)
    assert caught.value.message.startswith(f"{tmp_path}/mine.csv lists c")
    assert caught.value.message.endswith(f".jpg twice: as {first}, as {second}")
    assert caught.value.hint == "delete one of the two lines"


@pytest.mark.parametrize(
    ("split", "other", "message"),
    [("val", "train", "no image is left for validation"), ("train", "val", "no usable training")],
)
def test_a_split_file_without_train_or_val_is_named_in_the_hint(tmp_path, split, other, message):
    with pytest.raises(DataError, match=message) as caught:
        follow(tmp_path / "mine.csv", f"path,split\n{ROWS}".replace(split, other))
    assert caught.value.hint == f"{tmp_path}/mine.csv gives the split: add images to {split}"


def test_a_path_listed_twice_with_the_same_split_is_accepted(tmp_path):
    made = follow(tmp_path / "mine.csv", f"path,split\n{ROWS}{ROWS}")
    assert by_path(made) == by_path(follow(tmp_path / "once.csv", f"path,split\n{ROWS}"))


def test_the_splits_of_a_split_file_can_be_written_as_in_a_table(tmp_path):
    made = follow(tmp_path / "once.csv", f"path,split\n{ROWS.replace('0.jpg,train', '0.jpg,out')}")
    rows = ROWS.replace("0.jpg,train", "0.jpg,Out").replace("train", "Training")
    again = follow(tmp_path / "once.csv", f"path,split\n{rows.replace('val', 'Validation')}")
    assert by_path(made) == by_path(again)


@pytest.mark.parametrize(
    ("row", "fault"),
    [("c0/0.jpg,vbl", "split is 'vbl', expected train, val, test, out"),
     ("c0/0.jpg,held-out", "split is 'held-out', expected train, val, test, out"),
     ("c0/0.jpg,", "split is '', expected train, val, test, out"),
     ("c0/0.jpg", "split is '', expected train, val, test, out"),
     (",train", "the path is missing")],
)  # fmt: skip
def test_a_row_without_a_known_split_or_a_path_is_refused_with_its_line(tmp_path, row, fault):
    with pytest.raises(UsageError) as caught:
        follow(tmp_path / "mine.csv", f"path,split\n{ROWS}{row}\n")
    assert caught.value.message == f"{tmp_path}/mine.csv, line 10: {fault}"


# --- resuming with the same data ---------------------------------------------------------------


def saved_and_read(folder: DataFolder, path: Path) -> Split:
    made = make_split(folder, seed=0, val_fraction=0.3, test_fraction=0)
    write_split(made, path)
    return read_split(path, folder.classes)


def test_the_same_data_is_matched_with_its_real_paths(photos, tmp_path):
    (photos / "red" / "0.jpg").rename(photos / "red" / os.fsdecode(b"caf\xe9.jpg"))
    folder = inspected_folder(photos)
    saved = saved_and_read(folder, tmp_path / "split.csv")
    matched = match_split(saved, folder)
    made = make_split(folder, seed=0, val_fraction=0.3, test_fraction=0)
    assert matched.images == made.images
    assert all((photos / image.path).is_file() for image in matched.images)
    assert not all((photos / image.path).is_file() for image in saved.images)  # escaped there


def test_added_removed_and_changed_images_are_refused_and_listed(photos, tmp_path):
    folder = inspected_folder(photos)
    saved = saved_and_read(folder, tmp_path / "split.csv")
    (photos / "red" / "1.jpg").unlink()
    draw(photos / "red" / "new\x1b.jpg", (1, 2, 3), seed=1)
    draw(photos / "green" / "2.jpg", (1, 2, 3), seed=2)
    (photos / "blue" / "3.jpg").rename(photos / "green" / "3.jpg")  # replaces another one
    folder = inspected_folder(photos)
    with pytest.raises(ArtifactError) as caught:
        match_split(saved, folder)
    assert caught.value.exit_code == 4
    assert caught.value.message.splitlines() == [
        f"{photos} has changed since the run was started:",
        "  removed: blue/3.jpg",
        "  removed: red/1.jpg",
        r"  added: red/new\x1b.jpg",
        "  changed: green/2.jpg",
        "  changed: green/3.jpg",
    ]


@pytest.mark.parametrize(("added", "shown", "last"), [(10, 10, "  added: c0/n9.jpg"),
                                                      (11, 10, "  and 2 more")])  # fmt: skip
def test_a_long_list_of_changes_is_cut_with_its_count(tmp_path, added, shown, last):
    rows = many(20)
    saved = saved_and_read(fabricate(rows), tmp_path / "split.csv")
    rows += [("c0", f"c0/n{i}.jpg", f"n{i}", None) for i in range(added)]
    with pytest.raises(ArtifactError) as caught:
        match_split(saved, fabricate(rows))
    lines = caught.value.message.splitlines()
    assert (len(lines) - 1, lines[-1]) == (shown, last)


def test_a_relabelled_image_is_unchanged_while_it_stays_in_its_folder(tmp_path):
    rows = [*many(20, 3), ("c0", "c0/bad.jpg", "!bad", None)]
    fixes = {path: Fix("relabel", "", "c2") for path in ("c0/0.jpg", "c0/bad.jpg")}
    folder = fabricate(rows)
    options = {"seed": 0, "val_fraction": 0.3, "test_fraction": 0.0, "fixes": fixes}
    write_split(make_split(folder, **options), tmp_path / "split.csv")
    saved = read_split(tmp_path / "split.csv", folder.classes)
    assert {i.path for i in saved.images if i.label == 2 and i.path.startswith("c0")} == {*fixes}
    assert match_split(saved, folder).images == saved.images
    moved = fabricate([("c1", *rows[0][1:]), *rows[1:]])
    with pytest.raises(ArtifactError, match=r"\n  changed: c0/0\.jpg$"):
        match_split(saved, moved)


def test_an_image_that_moved_to_another_class_is_a_change(tmp_path):
    rows = many(20)
    saved = saved_and_read(fabricate(rows), tmp_path / "split.csv")
    assert match_split(saved, fabricate(rows)).images == saved.images  # the control
    with pytest.raises(ArtifactError, match=r"\n  changed: c0/0\.jpg$"):
        match_split(saved, fabricate([("c1", *rows[0][1:]), *rows[1:]]))
