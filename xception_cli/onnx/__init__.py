"""ONNX: a model as one file that holds everything, kept only if it answers the same."""

import os
from importlib.util import find_spec

from xception_cli.errors import MachineError

# Before it is imported: else onnxruntime (1.32) keeps a number of this machine and a log in the
# user's home, to be sent to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def require_onnx() -> None:
    """See that the packages of the extra `onnx` are installed, before what needs them is imported.

    Raises:
        MachineError: One is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MachineError(
            f"ONNX files need a package that is not installed: {error.name}",
            hint="pip install 'xception-cli[onnx]'",
        ) from error


def require_openvino() -> None:
    """See that OpenVINO is installed, before anything is computed.

    Raises:
        MachineError: It is not.
    """
    if find_spec("openvino") is None:
        raise MachineError(
            "--format openvino needs a package that is not installed: openvino",
            hint="pip install 'xception-cli[openvino]'",
        )
