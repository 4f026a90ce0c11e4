"""The model file: what is written is read back, and other files are refused."""

import json
import random
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pretrainedmodels
import pytest
import scipy.special
import torch
from images import SMALL
from networks import CPU, PREPROCESSING, about, lively_network, noise
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError, DivergedError, UsageError
from xception_cli.model.about import About
from xception_cli.model.bundle import load_model, save_model
from xception_cli.model.unknown import Thresholds, UnknownRule
from xception_cli.runtime import Runtime

HOSTILE = (
    "../../x",
    "a/b",
    "\x1b[2J",
    "<script>alert(1)</script>",
    "[/bold]",
    '"}, "schema": 2',
    "line\nbreak",
    "名前 ė́",
    "caf\udce9",  # a folder name that is not UTF-8
    "n" * 255,
)
PROVENANCE = {"weights": {"digest": "abc"}, "epoch": 3, "note": "\u2028<é>", "none": None}


@pytest.fixture(scope="module")
def network():
    return lively_network(len(HOSTILE))


@pytest.fixture(scope="module")
def model_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    save_model(
        path,
        network.state_dict(),
        About(HOSTILE, PREPROCESSING, 1.7, PROVENANCE),
    )
    yield path
    path.unlink()  # pytest would keep 80 MB for each of three runs


@pytest.fixture(scope="module")
def bundle(model_file):
    return load_model(model_file, CPU)


@pytest.fixture
def pixels():
    return ((noise(3, seed=5) + 1) * 127.5).to(torch.uint8)


RULE = {
    "target_precision": 0.98,
    "confidence": 0.5,
    "distance": 0.1,
    "reference": {"levels": b64encode(bytes(range(256)) * 8).decode()},
}


def small_file(metadata: dict[str, str] | None, tensors: dict[str, torch.Tensor] | None = None):
    """Write a file of a few bytes: metadata is checked before tensors."""
    path = Path("small.safetensors")
    save_file(tensors or {"conv1.weight": torch.zeros(1)}, path, metadata)
    return path


# Round trip


def test_a_saved_model_is_loaded_unchanged(network, bundle):
    assert bundle.about == About(HOSTILE, PREPROCESSING, 1.7, PROVENANCE)
    saved, loaded = network.state_dict(), bundle.network.state_dict()
    assert list(saved) == list(loaded)
    for name, tensor in saved.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, loaded[name]), name
    assert not any(part.training for part in bundle.network.modules())


def test_saving_a_loaded_model_again_gives_the_same_bytes(model_file, bundle):
    again = Path("again.safetensors")
    save_model(again, bundle.network.state_dict(), bundle.about)
    same = again.read_bytes() == model_file.read_bytes()
    again.unlink()
    assert same


def test_the_file_loads_into_plain_pretrainedmodels_with_the_same_logits(
    model_file, bundle, pixels
):
    plain = pretrainedmodels.xception(num_classes=len(HOSTILE), pretrained=None)
    problems = plain.load_state_dict(load_file(model_file), strict=False)
    assert problems.unexpected_keys == []
    assert all(name.endswith("num_batches_tracked") for name in problems.missing_keys)
    with torch.no_grad():
        expected = plain.eval()((pixels / 255 - 0.4) / 0.6)
    found = bundle.outputs(pixels)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found - expected.roll(1, 0)).abs().max() > 1e-2


def test_inference_folds_batch_norm_and_does_not_change_the_network(
    model_file, pixels, monkeypatch
):
    bundle = load_model(model_file, CPU)
    with torch.no_grad():
        expected = bundle.network(bundle.preprocessing.normalize(pixels))
    norms = [part for part in bundle.network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    before = {name: tensor.clone() for name, tensor in bundle.network.state_dict().items()}
    for norm in norms:
        norm.register_forward_hook(lambda *_: pytest.fail("a batch norm was computed"))
    found = bundle.outputs(pixels)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found - expected.roll(1, 0)).abs().max() > 1e-2  # other images, other logits
    assert len(norms) == 40
    assert type(bundle.network) is type(pretrainedmodels.xception(pretrained=None))
    after = bundle.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    monkeypatch.setattr("xception_cli.model.bundle.for_inference", lambda *_: pytest.fail("again"))
    assert torch.equal(bundle.outputs(pixels)[0], found)  # folded once


