"""Memory and operations of an untrusted ONNX graph: bounded before it is run, failures reported."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graphs import small_model
from onnx import TensorProto, helper, numpy_helper
from runs import python

from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError, XceptionError
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle
from xception_cli.model.network import build_seeded_network
from xception_cli.onnx.file import _OPERATORS, classifier_from
from xception_cli.onnx.graph import build_onnx
from xception_cli.onnx.sizes import GraphSizes, SizesError
from xception_cli.runtime import Runtime


@pytest.mark.parametrize("cropped", [True, False])
@pytest.mark.parametrize("side", [71, 299])
def test_an_export_needs_a_fraction_of_the_limits(cropped, side):
    runtime = Runtime(torch.device("cpu"), "fp32")
    about = About(("a", "b"), Preprocessing.for_size(side))
    model = build_onnx(
        ModelBundle(build_seeded_network(2, 0).eval(), about, runtime), cropped=cropped
    )
    sizes = GraphSizes(model, "image", side)
    for shape in [(1, side, side)] if cropped else [(1, 80, 60), (1, 3000, 4000), (1, 9400, 9400)]:
        sizes.check(*shape)
        taken, operations = sizes._measure((*shape, 3))
        area = (side / 299) ** 2
        values = 3 * shape[1] * shape[2]
        assert taken < 0.6e9 * area + 6.2 * values + 1.2e5 * side
        assert operations < 12e9 * area + (side + 10) * values


def _file(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    model = small_model()
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    return model.SerializeToString()


def _doubled(times: int) -> list[onnx.NodeProto]:
    names = ["float", *(f"x{at}" for at in range(times))]
    return [helper.make_node("Concat", [a, a], [b], axis=1) for a, b in pairwise(names)]


_LONG = np.zeros((1, 60_000), np.float32)
_BOMBS = {
    "doubling": (_doubled(30), {}),
    "outer product": (
        [
            helper.make_node("Transpose", ["long"], ["column"], perm=[1, 0]),
            helper.make_node("Add", ["long", "column"], ["square"]),
        ],
        {"long": _LONG},
    ),
    "matrix product": (
        [helper.make_node("Gemm", ["long", "long"], ["square"], transA=1)],
        {"long": _LONG},
    ),
    "enlarging": (
        [helper.make_node("Resize", ["float", "", "", "to"], ["large"])],
        {"to": np.array([1, 60_000, 60_000, 3])},
    ),
    "padding": (
        [
            helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
            helper.make_node(
                "MaxPool", ["chw"], ["pooled"], kernel_shape=[50000, 50000], pads=[49999] * 4
            ),
        ],
        {},
    ),
    "long work": (
        [
            helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
            helper.make_node("Resize", ["chw", "", "", "to"], ["large"]),
            helper.make_node("MaxPool", ["large"], ["pooled"], kernel_shape=[3000, 3000]),
        ],
        {"to": np.array([1, 3, 5000, 5000])},
    ),
}


@pytest.mark.parametrize("name", _BOMBS)
def test_a_small_file_cannot_use_much_memory_or_time(name):
    with pytest.raises(ArtifactError, match=r"more than an export|cannot be run"):
        classifier_from(_file(*_BOMBS[name]), Path("m.onnx"))


def test_a_graph_that_grows_with_the_image_is_refused_at_that_size():
    """Harmless at the file's own image size: the product of rows and columns."""
    nodes = [
        helper.make_node("ReduceMean", ["float", "rows"], ["row"], keepdims=1),
        helper.make_node("ReduceMean", ["float", "columns"], ["column"], keepdims=1),
        helper.make_node("Mul", ["row", "column"], ["product"]),
        helper.make_node("Concat", ["product"] * 9, ["more"], axis=0),
    ]
    content = _file(nodes, {"rows": np.array([1]), "columns": np.array([2])})
    classifier = classifier_from(content, Path("m.onnx"))
    classifier.probabilities(torch.zeros((1, 3, 50, 40), dtype=torch.uint8))
    with pytest.raises(ArtifactError, match="more than an export of that image size"):
        classifier.probabilities(torch.zeros((1, 3, 6000, 6000), dtype=torch.uint8))


