"""What a training prints before it starts, and what it refuses first."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import call


def test_settings_of_their_own_and_images_in_two_classes_are_listed(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("photos/red/0.jpg", "photos/blue/also.jpg")
    shutil.copy("photos/red/1.jpg", "photos/green/also.jpg")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    given = ["--seed", "0", "--lr", "1e-3", "--unfreeze", "head", "--plan"]
    assert call("train", *flags, *given) == 0
    said = capsys.readouterr().err
    assert "setting   lr = 0.001 (--lr)" in said
    assert "setting   seed" not in said  # 0 is the default
    assert (
        "warning   2 images are in more than one class: conflicting labels\n"
        "  blue/also.jpg: identical to red/0.jpg\n"
        "  green/also.jpg: identical to red/1.jpg\n"
        "  xception check DIR --output findings lists them in findings/issues.csv: edit it, then "
        "train with --fixes findings/issues.csv\n"
    ) in said
    assert "runs/photos" not in said  # --plan writes nothing
    given.remove("--plan")
    assert call("train", *flags, *given) == 0
    said = capsys.readouterr().err
    assert (
        "  the run lists them in runs/photos/issues.csv: edit it, then train with "
        "--fixes runs/photos/issues.csv\n"
    ) in said
    assert "xception check" not in said
    assert "blue/also.jpg" in Path("runs/photos/issues.csv").read_text()
    Path("fixes.csv").write_text(
        "path,problem,detail,action,label\nblue/also.jpg,,,exclude,\ngreen/also.jpg,,,exclude,\n"
    )
    assert call("train", *flags, *given, "--fixes", "fixes.csv") == 0
    assert "conflicting" not in capsys.readouterr().err


def test_a_class_without_validation_images_is_one_warning(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos/lone").mkdir()
    shutil.move("photos/red/0.jpg", "photos/lone/0.jpg")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    assert call("train", *flags, "--plan") == 0
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if "lone" in line and "valid" in line] == [
        "warning   no validation image for class lone"
    ]


def test_what_the_machine_lacks_is_refused_before_the_images_are_read(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", str(photos), "--device", "cpu", "--precision", "fp16") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: precision fp16 is not supported on cpu; supported there: ")
    assert call("train", "nowhere", "--device", "cpu", "--precision", "fp16") == 2
    assert "error: the data folder nowhere does not exist" in capsys.readouterr().err
