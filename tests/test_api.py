"""The Python API: its names; it gives the same results as the command line and prints nothing."""

import doctest
import inspect
import json
import re
import typing
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import names_in
from images import COLOURS, SMALL, draw, encoded, exif, photo, put
from networks import CPU, lively_network
from PIL import Image
from runs import call, outcome, python
from torch.nn import functional

import xception_cli as xc
from xception_cli.api import _foreseen
from xception_cli.config import TrainConfig
from xception_cli.console import say, screen
from xception_cli.data.images import read_image
from xception_cli.data.transforms import Preprocessing
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, load_model, save_model
from xception_cli.sample.run import draw_sample
from xception_cli.settings import Settings, StrPath

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
NAMES = [
    "ArtifactError", "DataError", "DivergedError", "EvalReport", "MachineError", "Model",
    "Prediction", "RunBusyError", "StoppedError", "TrainResult", "UsageError", "WeightsError",
    "XceptionError", "__version__", "evaluate", "load", "train",
]  # fmt: skip
TEMPERATURE = 0.7


# --- names ---------------------------------------------------------------------------------------


def in_a_fresh_process(code: str) -> Any:
    done = python("-c", code, check=True)
    return json.loads(done.stdout)


def test_the_exported_names():
    assert xc.__all__ == NAMES
    assert dir(xc) == NAMES
    namespace: dict[str, object] = {}
    exec("from xception_cli import *", namespace)
    assert sorted(namespace.keys() - {"__builtins__"}) == NAMES
    assert all(getattr(xc, name).__doc__ for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = xc.laod


def test_the_import_loads_neither_torch_nor_numpy():
    heavy = ["torch", "torchvision", "ignite", "numpy", "PIL", "sklearn", "matplotlib", "onnx"]
    loaded = f"json.dumps([m for m in {heavy} if m in sys.modules])"
    light = "import sys, json, xception_cli as xc; dir(xc), xc.load, xc.train, xc.UsageError;"
    assert in_a_fresh_process(f"{light} print({loaded})") == []
    loads = in_a_fresh_process(f"{light} xc.Prediction; print({loaded})")
    assert {"torch", "numpy", "PIL"} <= set(loads)  # the control
    assert "onnx" not in loads


def test_the_keywords_of_train_are_the_settings():
    """A new setting in TrainConfig needs a line in `settings.Settings`."""
    keywords, settings = (typing.get_type_hints(kind) for kind in (Settings, TrainConfig))
    texts = {StrPath: str, StrPath | None: str | None}  # a path may be a Path, too
    assert settings.pop("data") is str
    assert {name: texts.get(kind, kind) for name, kind in keywords.items()} == settings


# --- load and predict ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(
        path,
        lively_network().state_dict(),
        About(
            tuple(COLOURS),
            Preprocessing.for_size(SMALL),
            temperature=TEMPERATURE,
            provenance={"precision": "fp32"},
        ),
    )
    return path


@pytest.fixture(scope="module")
def bundle(file: Path) -> ModelBundle:
    return load_model(file, CPU)


@pytest.fixture(scope="module")
def model(file: Path) -> xc.Model:
    return xc.load(file, device="cpu")


def test_a_path_an_image_and_an_array_are_predicted_like_by_the_command(model, file, capsys):
    path = put(Path("photo.jpg"), photo(1))
    found = model.predict(path)
    assert model.predict("photo.jpg") == found
    image = Image.open(path)
    assert model.predict(image) == replace(found, path=None)
    assert model.predict(np.asarray(Image.open(path))) == replace(found, path=None)
    image.load()  # the caller's image is still usable
    assert image.size == (160, 120)
    other = model.predict(put(Path("other.jpg"), photo(2)))
    assert max(map(abs, np.subtract(other.probabilities, found.probabilities))) > 1e-4  # control

    assert call("predict", "photo.jpg", "--model", str(file), "--device", "cpu", "--json") == 0
    assert capsys.readouterr().out == f"{json.dumps(found.to_dict())}\n"
    assert model.predict(image).to_dict() == found.to_dict() | {"path": None}


def transparent() -> bytes:
    image = photo(3).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(image, "PNG")


def deep() -> bytes:
    values = np.asarray(photo(4).convert("L"), np.uint16) * 257
    return encoded(Image.fromarray(values), "PNG")


