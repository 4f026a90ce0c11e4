"""`check --deep` and `--curve`: checks with the pretrained network, computed once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import snapshot
from images import COLOURS, draw
from runs import call, quick_settings, train_run

from xception_cli.config import TrainConfig
from xception_cli.csv_files import from_csv
from xception_cli.data.fixes import ISSUES_HEADER
from xception_cli.data.recorded import read_split
from xception_cli.model import features
from xception_cli.model.layers import POOLED
from xception_cli.runtime import decide_runtime
from xception_cli.training.preparation import draft_job


@pytest.fixture
def swapped(photos):
    """Twelve images of each colour, and a red one among the blue."""
    for number in range(8, 12):
        for name, colour in COLOURS.items():
            draw(photos / name / f"{number}.jpg", colour, seed=300 + number)
    draw(photos / "blue" / "odd.jpg", COLOURS["red"], seed=999)
    return photos


def check(capsys, *arguments):
    code = call("check", *map(str, arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow
def test_a_suspect_label_is_found_and_a_second_check_computes_nothing(
    swapped, random_weights, capsys, monkeypatch
):
    before = snapshot(swapped)
    arguments = (swapped, "--deep", "--weights", random_weights, "--json")
    code, out, _ = check(capsys, *arguments)
    found = json.loads(out)
    (problem,) = [p for p in found["problems"] if p["name"] == "suspect label"]
    assert code == 0
    assert problem["findings"][0]["path"] == "blue/odd.jpg"
    assert problem["findings"][0]["label"] == "red"
    assert "curve" not in found
    monkeypatch.setattr(features, "run_layers", None)  # calling it would be an error
    assert check(capsys, *arguments)[1] == out
    assert snapshot(swapped) == before
    shutil.copy(swapped / "red" / "1.jpg", swapped / "red" / "copy.jpg")  # known by its content
    assert check(capsys, *arguments)[0] == 0
    config = TrainConfig(data=str(swapped), weights=str(random_weights), augment="rotate90")
    job = draft_job(config, None, decide_runtime(), None).job  # training finds them, too
    for view, is_known in zip(job.kept_views("train"), (True, True, False), strict=True):
        row = np.zeros(POOLED, np.float32)
        assert view.load(3, row) == is_known == row.any()


@pytest.mark.slow
def test_that_no_label_is_suspect_is_reported(swapped, random_weights, capsys):
    (swapped / "blue" / "odd.jpg").unlink()
    shutil.rmtree(swapped / "green")
    code, out, err = check(capsys, swapped, "--deep", "--weights", random_weights)
    assert code == 0
    assert "suspect labels" not in out
    assert "labels    no label is suspect: 24 images judged\n" in err


@pytest.mark.slow
def test_the_curve_is_printed_and_drawn(swapped, random_weights, capsys, tmp_path):
    # By its short name: paths are not wrapped, and the width of the other lines is checked.
    data = swapped.relative_to(tmp_path)
    code, out, _ = check(
        capsys, data, "--curve", "--weights", random_weights, "--output", tmp_path / "out"
    )
    assert code == 0
    assert "images    accuracy of the linear probe on held-out images, by training-set size" in out
    assert [line.split()[0] for line in out.splitlines() if "%  (" in line] == [
        "12%", "25%", "50%", "100%",
    ]  # fmt: skip
    page = (tmp_path / "out" / "check.html").read_text()
    assert "Would more images help?" in page
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("option", ["--deep", "--curve"])
def test_missing_weights_are_reported_before_the_data_is_listed(option, capsys):
    code, out, err = check(capsys, Path("gone"), option, "--weights", "none.pt")
    assert (code, out) == (2, "")
    assert err == (
        "error: cannot read --weights none.pt: No such file or directory\n"
        "hint: --weights takes imagenet or a file, not an address\n"
    )


def test_deep_is_refused_with_too_few_images(tmp_path, random_weights, capsys):
    for name in ("a", "b"):
        draw(tmp_path / "few" / name / "1.jpg", (90, 90, 200), seed=len(name))
    code, _, err = check(capsys, tmp_path / "few", "--deep", "--weights", random_weights)
    assert code == 3
    assert "fewer than two classes have two different images or more" in err


@pytest.mark.slow
def test_training_adds_suspect_labels_to_the_issues_of_its_run(swapped, random_weights):
    train_run(quick_settings(swapped, random_weights) | {"unfreeze": "head"})
    suspects = [row for row in issues() if row[1] == "suspect label"]
    assert "blue/odd.jpg" in [row[0] for row in suspects]
    assert "labels    " in Path("run/train.log").read_text()
    # once edited, the next run uses it
    text = Path("run/issues.csv").read_text().splitlines()
    line = next(n for n, row in enumerate(text) if row.startswith("blue/odd.jpg,suspect"))
    cells = text[line].rsplit(",", 2)
    text[line] = f"{cells[0]},relabel,red"
    Path("edited.csv").write_text("\n".join(text) + "\n")
    settings = quick_settings(swapped, random_weights) | {"unfreeze": "head"}
    train_run(settings | {"fixes": "edited.csv"}, "again")
    split = read_split(Path("again/split.csv"), list(COLOURS))
    (odd,) = [image for image in split.images if image.path == "blue/odd.jpg"]
    assert split.classes[odd.label] == "red"


def issues() -> list[list[str]]:
    return list(from_csv(Path("run/issues.csv"), ISSUES_HEADER))
