"""The answers on the page of `xception serve` are those of `xception predict`."""

import io
import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from images import SMALL, encoded, exif, photo
from networks import CPU, lively_network
from pages import Page
from PIL import Image
from runs import call, write_info

from xception_cli.data.images import decode
from xception_cli.data.transforms import Preprocessing
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, load_model, save_model
from xception_cli.model.unknown import Thresholds, UnknownRule, remember
from xception_cli.rundir import RunDir
from xception_cli.serve.demo import Demo, name_of

CLASSES = ("<b>apple</b>", "pear\u202e", "fig")
FILES = {
    "known.jpg": encoded(photo(1)),
    "turned.jpg": encoded(photo(2, 900, 700), exif=exif(6)),  # decoded at a fraction of its size
    "clear.png": encoded(photo(3).convert("RGBA").rotate(30), "PNG"),
    "broken.jpg": b"no image",
}


def bundle(rule: UnknownRule | None = None) -> ModelBundle:
    exact = {"precision": "fp32"}  # so that a batch and a single image are the same
    about = About(CLASSES, Preprocessing.for_size(SMALL), provenance=exact, unknown=rule)
    return ModelBundle(lively_network(), about, CPU)


def save(path: Path) -> None:
    """Save a model that knows one of the images."""
    pixels = bundle().transform()(decode(FILES["known.jpg"]))[None]
    (outcome,) = bundle().outcomes(pixels)
    reference = remember(outcome.features[None], np.zeros(1))
    rule = UnknownRule(Thresholds(0.98, None, 1e-3), reference)
    about = bundle(rule).about
    save_model(path, lively_network().state_dict(), about)


def image_at(address: str) -> Image.Image:
    kind, _, data = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(b64decode(data)))


def test_the_answers_are_those_of_predict(capsys: pytest.CaptureFixture[str]) -> None:
    save(Path("m.safetensors"))
    for name, content in FILES.items():
        Path(name).write_bytes(content)
    given = ("--model", "m.safetensors", "--device", "cpu", "--unknown", "auto", "--top", "3")
    assert call("predict", *FILES, *given, "--json") == 3
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    demo = Demo(load_model(Path("m.safetensors"), CPU), "m")
    answers = [demo.answer(content) for content in FILES.values()]
    shown = [{name: one.pop(name, None) for name in ("photo", "heat_map")} for one in answers]
    for answer, one in zip(answers, expected, strict=True):
        probabilities = one.pop("probabilities")
        assert answer.pop("probabilities") == pytest.approx(probabilities, abs=1e-5)
        assert answer == one | {"path": None}
    assert [one.get("unknown") for one in answers] == [
        None, *["unlike the training images"] * 2, None
    ]  # fmt: skip
    assert answers[3]["error"].startswith("not an image")
    assert shown[3] == {"photo": None, "heat_map": None}
    sizes = [image_at(one["photo"]).size for one in shown[:3]]
    assert sizes == [(160, 120), (175, 225), (160, 120)]  # upright; a JPEG decoded at a quarter
    assert sizes == [image_at(one["heat_map"]).size for one in shown[:3]]
    assert shown[0]["photo"] != shown[0]["heat_map"]


def test_the_page_explains_when_the_model_refuses_and_prints_names_as_text() -> None:
    reference = remember(torch.rand(1, 2048).numpy(), np.zeros(1))
    unlike, both = (
        UnknownRule(Thresholds(0.98, confidence, 0.1), reference) for confidence in (None, 0.9)
    )
    for rule, sentence in (
        (None, "It has no thresholds for unknown: it names one of its classes whatever"),
        (unlike, "It answers unknown if a photo is unlike the images it was trained on."),
        (both, "It answers unknown if its confidence is too low, or if a photo is unlike"),
    ):
        page = Page(Demo(bundle(rule), "<i>m").page())
        assert "Xception <i>m: 3 classes" in page.texts
        assert sentence in page.text
        assert page.faults == []
        assert "<b>apple</b> pear\\u202e fig" in page.text
        assert len(page.of("script")) == 1
        assert "not for production" in page.text


def test_the_page_is_named_after_the_folder_of_the_run_and_not_after_its_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path("runs/leaves").absolute()
    folder.mkdir(parents=True)
    run = RunDir(folder)
    assert name_of(run.model) == "model.safetensors"  # passed on without its run
    write_info(run)
    assert name_of(run.model) == name_of(Path("runs/leaves/model.safetensors")) == "leaves"
    assert name_of(Path("runs/leaves/leaves-int8.onnx")) == "leaves-int8.onnx"
    monkeypatch.chdir(folder)
    assert name_of(Path("model.safetensors")) == "leaves"