@pytest.mark.parametrize(
    "content",
    [
        lambda: encoded(photo(5), exif=exif(6)),
        lambda: encoded(photo(5), "TIFF", exif=exif(6)),
        transparent,
        deep,
        lambda: encoded(photo(6).quantize(16), "GIF"),
    ],
    ids=["turned", "turned TIFF", "transparent", "16 bits", "palette"],
)
def test_an_image_in_memory_is_decoded_like_its_file(model, content: Callable[[], bytes]):
    path = put(Path("image"), content())
    found = model.predict(path)
    assert found.error is None
    with Image.open(path) as image:
        assert model.predict(image) == replace(found, path=None)


def test_a_large_jpeg_in_memory_keeps_its_full_size(model):
    draw(Path("large.jpg"), COLOURS["red"], seed=1, size=800)
    read = read_image(Path("large.jpg"), least_side=158)
    assert read.size == (200, 200)
    found, whole, small = model.predict(["large.jpg", Image.open("large.jpg"), read])
    assert small.probabilities == pytest.approx(found.probabilities, abs=1e-6)
    assert max(map(abs, np.subtract(whole.probabilities, found.probabilities))) > 1e-5


def test_many_images_keep_their_order_despite_a_broken_one(model):
    first = put(Path("first.jpg"), photo(1))
    half = encoded(photo(2))[:2000]
    broken, cut = put(Path("broken.jpg"), half), Image.open(BytesIO(half))
    given = [first, str(broken), photo(3), np.asarray(photo(4)), cut, "gone.jpg"]
    found = model.predict(image for image in given)
    assert [(p.path, p.error, len(p.classes)) for p in found] == [
        (first, None, 3),
        (broken, "truncated", 0),
        (None, None, 3),
        (None, None, 3),
        (None, "truncated", 0),
        (Path("gone.jpg"), "file not found", 0),
    ]
    for image, prediction in zip(given, found, strict=True):
        alone = model.predict(image)
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    assert model.predict([]) == []
    assert model.predict(Image.new("RGB", (9, 900))).error == "9 x 900 is longer than 20 to 1"


def test_workers_do_not_change_predictions(model, photos):
    paths = sorted(photos.glob("*/*.jpg"))
    found = model.predict(paths, top=2, workers=0)
    assert [len(p.classes) for p in found] == [2] * 24
    assert model.predict(paths, top=2, workers=2) == found
    opened = [Image.open(path) for path in paths]  # files are read when decoded
    assert model.predict(opened, top=2, workers=2) == [replace(p, path=None) for p in found]
    for path, image in zip(paths, opened, strict=True):
        assert image.tobytes() == read_image(path).tobytes()
    np.testing.assert_array_equal(model.embed(paths, workers=2), model.embed(paths, workers=0))


def test_answers_below_a_probability_are_rejected(model):
    best = model.predict(photo(1)).probabilities[0]
    assert model.predict(photo(1), unknown=best - 0.01).unknown is None
    assert model.predict(photo(1), unknown=best + 0.01).unknown == "low confidence"


KINDS = "expected a path, a PIL.Image or a uint8 array (height, width, 3)"


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (3, {}, f"an image is a int, {KINDS}"),
        (None, {}, f"an image is a NoneType, {KINDS}"),
        (b"\xff\xd8", {}, f"an image is a bytes, {KINDS}"),
        (["a.jpg", 3], {}, f"an image is a int, {KINDS}"),
        (np.zeros((9, 9, 3)), {}, f"an image is a float64 array of shape (9, 9, 3), {KINDS}"),
        (np.zeros((9, 9), np.uint8), {}, f"an image is a uint8 array of shape (9, 9), {KINDS}"),
        (
            np.zeros((2, 9, 9, 3), np.uint8),
            {},
            f"an image is a uint8 array of shape (2, 9, 9, 3), {KINDS}",
        ),
        ("a.jpg", {"top": 0}, "top is 0, expected at least 1"),
        ("a.jpg", {"top": 1.5}, "top is 1.5, expected a whole number"),
        ("a.jpg", {"top": "3"}, "top is '3', expected a whole number"),
        ("a.jpg", {"top": None}, "top is None, expected a whole number"),
        ("a.jpg", {"workers": -1}, "workers is -1, expected at least 0"),
        ("a.jpg", {"workers": "2"}, "workers is '2', expected a whole number"),
        ("a.jpg", {"unknown": 1.5}, "unknown is '1.5', expected off, auto or 0 to 1"),
        (
            "a.jpg",
            {"unknown": "auto"},
            "this model has no thresholds for `unknown`: its training did not finish",
        ),
    ],
)
def test_an_invalid_argument_is_refused(model, images, options, message):
    with pytest.raises(xc.UsageError) as caught:
        model.predict(images, **options)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("nowhere", xc.UsageError, "the run folder nowhere does not exist"),
        ("empty", xc.UsageError, "empty is not a run folder (it has no run.json)"),
        ("no.safetensors", xc.UsageError, "there is no model file no.safetensors"),
        ("no.onnx", xc.UsageError, "there is no file no.onnx"),
        ("notes.txt", xc.ArtifactError, "notes.txt is not a safetensors file"),
        ("notes.onnx", xc.ArtifactError, "notes.onnx is not a valid ONNX file"),
    ],
)
def test_a_path_that_is_not_a_model_is_refused(path, kind, message):
    Path("empty").mkdir()
    for name in ("notes.txt", "notes.onnx"):
        Path(name).write_text("this is no model")
    with pytest.raises(xc.XceptionError) as caught:
        xc.load(path)
    assert type(caught.value) is kind
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *product(("path", "run", "only"), (None, 5, b"x", ["x"])),
        # of these, None is the default
        *product(("data", "root", "model", "output", "from_"), (5, b"x", ["x"])),
    ],
)
def test_what_is_not_a_path_is_refused_with_the_name_of_the_argument(photos, name, given):
    if name == "path":
        call = partial(xc.load, given)
    elif name == "run":
        call = partial(xc.evaluate, given)
    elif name in {"output", "from_"}:
        call = partial(xc.train, photos, **{name: given})
    else:
        call = partial(xc.evaluate, "run", **{name: [given] if name == "only" else given})
    shown = given if given in (None, 5) else f"a {type(given).__name__}"
    with pytest.raises(xc.UsageError, match=rf"^{name} is {shown}, expected a path$") as caught:
        call()
    assert caught.value.hint == 'a path is a str or a pathlib.Path, such as "runs/food"'


