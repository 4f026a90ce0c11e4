"""Opening a model file of either kind: our own, or an exported one."""

from pathlib import Path

from xception_cli.errors import MachineError, UsageError
from xception_cli.model.bundle import Classifier, load_model
from xception_cli.runtime import Runtime


def device_for(path: Path | None, asked: str) -> str:
    """Return the device to decide on: an exported file runs on the CPU, if there is a choice.

    Args:
        path: The model file; None for a run's own.
        asked: What `--device` says.
    """
    exported = path is not None and path.suffix.lower() == ".onnx"
    return "cpu" if exported and asked == "auto" else asked


def open_classifier(path: Path, runtime: Runtime) -> Classifier:
    """Open `model.safetensors` of a run, or an `.onnx` file of `xception export`.

    Args:
        path: The file.
        runtime: Where to compute; an ONNX file runs on the CPU, in onnxruntime.

    Raises:
        UsageError: There is no such file, or it cannot be computed there.
        ArtifactError: It is refused.
        MachineError: The packages that ONNX needs are not installed.
    """
    if path.suffix.lower() != ".onnx":
        return load_model(path, runtime)
    if runtime.device.type != "cpu":
        raise UsageError(
            f"an ONNX file runs on the CPU here, not on {runtime.device}", hint="--device cpu"
        )
    require_onnx()
    from xception_cli.onnx.file import load_onnx

    return load_onnx(path)


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
