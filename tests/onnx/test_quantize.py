"""int8: what is quantised and how, its effect, and the reported figures."""

import json
import logging
from logging.handlers import BufferingHandler
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from images import COLOURS, SMALL
from networks import CPU, lively_network, noise
from onnx import numpy_helper

from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError, MachineError
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle
from xception_cli.onnx import quantize
from xception_cli.onnx.classifier import INPUT
from xception_cli.onnx.file import classifier_from
from xception_cli.onnx.graph import build_onnx
from xception_cli.onnx.judge import Agreement, require_agreement
from xception_cli.onnx.quantize import quantize_onnx, rounded

HERE = Path("food-int8.onnx")
FIRST = "entry_flow/conv1"


def is_flow(name: str) -> bool:
    return "_flow/" in name and not name.startswith(FIRST)


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """Draw inputs of a file that takes cropped images."""
    levels = (noise(count, seed) + 1) * 127.5
    return [one[None] for one in levels.byte().permute(0, 2, 3, 1).numpy()]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """The export of a randomly initialised Xception, for cropped images."""
    preprocessing = Preprocessing.for_size(SMALL)
    about = About(tuple(COLOURS), preprocessing, 0.7, {"epoch": 3})
    bundle = ModelBundle(lively_network(), about, CPU)
    return build_onnx(bundle, cropped=True)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BufferingHandler]:
    """The folder for temporary files of `quantized`, and what is logged."""
    return tmp_path_factory.mktemp("temporary"), BufferingHandler(1000)


@pytest.fixture(scope="module")
def quantized(model: onnx.ModelProto, traces: tuple[Path, BufferingHandler]) -> onnx.ModelProto:
    """The same in int8."""
    logging.getLogger().addHandler(traces[1])
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tempfile.tempdir", str(traces[0]))
            return quantize_onnx(model, pictures(6, seed=1))
    finally:
        logging.getLogger().removeHandler(traces[1])


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def features(model: onnx.ModelProto) -> np.ndarray:
    """Return the features of images that calibration did not use."""
    given = onnx.ModelProto()
    given.CopyFrom(model)
    given.graph.output.append(
        onnx.helper.make_tensor_value_info("head/pool", onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(given.SerializeToString())
    return np.concatenate([session.run(["head/pool"], {INPUT: p})[0] for p in pictures(8, seed=2)])


def test_the_flows_are_int8_after_the_first_convolution_and_the_rest_stays_float(model, quantized):
    onnx.checker.check_model(quantized, full_check=True)
    by_name = {node.name: node for node in quantized.graph.node}
    makers = {output: node.op_type for node in quantized.graph.node for output in node.output}
    for node in model.graph.node:
        if is_flow(node.name):
            # A ReLU after a convolution is part of the range of its output.
            if node.name in by_name:
                inputs = by_name[node.name].input
                assert {makers[name] for name in inputs} == {"DequantizeLinear"}
            else:
                assert node.op_type == "Relu"
        else:
            assert by_name[node.name].op_type == node.op_type
    kept = constants(quantized)
    for name, value in constants(model).items():
        if not is_flow(name):
            np.testing.assert_array_equal(kept[name], value)


def test_no_two_products_of_its_weights_overflow_16_bits(model, quantized):
    weights = {n: v for n, v in constants(quantized).items() if n.endswith("/weight/quantized")}
    assert len(weights) == sum(node.op_type == "Conv" for node in model.graph.node) - 1
    assert {value.dtype for value in weights.values()} == {np.dtype(np.int8)}
    largest = max(int(np.abs(value.astype(int)).max()) for value in weights.values())
    assert 2 * 255 * largest < 2**15
    assert not 2 * 255 * 127 < 2**15  # the control: 8 bits overflow


def test_weights_are_rounded_as_the_bias_correction_assumes(model, quantized):
    found = constants(quantized)
    for name, weight in constants(model).items():
        if is_flow(name) and name.endswith("/weight"):
            scales = found[f"{name}/scale"].reshape(-1, 1, 1, 1)
            held = found[f"{name}/quantized"].astype(np.float32) * scales
            np.testing.assert_allclose(held, rounded(weight), atol=1e-6 * np.abs(weight).max())


def test_an_int8_file_nearly_equals_the_float_file(model, quantized):
    exact, found = features(model), features(quantized)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    shuffled = np.linalg.norm(np.roll(found, 1, axis=0) - exact) / np.linalg.norm(exact)
    assert error < 0.5 * shuffled  # the control: other images


def test_corrected_biases_keep_the_mean_of_each_channel(model):
    names = [node.name for node in model.graph.node if is_flow(node.name)]
    seen = quantize._observe(model, names, pictures(3, seed=1))
    before, after = constants(model), constants(quantize._correct_biases(model, seen))
    pointwise = [n for n in model.graph.node if n.name.endswith("/pointwise")]  # no border
    assert len(pointwise) == 34
    for node in pointwise:
        weight, bias = (before[f"{node.name}/{part}"] for part in ("weight", "bias"))
        means, moved = seen.means[node.input[0]], rounded(weight)[:, :, 0, 0]
        expected = weight[:, :, 0, 0] @ means + bias
        found = moved @ means + after[f"{node.name}/bias"]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(moved @ means + bias - expected).max() > 1e-3  # the control: not corrected


def test_names_stay_readable_and_the_metadata_has_the_quantisation(model, quantized):
    names = [node.name for node in quantized.graph.node]
    assert len(set(names)) == len(names)
    assert "middle_flow/block7/sepconv2/depthwise/quantize" in names
    assert "middle_flow/block7/sepconv2/depthwise/weight/dequantize" in names
    everything = {
        *names,
        *constants(quantized),
        *(o for n in quantized.graph.node for o in n.output),
    }
    assert not [name for name in everything if "Linear" in name or "_quantized" in name]
    about = {entry.key: json.loads(entry.value) for entry in quantized.metadata_props}
    before = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert about == before | {"quantized": "int8"}


def test_an_int8_file_is_opened_and_a_hostile_one_is_not(quantized):
    classifier = classifier_from(quantized.SerializeToString(), HERE)
    found = classifier.probabilities(torch.zeros((2, 3, SMALL, SMALL), dtype=torch.uint8))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))
    hostile = onnx.ModelProto()
    hostile.CopyFrom(quantized)
    hostile.graph.node.add(op_type="QLinearConv", domain="evil")
    with pytest.raises(ArtifactError, match=r"it has the operators evil\.QLinearConv"):
        classifier_from(hostile.SerializeToString(), HERE)
    hostile.CopyFrom(quantized)
    scale = next(t for t in hostile.graph.initializer if t.name == "entry_flow/conv2/weight/scale")
    values = np.full(scale.dims[0], np.nan, np.float32)
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))
    with pytest.raises(ArtifactError, match="weights that are not finite: entry_flow/conv2/weight"):
        classifier_from(hostile.SerializeToString(), HERE)


