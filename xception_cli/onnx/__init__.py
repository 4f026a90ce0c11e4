"""ONNX: a model as one file that holds everything, kept only if it answers the same."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xception_cli.errors import ArtifactError, MachineError
from xception_cli.files import check_new_file
from xception_cli.rundir import read_json

REPORT = "export_report.json"
ONNX, OPENVINO = "onnx", "openvino"  # formats of an export

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


def check_export_output(output: Path, form: str) -> None:
    """Check that an export can be written, before anything is computed.

    Args:
        output: The new file; with an `.xml`, a `.bin` file is written, too.
        form: `onnx` or `openvino`.

    Raises:
        UsageError: The file exists, its folder does not, or its suffix is wrong.
        ArtifactError: The report in its folder is damaged.
    """
    check_new_file(output, (".xml" if form == OPENVINO else ".onnx",), "export to")
    if form == OPENVINO:
        check_new_file(output.with_suffix(".bin"), (".bin",), "export to")
    read_reports(output.with_name(REPORT))


def read_reports(path: Path) -> dict[str, Any]:
    """Read the entries of all exported files in a folder, by name.

    Raises:
        ArtifactError: The report is damaged.
    """
    if not os.path.lexists(path):
        return {}
    try:
        return read_json(path)
    except ArtifactError as error:
        raise ArtifactError(error.message, hint="remove it, or choose another --output") from error
