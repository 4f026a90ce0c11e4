"""OpenVINO: a second runtime for the gate, if it is installed; and exports in its own format."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from xception_cli.console import show
from xception_cli.errors import MachineError
from xception_cli.model.seal import DIGEST
from xception_cli.onnx.classifier import OnnxClassifier

Array = NDArray[Any]


class _Session:
    """A compiled model, with the interface of onnxruntime's session."""

    def __init__(self, core: Any, model: Any) -> None:
        # Otherwise it computes in bf16 on processors that support it; the gate compares fp32.
        precision = {"INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(model, "CPU", precision)

    def run(self, names: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        found = self._compiled(dict(inputs))
        return [np.array(found[name]) for name in names]


def in_openvino(exported: OnnxClassifier, content: bytes) -> OnnxClassifier | None:
    """Return a file that runs in OpenVINO; None if OpenVINO is not installed."""
    try:
        core = _core()
    except ImportError:
        return None
    return replace(exported, session=_Session(core, core.read_model(content)))


def convert(
    exported: OnnxClassifier, content: bytes, output: Path
) -> tuple[OnnxClassifier, dict[Path, bytes]]:
    """Convert a file to OpenVINO's format in float32, with its metadata.

    Returns:
        The new file, as read and run by OpenVINO, and its bytes by path: the weights, then the
        graph.

    Raises:
        MachineError: The disk has no space for temporary files.
    """
    core = _core()
    model = core.read_model(content)
    for entry in onnx.load_from_string(content).metadata_props:
        if entry.key != DIGEST:  # of the ONNX file
            model.set_rt_info(entry.value, ["xception", entry.key])
    weights = output.with_suffix(".bin")
    try:
        with TemporaryDirectory() as folder:
            graph = Path(folder, output.name)
            _import().save_model(model, graph, compress_to_fp16=False)
            files = {path: Path(folder, path.name).read_bytes() for path in (weights, output)}
            session = _Session(core, core.read_model(graph))
    except (OSError, RuntimeError) as error:
        raise MachineError(
            f"OpenVINO cannot convert the model: {show(error)}",
            hint="free disk space in the temporary folder, or set TMPDIR to another one",
        ) from error
    return replace(exported, session=session), files


@cache
def _core() -> Any:
    """Return the only core of this process.

    OpenVINO (2026.4) gives the process a signal stack for as long as a core exists. When of two
    cores the first ends first, the stack that is left is unmapped, and the next signal, such as
    Ctrl-C, is a segmentation fault.
    """
    return _import().Core()


def _import() -> Any:
    # Otherwise it stores an ID of this machine in the user's home, and sends it to its maker.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