def test_a_config_in_the_current_folder_is_not_the_recipe_of_its_name(photos):
    with pytest.raises(xc.UsageError, match=r"cannot read .*quick"):
        xc.train(photos, config="./quick")


@pytest.mark.parametrize("only", ["photo.jpg", Path("photo.jpg"), 5])
def test_images_to_evaluate_that_are_no_list_are_refused(only):
    with pytest.raises(xc.UsageError, match="only is not a list of paths"):
        xc.evaluate("run", only=only)


# --- embed ---------------------------------------------------------------------------------------


def test_the_embedding_is_the_input_of_the_last_layer(model, bundle):
    paths = [put(Path(f"{seed}.jpg"), photo(seed)) for seed in range(3)]
    transform = bundle.preprocessing.evaluation_transform()
    pixels = torch.stack([transform(read_image(path)) for path in paths])
    with torch.inference_mode():  # as pretrainedmodels computes it, with batch norm
        last = bundle.network.features(bundle.preprocessing.normalize(pixels))
        expected = functional.relu(last).mean((2, 3))
    found = model.embed([paths[0], Image.open(paths[1]), np.asarray(Image.open(paths[2]))])
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    assert np.ptp(found, axis=0).max() > 0.1  # the control: three images, three rows
    assert model.embed(paths[1]) == pytest.approx(found[1], abs=1e-5)
    assert model.embed(paths[1]).shape == (2048,)
    assert model.embed([]).shape == (0, 2048)

    logits = bundle.network.last_linear(torch.from_numpy(found)).detach() / TEMPERATURE
    for row, prediction in zip(logits.softmax(1), model.predict(paths), strict=True):
        by_name = dict(zip(prediction.classes, prediction.probabilities, strict=True))
        assert [by_name[name] for name in model.classes] == pytest.approx(row.tolist(), abs=1e-5)


def test_an_image_that_cannot_be_read_has_no_embedding(model):
    put(Path("good.jpg"), photo(1))
    with pytest.raises(xc.DataError, match=r"^gone\.jpg cannot be embedded: file not found$"):
        model.embed(["good.jpg", "gone.jpg"])
    with pytest.raises(xc.DataError, match=r"^image 1 cannot be embedded: 9 x 900 is longer"):
        model.embed(["good.jpg", Image.new("RGB", (9, 900))])


def test_an_exported_file_is_loaded_and_predicts_the_same(model, bundle):
    from xception_cli.onnx.graph import build_onnx

    path = put(Path("m.onnx"), build_onnx(bundle, cropped=False).SerializeToString())
    exported = xc.load(path)
    assert exported.classes == model.classes
    given = [photo(1), np.asarray(photo(2, 100, 90)), "gone.jpg"]
    for found, expected in zip(exported.predict(given), model.predict(given), strict=True):
        assert replace(found, probabilities=()) == replace(expected, probabilities=())
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-3)
    with pytest.raises(xc.UsageError, match="an ONNX file returns no features"):
        exported.embed(photo(1))
    with pytest.raises(xc.UsageError, match="there is no"):
        xc.load(Path("gone.onnx"))


