"""xception rank: unlabelled images, the least confident first."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from images import COLOURS, SMALL, draw_photos
from networks import lively_network
from runs import call, stop_after

from xception_cli import inference
from xception_cli.data.transforms import Preprocessing
from xception_cli.inference import Prediction
from xception_cli.model.about import About
from xception_cli.model.bundle import save_model

ABOUT = About(tuple(COLOURS), Preprocessing.for_size(SMALL))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A randomly initialised Xception, photos of its three classes, and a broken file."""
    monkeypatch.chdir(tmp_path)
    draw_photos(Path("new"))
    Path("new/broken.jpg").write_text("no image")
    save_model(Path("m.safetensors"), lively_network().state_dict(), ABOUT)
    return "m.safetensors"


def test_the_order_is_that_of_the_margins_of_predict(model, capsys) -> None:
    assert call("rank", "new", "--model", model) == 3
    assert "1 of 25 images could not be read" in capsys.readouterr().err
    assert call("predict", "new", "--model", model, "--top", "2", "--json") == 3
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    margins = {
        one["path"]: one["probabilities"][0] - one["probabilities"][1]
        for one in said
        if one["error"] is None
    }
    with Path("rank.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [
        *sorted(margins, key=margins.__getitem__),
        "new/broken.jpg",
    ]
    assert [float(row["margin"]) for row in rows[:-1]] == pytest.approx(
        sorted(margins.values()), abs=1e-5
    )
    assert len(set(margins.values())) == 24
    assert rows[-1]["error"].startswith("not an image")


def test_images_that_differ_after_the_sixth_digit_are_ranked_by_their_margins(
    model, monkeypatch
) -> None:
    def predict(_bundle, images, **_options):
        for at, image in enumerate(images):
            yield Prediction(image, ("a", "b"), (0.450123449 - 1e-8 * at, 0.450122551), None)

    monkeypatch.setattr(inference, "predict_images", predict)
    assert call("rank", "new", "--model", model) == 0
    with Path("rank.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    margins = [float(row["margin"]) for row in rows]
    assert 0 < margins[0] < margins[-1] == pytest.approx(8.98e-7)
    assert [row["path"] for row in rows] == sorted((r["path"] for r in rows), reverse=True)


def test_an_existing_file_is_not_replaced(model, capsys) -> None:
    Path("rank.csv").write_text("mine")
    assert call("rank", "new", "--model", model) == 2
    assert "rank.csv already exists" in capsys.readouterr().err
    assert Path("rank.csv").read_text() == "mine"


def test_a_stopped_ranking_is_resumed_to_the_same_file(model, monkeypatch, capsys) -> None:
    command = ["rank", "new", "--model", model, "--workers", "0"]
    assert call(*command, "--output", "whole.csv") == 3
    with monkeypatch.context() as patched:
        stop_after(patched, 10)
        assert call(*command) == 130
    (partial,) = Path().glob("rank.csv.*.partial")
    said = capsys.readouterr().err
    assert f"kept      {partial}: 10 of 25 images; the same command resumes there" in said
    with partial.open("r+b") as file:  # its last row is damaged
        file.seek(-20, os.SEEK_END)
        file.write(b"x")
    assert call(*command) == 3
    said = capsys.readouterr().err
    assert f"resuming  after 9 of 25 images ({partial})" in said
    assert "  new/broken.jpg: not an image" in said
    assert Path("rank.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not list(Path().glob("*.partial"))


def test_rows_of_another_model_are_reported_and_not_used(model, monkeypatch, capsys) -> None:
    with monkeypatch.context() as patched:
        stop_after(patched, 10)
        assert call("rank", "new", "--model", model) == 130
    save_model(Path(model), lively_network().state_dict(), replace(ABOUT, temperature=2.0))
    assert call("rank", "new", "--model", model) == 3
    said = capsys.readouterr().err
    assert "resuming" not in said
    assert ".partial belongs to another model, other images or other options\n" in said
