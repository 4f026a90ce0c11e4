"""predict and export: use a model here, or elsewhere."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from xception_cli.api import decide_workers, open_classifier
from xception_cli.commands.complete import choices, run_folders
from xception_cli.commands.options import (
    MODEL,
    OUTPUT,
    Device,
    HiddenRun,
    JsonLines,
    Listed,
    ListRoot,
    MaxPixels,
    ModelFile,
    Run,
    RunFolder,
    Tta,
    Workers,
    allow_pixels,
    check_classifier,
    choose_model,
    one_run,
    require_all_read,
    separate_run,
)
from xception_cli.console import emit, quoted, say, screen, show
from xception_cli.errors import MachineError, UsageError
from xception_cli.files import check_new_file, file_digest
from xception_cli.imports import importing
from xception_cli.notation import ALL, parse_top, parse_unknown
from xception_cli.numerals import count_of
from xception_cli.onnx import check_export_output, require_onnx, require_openvino
from xception_cli.runs import find_run
from xception_cli.suggestions import expect_choice

if TYPE_CHECKING:
    from xception_cli.heatmaps import HeatMaps
    from xception_cli.model.bundle import ModelBundle
    from xception_cli.predictions import Tally
    from xception_cli.sorting import SortedFolder


def predict(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] IMAGE|DIR|GLOB|TABLE...",
            help="Images to classify, or a table of them (.csv, .tsv or .parquet), after an "
            "optional run folder. Default: the latest finished run.",
            autocompletion=run_folders,
        ),
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Classes to print for each image. Default: 5; 1 for folders, patterns and lists. "
            "all: every class; in a .csv file, one column for each.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to this new .csv or .jsonl file instead of stdout. After an interruption, "
            "the same command resumes.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: JsonLines = False,
    sort_into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Sort the images into a folder per class, as hard links or copies.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a heat map (class activation map) for each image into this folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    unknown: Annotated[
        str,
        typer.Option(
            metavar="off|auto|P",
            help="Answer `unknown` if the model is not confident enough: auto uses its own "
            "thresholds, P is the minimum probability of an answer.",
            autocompletion=choices(("off", "auto")),
            rich_help_panel=MODEL,
        ),
    ] = "off",
    tta: Tta = None,
    run: RunFolder = None,
    model: ModelFile = None,
    listed: Listed = None,
    root: ListRoot = None,
    max_pixels: MaxPixels = None,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Classify images.

    Prints each image's classes with their probabilities, the most probable first.
    """
    wanted = None if top is None else parse_top(top)
    parse_unknown(unknown)
    paths, run = separate_run(paths or [], run, model)
    chosen = choose_model(run, model)
    # Before torch is loaded, so that a mistyped option is reported at once.
    check_classifier(chosen, device=device, tta=tta)

    from xception_cli.commands.inputs import read_inputs
    from xception_cli.heatmaps import HeatMaps
    from xception_cli.predictions import Tally, open_predictions
    from xception_cli.sorting import SortedFolder, check_sorted

    if output is not None:
        _check_output(output)
    inputs = read_inputs(paths, listed, root)
    images, tally = inputs.images, Tally(inputs.labels)
    most = wanted or (5 if inputs.are_named else 1)
    if sort_into is not None:
        check_sorted(sort_into, paths)
    heat_maps = None if explain is None else HeatMaps(explain, list(images), chosen)
    if heat_maps is not None:
        heat_maps.check()
    with ExitStack() as held:
        file = bar = None
        if output is not None:
            given = (most, unknown, explain, tta, device, sort_into, max_pixels)
            options = (file_digest(chosen), *given)
            file = held.enter_context(open_predictions(output, images, options, tally))

        with importing():
            from xception_cli.answers import decide_unknown
            from xception_cli.inference import predict_images
            from xception_cli.model.unknown import Thresholds

        allow_pixels(max_pixels)
        bundle = open_classifier(chosen, device=device, tta=tta)
        rule = decide_unknown(bundle, unknown)
        if isinstance(rule, Thresholds) and rule.confidence is None:
            say(
                "note      this model has no confidence threshold: only images unlike the training "
                "images are answered with unknown"
            )
        if file is not None:
            every = bundle.classes if most == ALL else ()
            file.begin(min(most, len(bundle.classes)), every, with_unknown=rule is not None)
            if file.done:
                whole = count_of(len(images), "image")
                say(f"resuming  after {file.done:,} of {whole} ({show(file.path)})")
            bar = held.enter_context(screen.bar("predicting", len(images)))
            bar.restart("predicting", file.done)
        sorted_folder = None if sort_into is None else SortedFolder(sort_into, bundle.classes)
        count = decide_workers(workers, bundle.runtime)
        left = partial(islice, images, tally.done, None)
        predictions = predict_images(bundle, left(), top=most, unknown=rule, workers=count)
        for image, prediction in zip(left(), predictions, strict=True):
            answer = prediction.answer
            if inputs.labels:
                prediction = replace(prediction, label=inputs.labels[tally.done])
            if answer is not None and sorted_folder is not None:
                sorted_folder.add(image, None if prediction.unknown else prediction.classes[0])
            if answer is not None and heat_maps is not None:
                heat_maps.add(cast("ModelBundle", bundle), prediction, tally.done)
            if file is None or bar is None:
                line = _json_line(prediction) if as_json else _prediction_line(prediction)
                emit(line, wrap=not as_json)
                tally.add(answer, unlike=prediction.unlike)
            else:
                file.add(prediction)
                bar.advance(1)
    for line in _results(tally, output, sorted_folder, heat_maps):
        say(line)
    if not isinstance(rule, Thresholds) and (note := tally.unlike_line()):
        say(f"note      {note}")
    require_all_read(tally.failed, len(images), tally.first_failure, output)
    of_run = "" if model is not None else f"{quoted(chosen.parent)} "
    of_model = "" if model is None else f" --model {quoted(model)}"
    again = f"xception predict {of_run}{inputs.typed}{of_model}"
    if sort_into is not None:
        say(f"next: correct the folders by hand, then: xception check {quoted(sort_into)}")
    elif inputs.are_named and heat_maps is not None:
        say(f"next: xception predict {of_run}DIR{of_model} --output predictions.csv")
    elif output is not None or inputs.are_named:
        say(f"next: {again} {'--explain heatmaps' if inputs.are_named else '--sort-into sorted'}")
    else:
        say(f"next: {again} --output predictions.csv")


