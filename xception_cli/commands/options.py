"""Options shared by several commands, and the checks of their values."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from xception_cli.classifiers import check_classifier
from xception_cli.commands.complete import choices, run_folders
from xception_cli.config import Device as DeviceName
from xception_cli.config import TrainConfig
from xception_cli.console import fail, listing, say, show
from xception_cli.data.formats import suffixes
from xception_cli.errors import UsageError
from xception_cli.files import is_file
from xception_cli.numerals import count_of
from xception_cli.rundir import RunDir
from xception_cli.runs import find_run, runs_next_to

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


def _max_pixels(more: str) -> Any:
    return typer.Option(
        min=_SETTING["at_least"],
        max=_SETTING["at_most"],
        metavar="N",
        help=f"Largest image to decode, in pixels. Default: {TrainConfig.max_pixels:,}{more}.",
        rich_help_panel=IMAGES,
    )


MaxPixels = Annotated[int | None, _max_pixels(", or as the model was trained if that is more")]
MaxPixelsOfData = Annotated[int | None, _max_pixels("")]  # without a model


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
    """Separate a run folder from the images after it, unless a model is given with an option.

    Args:
        paths: The arguments: images, folders and patterns, perhaps after a run folder.
        run: The value of `--run`.
        model: The value of `--model`.

    Returns:
        The images, and the run.
    """
    if paths and run is None and model is None:
        first = Path(paths[0])
        if is_file(RunDir(first).info) or (len(paths) > 1 and _is_mistyped_run(first)):
            return list(paths[1:]), first
    return list(paths), run


def _is_mistyped_run(path: Path) -> bool:
    """Return whether a path next to runs is neither there nor a pattern or that of an image."""
    is_image = path.suffix.lower() in suffixes() or glob.has_magic(str(path))
    return not is_image and not os.path.lexists(path) and bool(runs_next_to(path))


def allow_pixels(given: int | None) -> None:
    """Set the largest image to decode; a model that is loaded may raise it."""
    from xception_cli.data.opening import turns

    turns.max_pixels = given or TrainConfig.max_pixels


def choose_model(
    run: Path | None, model: Path | None, *, device: str, tta: str | None = None
) -> Path:
    """Return the model file to use: the given one, or that of the given or latest finished run.

    Raises:
        UsageError: Both were given, or there is no finished run; or see `check_classifier`.
        MachineError: See `check_classifier`.
    """
    if run is not None and model is not None:
        raise UsageError(
            f"a run and a model are given: {show(run)} and {show(model)}",
            hint="leave one of --run and --model out",
        )
    chosen = choose_run(run).model if model is None else model
    check_classifier(chosen, device=device, tta=tta)
    return chosen


def choose_run(run: Path | None) -> RunDir:
    """Return the given run, with a note if it is not finished; or the latest finished one.

    Raises:
        UsageError: There is no such run.
    """
    found = find_run(run)
    if run is None:
        say(f"run       {show(found.path)} (the latest)")
    if not found.is_finished:
        say(f"note      {show(found.path)} is {found.state}: its model may still change")
    return found


def require_all_read(
    failed: int, images: int, first: str | None = None, output: Path | None = None
) -> None:
    """Exit with code 3 if images could not be read, after the others are done.

    Args:
        failed: Number of images that could not be read.
        images: Number of all images.
        first: Path of the first one, and the reason.
        output: The file with the column or key `error`; None if the reasons are on the screen.
    """
    if failed:
        sentence = f"{failed:,} of {count_of(images, 'image')} could not be read"
        if output is not None and first is not None:
            kind = "key" if output.suffix.lower() == ".jsonl" else "column"
            rest = f"and {failed - 1:,} more: see the {kind} error in {show(output)}"
            sentence = listing(f"{sentence}:", [show(first), rest][: min(failed, 2)], 2)
        fail(sentence, None)
        raise typer.Exit(3)
