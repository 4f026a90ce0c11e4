"""A model of which only the head was trained answers from the feature cache, with equal results."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from images import COLOURS, draw
from runs import quick_settings, train_run

from xception_cli.data.photo import Photo
from xception_cli.data.recorded import read_split
from xception_cli.data.transforms import Preprocessing
from xception_cli.evaluation.scoring import compute_outcomes
from xception_cli.model.bundle import load_model
from xception_cli.model.cached_outcomes import open_outcomes
from xception_cli.model.feature_cache import LIMIT
from xception_cli.runtime import decide_runtime


def in_bytes(outcomes):
    """Return outcomes as bytes, and problems as they are."""
    return [
        one if isinstance(one, str) else (one.logits.tobytes(), one.features.tobytes())
        for one in outcomes
    ]


@pytest.mark.slow
def test_a_probe_is_evaluated_without_a_second_pass_through_the_network(
    random_weights, tmp_path, monkeypatch
):
    photos = tmp_path / "photos"
    monkeypatch.setenv(LIMIT, "1")
    monkeypatch.setenv("XCEPTION_CACHE", str(tmp_path / "cache"))
    for number, (name, colour) in enumerate(COLOURS.items()):
        for i in range(8):
            draw(photos / name / f"{i}.jpg", colour, seed=100 * number + i, size=200)
    settings = quick_settings(photos, random_weights) | {"unfreeze": "head"}
    run = train_run(settings | {"tta": "mirror"}, str(tmp_path / "run")).run
    bundle = load_model(run.model, decide_runtime())
    images = read_split(run.split, tuple(COLOURS)).of("val")
    assert bundle.preprocessing.mirror
    digests = [image.digest for image in images]

    def known(digests, bundle=bundle):
        return list(open_outcomes(bundle, digests).load())

    assert known(digests) == list(range(len(images)))
    cached = compute_outcomes(bundle, Path("nowhere"), images, workers=0)
    every = [*images, Photo("broken.jpg", 0, digest="0" * 32), Photo("gone.jpg", 0)]
    (photos / "broken.jpg").write_bytes(b"no image")
    monkeypatch.setenv(LIMIT, "0")
    computed = in_bytes(compute_outcomes(bundle, photos, every, workers=0))
    assert in_bytes(cached) == computed[:-2]
    # Without the features of the training, the evaluation computes and keeps them.
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv(LIMIT, "1")
    assert known(digests) == []
    assert in_bytes(compute_outcomes(bundle, photos, every[1:], workers=0)) == computed[1:]
    assert known(digests) == list(range(1, len(images)))
    assert in_bytes(compute_outcomes(bundle, photos, every, workers=0)) == computed
    assert in_bytes(compute_outcomes(bundle, Path("nowhere"), images, workers=0)) == computed[:-2]
    # The controls: another content, other pixels, and a network that was trained.
    assert known(["", *digests[1:]]) == list(range(1, len(images)))
    other = replace(bundle.about, preprocessing=Preprocessing.for_size(72))
    assert known(digests, replace(bundle, about=other)) == []
    tuned = replace(bundle.about, provenance={"trained": "exit", "epoch": 3})
    assert open_outcomes(replace(bundle, about=tuned), digests) is None
    with torch.no_grad():
        bundle.network.block12.rep[1].pointwise.weight[0, 0] += 1e-3
    assert known(digests) == []
