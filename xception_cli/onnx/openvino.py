"""An exported file in OpenVINO: a second runtime for the gate, where it is installed."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.onnx.file import OnnxClassifier

Array = NDArray[Any]


class _Session:
    """A compiled model, called as onnxruntime's session is.

    Args:
        content: Of an ONNX file that has been checked.
    """

    def __init__(self, content: bytes) -> None:
        # Else it keeps a number of this machine in the user's home, to send it to its maker.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        core = openvino.Core()
        # Else it computes in bf16 on processors that can, which is not what the gate compares.
        precision = {"INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(core.read_model(content), "CPU", precision)

    def run(self, names: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        found = self._compiled(dict(inputs))
        return [np.array(found[name]) for name in names]


def in_openvino(exported: OnnxClassifier, content: bytes) -> OnnxClassifier | None:
    """Return a file that runs in OpenVINO, or None where that is not installed.

    Args:
        exported: The file.
        content: Its bytes.
    """
    try:
        return replace(exported, session=_Session(content))
    except ImportError:
        return None
