"""Tables of images: columns, rows and paths; a table trains the same model as its folder."""

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import listing, make
from images import put, two_classes
from runs import call, train_run

from xception_cli.check.survey import survey_folder
from xception_cli.data.folder import read_folder
from xception_cli.data.header import NAMES_OF
from xception_cli.data.source import read_data
from xception_cli.data.split import make_split
from xception_cli.data.table import read_rows
from xception_cli.errors import DataError, MachineError, UsageError
from xception_cli.parquet import require_parquet


def write(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*rows, ""]), encoding="utf-8")
    return path


def table_of(root: Path, path: Path, header: str = "path,label", separator: str = ",") -> Path:
    """Write a table of a folder, in another order than the folder's."""
    folder = read_folder(root)
    rows = [f"{i.path}{separator}{folder.classes[i.label]}" for i in reversed(folder.images)]
    return write(path, header, *rows)


def refused(table: Path, root: Path | None = None) -> DataError | UsageError:
    with pytest.raises((DataError, UsageError)) as caught:
        read_data(table, root)
    return caught.value


@pytest.mark.parametrize(
    ("header", "separator", "said"),
    [
        ("path,label", ",", "path, label"),
        ("\ufeffFile Name;Category", ";", "path from File Name, label from Category"),
        ("image_path\tclass", "\t", "path from image_path, label from class"),
        ("path,label,,", ",", "path, label"),
    ],
)
def test_a_table_in_any_order_lists_what_its_folder_lists(photos, capsys, header, separator, said):
    table = table_of(photos, photos / "labels.csv", header, separator)
    found, folder = read_data(table), read_folder(photos)
    assert (found.root, found.classes, found.images) == (photos, folder.classes, folder.images)
    assert capsys.readouterr().err == f"table     {table}: {said}\n"