@pytest.mark.usefixtures("quantized")
def test_quantising_leaves_no_temporary_file_and_logs_nothing(traces):
    folder, log = traces
    assert list(folder.iterdir()) == []
    assert log.buffer == []


def test_without_room_for_temporary_files_nothing_is_quantised(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(MachineError, match="cannot quantize: temporary files") as caught:
        quantize_onnx(model, pictures(1, seed=1))
    assert "TMPDIR" in caught.value.hint


# The reported figures


def agreement(agreeing: int = 98, correct: tuple[int, int] = (60, 60)) -> Agreement:
    kinds = {"val": 80, "drawn": 20}
    return Agreement({"train": 32}, 100, kinds, agreeing, 80, *correct, 200.0, 100.0)


def test_agreement_and_accuracies_are_reported_with_their_intervals():
    assert agreement(correct=(60, 59)).lines() == [
        "calibrated on 32 train images",
        "100 images (80 val, 20 drawn): same class as in float32 on 98.0% (95% CI 93.0-99.4%, "
        "98 of 100)",
        "accuracy 73.8% (95% CI 63.2-82.1%, 59 of 80); in float32 75.0% (95% CI 64.5-83.2%, "
        "60 of 80)",
        "2.00 times as fast here: 100 ms per image instead of 200, by the median",
    ]
    found = agreement().to_dict()
    assert found["top1_agreement"]["value"] == 0.98
    assert set(found["accuracy"]) == {"float", "int8"}


def test_a_loss_of_accuracy_is_warned_about_and_a_gain_is_not():
    assert agreement(correct=(60, 60)).warning() is None
    assert agreement(correct=(59, 60)).warning() is None
    assert "COSTS ACCURACY: 2 fewer of 80" in str(agreement(correct=(60, 58)).warning())


def test_an_int8_file_that_is_another_model_is_refused():
    require_agreement(agreement(agreeing=90))
    with pytest.raises(ArtifactError, match="differs too much from the float file"):
        require_agreement(agreement(agreeing=89))
