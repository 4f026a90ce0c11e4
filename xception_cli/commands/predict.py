"""predict and export: a model at work, here and elsewhere."""

import glob
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from xception_cli.api import open_classifier
from xception_cli.commands.options import MaxPixels, allow_pixels
from xception_cli.console import emit, fail, quoted, say, screen, show
from xception_cli.data.folder import describe_ignored, images_below
from xception_cli.data.formats import INSTALL_HEIF, suffixes
from xception_cli.data.listing import is_image, suffix_of
from xception_cli.errors import UsageError
from xception_cli.files import file_digest
from xception_cli.onnx import require_onnx
from xception_cli.runs import find_run


def predict(
    paths: Annotated[
        list[str], typer.Argument(metavar="IMAGE|DIR|GLOB...", help="Photos to name.")
    ],
    run: Annotated[Path | None, typer.Option(help="Run folder (default: the latest).")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model or .onnx file, instead of a run.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print for each photo.")] = 5,
    output: Annotated[
        Path | None, typer.Option(help="Write to this .csv or .jsonl file instead.")
    ] = None,
    unknown: Annotated[
        str,
        typer.Option(
            metavar="off|auto|P",
            help="Say `unknown`: auto by the model's own thresholds, P below this probability.",
        ),
    ] = "off",
    explain: Annotated[
        Path | None,
        typer.Option(help="Draw what the answer rests on over each photo, into this folder."),
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(metavar="mirror|none", help="Instead of what training decided; see train."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode.")] = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Name what is on photos."""
    if run is not None and model is not None:
        raise UsageError("--run and --model exclude each other")
    if model is None:
        found = find_run(run)
        chosen = found.model
        allow_pixels(max_pixels, found)
    else:
        chosen = model
        allow_pixels(max_pixels)

    from xception_cli.data.dataset import default_workers
    from xception_cli.inference import decide_unknown, predict_images
    from xception_cli.model.bundle import ModelBundle
    from xception_cli.model.unknown import Thresholds
    from xception_cli.predictions import open_predictions

    images = find_images(paths)
    if explain is not None:
        from xception_cli.report.pictures import check_folder, name_explanations, write_explanation
    if run is None and model is None:
        say(f"run       {show(chosen.parent)} (the latest)")
    with ExitStack() as held:
        file = bar = None
        if output is not None:
            if not chosen.is_file():
                raise UsageError(f"there is no model file {show(chosen)}")
            options = (file_digest(chosen), top, unknown, explain, tta, device)
            file = held.enter_context(open_predictions(output, images, options))
        bundle = open_classifier(chosen, device=device, tta=tta)
        rule = decide_unknown(bundle, unknown)
        if isinstance(rule, Thresholds) and rule.confidence is None:
            say("note      this model has no confidence threshold: only images unlike the training")
            say("          images are refused")
        explained = bundle if isinstance(bundle, ModelBundle) else None
        if explain is not None and explained is None:
            raise UsageError(
                f"{show(chosen)} cannot be explained: an exported file gives no activations",
                hint="--explain with --run RUN, or with the model.safetensors that it was made "
                "from",
            )
        done = failed = 0
        if file is not None:
            file.begin(min(top, len(bundle.classes)), with_unknown=rule is not None)
            done, failed = file.done, file.failed
            if done:
                say(f"resuming  after {done} of {len(images)} images ({show(file.path)})")
            bar = held.enter_context(screen.bar("predicting", len(images)))
            bar.restart("predicting", done)
        if explain is not None:
            if not done:
                check_folder(explain)
            targets = [explain / name for name in name_explanations(images)]
        count = default_workers(bundle.runtime) if workers is None else workers
        left = images[done:]
        predictions = predict_images(bundle, left, top=top, unknown=rule, workers=count)
        for at, prediction in enumerate(predictions, start=done):
            failed += prediction.error is not None
            if explain is not None and explained is not None and prediction.error is None:
                label = bundle.classes.index(prediction.classes[0])
                write_explanation(explained, images[at], label, targets[at])
            if file is None or bar is None:
                emit(json.dumps(prediction.to_dict()) if as_json else _prediction_line(prediction))
            else:
                file.add(prediction)
                bar.advance(1)
    if output is not None:
        say(f"written   {show(output)}: {len(images)} images")
    if explain is not None:
        say(f"explained {show(explain)}: brighter is what the first class rests on")
    if failed:
        fail(f"{failed} of {len(images)} images could not be read", None)
        raise typer.Exit(3)


def _prediction_line(prediction: Any) -> str:
    path = show(prediction.path)
    if prediction.error is not None:
        return f"{path}: error: {show(prediction.error)}"
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    named = ", ".join(f"{show(name)} {value:.1%}" for name, value in pairs)
    if prediction.unknown is not None:
        return f"{path}: unknown ({prediction.unknown}); nearest: {named}"
    return f"{path}: {named}"


def export(
    output: Annotated[Path, typer.Option(help="A new .onnx file.")],
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: the latest).")] = None,
    wanted: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="whole|cropped",
            help="Pictures of any size, or resized and cut already.",
        ),
    ] = "whole",
    quantize: Annotated[
        str,
        typer.Option(
            metavar="none|int8", help="8-bit integers: a smaller, faster, less exact file."
        ),
    ] = "none",
    share_features: Annotated[
        bool,
        typer.Option(
            "--share-features/--no-share-features",
            help="Keep features of up to 500 training images in the file, for `--unknown auto`.",
        ),
    ] = True,
) -> None:
    """Write a model as one ONNX file that holds everything, and print a program that uses it."""
    if wanted not in {"whole", "cropped"}:
        raise UsageError(f"input is {show(wanted)}, expected whole or cropped")
    if quantize not in {"none", "int8"}:
        raise UsageError(f"quantize is {show(quantize)}, expected none or int8")
    chosen = find_run(run)

    require_onnx()

    from xception_cli.onnx.run import check_export_output, export_run

    check_export_output(output)
    if run is None:
        say(f"run       {show(chosen.path)} (the latest)")
    result = export_run(
        chosen,
        output,
        cropped=wanted == "cropped",
        quantized=quantize == "int8",
        share_features=share_features,
    )
    say(f"written   {show(output)}: {output.stat().st_size / 1e6:.1f} MB")
    say(f"files     {show(result.report)}")
    emit(result.snippet.rstrip())
    say(f"next: xception predict PHOTO.jpg --model {quoted(output)}")


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Find the images that are meant.

    A folder stands for the images below it, sorted; a pattern (`*`, `?`, `[..]`, `**`) for what
    it matches, sorted, unless a file or folder has that very name. In both, hidden files and files
    of other kinds are skipped. A file that is named is kept whatever it is, and if it is missing,
    so that its row can say why.

    Args:
        inputs: Files, folders and patterns.

    Returns:
        Paths, in the order of the inputs.

    Raises:
        UsageError: A folder or pattern holds no image; names it.
        DataError: A folder cannot be read.
    """
    found: list[Path] = []
    ignored: Counter[str] = Counter()
    for given in inputs:
        if given and not os.path.lexists(given) and glob.has_magic(given):
            images = _matching(given, ignored)
        elif given and not os.path.isdir(given):  # noqa: PTH112 - Path's raises on odd names
            images = [Path(given)]
        else:
            images = images_below(Path(given), ignored) if given else []
        if not images:
            heif = "" if ".heic" in suffixes() else f"; for HEIC: {INSTALL_HEIF}"
            raise UsageError(
                f"no image matches {show(repr(given))}",
                hint="give image files, folders or patterns; images end in "
                f"{', '.join(sorted(suffixes()))}{heif}",
            )
        found += images
    if ignored:
        say(f"note      {describe_ignored(ignored)}")
    return found


def _matching(pattern: str, ignored: Counter[str]) -> list[Path]:
    # `**` matches a folder and what is in it: each file counts once.
    images: dict[Path, None] = {}
    folders: set[Path] = set()
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (relative or absolute)
        path = Path(match)
        is_counted = not folders.isdisjoint(path.parents)
        if path.is_dir():
            folders.add(path)
            images |= dict.fromkeys(images_below(path, None if is_counted else ignored))
        elif is_image(match):
            images[path] = None
        elif not is_counted:
            ignored[suffix_of(match)] += 1
    return sorted(images)