def _check_output(path: Path) -> None:
    """Check the suffix and the folder of a new file before the model is hashed."""
    from xception_cli.predictions import SUFFIXES

    if path.suffix.lower() not in SUFFIXES or not path.parent.is_dir():
        check_new_file(path, SUFFIXES, "write predictions to")
    if not os.access(path.parent, os.W_OK):
        raise MachineError(
            f"cannot write {show(path)}: {show(path.parent)} is not writable",
            hint="choose another --output",
        )


def _results(
    tally: "Tally",
    output: Path | None,
    sorted_folder: "SortedFolder | None",
    heat_maps: "HeatMaps | None",
) -> Iterator[str]:
    """Describe what was written, and how often each class was predicted."""
    if output is not None:
        yield f"written   {show(output)}: {count_of(tally.done, 'image')}"
    if sorted_folder is not None:
        copies = f", {sorted_folder.copied:,} copied" if sorted_folder.copied else ""
        number = count_of(tally.done - tally.failed, "image")
        yield f"sorted    into {show(sorted_folder.path)}: {number}{copies}"
    if heat_maps is not None:
        path = show(heat_maps.path)
        yield f"heat maps {path} (bright areas contributed most to the predicted class)"
    if tally.done > 1:
        yield from tally.describe()


def _json_line(prediction: Any) -> str:
    return json.dumps(prediction.to_dict())


def _prediction_line(prediction: Any) -> str:
    path = show(prediction.path)
    if prediction.error is not None:
        return f"{path}: error: {show(prediction.error)}"
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    named = ", ".join(f"{show(name)} {value:.1%}" for name, value in pairs)
    if prediction.label not in {None, prediction.answer}:
        named += f"; in the table: {show(prediction.label)}"
    if prediction.unknown is not None:
        return f"{path}: unknown ({prediction.unknown}); nearest: {named}"
    return f"{path}: {named}"


def export(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="New .onnx file; .xml for OpenVINO.",
            rich_help_panel=OUTPUT,
        ),
    ],
    run: Run = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="onnx|openvino",
            help="Format of the file: ONNX, or OpenVINO's .xml with its weights in a .bin file.",
            autocompletion=choices(("onnx", "openvino")),
            rich_help_panel=OUTPUT,
        ),
    ] = "onnx",
    wanted: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="whole|cropped",
            help="Input of the exported graph: whole images of any size, or images that the "
            "caller has resized and cropped.",
            autocompletion=choices(("whole", "cropped")),
            rich_help_panel=OUTPUT,
        ),
    ] = "whole",
    quantize: Annotated[
        str,
        typer.Option(
            metavar="none|int8",
            help="Quantize to 8-bit integers, for a smaller, faster and less exact file.",
            autocompletion=choices(("none", "int8")),
            rich_help_panel=OUTPUT,
        ),
    ] = "none",
    share_features: Annotated[
        bool,
        typer.Option(
            "--share-features/--no-share-features",
            help="Keep features of up to 500 training images in the file, for `predict --unknown "
            "auto`.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    same_run: HiddenRun = None,
) -> None:
    """Export a model with its preprocessing to ONNX or OpenVINO, with a program to run it."""
    run = one_run(run, same_run)
    expect_choice("format", form, ("onnx", "openvino"))
    expect_choice("input", wanted, ("whole", "cropped"))
    expect_choice("quantize", quantize, ("none", "int8"))
    if quantize == "int8" and form == "openvino":
        raise UsageError(
            "--quantize int8 is for --format onnx only",
            hint="leave --quantize out, or use --format onnx: OpenVINO runs that file, too",
        )
    chosen = find_run(run)
    check_export_output(output, form)
    require_onnx()
    if form == "openvino":
        require_openvino()

    from xception_cli.onnx.program import hand_over
    from xception_cli.onnx.run import export_run

    if run is None:
        say(f"run       {show(chosen.path)} (the latest)")
    result = export_run(
        chosen,
        output,
        cropped=wanted == "cropped",
        form=form,
        quantized=quantize == "int8",
        share_features=share_features,
    )
    written = [output] if form == "onnx" else [output, output.with_suffix(".bin")]
    for path in written:
        say(f"written   {show(path)}: {path.stat().st_size / 1e6:.1f} MB")
    say(f"files     {show(result.report)}")
    hand_over(result.snippet, written)