@pytest.mark.parametrize(
    ("column", "values", "shown"),
    [("Data set", "train train valid test", "Data set (test, train, valid)"),
     ("Usage", "Training Training PublicTest Training", "Usage (PublicTest, Training)"),
     ("is_valid", "False False True False", "is_valid (False, True)")],
)  # fmt: skip
def test_a_column_that_holds_the_split_under_another_name_is_not_ignored(
    tmp_path, column, values, shown
):
    make(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    rows = [f"{n}.jpg,{n in 'ab'},{value}" for n, value in zip("abcd", values.split(), strict=True)]
    error = refused(write(tmp_path / "t.csv", f"path,label,{column}", *rows))
    assert error.message.endswith(
        f"t.csv: the column {shown} looks like the split, but is not called split"
    )
    assert "split" in error.hint
    named = write(tmp_path / "t.csv", f"path,label,{column},split", *[f"{r},train" for r in rows])
    assert read_data(named).given_splits == ("train",)


@pytest.mark.parametrize("inside", ["{}/cat", "data/{}", "./images\\{}\\x"])
def test_images_in_folders_of_splits_without_a_column_split_are_a_warning(tmp_path, capsys, inside):
    folders = [inside.format(name) for name in ("Training", "Testing", "cat")]
    for number, folder in enumerate(folders):
        make(tmp_path, f"{folder}/{number}.jpg".replace("\\", "/"))
    rows = [f"{folder}/{n}.jpg,{n}" for n, folder in enumerate(folders)]
    warning = "t.csv has no column split, and images in Testing, Training: all are treated as one"
    read_data(write(tmp_path / "t.csv", "path,label", *rows[:2]))
    assert warning in capsys.readouterr().err.replace("\n", " ")
    read_data(write(tmp_path / "t.csv", "path,label", *rows))  # cat: so Training may be a class
    read_data(write(tmp_path / "t.csv", "path,label,split", *(f"{row},train" for row in rows[:2])))
    assert "no column split" not in capsys.readouterr().err


def test_a_column_with_other_values_than_splits_is_ignored(tmp_path):
    make(tmp_path, *(f"{name}/{n}.jpg" for name in ("train", "test") for n in range(4)))
    rows = [
        f"{s}/{n}.jpg,{n % 2},{s}-{n}.png,test,{n}" for s in ("train", "test") for n in range(4)
    ]
    table = write(tmp_path / "t.csv", "path,label,original,is_source,phase", *rows)
    assert (len(read_data(table).images), read_data(table).given_splits) == (8, ())


def test_a_table_saved_by_a_european_excel_lists_the_classes_with_their_umlauts(tmp_path, capsys):
    make(tmp_path, "a.jpg", "Käfer/b.jpg")
    table = tmp_path / "t.csv"
    table.write_bytes("path;label\r\na.jpg;Süß\r\nKäfer/b.jpg;käfer\r\n".encode("cp1252"))
    assert listing(read_data(table)) == [
        ("a.jpg", "Süß", None), ("Käfer/b.jpg", "käfer", None)
    ]  # fmt: skip
    assert capsys.readouterr().err.count("read as Windows-1252") == 1


def test_splits_and_groups_are_taken_from_the_columns(tmp_path):
    two_classes(tmp_path / "pets", count=4)
    rows = [
        f"{name}/{n}.jpg,{name},{split},{'ab'[n % 2]}"
        for name in ("cat", "dog")
        for n, split in enumerate(("Training", "val", "validation", "train"))
    ]
    table = write(tmp_path / "pets" / "t.csv", "path,label,set,patient_id", *rows)
    folder = read_data(table)
    assert listing(folder)[:3] == [
        ("cat/0.jpg", "cat", "train"), ("cat/3.jpg", "cat", "train"), ("dog/0.jpg", "dog", "train")
    ]  # fmt: skip
    assert folder.given_splits == ("train", "val")
    scanned = survey_folder(folder).folder
    options: dict[str, Any] = {"seed": 0, "val_fraction": 0.5, "test_fraction": 0.0}
    split = make_split(scanned, **options)
    assert {image.unit for image in split.images} == {"a", "b"}
    assert "4 images of val or test are in train, too" in split.warnings[0]
    by_path = make_split(replace(scanned, group_by=r"(cat|dog)"), **options)
    assert {image.unit for image in by_path.images} == {"cat", "dog"}
    assert by_path.warnings[0] == "--group-by is used instead of the table's column group"


def test_unusable_rows_are_counted_and_named_by_line(tmp_path):
    make(tmp_path, "a.jpg", "b.jpg", "folder/")
    table = write(
        tmp_path / "t.csv", "path,label,split",
        "a.jpg,cat,train", "gone.jpg,cat,train", "http://x.org//b.jpg,cat,train", ",cat,train",
        "b.jpg,,train", "b.jpg,dog,fold3", "folder,dog,val", "", "b.jpg,dog,out",
    )  # fmt: skip
    error = refused(table)
    assert error.message == (
        f"6 of 8 rows in {table} cannot be used (2 whose image is missing, 1 with a URL, 1 without "
        "a path, 1 without a class, 1 without a split):\n"
        "  line 3: gone.jpg does not exist\n"
        "  line 4: http://x.org//b.jpg is a URL: download the image first\n"
        "  line 5: the path is empty\n"
        "  line 6: the class is empty\n"
        "  line 7: the split is 'fold3', expected train, val or test\n"
        "  line 8: folder is a folder"
    )
    assert error.exit_code == 3


def test_an_image_in_two_rows_counts_once_or_is_refused_with_both_lines(tmp_path, capsys):
    make(tmp_path, "a.jpg", "b.jpg")
    table = write(tmp_path / "t.csv", "path,label", "a.jpg,cat", "./a.jpg,cat", "b.jpg,dog")
    assert [path for path, *_ in listing(read_data(table))] == ["a.jpg", "b.jpg"]
    assert "1 row repeats an image with the same class" in capsys.readouterr().err
    write(table, "path,label", "a.jpg,cat", "b.jpg,dog", f"{tmp_path}/a.jpg,dog")
    assert "lines 2 and 4: a.jpg, class cat and dog" in refused(table).message


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,class,category", "class and category could each be the column label (found: path, "),
        ("number,label", "has no column path (found: number, label)"),
        ("path,path,label", "path and path could each be the column path"),
        ("a.jpg,cat", "has no column path (found: a.jpg, cat)"),
        ("", "has no column path (found: a.jpg, cat, 1)"),
    ],
)
def test_missing_or_ambiguous_columns_are_refused_with_those_found(tmp_path, header, message):
    error = refused(write(tmp_path / "t.csv", header, "a.jpg,cat,1"))
    assert message in error.message
    assert error.hint