# --- train and evaluate --------------------------------------------------------------------------


@pytest.mark.slow
def test_python_trains_and_evaluates_like_the_command_and_prints_nothing(settings, capfd):
    say("an earlier message")
    capfd.readouterr()
    result = xc.train(output="python", **settings)
    model = xc.load(result.run.path, device="cpu")
    predictions = model.predict(sorted(Path(settings["data"]).glob("*/*.jpg")))
    features = model.embed([p.path for p in predictions])
    report = xc.evaluate("python", device="cpu")
    assert capfd.readouterr() == ("", "")

    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    assert call("train", *flags, "--output", "command") == 0
    said = capfd.readouterr().err
    assert call("eval", "command", "--device", "cpu", "--json") == 0
    assert json.loads(capfd.readouterr().out) == json.loads(json.dumps(report.to_dict()))
    assert outcome("python") == outcome("command")
    assert names_in(Path("python")) == names_in(Path("command"))
    said_why = {"note": "measured with the head before its refit, which includes these images"}
    assert result.reports["val"].to_dict() | said_why == report.to_dict()
    assert result.run.read_info().command.startswith("python ")  # the program, not our command
    assert (features.shape, model.classes) == ((24, 2048), tuple(COLOURS))

    lines = [line.partition(" ")[2] for line in Path("python/train.log").read_text().splitlines()]
    assert "an earlier message" not in lines
    begins = ("epoch      lr  smoothed loss", "head      fitted anew to the fine-tuned features")
    assert all(any(line.startswith(begin) for line in lines) for begin in begins)
    assert [line for line in lines if line.startswith("result")] == re.findall(
        "^result.*", said, re.M
    )

    extended = xc.train(resume="python", epochs=3, verbose=True)
    said = capfd.readouterr().err
    assert said.startswith("resuming  python: 2 of 3 epochs done\ndevice    CPU, ")
    assert re.search("^time .* since it was resumed: ", said, re.M)
    assert [row["epoch"] for row in extended.history] == [1, 2, 3]
    assert {"train_loss", "val_loss", "macro_recall"} < extended.history[0].keys()
    assert json.loads(extended.run.result.read_text())["epochs"] == 3
    again = xc.train(resume="python", epochs=3)  # nothing is left to do
    assert again.reports["val"].to_dict() == extended.reports["val"].to_dict()
    assert (again.kept, again.probe) == (extended.kept, extended.probe)
    with pytest.raises(xc.UsageError, match="batch_size: the run has 5, now 6"):
        xc.train(resume="python", batch_size=6)


_PROGRAM = """
from xception_cli.check import scan
print("started", flush=True)
scan.look_at_all.__kwdefaults__["alone"] = 0  # other processes at once
import xception_cli as xc
print(xc.train("photos", weights={weights!r}, image_size=71, unfreeze="head", device="cpu").kept)
"""


@pytest.mark.slow
def test_a_program_without_a_main_guard_runs_once(photos, random_weights):
    Path("lab.py").write_text(_PROGRAM.format(weights=str(random_weights)))
    done = python("lab.py", timeout=300)
    assert (done.returncode, done.stdout) == (0, "started\nthe linear probe\n"), done.stderr
    assert [path.name for path in Path("runs").iterdir()] == ["photos"]


def test_a_note_on_the_settings_is_printed_only_if_it_is_verbose(capsys):
    Path("c.toml").write_text("")  # a config.toml that has lost its settings
    for verbose in (False, True):
        with pytest.raises(xc.UsageError, match="the data folder nowhere does not exist"):
            xc.train("nowhere", config="c.toml", verbose=verbose)
        assert ("c.toml lacks" in capsys.readouterr().err) == verbose