def test_everything_but_the_weights_is_one_json_string_of_plain_ascii(model_file):
    with safe_open(model_file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata.keys() == {"xception", "digest"}
    assert metadata["xception"].isascii()
    assert json.loads(metadata["xception"]) == {
        "schema": 1,
        "architecture": "xception",
        "classes": list(HOSTILE),
        "preprocessing": {"image_size": SMALL, "resize_size": 80, "mean": 0.4, "std": 0.6},
        "temperature": 1.7,
        "provenance": PROVENANCE,
    }


def test_the_temperature_divides_the_logits_and_probabilities_sum_to_one(bundle, pixels):
    logits, probabilities = bundle.outputs(pixels)[0], bundle.probabilities(pixels)
    assert probabilities.sum(1).numpy() == pytest.approx(1, abs=1e-6)
    expected = scipy.special.softmax(logits.double().numpy() / 1.7, axis=1)
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-6)
    assert np.abs(scipy.special.softmax(logits.numpy(), axis=1) - expected).max() > 1e-3
    assert logits.dtype == torch.float32


def test_a_model_in_half_precision_nearly_agrees_with_float32(bundle, model_file, pixels):
    half = load_model(model_file, Runtime(torch.device("cpu"), "bf16")).outputs(pixels)[0]
    assert half.dtype == torch.float32
    distance = (half - bundle.outputs(pixels)[0]).abs().max()
    assert 0 < distance < 0.1 * bundle.outputs(pixels)[0].std(0).max() + 0.05


def test_loading_neither_depends_on_the_random_state_nor_changes_pythons(bundle, model_file):
    torch.manual_seed(123)
    states = random.getstate(), np.random.get_state()[1].tolist()
    other = load_model(model_file, CPU).network.state_dict()
    assert states == (random.getstate(), np.random.get_state()[1].tolist())
    same = bundle.network.state_dict()
    assert all(torch.equal(same[name], other[name]) for name in same)


# Refused when writing


def test_a_weight_that_is_not_finite_is_not_written_and_the_earlier_file_is_kept(network):
    path = Path("model.safetensors")
    path.write_text("the file before")
    state = {**network.state_dict()}
    state["bn4.bias"] = state["bn4.bias"].clone()
    state["bn4.bias"][7] = float("inf")
    with pytest.raises(DivergedError, match="the trained weights are not finite"):
        save_model(path, state, About(HOSTILE, PREPROCESSING))
    assert [file.name for file in Path().iterdir()] == ["model.safetensors"]
    assert path.read_text() == "the file before"


def test_classes_that_do_not_fit_the_head_are_not_written(network):
    about = About(HOSTILE[1:], PREPROCESSING)
    with pytest.raises(ArtifactError, match=r"last_linear\.weight has the shape"):
        save_model(Path("model.safetensors"), network.state_dict(), about)
    assert list(Path().iterdir()) == []


# Refused when reading


def test_a_missing_file_is_a_usage_error():
    with pytest.raises(UsageError, match=r"there is no model file nothing\.safetensors"):
        load_model(Path("nothing.safetensors"), CPU)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"xception": "no json"}])
