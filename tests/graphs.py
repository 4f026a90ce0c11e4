"""Small ONNX files that are accepted as exports."""

import json

import numpy as np
import onnx
from networks import about
from onnx import TensorProto, helper, numpy_helper


def small_model(**changed: object) -> onnx.ModelProto:
    """Create a valid file of two classes, by mean colour; with some of its metadata changed."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weight = np.array([[1, 0], [0, 1], [0, 0]], np.float32) / 100
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([1, 2]), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    entries = about(**({"input": "whole"} | changed))
    helper.set_model_props(model, {name: json.dumps(value) for name, value in entries.items()})
    return model
