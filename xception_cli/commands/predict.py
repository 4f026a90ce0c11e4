"""predict and export: use a model here, or elsewhere."""

import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

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
    check_classifier,
    choose_model,
    one_run,
    require_all_read,
    separate_run,
)
from xception_cli.console import emit, quoted, say, screen, show
from xception_cli.errors import UsageError
from xception_cli.files import file_digest
from xception_cli.notation import ALL, parse_top, parse_unknown
from xception_cli.onnx import require_onnx, require_openvino
from xception_cli.runs import find_run
from xception_cli.suggestions import expect_choice


def predict(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] IMAGE|DIR|GLOB|TABLE...",
            help="Images to classify, after an optional run folder. Default: the latest finished "
            "run.",
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
    paths, run = separate_run(paths or [], run, model)
    chosen = choose_model(run, model, max_pixels)
    # Before torch is loaded, so that a mistyped option is reported at once.
    check_classifier(chosen, device=device, tta=tta)
    parse_unknown(unknown)

    from xception_cli.commands.inputs import read_inputs

    inputs = read_inputs(paths, listed, root)
    if sort_into is not None:
        from xception_cli.sorting import SortedFolder, check_sorted

        check_sorted(sort_into, paths)
    most = wanted or (5 if inputs.are_named else 1)

    from xception_cli.predictions import Tally, open_predictions

    images, tally = inputs.images, Tally(inputs.labels)
    with ExitStack() as held:
        file = bar = None
        if output is not None:
            options = (file_digest(chosen), most, unknown, explain, tta, device, sort_into)
            file = held.enter_context(open_predictions(output, images, options, tally))

        from xception_cli.inference import decide_unknown, predict_images
        from xception_cli.model.bundle import ModelBundle
        from xception_cli.model.unknown import Thresholds

        if explain is not None:
            from xception_cli.report.pictures import (
                check_folder,
                name_explanations,
                write_explanation,
            )
        bundle = open_classifier(chosen, device=device, tta=tta)
        rule = decide_unknown(bundle, unknown)
        if isinstance(rule, Thresholds) and rule.confidence is None:
            say("note      this model has no confidence threshold: only images unlike the training")
            say("          images are answered with unknown")
        explained = bundle if isinstance(bundle, ModelBundle) else None
        if explain is not None and explained is None:
            raise UsageError(
                f"{show(chosen)} is an exported file, which returns no activations for heat maps",
                hint="use --explain with the run, or with the model.safetensors that was exported",
            )
        if file is not None:
            every = bundle.classes if most == ALL else ()
            file.begin(min(most, len(bundle.classes)), every, with_unknown=rule is not None)
            if file.done:
                say(f"resuming  after {file.done} of {len(images)} images ({show(file.path)})")
            bar = held.enter_context(screen.bar("predicting", len(images)))
            bar.restart("predicting", file.done)
        if explain is not None:
            if not tally.done:
                check_folder(explain)
            targets = [explain / name for name in name_explanations(list(images))]
        sorted_folder = None if sort_into is None else SortedFolder(sort_into, bundle.classes)
        count = decide_workers(workers, bundle.runtime)
        write = _json_line if as_json else _prediction_line
        left = partial(islice, images, tally.done, None)
        predictions = predict_images(bundle, left(), top=most, unknown=rule, workers=count)
        for image, prediction in zip(left(), predictions, strict=True):
            at, answer = tally.done, prediction.answer
            if inputs.labels:
                prediction = replace(prediction, label=inputs.labels[at])
            if answer is not None and sorted_folder is not None:
                refused = prediction.unknown is not None
                sorted_folder.add(image, None if refused else prediction.classes[0])
            if explain is not None and explained is not None and answer is not None:
                label = bundle.classes.index(prediction.classes[0])
                write_explanation(explained, image, label, targets[at])
            if file is None or bar is None:
                emit(write(prediction))
                tally.add(answer, unlike=prediction.unlike)
            else:
                file.add(prediction)
                bar.advance(1)
    if output is not None:
        say(f"written   {show(output)}: {len(images)} images")
    if sorted_folder is not None:
        copies = f", {sorted_folder.copied:,} copied" if sorted_folder.copied else ""
        number = tally.done - tally.failed
        say(f"sorted    into {show(sorted_folder.path)}: {number:,} images{copies}")
    if explain is not None:
        say(f"heat maps {show(explain)} (bright areas contributed most to the predicted class)")
    if len(images) > 1:
        for line in tally.describe():
            say(line)
    if not isinstance(rule, Thresholds) and (note := tally.unlike_line()):
        say(f"note      {note}")
    require_all_read(tally.failed, len(images))
    before = "" if model is not None else f"{quoted(chosen.parent)} "
    after = "" if model is None else f" --model {quoted(model)}"
    command = f"xception predict {before}{inputs.typed}{after}"
    if sort_into is not None:
        say(f"next: correct the folders by hand, then: xception check {quoted(sort_into)}")
    elif output is not None or inputs.are_named:
        say(f"next: {command} {'--explain heatmaps' if inputs.are_named else '--sort-into sorted'}")
    else:
        say(f"next: {command} --output predictions.csv")


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
    """Export a model with its preprocessing to ONNX or OpenVINO, and print a program to run it."""
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

    require_onnx()
    if form == "openvino":
        require_openvino()

    from xception_cli.onnx.run import check_export_output, export_run

    check_export_output(output, form)
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
    emit(result.snippet.rstrip())
    if form == "onnx":
        say(f"next: xception predict IMAGE.jpg --model {quoted(output)}")
    else:
        say("next: save the program as classify.py, then python classify.py IMAGE.jpg")