@pytest.mark.parametrize("separator", [";", "\t"], ids=["semicolon", "tab"])
def test_unknown_columns_are_listed_one_by_one_with_the_names_that_are_accepted(
    tmp_path, separator
):
    columns = ("Datei", "label", "Datum, Ort")
    error = refused(write(tmp_path / "t.csv", separator.join(columns), "a.jpg,cat,1"))
    assert error.message.endswith("has no column path (found: Datei, label, Datum, Ort)")
    assert "; other names of path: filename, file, file_name, " in error.hint


def test_two_missing_columns_are_reported_at_once(tmp_path):
    error = refused(write(tmp_path / "t.csv", "Objekt;Datei;Art", "7;a.jpg;Vase"))
    assert error.message.endswith("t.csv has no columns path and label (found: Objekt, Datei, Art)")
    assert "rename the column with the image files to path, and the one with the" in error.hint
    assert "group (the images of one object, patient or video)" in error.hint


def test_a_table_without_a_line_of_names_is_refused_with_that_line(tmp_path):
    error = refused(write(tmp_path / "t.csv", "a.jpg,cat", "b.jpg,dog"))
    assert error.hint == "write path,label above its first line, which must name the columns"


@pytest.mark.parametrize(
    ("header", "row", "formula"),
    [
        ("image,cat,dog", "{},{:.1f},{:.1f}", "; in Excel: =INDEX(B$1:C$1, MATCH(1, B2:C2, 0))"),
        ("cat,image,dog", "{1},{0},{2}", ""),
    ],
    ids=["columns next to each other", "others between"],
)
def test_a_column_for_each_class_is_refused_with_the_formula_of_the_label(
    tmp_path, header, row, formula
):
    rows = [row.format(f"{at}.jpg", at % 2, 1 - at % 2) for at in range(4)]
    error = refused(write(tmp_path / "t.csv", header, *rows))
    assert error.message.endswith("t.csv has no column label, but one for each class: cat, dog")
    assert error.hint == f"add a column called label, with the class of each image{formula}"
    both = refused(write(tmp_path / "t.csv", header, *rows, row.format("4.jpg", 1, 1)))
    assert "has no column label (found: " in both.message  # two classes of an image: other flags


def test_an_id_is_the_path_only_if_no_other_column_is(tmp_path, capsys):
    make(tmp_path, "1.jpg", "b.jpg")
    table = write(tmp_path / "t.csv", "id,choice,annotator", "1.jpg,cat,4", "b.jpg,dog,4")
    assert listing(read_data(table)) == [("1.jpg", "cat", None), ("b.jpg", "dog", None)]
    assert "path from id, label from choice" in capsys.readouterr().err
    table = write(tmp_path / "u.csv", "id,file_name,choice,class", "7,1.jpg,x,cat", "8,b.jpg,x,dog")
    assert listing(read_data(table)) == [("1.jpg", "cat", None), ("b.jpg", "dog", None)]


def test_a_path_may_lack_its_suffix_if_one_image_has_that_name(tmp_path):
    make(tmp_path, "in/1.JPG", "in/1.txt", "in/2.v1.png", "in/3.jpg", "in/3.png", "4.jpg", "4")
    table = write(tmp_path / "t.csv", "path,label", "in/1,cat", "in/2.v1,dog", "4,dog")
    assert [path for path, *_ in listing(read_data(table))] == ["in/1.JPG", "4", "in/2.v1.png"]
    write(tmp_path / "t.csv", "path,label", "in/1,cat", "in/3,dog")
    assert "line 3: in/3 could be 3.jpg or 3.png" in refused(table).message
    write(tmp_path / "t.csv", "path,label", "1,cat", "2.v1,dog")
    assert refused(table).hint.endswith(f"relative to with --root {tmp_path / 'in'}")
    write(tmp_path / "t.csv", "path,label", "8,cat", "9,dog")
    assert refused(table).hint.endswith("relative to with --root DIR")


