"""Whether labels depend on orientation, on drawn images with and without a direction."""

import json

import numpy as np
import pytest
import torch
from images import SMALL
from networks import CPU, lively_network
from PIL import Image, ImageDraw
from runs import call
from safetensors.torch import save_file
from units import alone

from xception_cli.check.orientation import orientation_problem
from xception_cli.check.report import ORIENTATION
from xception_cli.data.transforms import Preprocessing
from xception_cli.model.layers import last_layer, pool_layers, run_layers
from xception_cli.model.network import Segment
from xception_cli.model.probe import fit_probe


def canvas(rng: np.random.Generator) -> tuple[Image.Image, ImageDraw.ImageDraw, tuple[int, ...]]:
    """Return a noisy background, a drawing context for it, and a bright colour."""
    image = Image.fromarray(rng.integers(60, 120, (96, 96, 3), dtype=np.uint8))
    return image, ImageDraw.Draw(image), tuple(rng.integers(150, 255, 3).tolist())


def cells(seed: int, label: int) -> Image.Image:
    """Draw thin or round blobs, rotated at random."""
    rng = np.random.default_rng(seed)
    image, pen, colour = canvas(rng)
    for x, y in rng.integers(5, 50, (3, 2)):
        pen.ellipse((x, y, x + 34, y + (10, 20)[label]), fill=colour)
    return image.rotate(90 * int(rng.integers(4)))


def arrow(seed: int, label: int) -> Image.Image:
    """Draw an arrow that points up or down."""
    rng = np.random.default_rng(seed)
    image, pen, colour = canvas(rng)
    x, y = rng.integers(-8, 9, 2)
    pen.rectangle((42 + x, 40 + y, 54 + x, 80 + y), fill=colour)
    pen.polygon([(25 + x, 42 + y), (71 + x, 42 + y), (48 + x, 12 + y)], fill=colour)
    return image.rotate(180 * label)


def bar(seed: int, label: int) -> Image.Image:
    """Draw an upright or a lying bar."""
    rng = np.random.default_rng(seed)
    image, pen, colour = canvas(rng)
    x, y = rng.integers(-8, 9, 2)
    pen.rectangle((40 + x, 15 + y, 56 + x, 81 + y), fill=colour)
    return image.rotate(90 * label)


def pooled(images: list[Image.Image], transform) -> np.ndarray:
    network = Segment(lively_network(), "conv1", "conv4").eval()
    pixels = Preprocessing.for_size(SMALL).normalize(torch.stack([transform(i) for i in images]))
    with torch.inference_mode(), CPU.autocast():
        parts = [pool_layers(run_layers(network, batch)) for batch in pixels.split(16)]
    return last_layer(torch.cat(parts)).numpy()


def found(upright, rotated, labels, units=None):
    units = alone(labels) if units is None else units
    probe = fit_probe(upright, labels, units, class_count=2, seed=0)
    problems = orientation_problem(
        upright, rotated, labels, units, class_count=2, strength=probe.strength, seed=0
    )
    return probe, problems


def judged(draw, count: int = 72):
    labels = np.arange(count) % 2
    images = [draw(seed, label) for seed, label in enumerate(labels)]
    preprocessing = Preprocessing.for_size(SMALL)
    views = preprocessing.evaluation_transform(), preprocessing.rotated_transform()
    return found(*(pooled(images, view) for view in views), labels)


def test_rotations_are_suggested_for_cells_in_any_orientation():
    probe, problems = judged(cells)
    assert 0.6 < probe.hits.mean() < 0.98  # hard enough to leave room for improvement
    (problem,) = problems
    assert (problem.name, problem.severity, problem.findings) == (ORIENTATION, "note", ())
    assert "train with --augment rotate90" in problem.summary


@pytest.mark.parametrize("draw", [arrow, bar])
def test_rotations_are_not_suggested_where_they_change_the_class(draw):
    probe, problems = judged(draw)
    assert probe.hits.mean() > 0.9  # the network sees the direction
    assert problems == []


def test_nothing_is_suggested_if_each_class_is_a_single_unit():
    features, labels = np.ones((4, 8), np.float32), np.array([0, 0, 1, 1])
    features[:, 0] = labels
    same = np.array(["a", "a", "b", "b"])
    problems = orientation_problem(
        features, features, labels, same, class_count=2, strength=1.0, seed=0
    )
    assert problems == []


@pytest.mark.slow
def test_check_deep_suggests_them_on_the_screen_in_the_json_and_on_the_page(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    state = lively_network().state_dict()
    save_file(
        {n: t.contiguous() for n, t in state.items() if not n.startswith("last_linear")},
        "lively.safetensors",
    )
    for seed in range(60):
        path = tmp_path / "cells" / ("thin", "round")[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells(seed, seed % 2).save(path)
    deep = ("check", "cells", "--deep", "--weights", "lively.safetensors")
    assert call(*deep, "--output", "out") == 0
    out, err = capsys.readouterr()
    assert "note      labels do not seem to depend on orientation" in out
    assert "next: xception train cells --classes 2 --augment rotate90" in err
    assert "with --augment rotate90" in (tmp_path / "out" / "check.html").read_text()
    assert call(*deep, "--json") == 0  # uses the cached features
    out, err = capsys.readouterr()
    assert "computing features" not in err
    (problem,) = [p for p in json.loads(out)["problems"] if p["name"] == ORIENTATION]
    assert "falls by 0." in problem["summary"]
