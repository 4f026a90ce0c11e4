"""The export: one file that matches PyTorch, or none; and untrusted files are validated."""

import csv
import json
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from images import COLOURS, SMALL, draw
from networks import CPU, lively_network
from onnx import helper
from PIL import Image
from runs import call, python, quick_settings, train_run

from xception_cli.data.recorded import read_split
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError, MachineError
from xception_cli.inference import predict_images
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, save_model
from xception_cli.model.network import STEPS
from xception_cli.model.unknown import NEIGHBOURS, Reference, Thresholds, UnknownRule
from xception_cli.onnx import graph
from xception_cli.onnx.classifier import INPUT
from xception_cli.onnx.file import classifier_from
from xception_cli.onnx.graph import build_onnx
from xception_cli.onnx.images import JudgeImage, judge_images
from xception_cli.onnx.judge import compare, require_parity
from xception_cli.onnx.openvino import in_openvino
from xception_cli.onnx.writer import GraphWriter
from xception_cli.rundir import RunDir

HERE = Path("food.onnx")
SIZES = [
    (79, 79),
    (79, 80),
    (80, 79),
    (79, 82),
    (113, 82),
    (79, 1500),
    (300, 200),
    (71, 90),
    (9, 7),
]


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    """A randomly initialised Xception of three classes at 71 pixels."""
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), 0.7, {"epoch": 3})
    return ModelBundle(lively_network(), about, CPU)


@pytest.fixture(scope="module")
def model(bundle: ModelBundle) -> onnx.ModelProto:
    """Its export, with the resize inside."""
    return build_onnx(bundle, cropped=False)


@pytest.fixture(scope="module")
def content(model: onnx.ModelProto) -> bytes:
    """The bytes of the file."""
    return model.SerializeToString()