@pytest.mark.parametrize("path", ["a\0b/1.jpg", "a/1\0.jpg", f"{'x' * 300}/1.jpg"])
def test_a_path_that_no_file_can_have_is_a_missing_image(tmp_path, path):
    error = refused(write(tmp_path / "t.csv", "path,label", f"{path},cat"))
    assert "1 of 1 row in" in error.message
    assert "(1 whose image is missing)" in error.message


def test_absolute_paths_of_another_computer_are_refused_with_what_to_remove(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/2.jpg", "deep/cat/3.jpg")
    remove = "remove {} from each path, for example with Replace in a text editor"
    theirs = "C:\\Users\\Ann\\photos\\"
    rows = [f"{theirs}cat\\1.jpg,cat", f"{theirs}dog\\2.jpg,dog"]
    assert refused(write(tmp_path / "t.csv", "path,label", *rows)).hint == remove.format(theirs)
    share = "\\\\server\\photos\\"
    rows = [row.replace(theirs, share) for row in rows]
    assert refused(write(tmp_path / "t.csv", "path,label", *rows)).hint == remove.format(share)
    table = write(tmp_path / "t.csv", "path,label", "/home/x/a/cat/3.jpg,cat", "/home/x/b/4.jpg,x")
    assert refused(table).hint == (
        f"{remove.format('/home/x/')}, and give the folder of the images with --root DIR"
    )
    table = write(tmp_path / "t.csv", "path,label", "/home/x/cat/3.jpg,cat")
    assert refused(table).hint == (
        f"{remove.format('/home/x/cat/')}, and give the folder of the images with --root DIR"
    )
    rows = [f"{tmp_path}/cat/1.jpg,cat", f"{tmp_path}/cat/3.jpg,cat"]  # one of them is here
    for other in (rows, ["/x/3.jpg,cat", "D:/x/3.jpg,cat"]):
        table = write(tmp_path / "t.csv", "path,label", *other)
        assert refused(table).hint.startswith("correct the paths")


def test_the_docs_list_every_column_and_every_name_of_it():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    section = page.partition("## Labels in a table")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    listed = [re.findall("`([a-z_]+)`", row) for row in rows]
    for found, (kind, names) in zip(listed, NAMES_OF.items(), strict=True):
        assert found[0] == kind
        assert [name for name in found if name in names] == [*names]


def test_an_extra_cell_is_refused_with_its_line(tmp_path):
    make(tmp_path, "a.jpg")
    table = write(tmp_path / "t.csv", "path,label", "a.jpg,cat", "a.jpg,cat, or dog")
    assert "line 3: 3 cells" in refused(table).message


def test_a_table_may_have_any_paths_but_those_of_a_run_stay_inside_its_root(tmp_path):
    make(tmp_path, "data/images/a.jpg", "data/images/deep/b.jpg", "tables/", "data/images/c d.jpg")
    inside = tmp_path / "data" / "images"
    rows = [f"{inside}/a.jpg,cat", "../data/images/deep/b.jpg,dog", "..\\data\\images\\c d.jpg,dog"]
    found = read_data(write(tmp_path / "tables" / "t.csv", "path,label", *rows))
    assert found.root == inside
    assert [image.path for image in found.images] == ["a.jpg", "c d.jpg", "deep/b.jpg"]
    table = write(tmp_path / "tables" / "u.csv", "path,label", "a.jpg,cat", "deep/b.jpg,dog")
    assert [i.path for i in read_data(table, inside).images] == ["a.jpg", "deep/b.jpg"]
    with pytest.raises(DataError) as caught:  # the control
        read_data(table)
    assert caught.value.hint.endswith("with --root DIR")
    for name in ("run.json", "config.toml"):
        (tmp_path / "tables" / name).touch()  # a run folder may be untrusted
    assert "names files outside of" in refused(tmp_path / "tables" / "t.csv").message
    beside = write(tmp_path / "data" / "t.csv", "path,label", "a.jpg,cat")
    assert refused(beside).hint.endswith(f"--root {inside}")
    assert "is not one" in refused(inside, inside).message


def test_names_without_their_folders_are_refused_with_where_one_of_them_is(tmp_path):
    make(tmp_path, "red/a.jpg", "blue/a.jpg", "red/deep/b.jpg", "blue/c.jpg", "blue/d.jpg")
    table = write(tmp_path / "t.csv", "path,label", *(f"{name}.jpg,cat" for name in "gabcd"))
    relative = "or give the folder that they are relative to with --root"
    assert refused(table).hint == f"correct the paths (b.jpg is in red/deep/), {relative} DIR"
    assert refused(table, tmp_path / "blue").hint == f"correct the paths, {relative} DIR"
    write(table, "path,label", "a.jpg,cat", "c.jpg,dog")  # one folder has all of them
    assert refused(table).hint == f"correct the paths, {relative} {tmp_path / 'blue'}"
    write(table, "path,label", "a.jpg,cat", "g.jpg,cat")  # in two folders, and in none
    assert refused(table).hint == f"correct the paths, {relative} DIR"


def test_folders_may_be_separated_as_windows_writes_them(tmp_path):
    make(tmp_path, "red/a.jpg", "red/x80.jpg", "red/Käfer.jpg")
    rows = ("red\\a.jpg,cat", ".\\red\\x80.jpg,dog", "red\\Ka\u0308fer.jpg,dog")
    found = read_data(write(tmp_path / "t.csv", "path,label", *rows))
    assert [path for path, *_ in listing(found)] == [
        "red/a.jpg", "red/Käfer.jpg", "red/x80.jpg"
    ]  # fmt: skip
    (tmp_path / "red\\a.jpg").touch()  # a name as written has precedence
    assert "red\\a.jpg" in {path for path, *_ in listing(read_data(tmp_path / "t.csv"))}


def test_names_that_are_not_utf8_are_found_by_their_escaped_form(tmp_path):
    put(tmp_path / "caf\udce9.jpg", b"image")
    table = write(tmp_path / "t.csv", "path,label", "caf\\xe9.jpg,cat")
    assert [image.path for image in read_data(table).images] == ["caf\udce9.jpg"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("food.zip", "unzip food.zip -d food"),
        ("my food.tar.gz", "mkdir 'my food' && tar -xf 'my food.tar.gz' -C 'my food'"),
        ("t.xlsx", "in Excel, File > Save as > CSV UTF-8"),
        ("t.ods", "in LibreOffice, File > Save as > Text CSV"),
        ("notes.txt", "give a folder of images, or a .csv, .tsv or .parquet file with the columns"),
        ("https://x.org/food.zip", "download the images first"),
        ("gone.csv", "check the path"),
    ],
)
def test_data_that_is_neither_folder_nor_table_is_refused_with_the_right_command(name, hint):
    if name not in {"gone.csv", "https://x.org/food.zip"}:
        Path(name).touch()
    error = refused(Path(name))
    assert error.exit_code == 2
    assert error.hint.startswith(hint)
    assert name in error.message


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_a_table_in_an_encoding_without_a_mark_is_refused_for_it(tmp_path, encoding):
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "t.csv").write_text("path,label\na/1.jpg,cat\nb/2.jpg,dog\n", encoding=encoding)
    assert refused(tmp_path / "t.csv").message.endswith("save the file as UTF-8")


