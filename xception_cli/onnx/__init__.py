"""ONNX: a model as one file that holds everything, kept only if it answers the same."""

from xception_cli.errors import MachineError


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