def image_of(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Draw an image with coarse shapes and fine grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(size)
    pixels = np.asarray(coarse, np.float32) + rng.normal(0, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def judged(*sizes: tuple[int, int]) -> list[JudgeImage]:
    """Draw images for the comparison."""
    pictures = []
    for seed, size in enumerate(sizes):
        buffer = BytesIO()
        image_of(size, seed).save(buffer, "PNG")
        pictures.append(JudgeImage("drawn", buffer.getvalue()))
    return pictures


# The file matches PyTorch


@pytest.mark.parametrize(("cropped", "limit"), [(True, 1e-4), (False, 2e-2)])
def test_the_file_returns_the_probabilities_of_pytorch(bundle, cropped, limit):
    exported = classifier_from(build_onnx(bundle, cropped=cropped).SerializeToString(), HERE)
    found, expected = [], []
    for seed, size in enumerate(SIZES):
        picture = image_of(size, seed)
        expected.append(bundle.probabilities(bundle.transform()(picture)[None])[0])
        found.append(exported.probabilities(exported.transform()(picture)[None])[0])
    difference = (torch.stack(found) - torch.stack(expected)).abs().max()
    assert difference < limit
    rolled = (torch.stack(found) - torch.stack(expected).roll(1, 0)).abs().max()
    assert rolled > 0.1  # the control: other images, other numbers


def cut_pixels(bundle: ModelBundle, size: tuple[int, int], model: onnx.ModelProto) -> int:
    """Return the largest difference between the file's centre crop and torchvision's."""
    cut_graph = helper.make_graph(
        [
            node
            for node in model.graph.node
            if node.name.startswith(("pixels", "resize", "crop", "part"))
        ],
        "cut",
        list(model.graph.input),
        [helper.make_tensor_value_info("resize/columns", onnx.TensorProto.FLOAT, None)],
        [c for c in model.graph.initializer if c.name.startswith(("resize", "crop", "part"))],
    )
    cut = helper.make_model(cut_graph, opset_imports=list(model.opset_import), ir_version=9)
    session = onnxruntime.InferenceSession(cut.SerializeToString())
    picture = image_of(size)
    (found,) = session.run(None, {INPUT: np.asarray(picture)[None]})
    return int(np.abs(found[0] - bundle.transform()(picture).numpy()).max())


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_crop_is_torchvisions(bundle, model, size):
    # Odd and even remainders, and enlarging; an offset of one column would change far more.
    assert cut_pixels(bundle, size, model) <= 1


def test_images_of_one_size_share_a_batch(bundle, content):
    exported = classifier_from(content, HERE)
    pixels = torch.stack([exported.transform()(image_of((90, 120), seed)) for seed in range(3)])
    alone = torch.cat([exported.probabilities(one[None]) for one in pixels])
    torch.testing.assert_close(exported.probabilities(pixels), alone, atol=1e-5, rtol=0)


def test_the_file_is_self_contained(bundle, model):
    about = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert about == {
        "schema": 1,
        "architecture": "xception",
        "classes": list(COLOURS),
        "preprocessing": bundle.preprocessing.to_dict(),
        "temperature": 0.7,
        "provenance": {"epoch": 3},
        "input": "whole",
    }
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_names_are_those_of_the_paper_and_unique(model):
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(output in {*names, "probabilities"} for n in model.graph.node for output in n.output)
    flows = {"entry_flow": STEPS[:5], "middle_flow": STEPS[5:13], "exit_flow": STEPS[13:16]}
    for flow, steps in flows.items():
        found = {n.split("/")[1] for n in names if n.startswith(f"{flow}/")}
        assert found == set(steps)
    assert "middle_flow/block7/sepconv2/depthwise" in names
    rooms = {name.split("/")[0] for name in names} - set(flows)
    assert rooms == {"pixels", "resize", "crop", "part", "normalize", "head"}
    separable = [name for name in names if name.endswith("/pointwise")]
    assert len(separable) == 34  # as in the published network


# The comparison with PyTorch


def resize_of_onnx(writer: GraphWriter, preprocessing: Preprocessing, pixels: str) -> str:
    """Write ONNX's antialiased Resize of square images, which differs between runtimes."""
    resized, kept = preprocessing.resize_size, preprocessing.image_size
    corner = round((resized - kept) / 2)
    node, integers = writer.node, writer.integers
    pixels = node("Transpose", [pixels], "pixels/channels_first", perm=[0, 3, 1, 2])
    pixels = node(
        "Resize",
        [pixels, "", "", integers("resize/sides", resized, resized)],
        "resize/bicubic",
        axes=[2, 3],
        mode="cubic",
        cubic_coeff_a=-0.5,
        antialias=1,
        exclude_outside=1,
    )
    first, end = integers("crop/first", corner, corner), integers("crop/end", *[corner + kept] * 2)
    pixels = node("Slice", [pixels, first, end, integers("crop/axes", 2, 3)], "crop/centre")
    return node("Cast", [pixels], "pixels/float", to=onnx.TensorProto.FLOAT)


def test_the_gate_accepts_a_matching_file_and_reports_the_difference(bundle, content):
    parity = compare(bundle, classifier_from(content, HERE), judged(*SIZES))
    require_parity("onnxruntime", parity)
    assert (parity.images, parity.kinds) == (len(SIZES), {"drawn": len(SIZES)})
    assert 0 < parity.largest_difference < 0.02
    assert parity.headline().startswith(f"{len(SIZES)} images ({len(SIZES)} drawn): same class")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO here")
def test_openvino_matches_and_would_not_with_the_resize_of_onnx(bundle, content, monkeypatch):
    pictures = judged((300, 300), (1000, 1000), (4000, 4000))
    exported = classifier_from(content, HERE)
    parity = compare(bundle, in_openvino(exported, content), pictures)
    require_parity("openvino", parity)
    monkeypatch.setattr(graph, "add_cropping", resize_of_onnx)
    other = build_onnx(bundle, cropped=False).SerializeToString()
    exported = classifier_from(other, HERE)
    require_parity("onnxruntime", compare(bundle, exported, pictures))
    with pytest.raises(ArtifactError, match="in openvino the exported file does not match"):
        require_parity("openvino", compare(bundle, in_openvino(exported, other), pictures))


_TWO_SESSIONS = """
import signal, sys
from pathlib import Path
from xception_cli.onnx.file import classifier_from
from xception_cli.onnx.openvino import in_openvino

path = Path(sys.argv[1])
content = path.read_bytes()
exported = classifier_from(content, path)
first, second = in_openvino(exported, content), in_openvino(exported, content)
first = None
second = None
signal.signal(signal.SIGINT, lambda *_: print("received"))
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO here")
def test_after_openvino_has_run_two_files_a_signal_still_reaches_its_handler(content):
    HERE.write_bytes(content)
    done = python("-c", _TWO_SESSIONS, HERE)
    assert (done.returncode, done.stdout) == (0, "received\n"), done.stderr


@pytest.mark.parametrize("cropped", [True, False])
def test_the_gate_refuses_a_file_whose_normalisation_was_left_out(bundle, cropped, monkeypatch):
    monkeypatch.setattr(graph, "add_normalization", lambda writer, preprocessing, pixels: pixels)
    wrong = build_onnx(bundle, cropped=cropped).SerializeToString()
    parity = compare(bundle, classifier_from(wrong, HERE), judged(*SIZES))
    with pytest.raises(ArtifactError, match="does not match PyTorch and was not written"):
        require_parity("onnxruntime", parity)


def test_a_comparison_with_another_top_class_can_be_written_into_the_report(bundle, monkeypatch):
    monkeypatch.setattr(graph, "add_normalization", lambda writer, preprocessing, pixels: pixels)
    other = build_onnx(bundle, cropped=False).SerializeToString()
    parity = compare(bundle, classifier_from(other, HERE), judged(*SIZES))
    assert parity.top1_agreement < 1
    assert json.loads(json.dumps(parity.to_dict())) == parity.to_dict()


def test_another_top_class_is_accepted_only_if_the_two_best_are_close(bundle, content):
    parity = compare(bundle, classifier_from(content, HERE), judged(*SIZES))
    assert not replace(parity, contradictions=1).passed
    assert not replace(parity, largest_difference=0.021).passed
    assert not replace(parity, largest_difference=float("nan")).passed
    assert replace(parity, top1_agreement=0.5).passed


# A whole run


@pytest.fixture(scope="module")
def run(random_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with a randomly initialised model whose answers differ by image."""
    folder = tmp_path_factory.mktemp("export")
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(8):
            draw(folder / "photos" / name / f"{i}.jpg", colour, seed=100 * c + i, size=200)
    settings = quick_settings(folder / "photos", random_weights) | {
        "unfreeze": "head",
        "refit": False,
    }
    run = train_run(settings, str(folder / "run")).run
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), provenance={"precision": "fp32"})
    save_model(run.model, lively_network().state_dict(), about)
    yield run
    run.model.unlink()


