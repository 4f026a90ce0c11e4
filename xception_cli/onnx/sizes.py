"""GraphSizes: memory and operations of an untrusted graph, from shapes, before it is run."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]

_SMALL = 64  # numbers in a tensor that is evaluated: shapes, axes, corners
# For weights, never for shapes; onnx's reference evaluator lacks their versions of our opset.
_NOT_FOLLOWED = frozenset({"QuantizeLinear", "DequantizeLinear"})
_REMEMBERED = 64  # image sizes checked last

# Bytes of all tensors together: weights in two number formats, and Xception at 299 pixels, scaled
# by area at other sizes: 0.3 GB, int8 0.7 GB, both twice with the mirror image.
_BYTES_OF_WEIGHTS, _BYTES = 500_000_000, 1_500_000_000
_BYTES_PER_VALUE = 12  # of the image before it is resized; our graphs take 6
_OPERATIONS = 60e9  # with the mirror image it takes 17e9
_OPERATIONS_PER_VALUE = 2  # of the image, per pixel of a row of the crop; our graphs take 1


class SizesError(ValueError):
    """A graph that is too large, or whose shapes cannot be inferred."""


class GraphSizes:
    """The shapes of a graph, for every size of its input.

    Args:
        model: A graph of our operators only; its initializers may be damaged.
        name: Name of its input.
        side: Image size of the network, in pixels.

    Raises:
        SizesError: An initializer is inconsistent.
    """

    def __init__(self, model: onnx.ModelProto, name: str, side: int) -> None:
        self._nodes = list(model.graph.node)
        self._versions = {entry.domain: entry.version for entry in model.opset_import}
        self._name = name
        self._side, self._area = side, (side / 299) ** 2
        self._types: dict[str, onnx.TypeProto] = {}
        self._values: dict[str, Array] = {}
        self._checked: OrderedDict[tuple[int, ...], None] = OrderedDict()
        for tensor in model.graph.initializer:
            dims = list(tensor.dims)
            self._types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, dims)
            if math.prod(dims) <= _SMALL:
                self._values[tensor.name] = _array(tensor)

    def check(self, batch: int, height: int, width: int) -> None:
        """Check that the graph needs no more than an export would, for images of one size.

        Raises:
            SizesError: It needs more, or its shapes cannot be inferred.
        """
        shape = (batch, height, width, 3)
        if shape in self._checked:
            return
        try:
            taken, operations = self._measure(shape)
        except SizesError:
            raise
        except Exception as error:  # onnx's own checks of invalid graphs
            raise SizesError(str(error)) from error
        most = _BYTES_OF_WEIGHTS + _BYTES * self._area * batch + _BYTES_PER_VALUE * math.prod(shape)
        resizing = _OPERATIONS_PER_VALUE * self._side * math.prod(shape)
        if taken > most or operations > _OPERATIONS * self._area * batch + resizing:
            raise SizesError(
                f"a batch of {batch:,} at {width} x {height} takes {taken / 1e9:.1f} GB and "
                f"{operations:.1e} operations, more than an export of that image size"
            )
        self._checked[shape] = None
        if len(self._checked) > _REMEMBERED:
            self._checked.popitem(last=False)

    def _measure(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Return the bytes of all tensors, and the multiplications."""
        types, values = dict(self._types), dict(self._values)
        types[self._name] = helper.make_tensor_type_proto(onnx.TensorProto.UINT8, shape)
        taken = operations = 0.0
        for node in self._nodes:
            inputs = [name for name in node.input if name]
            if any(name not in types for name in inputs):
                raise SizesError(f"{node.op_type} has an input that no earlier operator provides")
            is_known = bool(inputs) and all(name in values for name in inputs)
            if node.op_type == "Range":  # never evaluated: a few bytes could mean any number
                made = {node.output[0]: _type_of_range(node, values)}
            elif is_known and node.op_type not in _NOT_FOLLOWED:
                found = _evaluate(node, values, self._versions)
                values |= {n: a for n, a in found.items() if a.size <= _SMALL}
                made = {name: _type_of(array) for name, array in found.items()}
            else:
                made = self._infer(node, inputs, types, values)
                if node.op_type == "Shape":
                    values[node.output[0]] = _shape_of(node, _dims(types[inputs[0]]))
            for kind in made.values():
                taken += math.prod(_dims(kind)) * _itemsize(kind)
            types |= made
            operations += _operations(node, types)
        return taken, operations

    def _infer(
        self,
        node: onnx.NodeProto,
        inputs: list[str],
        types: Mapping[str, onnx.TypeProto],
        values: Mapping[str, Array],
    ) -> dict[str, onnx.TypeProto]:
        version = self._versions.get(node.domain, 1)
        known = {n: numpy_helper.from_array(values[n], n) for n in inputs if n in values}
        return shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, version, node.domain),
            node,
            {name: types[name] for name in inputs},
            known,
            opset_imports=[helper.make_opsetid(d, v) for d, v in self._versions.items()],
        )


def _array(tensor: onnx.TensorProto) -> Array:
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # numpy's, if the bytes do not match the dimensions
        raise SizesError(f"{tensor.name} does not match its dimensions") from error


def _evaluate(
    node: onnx.NodeProto, values: Mapping[str, Array], versions: Mapping[str, int]
) -> dict[str, Array]:
    inputs = [name for name in dict.fromkeys(node.input) if name]
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_value_info(name, _type_of(values[name])) for name in inputs],
        [helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=imports))
    with np.errstate(all="ignore"):
        found = evaluator.run(None, {name: values[name] for name in inputs})
    return dict(zip([n for n in node.output if n], map(np.asarray, found), strict=True))


def _type_of(array: Array) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _type_of_range(node: onnx.NodeProto, values: Mapping[str, Array]) -> onnx.TypeProto:
    if any(name not in values or values[name].size != 1 for name in node.input):
        raise SizesError("the length of a range cannot be inferred")
    start, limit, step = (values[name] for name in node.input)
    length = max(0, math.ceil((limit.item() - start.item()) / step.item()))
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(start.dtype), [length])


def _dims(kind: onnx.TypeProto) -> list[int]:
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        raise SizesError("the shape of a tensor cannot be inferred")
    return [dim.dim_value for dim in tensor.shape.dim]


def _itemsize(kind: onnx.TypeProto) -> int:
    return helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type).itemsize


def _shape_of(node: onnx.NodeProto, dims: list[int]) -> Array:
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(dims[bounds.get("start", 0) : bounds.get("end", len(dims))], np.int64)


def _operations(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> float:
    """Return the multiplications, or comparisons, of an operator with many inputs per output."""
    outputs = float(math.prod(_dims(types[node.output[0]])))
    if node.op_type == "Conv":
        return outputs * math.prod(_dims(types[node.input[1]])[1:])
    if node.op_type in {"Gemm", "MatMul"}:
        return outputs * max(_dims(types[node.input[0]]), default=1)
    if node.op_type == "MaxPool":
        (kernel,) = (list(a.ints) for a in node.attribute if a.name == "kernel_shape")
        return float(outputs * math.prod(kernel))
    return outputs
