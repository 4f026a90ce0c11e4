"""GraphWriter: the nodes and constants of an ONNX graph that is being written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class GraphWriter:
    """The nodes and constants of a graph that is being written.

    A node's output has the node's name, so that every edge shows its origin.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        """Add a constant and return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def integers(self, name: str, *values: int) -> str:
        """Add a vector of int64, such as a shape."""
        return self.constant(name, np.array(values, np.int64))

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        *,
        output: str | None = None,
        second: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node and return the name of its output: its own name by default."""
        made = output or name
        outputs = [made] if second is None else [made, second]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return made