def test_an_exported_file_predicts_and_is_evaluated_like_the_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = partial(judge_images, least=12, large=1)  # 68 in all: tests/training/test_settle.py
    monkeypatch.setattr("xception_cli.onnx.run.judge_images", fewer)
    monkeypatch.setattr("xception_cli.onnx.run.LEAST", 12)
    assert call("export", str(run.path), "--output", "food.onnx") == 0
    exported = capsys.readouterr()
    assert "parity    onnxruntime: 13 images (" in exported.err
    report = json.loads(Path("export_report.json").read_text())
    assert report["food.onnx"]["parity"]["kinds"]["large"] == 1
    assert report["food.onnx"]["parity"]["images"] == 13
    photo = str(Path(run.path.parent, "photos", "red", "1.jpg"))
    Path("infer.py").write_text(exported.out)
    done = python("infer.py", photo)
    assert done.returncode == 0, done.stderr
    assert call("predict", photo, "--model", "food.onnx", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    pairs = zip(answer["classes"], answer["probabilities"], strict=True)
    line = ",".join([photo, *(f"{name},{value:.4f}" for name, value in pairs)])
    assert done.stdout.splitlines()[-1] == line

    for more in ([], ["--model", "food.onnx"]):
        assert call("eval", str(run.path), "--json", *more) == 0
    of_run, of_file = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (of_run["name"], of_file["name"]) == ("val", "val-food.onnx")
    assert of_file["accuracy"] == of_run["accuracy"]
    assert run.evaluation("val-food.onnx").joinpath("predictions.csv").is_file()


@pytest.mark.usefixtures("judged_by_few")
def test_an_export_on_a_terminal_writes_its_program_next_to_the_model(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    Path("sent").mkdir()
    assert call("export", str(run.path), "--output", "sent/food.onnx") == 0
    out, said = capsys.readouterr()
    assert out == ""
    last = said.splitlines()[-1]
    assert last.startswith("next: send sent/food.onnx and sent/classify_food.py to a colleague")
    photos = str(Path(run.path.parent, "photos"))
    done = python("sent/classify_food.py", photos)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1 + 8 * len(COLOURS)


@pytest.mark.usefixtures("judged_by_few")
@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO here")
def test_an_export_for_openvino_is_two_files_that_its_program_reads(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(run.path), "--format", "openvino", "--output", "food.xml"]
    assert call(*command) == 0
    exported = capsys.readouterr()
    assert "parity    openvino: " in exported.err
    assert sorted(path.name for path in Path().iterdir()) == [
        *("export_report.json", "food.bin", "food.xml")
    ]
    Path("classify.py").write_text(exported.out)
    photo = str(Path(run.path.parent, "photos", "red", "1.jpg"))
    done = python("classify.py", photo)
    assert done.returncode == 0, done.stderr
    assert call("predict", photo, "--run", str(run.path)) == 0
    (_, row), other = csv.reader(done.stdout.splitlines()), capsys.readouterr().out
    name, share = other.split(": ")[1].split()[:2]
    assert row[:2] == [photo, name]
    assert 100 * float(row[2]) == pytest.approx(float(share.strip("%,")), abs=2)
    Path("food.xml").unlink()
    assert call(*command) == 2  # the weights of another export are kept
    assert "food.bin already exists" in capsys.readouterr().err


@pytest.mark.usefixtures("judged_by_few")
@pytest.mark.slow
def test_an_int8_file_is_exported_predicts_and_is_evaluated(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xception_cli.onnx.judge.LEAST_AGREEMENT", 0.0)  # for random weights
    command = ["export", str(run.path), "--output", "food-int8.onnx", "--quantize", "int8"]
    assert call(*command) == 0
    said = capsys.readouterr().err
    trained_on = len(read_split(run.split, tuple(COLOURS)).of("train"))
    assert f"int8      calibrated on {trained_on} train, {32 - trained_on} drawn images" in said
    assert "times as fast here" in said
    entry = json.loads(Path("export_report.json").read_text())["food-int8.onnx"]
    assert entry["int8"]["calibrated_on"] == {"train": trained_on, "drawn": 32 - trained_on}
    assert entry["int8"]["images"] == len(read_split(run.split, tuple(COLOURS)).of("val"))
    assert Path("food-int8.onnx").stat().st_size < 25e6
    photo = str(Path(run.path.parent, "photos", "red", "1.jpg"))
    assert call("predict", photo, "--model", "food-int8.onnx") == 0
    assert call("eval", str(run.path), "--model", "food-int8.onnx") == 0


@pytest.mark.usefixtures("judged_by_few")
@pytest.mark.slow
def test_an_int8_file_that_is_another_model_is_not_written(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xception_cli.onnx.judge.LEAST_AGREEMENT", 1.1)
    command = ["export", str(run.path), "--output", "wrong.onnx", "--quantize", "int8"]
    assert call(*command) == 4
    assert "differs too much from the float file" in capsys.readouterr().err
    assert list(Path().glob("*export*")) == list(Path().glob("*.onnx")) == []


def test_a_file_of_an_uncalibrated_model_has_no_distance(bundle):
    exported = classifier_from(build_onnx(bundle, cropped=True).SerializeToString(), HERE)
    assert exported.thresholds is None
    (outcome,) = exported.outcomes(exported.transform()(image_of((90, 120)))[None])
    assert (outcome.features, outcome.distance) == (None, None)
    with pytest.raises(ValueError, match="no distance was measured"):
        exported.distances([outcome])


def with_rule(bundle: ModelBundle, rule: UnknownRule) -> ModelBundle:
    return replace(bundle, about=replace(bundle.about, unknown=rule))


def test_a_file_of_a_calibrated_model_answers_unknown_like_the_model(bundle, capsys):
    # More images than the number of nearest ones.
    levels = np.random.default_rng(0).integers(0, 256, (2 * NEIGHBOURS, 2048), np.uint8)
    pixels = [bundle.transform()(image_of((90, 120), seed)) for seed in range(6)]
    features = np.stack([outcome.features for outcome in bundle.outcomes(torch.stack(pixels))])
    reference = Reference(levels)
    middle = float(np.median(reference.distances(features)))
    judged_by = with_rule(bundle, UnknownRule(Thresholds(0.98, 0.5, middle), reference))
    model = build_onnx(judged_by, cropped=True)
    about = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    expected = {"target_precision": 0.98, "confidence": 0.5, "distance": middle}
    expected["holds"] = f"features of {2 * NEIGHBOURS} training images"
    assert about["unknown"] == expected
    exported = classifier_from(model.SerializeToString(), HERE)
    outcomes = exported.outcomes(torch.stack(pixels))
    assert {outcome.features for outcome in outcomes} == {None}
    distances = exported.distances(outcomes)
    np.testing.assert_allclose(distances, reference.distances(features), atol=1e-5)
    for seed in range(6):
        image_of((90, 120), seed).save(f"{seed}.png")
    paths = [Path(f"{seed}.png") for seed in range(6)]
    said = [
        [p.unknown for p in predict_images(c, paths, unknown=c.thresholds, workers=0)]
        for c in (judged_by, exported)
    ]
    assert said[0] == said[1]
    assert 0 < said[0].count("unlike the training images") < 6
    Path("food.onnx").write_bytes(model.SerializeToString())
    assert call("predict", "0.png", "--model", "food.onnx", "--unknown", "auto") == 0


def test_the_gate_refuses_a_file_with_another_distance(bundle):
    rng = np.random.default_rng(0)
    rules = [
        UnknownRule(
            Thresholds(0.98, 0.5, 0.1), Reference(rng.integers(0, most, (5, 2048), np.uint8))
        )
        for most in (256, 2)
    ]
    other = build_onnx(with_rule(bundle, rules[1]), cropped=False).SerializeToString()
    pictures = judged(*SIZES[:2])
    parity = compare(with_rule(bundle, rules[0]), classifier_from(other, HERE), pictures)
    assert not parity.passed


def test_without_its_data_a_run_is_compared_on_drawn_images(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    info = run.read_info()
    config = run.config.read_text()
    run.config.write_text(config.replace(str(run.path.parent / "photos"), "gone"))
    run.update_info({"data": "gone"})
    try:
        pictures = judge_images(run, tuple(COLOURS), least=5, large=2)
    finally:
        run.config.write_text(config)
        run.update_info({"data": info.data})
    assert [picture.kind for picture in pictures] == ["drawn"] * 5 + ["large"] * 2
    assert {Image.open(BytesIO(p.content)).size for p in pictures[5:]} <= {
        (4000, 3000),
        (3000, 4000),
    }
    assert (
        "using drawn images instead of val: the data folder of the run" in capsys.readouterr().err
    )


def test_drawn_images_complement_few_val_images(run: RunDir) -> None:
    own = len(read_split(run.split, tuple(COLOURS)).of("val"))
    pictures = judge_images(run, tuple(COLOURS), least=own + 3, large=0)
    assert [picture.kind for picture in pictures] == ["val"] * own + ["drawn"] * 3


def test_a_refused_export_leaves_no_file(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = partial(judge_images, least=6, large=0)
    monkeypatch.setattr("xception_cli.onnx.run.judge_images", few)
    monkeypatch.setattr("xception_cli.onnx.graph.RANGE", 1.0)
    assert call("export", str(run.path), "--output", "wrong.onnx") == 4
    assert "does not match PyTorch and was not written" in capsys.readouterr().err
    assert list(Path().glob("*export*")) == list(Path().glob("*.onnx")) == []


def test_an_export_that_does_not_fit_on_the_disk_leaves_no_file(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_durably(path: Path, content: bytes) -> None:
        if path.name == "export_report.json":
            raise MachineError("No space left on device")
        path.write_bytes(content)

    few = partial(judge_images, least=6, large=0)
    monkeypatch.setattr("xception_cli.onnx.run.judge_images", few)
    for module in ("onnx.run", "rundir"):
        monkeypatch.setattr(f"xception_cli.{module}.write_durably", write_durably)
    assert call("export", str(run.path), "--output", "food.onnx") == 5
    assert "No space left on device" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("food.pt", "it must end in .onnx"),
        ("there.onnx", "there.onnx already exists"),
        ("link.onnx", "link.onnx already exists"),
        ("no/food.onnx", "the folder no does not exist"),
    ],
)
def test_an_export_overwrites_nothing(output, message, run, capsys):
    Path("there.onnx").touch()
    Path("link.onnx").symlink_to("nowhere")
    assert call("export", str(run.path), "--output", output) == 2
    assert message in capsys.readouterr().err
    assert Path("there.onnx").read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "coreml"], "--format is 'coreml', expected onnx or openvino"),
        (["--format", "openvino"], "it must end in .xml"),
        (["--format", "openvino", "--quantize", "int8"], "--quantize int8 is for --format onnx"),
    ],
)
@pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO here")
def test_a_format_that_does_not_fit_is_refused_before_anything_is_computed(
    options, message, run, capsys
):
    assert call("export", str(run.path), "--output", "food.onnx", *options) == 2
    assert message in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_reports_of_two_files_stand_beside_each_other_and_a_damaged_one_is_not_lost(run, capsys):
    Path("export_report.json").write_text("[]")
    assert call("export", str(run.path), "--output", "food.onnx") == 4
    assert "export_report.json does not hold a JSON object" in capsys.readouterr().err
    assert Path("export_report.json").read_text() == "[]"
