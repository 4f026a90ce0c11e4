"""predict --sort-into: a folder per class; nothing is moved, overwritten or added twice."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from folders import snapshot
from images import COLOURS, SMALL, draw_photos
from runs import call, write_info

from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import MachineError, UsageError
from xception_cli.model.about import About
from xception_cli.model.bundle import save_model
from xception_cli.model.network import build_seeded_network
from xception_cli.rundir import RunDir
from xception_cli.sorting import SortedFolder, check_sorted


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_next_step_is_to_empty_the_folder_of_refused_images(tmp_path, capsys):
    model = tmp_path / "m.safetensors"
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL))
    save_model(model, build_seeded_network(3, 0).state_dict(), about)
    draw_photos(tmp_path / "photos")
    command = ["predict", "photos", "--model", str(model), "--device", "cpu", "--workers", "0"]
    assert call(*command, "--sort-into", "sorted") == 0
    assert "next: correct the folders by hand, then: xception check sorted" in (
        capsys.readouterr().err
    )
    assert call(*command, "--unknown", "1", "--sort-into", "refused") == 0
    assert "by hand, move what is in refused/unknown to its class, then: xception check" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("links", [True, False])
def test_images_of_one_name_are_kept_apart_and_a_second_command_adds_nothing(
    tmp_path, monkeypatch, links
):
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EXDEV, "another disk")

        monkeypatch.setattr(os, "link", refuse)
    source = tmp_path / "photos"
    for name in ("a/1.jpg", "b/1.jpg", "c/1.jpg", "c/2.jpg"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "link.jpg").symlink_to("c/2.jpg")
    before = snapshot(source)
    (tmp_path / "out" / "cat").mkdir(parents=True)
    (tmp_path / "out" / "cat" / "1.jpg").write_text("precious")
    expected = {
        "cat/1.jpg": "precious", "cat/1-2.jpg": "a/1.jpg", "cat/1-3.jpg": "b/1.jpg",
        "unknown/1.jpg": "c/1.jpg", "dog/link.jpg": "c/2.jpg",
    }  # fmt: skip
    given = [("a/1.jpg", "cat"), ("b/1.jpg", "cat"), ("c/1.jpg", None), ("link.jpg", "dog")]
    for order in (given, given[::-1]):
        folder = SortedFolder(tmp_path / "out", ("cat", "dog"))
        for name, found in order:
            folder.add(source / name, found)
        assert files(tmp_path / "out") == expected
    assert (tmp_path / "out/cat/1-2.jpg").samefile(source / "a/1.jpg") == links
    assert folder.copied == 0  # by the second command
    assert snapshot(source) == before


def test_names_of_classes_from_a_hostile_model_stay_in_the_folder(tmp_path):
    (tmp_path / "1.jpg").write_text("image")
    classes = ("../../up", "..", "a/b", "a-b", "Unknown", "x" * 300, "two\nlines")
    folder = SortedFolder(tmp_path / "out", classes)
    for name in classes:
        folder.add(tmp_path / "1.jpg", name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jpg", "out"]
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["-..-up", "Unknown-2", "a-b", "a-b-2", "class", "two lines", "x" * 245]
    shutil.rmtree(tmp_path / "out" / "a-b")
    (tmp_path / "out" / "a-b").symlink_to(tmp_path)
    with pytest.raises(MachineError, match="it is a link") as caught:
        SortedFolder(tmp_path / "out", classes).add(tmp_path / "1.jpg", "a/b")
    assert caught.value.hint.startswith("choose another --sort-into")


def test_folders_of_classes_have_names_that_windows_allows(tmp_path):
    names = {"con": "con-", "Aux.old": "Aux-.old", "lpt1": "lpt1-", "const": "const",
        "12:30?": "12-30-", "a. .": "a", "<b>|*": "-b---", '"q"': "-q-", "com10": "com10",
    }  # fmt: skip
    (tmp_path / "1.jpg").write_text("image")
    folder = SortedFolder(tmp_path / "out", tuple(names))
    for name, expected in names.items():
        folder.add(tmp_path / "1.jpg", name)
        assert (tmp_path / "out" / expected / "1.jpg").is_file()


def test_an_input_folder_is_refused():
    Path("photos").mkdir()
    Path("file").touch()
    model = Path("m.safetensors")
    check_sorted(Path("sorted"), ["photos"], model)  # the control
    for folder in ("photos", "photos/sorted", "file"):
        with pytest.raises(UsageError) as caught:
            check_sorted(Path(folder), ["photos"], model)
        assert caught.value.hint


def test_images_are_not_sorted_into_the_data_of_the_run_or_of_another_one(tmp_path):
    run, other = RunDir(tmp_path / "elsewhere"), RunDir(Path("runs/food"))
    for one, name in ((run, "food"), (other, "more food")):
        one.path.mkdir(parents=True)
        write_info(one, data=str(draw_photos(tmp_path / name)))
    (tmp_path / "link").symlink_to("food")
    for folder in ("food", "link", "food/red", "food/new", "more food"):
        with pytest.raises(UsageError, match="would be mixed with its labels") as caught:
            check_sorted(tmp_path / folder, ["photos"], run.model)
        assert caught.value.hint.startswith("choose another --sort-into")
    for name in ("sorted", "food 2"):
        check_sorted(tmp_path / name, ["photos"], run.model)  # the control
    other.info.write_text("{")  # damaged: of no data
    check_sorted(tmp_path / "more food", ["photos"], run.model)
