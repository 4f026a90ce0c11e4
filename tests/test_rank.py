"""xception rank: unlabelled images, the least confident first."""

import csv
import json
from pathlib import Path

import pytest
from images import COLOURS, SMALL, draw_photos
from networks import lively_network
from runs import call

from xception_cli.data.transforms import Preprocessing
from xception_cli.model.about import About
from xception_cli.model.bundle import save_model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A randomly initialised Xception, photos of its three classes, and a broken file."""
    monkeypatch.chdir(tmp_path)
    draw_photos(Path("new"))
    Path("new/broken.jpg").write_text("no image")
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL))
    save_model(Path("m.safetensors"), lively_network().state_dict(), about)
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


def test_an_existing_file_is_not_replaced(model, capsys) -> None:
    Path("rank.csv").write_text("mine")
    assert call("rank", "new", "--model", model) == 2
    assert "rank.csv already exists" in capsys.readouterr().err
    assert Path("rank.csv").read_text() == "mine"
