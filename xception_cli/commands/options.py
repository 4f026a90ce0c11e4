"""Options that several commands share, and what they stand for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xception_cli.commands.complete import choices, run_folders
from xception_cli.config import Device as DeviceName
from xception_cli.config import TrainConfig
from xception_cli.console import fail, say, show
from xception_cli.errors import UsageError
from xception_cli.rundir import RunDir
from xception_cli.runs import find_run
from xception_cli.settings import read_settings

# Panels of the help
IMAGES, MODEL, OUTPUT, MACHINE = "Images", "Model", "Output", "Machine"

Listed = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE|-",
        help="Read image paths from a list, one per line; - is stdin.",
        rich_help_panel=IMAGES,
    ),
]
ListRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that the paths in a table or list are relative to.",
        rich_help_panel=IMAGES,
    ),
]
TableRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that the paths in a table are relative to.",
        rich_help_panel=IMAGES,
    ),
]
Run = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        help="Run folder. Default: the latest finished run.",
        autocompletion=run_folders,
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN",
        help="Run folder, the same as RUN before the images. Default: the latest finished run.",
        autocompletion=run_folders,
        rich_help_panel=MODEL,
    ),
]
# Where RUN is an argument, --run means the same: one habit for all commands.
HiddenRun = Annotated[Path | None, typer.Option("--run", metavar="RUN", hidden=True)]
ModelFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Model file (.safetensors or .onnx) to use instead of a run.",
        rich_help_panel=MODEL,
    ),
]
Tta = Annotated[
    str | None,
    typer.Option(
        metavar="mirror|none",
        help="Test-time augmentation: average the answers for the image and its mirror image, or "
        "not. Default: as decided in training.",
        autocompletion=choices(("mirror", "none")),
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|mps",
        help="Device to compute on; auto takes a GPU if there is one.",
        autocompletion=choices(DeviceName),
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Image-loading processes; results do not depend on it. Default: by machine.",
        rich_help_panel=MACHINE,
    ),
]

_SETTING = TrainConfig.__dataclass_fields__["max_pixels"].metadata

MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=_SETTING["at_least"],
        max=_SETTING["at_most"],
        metavar="N",
        help="Largest image to decode, in pixels. Default: "
        f"{TrainConfig.max_pixels:,}, or as the run was trained.",
        rich_help_panel=IMAGES,
    ),
]


Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one line of JSON; docs/json.md lists its keys.",
        rich_help_panel=OUTPUT,
    ),
]
JsonLines = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one line of JSON for each; docs/json.md lists its keys.",
        rich_help_panel=OUTPUT,
    ),
]


def one_run(run: Path | None, same: Path | None) -> Path | None:
    """Return the run that was given as RUN or with --run.

    Raises:
        UsageError: Both were given.
    """
    if run is not None and same is not None:
        raise UsageError(
            f"two runs are given: {show(run)} and {show(same)}", hint="leave --run out"
        )
    return same if run is None else run


def separate_run(
    paths: Sequence[str], run: Path | None, model: Path | None
) -> tuple[list[str], Path | None]:
    """Take a run that stands before the images out of them, unless a model is given otherwise.

    Args:
        paths: As given: images, folders, patterns, perhaps after a run folder.
        run: With `--run`.
        model: With `--model`.

    Returns:
        The images, and the run.
    """
    if paths and run is None and model is None and RunDir(Path(paths[0])).info.is_file():
        return list(paths[1:]), Path(paths[0])
    return list(paths), run


def allow_pixels(given: int | None, run: RunDir | None = None) -> None:
    """Set the largest image that is decoded.

    Args:
        given: With the option.
        run: Whose setting holds without it.

    Raises:
        ArtifactError: The run's settings are damaged.
    """
    from xception_cli.data.pixels import turns

    if given is None and run is not None:
        given = read_settings(run).get("max_pixels")
    turns.max_pixels = given or TrainConfig.max_pixels


def choose_model(run: Path | None, model: Path | None, max_pixels: int | None) -> Path:
    """Return the model that images are shown to, and allow images as large as it was trained on.

    Args:
        run: With `--run`; without it and `model`, the latest.
        model: With `--model`.
        max_pixels: With `--max-pixels`.

    Raises:
        UsageError: Both were given, or there is no finished run.
        ArtifactError: The run's settings are damaged.
    """
    if run is not None and model is not None:
        raise UsageError(
            f"a run and a model are given: {show(run)} and {show(model)}",
            hint="leave one of --run and --model out",
        )
    if model is not None:
        allow_pixels(max_pixels)
        return model
    found = find_run(run)
    allow_pixels(max_pixels, found)
    if run is None:
        say(f"run       {show(found.path)} (the latest)")
    return found.model


def require_all_read(failed: int, images: int) -> None:
    """End the command with exit code 3 if images could not be read; the others are done.

    Args:
        failed: How many.
        images: Of so many.
    """
    if failed:
        fail(f"{failed} of {images} images could not be read", None)
        raise typer.Exit(3)
