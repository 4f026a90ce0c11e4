"""Classifiers: a model file, of a run or exported, checked and opened. No torch at import."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xception_cli.config import TrainConfig
from xception_cli.console import quoted, show
from xception_cli.errors import UsageError
from xception_cli.files import is_file
from xception_cli.onnx import require_onnx
from xception_cli.rundir import RunDir
from xception_cli.suggestions import expect_choice
from xception_cli.values import checked

if TYPE_CHECKING:
    from xception_cli.model.bundle import Classifier
    from xception_cli.runtime import Runtime


def is_exported(path: Path) -> bool:
    """Return whether a model file is one of `xception export`."""
    return path.suffix.lower() == ".onnx"


def check_classifier(path: Path, *, device: str, tta: str | None = None) -> None:
    """Check what `open_classifier` checks, as far as possible without torch.

    Args:
        path: The model file.
        device: The value of `--device`.
        tta: The value of `--tta`.

    Raises:
        UsageError: One of them is invalid.
        MachineError: onnxruntime is missing.
    """
    TrainConfig(device=cast("Any", device))  # raises an error if there is no such device
    if tta is not None:
        expect_choice("tta", tta, ("mirror", "none"))
    if path.is_dir():
        hint = "give a model file (.safetensors or .onnx), or leave --model out for the latest run"
        if (inside := RunDir(path).model).is_file():
            hint = f"the model in it is --model {quoted(inside)}"
        raise UsageError(f"--model is {show(path)}, a folder, expected a file", hint=hint)
    if not is_file(path):
        command = "xception export" if is_exported(path) else "xception train"
        raise UsageError(f"there is no model file {show(path)}", hint=f"{command} makes one")
    if is_exported(path):
        require_onnx()


def open_classifier(path: Path, *, device: str, tta: str | None = None) -> "Classifier":
    """Open `model.safetensors` of a run, or an `.onnx` file of `xception export`.

    Args:
        path: The file.
        device: `auto`, `cpu`, `cuda` or `mps`; for an ONNX file, the CPU.
        tta: `mirror` or `none`; None: as decided in training.

    Raises:
        UsageError: It cannot run on that device, or with that augmentation.
        ArtifactError: The file is damaged, or not a model of xception.
        MachineError: The device or the `onnx` extra is missing.
    """
    from xception_cli.runtime import decide_runtime

    runtime = decide_runtime(device="cpu" if is_exported(path) and device == "auto" else device)
    if not is_exported(path):
        from xception_cli.model.bundle import load_model

        return load_model(path, runtime).with_tta(tta)
    if tta is not None:
        what = "the test-time augmentation of an ONNX file is fixed"
        raise UsageError(what, hint="leave --tta out, or give the run")
    if runtime.device.type != "cpu":
        what = f"an ONNX file runs on the CPU here, not on {runtime.device}"
        raise UsageError(what, hint="--device cpu")
    require_onnx()
    from xception_cli.onnx.file import load_onnx

    return load_onnx(path)


def decide_workers(workers: int | None, runtime: "Runtime") -> int:
    """Return the number of image-loading processes: as given, or by machine."""
    from xception_cli.data.workers import default_workers

    if workers is None:
        return default_workers(runtime)
    return int(checked("workers", workers, int, 0, None))
