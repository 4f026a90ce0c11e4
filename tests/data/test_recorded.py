"""The split of a run is read as it was when the run began; changed rows are named."""

from pathlib import Path

import pytest
from runs import write_info
from splits import fabricate, many

from xception_cli.data.recorded import read_recorded, row_checks, write_split
from xception_cli.data.split import Split, make_split
from xception_cli.errors import ArtifactError
from xception_cli.rundir import RunDir

CLASSES = ("c0", "c1")
RUN = RunDir(Path("run"))


@pytest.fixture
def split() -> Split:
    RUN.path.mkdir()
    made = make_split(fabricate(many(30, 2)), seed=0, val_fraction=0.3, test_fraction=0)
    write_split(made, RUN.split)
    write_info(RUN, classes=list(CLASSES), split_checks=row_checks(made))
    return made


def edit(old: str, new: str, count: int = 1) -> None:
    text = RUN.split.read_text()
    assert old in text
    RUN.split.write_text(text.replace(old, new, count))


def test_an_unedited_file_is_read_even_if_saved_by_a_spreadsheet(split: Split) -> None:
    assert read_recorded(RUN, CLASSES) == split
    text = RUN.split.read_text()
    RUN.split.write_text(text.replace(",", ";").replace("\n", "\r\n"), encoding="utf-8-sig")
    assert read_recorded(RUN, CLASSES) == split
    RUN.split.write_text(text.replace("hash 0.", "hash 1."))  # the reason does not matter
    assert len(read_recorded(RUN, CLASSES).images) == 30


@pytest.mark.parametrize(
    ("old", "new"),
    [(",train,", ",val,"), (",c0,", ",c1,"), ("/4.jpg", "/5.jpg")],
    ids=["split", "label", "path"],
)
def test_an_edited_row_is_named(split: Split, old: str, new: str) -> None:
    lines = RUN.split.read_text().splitlines()
    number = next(at for at, line in enumerate(lines) if old in line)
    edit(old, new)
    with pytest.raises(ArtifactError) as caught:
        read_recorded(RUN, CLASSES)
    sentence, *rows = caught.value.message.splitlines()
    assert sentence == "run/split.csv has changed since the run began:"
    path = (
        lines[number].split(",")[0].replace(*(("/4.jpg", "/5.jpg") if "jpg" in old else ("", "")))
    )
    assert [row.rpartition(", c")[0] for row in rows] == [f"  row {number}: {path}"]
    assert "xception train DIR --split-file run/split.csv" in caught.value.hint


def test_a_missing_row_is_counted_and_its_place_is_named(split: Split) -> None:
    lines = RUN.split.read_text().splitlines(keepends=True)
    RUN.split.write_text("".join(lines[:20] + lines[21:]))
    with pytest.raises(ArtifactError, match="29 rows instead of 30\n  row 20: "):
        read_recorded(RUN, CLASSES)


def test_a_run_of_an_earlier_version_is_not_verified(split: Split) -> None:
    write_info(RUN, classes=list(CLASSES))
    edit(",train,", ",val,")
    assert len(read_recorded(RUN, CLASSES).of("val")) == len(split.of("val")) + 1


@pytest.mark.parametrize(
    ("old", "new"), [(",val,", ",vbl,"), ("path,label", "pbth,label"), (",c0,", "xc0,")]
)
def test_a_damaged_file_is_refused_with_what_to_do(split: Split, old: str, new: str) -> None:
    edit(old, new)
    with pytest.raises(ArtifactError) as caught:
        read_recorded(RUN, CLASSES)
    assert caught.value.hint == "restore the file from a copy, or start a new run"


def test_an_empty_file_is_called_that(split: Split) -> None:
    RUN.split.write_text("")
    with pytest.raises(ArtifactError, match=r"split\.csv is empty$"):
        read_recorded(RUN, CLASSES)