def test_errors_of_the_system_are_exceptions_of_ours():
    with pytest.raises(xc.MachineError, match=r"^File name too long: aaa"), _foreseen():
        Path("a" * 300).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({}, "data is missing: the folder with your images", None),
        ({"data": "nowhere"}, "the data folder nowhere does not exist", "check the path"),
        ({"data": "x", "batchsize": 3}, "train() has an unknown setting batchsize", "batch_size?"),
        ({"data": "x", "image_size": 70}, "image_size is 70, expected from 71 to 2,048", None),
        ({"data": "x", "config": "quik"}, "there is no config quik", "did you mean quick?"),
        ({"resume": "nowhere"}, "the run folder nowhere does not exist", "give a folder"),
        ({"data": "x", "config": 5}, "config is 5, expected a path", "a path is a str"),
        ({"resume": True}, "resume is True, expected a path", "a path is a str"),
        ({"resume": "x", "output": "y"}, "resume cannot be combined with output or config", None),
        ({"resume": "x", "config": "quick"}, "resume cannot be combined with output", None),
    ],
)
def test_a_training_that_cannot_start_writes_nothing(arguments, message, hint):
    with pytest.raises(xc.UsageError) as caught:
        xc.train(**arguments)
    assert caught.value.message.startswith(message)
    assert (caught.value.hint is None) == (hint is None)
    assert hint is None or hint in str(caught.value.hint)
    assert names_in(Path()) == []


def test_a_path_may_be_a_path_and_a_recipe_gives_settings(photos, random_weights):
    result = xc.train(
        photos, config="quick", weights=random_weights, image_size=SMALL, device="cpu", workers=0
    )
    assert result.kept == "the linear probe"
    assert result.run.path == Path("runs/photos")
    text = result.run.config.read_text()
    assert f'data = "{photos}"' in text
    assert 'unfreeze = "head"' in text


def test_torchrun_is_refused(monkeypatch, photos):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(xc.UsageError, match="torchrun starts the command, not Python code"):
        xc.train(photos)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere"), "the data folder nowhere does not exist"),
        (("run", None, "train"), "split is 'train', expected val or test"),
        (("nowhere",), "the run folder nowhere does not exist"),
    ],
)
def test_an_invalid_evaluation_is_refused(arguments, message):
    with pytest.raises(xc.UsageError) as caught:
        xc.evaluate(*arguments)
    assert caught.value.message == message


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("verbose", [False, True])
def test_the_screen_is_restored_after_an_error(photos, monkeypatch, quiet, verbose, capfd):
    monkeypatch.setattr(screen, "quiet", quiet)
    with pytest.raises(xc.UsageError, match="expected 4 classes, found 3"):
        xc.train(photos, classes=4, verbose=verbose)
    assert screen.quiet is quiet
    capfd.readouterr()
    say("printed")
    assert capfd.readouterr().err == ("" if quiet else "printed\n")


# --- docs/python.md ------------------------------------------------------------------------------


class Loosely(doctest.OutputChecker):
    """Compares output, except for figures and the predicted class."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(self.loosened(want), self.loosened(got), optionflags)

    def loosened(self, text: str) -> str:
        return re.sub(
            r"\d+\.\d+(e-\d+)?(-\d+\.\d+)?", "0.5", re.sub("apple|bagel|banana", "apple", text)
        )


@pytest.mark.slow
def test_the_examples_of_the_page_run(random_weights, monkeypatch):
    """In order, with a smaller input size, random weights, and fewer images and epochs."""
    train, quick = xc.train, {"weights": random_weights, "image_size": SMALL, "views": 1}
    quick |= {"workers": 0, "device": "cpu", "precision": "fp32"}

    def train_quickly(*data: str, **given: Any) -> xc.TrainResult:
        return train(*data, **(quick | given | {"epochs": 3 if "resume" in given else 2}))

    monkeypatch.setattr(xc, "train", train_quickly)
    draw_sample(Path("food"), classes=3, images=12)
    page = PAGE.replace("\n120\n", "\n36\n").replace("('val', 18)", "('val', 4)")
    page = page.replace("%), 18 images", "%), 4 images")
    blocks = re.findall(r"```pycon\n(.+?)```", page, re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "python.md", None, 0)
    said: list[str] = []
    found = doctest.DocTestRunner(Loosely()).run(examples, out=said.append)
    assert found.failed == 0, "".join(said)
    assert found.attempted == PAGE.count("\n>>> ") > 20


def test_the_page_documents_all_public_names():
    model = [name for name in vars(xc.Model) if not name.startswith("_")]
    attributes = [field.name for kind in (xc.Prediction, xc.TrainResult) for field in fields(kind)]
    attributes.append("history")
    keywords = [
        name
        for function in (xc.load, xc.train, xc.evaluate, xc.Model.predict, xc.Model.embed)
        for name in inspect.signature(function).parameters
        if name not in {"self", "settings"}
    ]
    assert "verbose" in keywords
    named = {word for code in re.findall("`+[^`]+`+", PAGE) for word in re.findall(r"\w+", code)}
    assert {*NAMES, *model, *attributes, *keywords} - named == set()
