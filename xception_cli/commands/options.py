"""Options that several commands share, and what they stand for."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from xception_cli.config import TrainConfig
from xception_cli.console import fail, say, show
from xception_cli.errors import UsageError
from xception_cli.notation import check_tta
from xception_cli.onnx import require_onnx
from xception_cli.runs import find_run

Listed = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="FILE|-", help="Read the paths from a list, one per line; - is stdin."
    ),
]
ListRoot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder that a table's or a list's paths are relative to."),
]
TableRoot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder that a table's paths are relative to."),
]
RunFolder = Annotated[Path | None, typer.Option(help="Run folder (default: the latest).")]
ModelFile = Annotated[Path | None, typer.Option(help="Model or .onnx file, instead of a run.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that decode.")]

_SETTING = TrainConfig.__dataclass_fields__["max_pixels"].metadata

MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=_SETTING["at_least"],
        max=_SETTING["at_most"],
        help="Largest image to decode, in pixels (default: "
        f"{TrainConfig.max_pixels:,}, or what the model was trained with if that is more).",
        show_default=False,
    ),
]


def allow_pixels(given: int | None) -> None:
    """Set the largest image that is decoded; a model that is loaded may raise it.

    Args:
        given: With the option.
    """
    from xception_cli.data.pixels import turns

    turns.max_pixels = given or TrainConfig.max_pixels


def choose_model(run: Path | None, model: Path | None, max_pixels: int | None) -> Path:
    """Return the model that images are shown to, and set how large they may be.

    Args:
        run: With `--run`; without it and `model`, the latest.
        model: With `--model`.
        max_pixels: With `--max-pixels`.

    Raises:
        UsageError: Both were given, or there is no finished run.
    """
    if run is not None and model is not None:
        raise UsageError("--run and --model exclude each other")
    allow_pixels(max_pixels)
    if model is not None:
        return model
    found = find_run(run)
    if run is None:
        say(f"run       {show(found.path)} (the latest)")
    return found.model


def check_classifier(path: Path, *, device: str, tta: str | None = None) -> None:
    """Refuse what `api.open_classifier` would refuse, as far as that is known without torch.

    Args:
        path: The model file.
        device: With `--device`.
        tta: With `--tta`.

    Raises:
        UsageError: One of them is impossible.
        MachineError: onnxruntime is missing.
    """
    TrainConfig(device=cast("Any", device))  # raises an error if there is no such device
    check_tta(tta)
    is_exported = path.suffix.lower() == ".onnx"
    if not path.is_file():
        command = "xception export" if is_exported else "xception train"
        raise UsageError(f"there is no model file {show(path)}", hint=f"{command} makes one")
    if is_exported:
        require_onnx()


def require_all_read(failed: int, images: int) -> None:
    """End the command with exit code 3 if images could not be read; the others are done.

    Args:
        failed: How many.
        images: Of so many.
    """
    if failed:
        fail(f"{failed} of {images} images could not be read", None)
        raise typer.Exit(3)