def test_a_parquet_table_is_read_as_the_same_one_in_csv(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    columns = {
        "file_name": ["a/1.jpg", "a/2.jpg", "b/3.jpg"],
        "label": pyarrow.array(["cat", "dog", "cat"]).dictionary_encode(),
        "patient_id": [7.0, None, 8.0],  # as pandas has whole numbers with gaps
        "image": [{"bytes": b"image"}] * 3,
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    written = write(
        *(tmp_path / "t.csv", "file_name,label,patient_id"),
        *("a/1.jpg,cat,7", "a/2.jpg,dog,", "b/3.jpg,cat,8"),
    )
    found, expected = read_data(tmp_path / "t.parquet"), read_data(written)
    assert (found.root, found.classes, found.images) == (
        (expected.root, expected.classes, expected.images)
    )
    parquet.write_table(pyarrow.table({"image": columns["image"]}), tmp_path / "t.parquet")
    error = refused(tmp_path / "t.parquet")
    assert "has no columns path and label (found: image (struct))" in error.message
    assert error.hint.startswith("rename the column with the image files to path, and ")
    for kind in (pyarrow.binary(), pyarrow.large_binary()):  # of Spark, and of polars
        paths = pyarrow.array([b"a/1.jpg", b"a/2.jpg", b"b/3.jpg"], kind)
        table = pyarrow.table({"path": paths, "label": columns["label"]})
        parquet.write_table(table, tmp_path / "t.parquet")
        error = refused(tmp_path / "t.parquet")
        assert f"has no column path (found: label, path ({kind}))" in error.message
        assert error.hint.startswith("rename the column with the image files to path; ")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more PAR1")
    assert "it is not a Parquet file, or it is damaged" in refused(tmp_path / "t.parquet").message


def test_a_small_parquet_file_that_unpacks_to_a_huge_table_is_refused(
    tmp_path, capsys, monkeypatch
):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1_200_000), ["a.jpg"])
    parquet.write_table(pyarrow.table({"path": rows, "label": rows}), tmp_path / "t.parquet")
    assert call("check", "t.parquet") == 2
    assert "bytes unpack to 1,200,000 rows of " in capsys.readouterr().err
    monkeypatch.setattr("xception_cli.parquet.LARGEST_TEXT", 1_000_000)  # to test it quickly
    texts = pyarrow.array(["x" * 1_000_000] * 5)
    parquet.write_table(
        pyarrow.table({"path": texts, "label": texts}),
        tmp_path / "t.parquet",
        use_dictionary=False,
        compression="zstd",
    )
    assert call("check", "t.parquet") == 2
    assert "bytes unpack to 5 rows of 10,0" in capsys.readouterr().err