def test_sparse_and_missing_weights_are_refused():
    model = small_model()
    sparse = model.graph.sparse_initializer.add(dims=[100_000, 100_000])
    sparse.values.CopyFrom(numpy_helper.from_array(np.zeros(0, np.float32), "sparse"))
    with pytest.raises(ArtifactError, match="it has sparse weights"):
        classifier_from(model.SerializeToString(), Path("m.onnx"))
    model = small_model()
    model.graph.initializer.add(name="empty", data_type=TensorProto.FLOAT, dims=[10**5, 10**5])
    with pytest.raises(ArtifactError, match="weights that are not finite: empty"):
        classifier_from(model.SerializeToString(), Path("m.onnx"))


def test_outputs_that_are_not_probabilities_are_refused():
    model = small_model()
    del model.graph.node[3]
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["probabilities"]))
    classifier = classifier_from(model.SerializeToString(), Path("m.onnx"))
    with pytest.raises(ArtifactError, match=r"m\.onnx returns no probabilities"):
        classifier.probabilities(torch.full((1, 3, 5, 4), 200, dtype=torch.uint8))


def _random_file(seed: int) -> bytes:
    """A graph of a few of our operators, with random attributes and constants."""
    draw = random.Random(seed)
    model = small_model()
    names = ["image", "float", "mean", "weight", "axes"]
    for at in range(draw.randrange(1, 4)):
        value = np.array([draw.choice([-2, -1, 0, 1, 2, 3, 9, 10**6, 2**62]) for _ in range(4)])
        value = draw.choice([value, value.astype(np.float32), value[:2], value[:1].reshape(())])
        model.graph.initializer.append(numpy_helper.from_array(value, f"c{at}"))
        names.append(f"c{at}")
        attributes = {
            name: draw.choice(values)
            for name, values in {
                "axis": [-5, 0, 1, 3], "perm": [[0, 3, 1, 2], [1, 0]], "keepdims": [0, 1],
                "kernel_shape": [[3, 3], [0, 9], [10**6, 1]], "pads": [[0] * 4, [10**6] * 4],
                "to": [1, 2, 7, 99], "mode": ["cubic", "linear"], "p": [1, 2], "group": [0, 3],
                "strides": [[1, 1], [0, 0]], "axes": [[2, 3], [1]], "largest": [0, 1],
            }.items()
            if draw.random() < 0.05
        }  # fmt: skip
        inputs = [draw.choice([*names, ""]) for _ in range(draw.choice([1, 1, 2, 2, 3, 4]))]
        operator = draw.choice(sorted(_OPERATORS))
        model.graph.node.append(helper.make_node(operator, inputs, [f"n{at}"], **attributes))
        names.append(f"n{at}")
    if draw.random() < 0.5:  # the others keep their output
        model.graph.node[3].output[0] = "unused"
        last = helper.make_node("Softmax", [draw.choice(names)], ["probabilities"], axis=1)
        model.graph.node.append(last)
    return model.SerializeToString()


def _try(seeds: range) -> int:
    """Return how many random files were run; all others were refused in a sentence."""
    ran = 0
    for seed in seeds:
        try:
            classifier = classifier_from(_random_file(seed), Path("m.onnx"))
            for shape in ((1, 3, 5, 4), (1, 3, 71, 71)):
                found = classifier.probabilities(torch.full(shape, 9, dtype=torch.uint8))
                assert torch.allclose(found.sum(dim=1), torch.ones(1), atol=1e-3)
            ran += 1
        except XceptionError:
            continue
    return ran


def test_random_graphs_are_run_or_refused_in_a_sentence():
    assert _try(range(1500)) > 3


@pytest.mark.slow  # minutes
def test_many_random_graphs_use_little_memory_and_time():
    script = (
        "import re, sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_sizes import _try\n"
        "ran = _try(range(1500, 12_000))\n"
        # Its own peak: `ru_maxrss` starts with that of the parent process.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())\n"
        "print(ran, int(peak[1]) // 1024)"
    )
    here = Path(__file__).parent
    done = python("-c", script, str(here), str(here.parent), check=True, timeout=1200)
    ran, megabytes = map(int, done.stdout.split())
    assert ran > 30
    assert megabytes < 3000


def test_a_graph_whose_shapes_cannot_be_inferred_is_refused():
    model = small_model()
    model.graph.node.append(helper.make_node("Resize", ["float", "", "", "mean"], ["x"]))
    with pytest.raises(SizesError):
        GraphSizes(model, "image", 71).check(1, 5, 4)