def test_a_file_of_plain_weights_is_not_a_model(metadata):
    with pytest.raises(ArtifactError, match="not a model of xception") as caught:
        load_model(small_file(metadata), CPU)
    assert "--weights" in caught.value.hint


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", "[" * 50_000])
def test_a_file_with_other_metadata_is_not_a_model(text):
    with pytest.raises(ArtifactError, match="not a model of xception"):
        load_model(small_file({"xception": text}), CPU)


def test_a_newer_format_is_refused_with_a_hint():
    with pytest.raises(ArtifactError, match="has format 3, this version reads up to 2") as caught:
        load_model(small_file({"xception": json.dumps(about(schema=3))}), CPU)
    assert "upgrade xception" in caught.value.hint
    with pytest.raises(ArtifactError, match="has format"):
        load_model(small_file({"xception": json.dumps(about(schema=[]))}), CPU)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["a", "a"]}, "two or more different names"),
        ({"classes": ["a"]}, "two or more different names"),
        ({"classes": []}, "two or more different names"),
        ({"classes": "ab"}, "two or more different names"),
        ({"classes": {"a": 0, "b": 1}}, "two or more different names"),
        ({"classes": [["a"], "b"]}, "damaged metadata"),
        ({"classes": ["a", 3]}, "1 to 255 characters"),
        ({"classes": ["a", None]}, "1 to 255 characters"),
        ({"classes": ["a", ""]}, "1 to 255 characters"),
        ({"classes": ["a", "n" * 256]}, "1 to 255 characters"),
        ({"classes": ...}, "damaged metadata: 'classes'"),
        ({"temperature": 0}, "impossible temperature: 0"),
        ({"temperature": -1.0}, "impossible temperature: -1"),
        ({"temperature": 1e9}, "impossible temperature"),
        ({"temperature": float("nan")}, "impossible temperature: nan"),
        ({"temperature": float("inf")}, "impossible temperature: inf"),
        ({"temperature": 10**400}, "damaged metadata"),
        ({"temperature": "warm"}, "damaged metadata"),
        ({"temperature": None}, "damaged metadata"),
        ({"provenance": 3}, "damaged metadata"),
        ({"unknown": 3}, "damaged metadata"),
        ({"unknown": {}}, "damaged metadata: 'target_precision'"),
        ({"unknown": RULE | {"distance": float("nan")}}, "impossible thresholds"),
        ({"unknown": RULE | {"confidence": 1.5}}, "impossible thresholds"),
        ({"unknown": RULE | {"confidence": float("nan")}}, "impossible thresholds"),
        ({"unknown": RULE | {"reference": None}}, "damaged metadata"),
        ({"unknown": RULE | {"reference": {"levels": "AAAA"}}}, "damaged metadata"),
        ({"unknown": RULE | {"reference": {"levels": "no base64!"}}}, "damaged metadata"),
        ({"preprocessing": {"image_size": 70}}, "impossible preprocessing"),
        ({"preprocessing": {"image_size": 299, "resize_size": 298}}, "impossible preprocessing"),
        ({"preprocessing": {"image_size": 9999, "resize_size": 9999}}, "impossible preprocessing"),
        ({"preprocessing": {"std": 0.0}}, "impossible preprocessing"),
        ({"preprocessing": {"std": float("nan")}}, "impossible preprocessing"),
        ({"preprocessing": {"gamma": 2.2}}, "unknown preprocessing"),
        ({"preprocessing": None}, "unknown preprocessing|damaged metadata"),
    ],
)
def test_impossible_metadata_is_refused(changed, message):
    with pytest.raises(ArtifactError, match=message):
        load_model(small_file({"xception": json.dumps(about(**changed))}), CPU)


def test_the_rule_for_unknown_is_stored_in_the_metadata_without_a_tensor(tmp_path):
    rule = UnknownRule.from_dict(RULE, 2048)
    network = lively_network()
    path = tmp_path / "model.safetensors"
    about = About(("a", "b", "c"), PREPROCESSING, 1.5, unknown=rule)
    save_model(path, network.state_dict(), about)
    bundle = load_model(path, CPU)
    assert bundle.about.unknown is not None
    written = bundle.about.unknown.to_dict()
    assert written["reference"].pop("holds") == "features of 1 training image"
    assert written == RULE
    assert bundle.thresholds == Thresholds(0.98, 0.5, 0.1)
    plain = pretrainedmodels.xception(num_classes=1000, pretrained=None)
    plain.last_linear = torch.nn.Linear(2048, 3)
    plain.load_state_dict(load_file(path))  # strict: there is no other head