def test_without_its_package_a_parquet_file_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").touch()
    for ask in (lambda: read_data(tmp_path / "t.parquet"), require_parquet):
        with pytest.raises(MachineError, match="need a package that is not installed") as caught:
            ask()
        assert caught.value.hint == "pip install 'xception-cli[parquet]'"


def test_thousands_of_rows_are_read_in_a_second(tmp_path):
    make(tmp_path, "0.jpg")
    count = int(os.environ.get("XCEPTION_TEST_ROWS", "2000"))
    for number in range(1, count):
        os.link(tmp_path / "0.jpg", tmp_path / f"{number}.jpg")
    table = write(tmp_path / "t.csv", "path,label", *(f"{n}.jpg,{n % 7}" for n in range(count)))
    taken = []
    for _ in range(3):  # other threads of this process count, too: take the minimum
        started = time.process_time()
        _, rows = read_rows(table)
        taken.append(time.process_time() - started)
        assert len(rows) == count
    assert min(taken) < count / 5000


@pytest.mark.slow  # two trainings of the probe
def test_a_table_trains_the_same_model_as_its_folder_and_another_with_a_changed_label(
    settings, photos, probed_once, capsys
):
    settings |= {"unfreeze": "head"}
    folder = probed_once / "run"
    table = table_of(photos, photos / "labels.tsv", "file;kind;label", ";;")
    train_run(settings | {"data": str(table)}, "table")
    for name in ("model.safetensors", "split.csv", "issues.csv", "eval/val/predictions.csv"):
        assert Path("table", name).read_bytes() == (folder / name).read_bytes()
    # Everything that the run needs is in the run: the table may go.
    table.rename("elsewhere.tsv")
    assert call("eval", "table", "--split", "val", "--workers", "0") == 0
    assert call("report", "table") == 0
    # Its own split.csv is a table, too; without the folder of the images it is refused.
    assert call("check", "table/split.csv") == 3
    assert capsys.readouterr().err.endswith(f"with --root {photos}\n")
    Path("elsewhere.tsv").rename(table)
    table.write_text(table.read_text().replace("red/1.jpg;;red", "red/1.jpg;;blue"))
    train_run(settings | {"data": str(table)}, "changed")
    models = [(run / "model.safetensors").read_bytes() for run in (Path("changed"), folder)]
    assert models[0] != models[1]
    Path("table/result.json").unlink()  # as if it had not finished
    assert call("train", "--resume", "table") == 4
    assert "changed: red/1.jpg" in capsys.readouterr().err
