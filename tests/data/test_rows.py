"""Edited files: issues.csv and split.csv as spreadsheets and other systems leave them."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from images import draw

from xception_cli.data.fixes import read_fixes
from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.sides import follow_file
from xception_cli.errors import UsageError

PATHS = ("cat/1.png", "cat/é.png", "dog/1.png", "dog/a b.png")


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    for seed, path in enumerate(PATHS):
        draw(tmp_path / "photos" / path, (9, 9, 9), seed=seed)
    return read_folder(tmp_path / "photos")


def splits(folder: DataFolder, text: str) -> list[str | None]:
    """Return the split of each image, as a split file of this content gives it."""
    Path("mine.csv").write_text(text, encoding="utf-8", newline="")
    images = [replace(image, split="drawn") for image in folder.images]
    return [image.split for image in follow_file(images, folder, Path("mine.csv"))]


def actions(folder: DataFolder, text: str) -> dict[str, str]:
    """Return the action of each image, as fixes of this content give it."""
    Path("mine.csv").write_text(text, encoding="utf-8", newline="")
    return {path: fix.action for path, fix in read_fixes(Path("mine.csv"), folder).items()}


@pytest.mark.parametrize(
    "written",
    [
        lambda path: path.replace("/", "\\"),
        lambda path: unicodedata.normalize("NFD", path),
        lambda path: f"./{path}",
        lambda path: f" {path}\u00a0",
    ],
    ids=["Windows", "Mac", "dot", "spaces"],
)
def test_an_image_is_found_as_another_system_writes_its_path(
    folder: DataFolder, written: Callable[[str], str]
) -> None:
    assert [written(path) for path in PATHS] != list(PATHS)
    rows = "".join(f"{written(path)};{split}\n" for path, split in zip(PATHS, SPLIT, strict=True))
    assert splits(folder, f"path;split\n{rows}") == SPLIT
    rows = "".join(f"{written(path)},exclude\n" for path in PATHS)
    assert actions(folder, f"path,action\n{rows}") == dict.fromkeys(PATHS, "exclude")
    both = f"path,split\n{written(PATHS[0])},train\n{PATHS[0]},val\n"
    with pytest.raises(UsageError, match=f"lists {PATHS[0]} twice: as train in line 2, as val in"):
        splits(folder, both)


SPLIT: list[str | None] = ["train", "val", "train", "val"]
ROWS = "".join(f"{path},{split}\n" for path, split in zip(PATHS, SPLIT, strict=True))


@pytest.mark.parametrize("header", ["Path,SPLIT", " path , split ", "\ufeffpath,split,,"])
def test_the_spelling_of_columns_and_empty_cells_do_not_matter(folder, header):
    assert splits(folder, f"{header}\n , \n{ROWS}") == SPLIT
    assert splits(folder, f"{header}\n{ROWS}".replace("\n", " ,, \r\n").replace(",", ";")) == SPLIT


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"path,set\n{ROWS}", "has no column split, but: path, set"),
        (f"path|split\n{ROWS}", "has no column path or split, but: path|split"),
        ("path,split,split\ncat/1.png,train,val\n", "has 2 columns called split"),
        ("path,split\ncat/a,b.png,train\n", "has 2 columns, but:\n  line 2: 3 cells"),
        (
            'path,split\n"cat/1.png,train\ndog/1.png,val\n',
            'line 2 has a quote (") in the wrong place',
        ),
        ("\n\n", "it is empty"),
    ],
    ids=["another column", "another separator", "twice", "too long", "quote", "empty"],
)
def test_a_file_whose_cells_are_unclear_is_refused(folder, text, fault):
    with pytest.raises(UsageError) as caught:
        splits(folder, text)
    assert caught.value.message.endswith(fault)
    with pytest.raises(UsageError) as caught:
        actions(folder, text.replace("split", "action").replace("train", "exclude"))
    assert caught.value.message.endswith(fault.replace("split", "action"))
