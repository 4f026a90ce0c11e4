"""An ONNX file from elsewhere: only our exports are accepted, and no other file is read."""

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graphs import small_model
from images import draw
from onnx import TensorProto, helper, numpy_helper
from runs import call

from xception_cli.errors import ArtifactError, UsageError
from xception_cli.onnx.file import classifier_from, load_onnx, seal_onnx

HERE = Path("m.onnx")


def opened(model: onnx.ModelProto) -> object:
    return classifier_from(model.SerializeToString(), HERE)


def test_a_valid_file_is_opened_and_run():
    classifier = classifier_from(small_model().SerializeToString(), HERE)
    pixels = torch.zeros((1, 3, 5, 4), dtype=torch.uint8)
    pixels[:, 0] = 200
    expected = torch.softmax(torch.tensor([[2.0, 0.0]]), dim=1)
    torch.testing.assert_close(classifier.probabilities(pixels), expected)
    assert classifier.classes == ("cat", "dog")


@pytest.fixture
def secret() -> Path:
    path = Path("secret")
    path.write_bytes(np.ones((3, 2), np.float32).tobytes())
    return path


def external(tensor: TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.parametrize("location", ["secret", "../../etc/passwd", "/etc/passwd", ""])
def test_weights_in_another_file_are_refused(location, secret):
    model = small_model()
    external(model.graph.initializer[0], location)
    with pytest.raises(ArtifactError, match="refers to another file for weight, which is not read"):
        opened(model)


def test_a_reference_to_another_file_is_found_anywhere(secret):
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[3, 2])
    external(tensor, "secret")
    constant = helper.make_node("Constant", [], ["hidden"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], [])
    hidden = {
        "attribute": [constant],
        "subgraph": [helper.make_node("If", ["x"], ["y"], then_branch=branch)],
    }
    for nodes in hidden.values():
        model = small_model()
        model.graph.node.extend(nodes)
        with pytest.raises(ArtifactError, match="refers to another file for hidden"):
            opened(model)
    model = small_model()
    model.functions.append(helper.make_function("d", "f", [], [], [constant], []))
    with pytest.raises(ArtifactError, match="refers to another file for hidden"):
        opened(model)
    model = small_model()
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    with pytest.raises(ArtifactError, match="refers to another file for hidden"):
        opened(model)


@pytest.mark.parametrize(
    ("node", "named"),
    [
        (helper.make_node("Loop", ["a"], ["b"]), "Loop"),
        (helper.make_node("ConstantOfShape", ["a"], ["b"]), "ConstantOfShape"),
        (helper.make_node("PyOp", ["a"], ["b"], domain="evil"), "evil.PyOp"),
    ],
)
def test_operators_that_no_export_has_are_refused(node, named):
    model = small_model()
    model.graph.node.append(node)
    with pytest.raises(ArtifactError, match=f"it has the operators {re.escape(named)}"):
        opened(model)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["../x", "../x"]}, "damaged metadata: classes must be two or more"),
        ({"classes": ["a", 1]}, "damaged metadata: a class name must be"),
        ({"classes": ["a", "n" * 256]}, "damaged metadata: a class name must be"),
        ({"classes": ["a", "b", "c"]}, "for 3 classes"),
        ({"schema": 9}, "has format 9, this version reads up to 2"),
        ({"temperature": 0}, "impossible temperature"),
        ({"preprocessing": {"image_size": 10**9}}, "impossible preprocessing"),
        ({"unknown": {"confidence": 2, "distance": 0, "target_precision": 1}}, "impossible thres"),
        ({"unknown": {}}, "damaged metadata: 'target_precision'"),
        ({"unknown": {"confidence": 1, "distance": 0, "target_precision": 1}}, "for 2 classes"),
        ({"input": "other"}, "that xception export did not write"),
        ({"schema": ...}, "that xception export did not write"),
    ],
)
def test_the_metadata_of_a_file_is_checked(changed, message):
    with pytest.raises(ArtifactError, match=message):
        opened(small_model(**changed))


def test_weights_that_are_not_finite_are_refused():
    model = small_model()
    weight = np.full((3, 2), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    with pytest.raises(ArtifactError, match="weights that are not finite: weight"):
        opened(model)


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_truncated_file_is_refused(length):
    content = small_model().SerializeToString()[:length]
    with pytest.raises(
        ArtifactError, match=r"not a valid ONNX file|xception export did not write"
    ) as caught:
        classifier_from(content, HERE)
    assert length != -1 or "xception export RUN --output FILE" in str(caught.value.hint)


def test_a_file_that_does_not_run_is_refused_in_a_sentence():
    model = small_model()
    model.graph.node[2].input[1] = "nothing"
    with pytest.raises(ArtifactError, match="cannot be run"):
        opened(model)


def test_a_missing_file_is_refused():
    with pytest.raises(UsageError, match=r"there is no file gone\.onnx"):
        load_onnx(Path("gone.onnx"))


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_without_the_extra_the_command_names_what_to_install(name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)  # imports fail like those of a missing package
    HERE.touch()
    assert call("predict", "red.jpg", "--model", "m.onnx") == 5
    said = capsys.readouterr().err
    assert f"a package that is not installed: {name}" in said
    assert "hint: pip install 'xception-cli[onnx]'" in said


def test_hostile_class_names_are_printed_literally(capsys: pytest.CaptureFixture[str]) -> None:
    draw(Path("red.jpg"), (250, 0, 0), seed=1)
    model = small_model(classes=["\x1b[2J", "[bold]:smile:"])
    HERE.write_bytes(model.SerializeToString())
    assert call("predict", "red.jpg", "--model", "m.onnx") == 0
    assert "\\x1b[2J 9" in (out := capsys.readouterr().out)
    assert "[bold]:smile: " in out
    assert "\x1b" not in out


def test_heat_maps_are_not_suggested_for_an_exported_file_which_has_none(capsys):
    draw(Path("red.jpg"), (250, 0, 0), seed=1)
    HERE.write_bytes(small_model().SerializeToString())
    assert call("predict", "red.jpg", "--model", "m.onnx") == 0
    end = "next: xception predict DIR --model m.onnx --output predictions.csv\n"
    assert capsys.readouterr().err.endswith(end)
    assert call("predict", "red.jpg", "--model", "m.onnx", "--explain", "why") == 2


def test_each_flipped_bit_of_a_sealed_file_is_refused_or_has_no_effect(capsys):
    content = seal_onnx(small_model())
    pixels = torch.full((1, 3, 5, 4), 90, dtype=torch.uint8)
    before = classifier_from(content, HERE)
    assert capsys.readouterr().err == ""  # an unsealed file gets a note
    refused = 0
    for at in range(0, 8 * len(content), 3):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        try:
            found = classifier_from(bytes(flipped), HERE)
        except ArtifactError:
            refused += 1
            continue
        assert found.about == before.about
        assert torch.equal(found.probabilities(pixels), before.probabilities(pixels))
    assert refused > len(content)
    classifier_from(small_model().SerializeToString(), HERE)
    assert "has no digest" in capsys.readouterr().err