# As written by version 0.1.0.
FIRST = (
    '{"schema": 1, "architecture": "xception", "classes": ["cat", "dog"], '
    '"preprocessing": {"image_size": 299, "resize_size": 333, "mean": 0.5, "std": 0.5}, '
    '"temperature": 0.48826513, "provenance": {"epoch": 3, "precision": "fp32"}, '
    '"unknown": {"target_precision": 0.98, "confidence": 0.8114, "distance": 0.211731, '
    f'"reference": {{"levels": "{"AH//" * 2048}"}}}}}}'
)


def test_metadata_of_an_older_file_is_read_and_written_again_unchanged():
    read = About.from_dict(json.loads(FIRST), Path("model.safetensors"))
    rule = read.unknown
    assert replace(read, unknown=None) == About(
        ("cat", "dog"), Preprocessing(299, 333), 0.48826513, {"epoch": 3, "precision": "fp32"}
    )
    assert rule.thresholds == Thresholds(0.98, 0.8114, 0.211731)
    np.testing.assert_array_equal(rule.reference.levels, np.resize([0, 127, 255], (3, 2048)))
    written = read.to_dict()
    del written["unknown"]["reference"]["holds"]  # it describes the other entry
    assert json.dumps(written) == FIRST


def test_valid_metadata_passes_those_checks():
    # The same small file with valid metadata is refused only for its tensors.
    with pytest.raises(ArtifactError, match=r"it lacks \d+ tensors"):
        load_model(small_file({"xception": json.dumps(about())}), CPU)


def test_a_file_with_an_extra_tensor_is_refused(network):
    tensors = {name: torch.zeros(1) for name in network.state_dict()}
    path = small_file({"xception": json.dumps(about())}, tensors | {"fc.weight": torch.zeros(1)})
    with pytest.raises(ArtifactError, match=r"also holds 1 tensor, for example fc\.weight"):
        load_model(path, CPU)


@pytest.mark.parametrize("problem", ["nan", "shape"])
def test_one_bad_tensor_among_good_ones_is_refused(model_file, problem):
    tensors = load_file(model_file)
    if problem == "nan":
        tensors["last_linear.bias"][-1] = float("nan")
        message = r"last_linear\.bias has numbers that are not finite"
    else:
        tensors["last_linear.weight"] = tensors["last_linear.weight"][:, :-1].contiguous()
        message = r"last_linear\.weight has the shape \(10, 2047\), expected \(10, 2048\)"
    metadata = {"xception": json.dumps(about(classes=list(HOSTILE)))}
    path = small_file(metadata, tensors)
    with pytest.raises(ArtifactError, match=message):
        load_model(path, CPU)
    path.unlink()


def test_the_longest_header_that_is_written_can_be_read(network, tmp_path):
    # Outside of the basic plane, a character takes 14 bytes: JSON in a string of JSON.
    classes = tuple(chr(0x20000 + n) * 255 for n in range(900))
    state = network.state_dict() | {
        "last_linear.weight": torch.zeros(900, 2048),
        "last_linear.bias": torch.zeros(900),
    }
    save_model(tmp_path / "long.safetensors", state, About(classes, PREPROCESSING))
    with (tmp_path / "long.safetensors").open("rb") as file:
        assert int.from_bytes(file.read(8), "little") > 3_000_000
    assert load_model(tmp_path / "long.safetensors", CPU).classes == classes
    (tmp_path / "long.safetensors").unlink()


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_a_truncated_file_is_refused(model_file, length):
    path = Path("model.safetensors")
    path.write_bytes(model_file.read_bytes()[:length])
    with pytest.raises(ArtifactError, match=r"not a valid safetensors file|header of"):
        load_model(path, CPU)
    path.unlink()


def test_a_huge_number_of_classes_is_refused_before_a_network_for_them_is_built():
    names = [str(number) for number in range(60_000)]  # a head of half a gigabyte
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(ArtifactError, match="it lacks"):
        load_model(small_file({"xception": json.dumps(about(classes=names))}), CPU)
    assert torch.equal(before, torch.get_rng_state())  # building one would use the random generator
