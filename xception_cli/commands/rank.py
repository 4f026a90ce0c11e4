"""rank: which unlabelled images to label next."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xception_cli.classifiers import decide_workers, open_classifier
from xception_cli.commands.complete import run_folders
from xception_cli.commands.options import (
    OUTPUT,
    Device,
    Listed,
    ListRoot,
    MaxPixels,
    ModelFile,
    RunFolder,
    Workers,
    allow_pixels,
    choose_model,
    require_all_read,
    separate_run,
)
from xception_cli.console import quoted, say, show
from xception_cli.csv_files import to_csv
from xception_cli.files import check_new_file, file_digest, write_durably
from xception_cli.imports import importing
from xception_cli.numerals import count_of

if TYPE_CHECKING:
    from xception_cli.inference import Prediction

_COLUMNS = ("path", "margin", "class_1", "probability_1", "class_2", "probability_2", "error")
_SHOWN = 5  # images on the screen


def rank(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] IMAGE|DIR|GLOB|TABLE...",
            help="Unlabelled images, or a table of them (.csv, .tsv or .parquet), after an "
            "optional run folder. Default: the latest finished run.",
            autocompletion=run_folders,
        ),
    ] = None,
    listed: Listed = None,
    root: ListRoot = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="New .csv file. After an interruption, the same command resumes.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("rank.csv"),
    run: RunFolder = None,
    model: ModelFile = None,
    device: Device = "auto",
    workers: Workers = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Rank unlabelled images by how useful their labels would be, the least confident first.

    Images are sorted by margin: the probability of the best class minus that of the second.
    """
    paths, run = separate_run(paths or [], run, model)
    check_new_file(output, (".csv",), "write the ranking to")

    chosen = choose_model(run, model, device=device)

    from xception_cli.commands.inputs import read_inputs

    images = read_inputs(paths, listed, root).images

    with importing():
        from xception_cli.inference import predict_images
    from xception_cli.partial import open_rows

    allow_pixels(max_pixels)
    bundle = open_classifier(chosen, device=device)
    count = decide_workers(workers, bundle.runtime)
    options = (file_digest(chosen), device, max_pixels)
    with open_rows(output, images, options, "predicting") as rows:
        made = predict_images(bundle, rows.left(), top=2, workers=count)
        for image, prediction in zip(rows.left(), made, strict=True):
            # Not `to_dict`, which rounds the probabilities that decide the order.
            rows.add(image, (prediction.classes, prediction.probabilities, prediction.error))
        every = [_read(*pair) for pair in zip(images, rows.found, strict=True)]
        # Stable: images of equal margin keep their order.
        ranked = sorted((one for one in every if one.error is None), key=attrgetter("margin"))
        failed = [one for one in every if one.error is not None]
        write_durably(output, to_csv(_COLUMNS, map(_row, [*ranked, *failed])))
    say(f"written   {show(output)}: {count_of(len(images), 'image')}, the least confident first")
    for one in ranked[:_SHOWN]:
        named = zip(one.classes, one.probabilities, strict=True)
        answers = ", ".join(f"{show(name)} {value:.1%}" for name, value in named)
        say(f"          {show(one.path)}: {answers}")
    first = f"{failed[0].path}: {failed[0].error}" if failed else None
    require_all_read(len(failed), len(images), first, output)
    again = "" if model is not None else f" --from {quoted(chosen.parent)}"
    say(
        "next: label the first images, add them to the data folder, then: "
        f"xception train DIR{again}"
    )


def _read(image: Path, row: Sequence[Any]) -> "Prediction":
    from xception_cli.inference import Prediction

    classes, probabilities, error = row
    return Prediction(image, tuple(classes), tuple(probabilities), error)


def _row(prediction: "Prediction") -> list[object]:
    if prediction.error is not None:
        return [str(prediction.path), *[None] * 5, prediction.error]
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    return [str(prediction.path), prediction.margin, *[x for pair in pairs for x in pair], None]
