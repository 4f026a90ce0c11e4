"""predict: the classes of images, on the screen, in a file, in folders or as heat maps."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from xception_cli.classifiers import decide_workers, is_exported, open_classifier
from xception_cli.commands.complete import choices, run_folders
from xception_cli.commands.options import (
    MODEL,
    OUTPUT,
    Device,
    JsonLines,
    Listed,
    ListRoot,
    MaxPixels,
    ModelFile,
    RunFolder,
    Tta,
    Workers,
    allow_pixels,
    choose_model,
    require_all_read,
    separate_run,
)
from xception_cli.console import Bar, emit, quoted, say, screen, show
from xception_cli.errors import UsageError
from xception_cli.files import check_new_file, file_digest, require_writable
from xception_cli.imports import importing
from xception_cli.notation import ALL, parse_top, parse_unknown
from xception_cli.numerals import count_of
from xception_cli.runs import folder_around

if TYPE_CHECKING:
    from xception_cli.commands.inputs import Inputs
    from xception_cli.heatmaps import HeatMaps
    from xception_cli.inference import Prediction
    from xception_cli.model.bundle import Classifier, ModelBundle
    from xception_cli.predictions import PredictionFile, Tally
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
    refusal = parse_unknown(unknown)
    if as_json and output is not None:
        raise UsageError(
            f"--json is for stdout, and the predictions go to {show(output)}",
            hint="leave --json out; --output FILE.jsonl writes JSON",
        )
    paths, run = separate_run(paths or [], run, model)
    # Before torch is loaded, so that a mistyped option is reported at once.
    chosen = choose_model(run, model, device=device, tta=tta)

    from xception_cli.commands.inputs import read_inputs
    from xception_cli.heatmaps import HeatMaps
    from xception_cli.predictions import Tally, open_predictions
    from xception_cli.sorting import UNKNOWN, SortedFolder, check_sorted

    if output is not None:
        _check_output(output)
    inputs = read_inputs(paths, listed, root)
    images, tally = inputs.images, Tally(inputs.labels)
    most = wanted or (5 if inputs.are_named else 1)
    if sort_into is not None:
        check_sorted(sort_into, paths, chosen)
    heat_maps = None if explain is None else HeatMaps(explain, list(images), chosen)
    with ExitStack() as held:
        file = None
        if output is not None:
            given = (most, unknown, explain, tta, device, sort_into, max_pixels)
            options = (file_digest(chosen), *given)
            file = held.enter_context(open_predictions(output, images, options, tally))

        with importing():
            from xception_cli.answers import decide_unknown
            from xception_cli.inference import predict_images

        allow_pixels(max_pixels)
        bundle = open_classifier(chosen, device=device, tta=tta)
        rule = decide_unknown(bundle, unknown)
        if refusal == "auto":
            _say_if_never_unsure(bundle)
        progress = None
        if file is not None:
            every = bundle.classes if most == ALL else ()
            file.begin(min(most, len(bundle.classes)), every, with_unknown=rule is not None)
            progress = held.enter_context(_progress(file, len(images)))
        folder = None if sort_into is None else SortedFolder(sort_into, bundle.classes)
        results = _Results(inputs.labels, tally, bundle, file, progress, folder, heat_maps, as_json)
        left = partial(islice, images, tally.done, None)
        count = decide_workers(workers, bundle.runtime)
        predictions = predict_images(bundle, left(), top=most, unknown=rule, workers=count)
        for image, prediction in zip(left(), predictions, strict=True):
            results.add(image, prediction)
    for line in results.describe(output):
        say(line)
    if refusal != "auto" and (note := tally.unlike_line()):
        say(f"note      {note}")
    require_all_read(tally.failed, len(images), tally.first_failure, output)
    if sort_into is not None:
        refused = sort_into / UNKNOWN
        rest = f", move what is in {quoted(refused)} to its class" if refused.is_dir() else ""
        say(f"next: correct the folders by hand{rest}, then: xception check {quoted(sort_into)}")
    else:
        given_run = None if model is not None else chosen.parent
        # The next command has the options that change the answers, and the device.
        given_options = {
            "--model": model,
            "--unknown": None if refusal == "off" else unknown,
            "--tta": tta,
            "--max-pixels": max_pixels,
            "--device": None if device == "auto" else device,
        }
        kept = "".join(f" {n} {quoted(v)}" for n, v in given_options.items() if v is not None)
        explainable = explain is None and not is_exported(chosen)
        say(f"next: xception predict {_next(inputs, paths, given_run, kept, output, explainable)}")


def _check_output(path: Path) -> None:
    """Check the suffix and the folder of a new file before the model is hashed."""
    from xception_cli.predictions import SUFFIXES

    if path.suffix.lower() not in SUFFIXES or not path.parent.is_dir():
        check_new_file(path, SUFFIXES, "write predictions to")
    require_writable(path.parent, f"cannot write {show(path)}")


def _next(
    inputs: "Inputs",
    paths: Sequence[str],
    run: Path | None,
    kept: str,
    output: Path | None,
    explainable: bool,
) -> str:
    """Return the arguments of the next `predict`, with the same run and the kept options.

    Args:
        inputs: The images of this one.
        paths: The arguments that gave them; a folder that the current one is in is not sorted into.
        run: The run, unless it is among the kept options.
        kept: The options to keep.
        output: Where this one wrote its predictions.
        explainable: Whether heat maps are possible, and were not written yet.
    """
    of_run = "" if run is None else f"{quoted(run)} "
    again = f"{of_run}{inputs.typed}{kept}"
    if inputs.are_named and explainable:
        return f"{again} --explain heatmaps"
    if inputs.are_named:
        return f"{of_run}DIR{kept} --output predictions.csv"
    if output is not None:
        around = next(filter(None, (folder_around(Path(path)) for path in paths)), Path())
        return f"{again} --sort-into {quoted(around / 'sorted')}"
    return f"{again} --output predictions.csv"


def _say_if_never_unsure(bundle: "Classifier") -> None:
    if bundle.thresholds is not None and bundle.thresholds.confidence is None:
        say(
            "note      this model has no confidence threshold: only images unlike the training "
            "images are answered with unknown"
        )


@contextmanager
def _progress(file: "PredictionFile", images: int) -> Iterator[Bar]:
    """Show the progress of a file, from where an earlier command stopped."""
    with screen.bar("predicting", images) as bar:
        bar.restart("predicting", file.done)
        yield bar


@dataclass(frozen=True)
class _Results:
    """Where predictions go: to a file or the screen, into folders by class, and as heat maps.

    Attributes:
        labels: Label of each image from a table; empty without one.
        tally: The predictions so far, by answer.
        bundle: The model that they are from.
        file: None for the screen.
        progress: Of the file.
        folder: The images, sorted by class.
        heat_maps: Why the classes were predicted.
        as_json: On the screen.
    """

    labels: Sequence[str]
    tally: "Tally"
    bundle: "Classifier"
    file: "PredictionFile | None"
    progress: Bar | None
    folder: "SortedFolder | None"
    heat_maps: "HeatMaps | None"
    as_json: bool

    def add(self, image: Path, prediction: "Prediction") -> None:
        """Add the prediction of the next image."""
        if self.labels:
            prediction = replace(prediction, label=self.labels[self.tally.done])
        if prediction.answer is not None and self.folder is not None:
            self.folder.add(image, None if prediction.unknown else prediction.classes[0])
        if prediction.answer is not None and self.heat_maps is not None:
            self.heat_maps.add(cast("ModelBundle", self.bundle), prediction, self.tally.done)
        if self.file is not None and self.progress is not None:
            self.file.add(prediction)
            self.progress.advance(1)
            return
        line = json.dumps(prediction.to_dict()) if self.as_json else _prediction_line(prediction)
        emit(line, wrap=not self.as_json)
        self.tally.add(prediction.answer, unlike=prediction.unlike)

    def describe(self, output: Path | None) -> Iterator[str]:
        """Describe what was written, and how often each class was predicted."""
        if output is not None:
            yield f"written   {show(output)}: {count_of(self.tally.done, 'image')}"
        if self.folder is not None:
            copies = f", {self.folder.copied:,} copied" if self.folder.copied else ""
            number = count_of(self.tally.done - self.tally.failed, "image")
            yield f"sorted    into {show(self.folder.path)}: {number}{copies}"
        if self.heat_maps is not None:
            path = show(self.heat_maps.path)
            yield f"heat maps {path} (bright areas contributed most to the predicted class)"
        if self.tally.done > 1:
            yield from self.tally.describe()


def _prediction_line(prediction: "Prediction") -> str:
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
