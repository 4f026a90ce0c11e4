"""A model of which only the head was trained answers from the feature cache, with equal results."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from images import COLOURS, draw
from runs import quick_settings, train_run

from xception_cli.data.split import read_split
from xception_cli.data.transforms import Preprocessing
from xception_cli.evaluation.evaluate import compute_outcomes
from xception_cli.model.bundle import load_model
from xception_cli.model.cached_outcomes import cached_outcomes
from xception_cli.model.feature_cache import LIMIT
from xception_cli.runtime import decide_runtime


@pytest.mark.slow
def test_a_probe_is_evaluated_without_a_pass_through_the_network(
    random_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv(LIMIT, "1")
    monkeypatch.setenv("XCEPTION_CACHE", str(tmp_path / "cache"))
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(8):
            draw(tmp_path / "photos" / name / f"{i}.jpg", colour, seed=100 * number + i, size=200)
    settings = quick_settings(tmp_path / "photos", random_weights) | {"unfreeze": "head"}
    run = train_run(settings | {"tta": "mirror"}, str(tmp_path / "run")).run
    bundle = load_model(run.model, decide_runtime())
    images = read_split(run.split, tuple(COLOURS)).of("val")
    assert bundle.preprocessing.mirror
    digests = [image.digest for image in images]
    assert list(cached_outcomes(bundle, digests)) == list(range(len(images)))
    cached = compute_outcomes(bundle, Path("nowhere"), images, workers=0)
    monkeypatch.setenv(LIMIT, "0")
    computed = compute_outcomes(bundle, tmp_path / "photos", images, workers=0)
    for one, other in zip(cached, computed, strict=True):
        assert one.logits.tobytes() == other.logits.tobytes()
        assert one.features.tobytes() == other.features.tobytes()
    monkeypatch.setenv(LIMIT, "1")
    # The controls: another content, other pixels, and a network that was trained.
    assert list(cached_outcomes(bundle, ["", *digests[1:]])) == list(range(1, len(images)))
    other = replace(bundle.about, preprocessing=Preprocessing.for_size(72))
    assert cached_outcomes(replace(bundle, about=other), digests) == {}
    with torch.no_grad():
        bundle.network.block12.rep[1].pointwise.weight[0, 0] += 1e-3
    assert cached_outcomes(bundle, digests) == {}
