"""sample, check and summary: commands to use before training."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from xception_cli.commands.complete import choices, run_folders
from xception_cli.commands.options import (
    IMAGES,
    MODEL,
    OUTPUT,
    HiddenRun,
    Json,
    MaxPixelsOfData,
    TableRoot,
    allow_pixels,
    one_run,
)
from xception_cli.config import TrainConfig
from xception_cli.console import emit, quoted, say, show
from xception_cli.errors import UsageError
from xception_cli.files import (
    check_new_file,
    require_readable,
    require_writable,
    write_durably,
)
from xception_cli.imports import importing
from xception_cli.notation import check_pattern
from xception_cli.numerals import count_of
from xception_cli.rundir import ISSUES

CHECKS = "Further checks"


def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    classes: Annotated[
        int, typer.Option(metavar="N", help="Classes to draw, 2 to 12.", rich_help_panel=IMAGES)
    ] = 12,
    images: Annotated[
        int, typer.Option(metavar="N", help="Images to draw per class.", rich_help_panel=IMAGES)
    ] = 40,
) -> None:
    """Draw a small data set of foods, to try the other commands on."""
    with importing():
        from xception_cli.sample.run import draw_sample

    count = draw_sample(folder, classes=classes, images=images)
    say(f"drawn     {count_of(count, 'image')} of {classes} foods in {show(folder)}")
    say(f"next: xception train {quoted(folder)} --classes {classes}")


def check(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|TABLE", help="Folder of images, or a table (.csv, .tsv or .parquet)."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write issues.csv and a page with the images into this new folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Json = False,
    strict: Annotated[
        bool,
        typer.Option(
            help="Exit with code 3 also for warnings.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Find suspect labels with the pretrained network, and test whether training "
            "images can be rotated.",
            rich_help_panel=CHECKS,
        ),
    ] = False,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            help="Measure whether more images would help; includes --deep.",
            rich_help_panel=CHECKS,
        ),
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Keep images of one group together in cross-validation, as train --group-by does.",
            rich_help_panel=CHECKS,
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="imagenet|FILE",
            help="Pretrained weights for --deep and --curve.",
            autocompletion=choices(("imagenet",)),
            rich_help_panel=CHECKS,
        ),
    ] = TrainConfig.weights,
    root: TableRoot = None,
    max_pixels: MaxPixelsOfData = None,
) -> None:
    """Check a folder of images for problems; changes nothing in it."""
    from xception_cli.data.source import read_data

    if group_by is not None:
        check_pattern(group_by)
    if (deep or curve) and weights != TrainConfig.weights:
        takes = "--weights takes imagenet or a file, not an address"
        require_readable(weights, "--weights", takes)
    # Before anything heavy is loaded.
    folder = replace(read_data(data, root), group_by=group_by)
    if output is not None:
        _check_findings(data, output)

    with importing():
        from xception_cli.check.run import run_check
        from xception_cli.check.steps import next_command, next_steps
        from xception_cli.check.text import report_text
        from xception_cli.report.check_page import PAGE, write_check

    allow_pixels(max_pixels)
    report = run_check(folder, deep=deep, curve=curve, weights=weights)
    options = {"--root": root, "--group-by": group_by, "--max-pixels": max_pixels}
    again = "".join(f" {name} {quoted(v)}" for name, v in options.items() if v is not None)
    if output is not None:
        write_check(report, output, again)
        say(f"page      {show(output / PAGE)}: open it in a browser")
        decides = next_steps(report).decides
        edit = ": review the column action, then train with it" if decides else ""
        say(f"issues    {show(output / ISSUES)}{edit}")
    emit(json.dumps(report.to_dict()) if as_json else report_text(report))
    say(f"next: {next_command(report, None if output is None else output / ISSUES, again)}")
    if code := report.exit_code(strict=strict):
        raise typer.Exit(code)


def _check_findings(data: Path, output: Path) -> None:
    """Check that the files of a data check can be written to a folder, before it starts.

    Raises:
        UsageError: It is no folder, is inside the data folder, or has an edited issues.csv.
        MachineError: It cannot be written.
    """
    inside, root = (Path(os.path.realpath(path)) for path in (output, data))
    if inside.is_relative_to(root):
        raise UsageError(
            f"--output {show(output)} is inside the data folder, where nothing is ever written",
            hint="choose a folder next to it",
        )
    if os.path.lexists(output) and not output.is_dir():
        raise UsageError(f"{show(output)} is not a folder", hint="choose another --output")
    if os.path.lexists(output / ISSUES):
        raise UsageError(
            f"{show(output / ISSUES)} already exists, and may have been edited",
            hint="choose another --output, or remove it",
        )
    require_writable(output, f"cannot write {show(output / ISSUES)}")


# The network


def summary(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="Run folder, to see what its training froze. Default: the ImageNet network.",
            autocompletion=run_folders,
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Classes of the head. Default: the run's, else 1000.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Side of the input image in pixels. Default: the run's, else 299.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    as_json: Json = False,
    svg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a block diagram to this new .svg file instead.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Explain what separable convolutions save, in numbers, instead.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    same_run: HiddenRun = None,
    size: Annotated[int | None, typer.Option(metavar="N", hidden=True)] = None,
) -> None:
    """Summarize the network layer by layer: shapes, parameters, multiplications."""
    run = one_run(run, same_run)
    size = size if image_size is None else image_size  # --size: the name in 0.2.0
    from xception_cli.runs import find_run

    if explain:
        if (run, classes, size, svg) != (None, None, None, None):
            raise UsageError(
                "--explain can be combined with --json only", hint="xception summary --explain"
            )
        _explain(as_json=as_json)
        return
    if run is not None and classes is not None:
        raise UsageError(
            "--classes is given, but a run has its own", hint="leave RUN or --classes out"
        )
    chosen = None if run is None else find_run(run, finished=False)
    side = TrainConfig.image_size if size is None else size
    TrainConfig(classes=classes, image_size=side)  # raises an error if one is out of range
    if svg is not None:
        check_new_file(svg, (".svg",), "write the diagram to", option="--svg")

    from xception_cli.summary.count import IMAGENET_CLASSES, summarize_network, summarize_run
    from xception_cli.summary.diagram import draw_diagram
    from xception_cli.summary.table import COUNTED, LayerTable, total_table

    if chosen is not None:
        network = summarize_run(chosen, size=size)
        kept = chosen.read_result().kept if chosen.is_finished else "nothing yet"
        say(f"run       {show(chosen.path)}: unfreeze = {network.unfreeze}, kept {show(kept)}")
    else:
        network = summarize_network(classes or IMAGENET_CLASSES, size=side)
    if as_json:
        emit(json.dumps(network.to_dict()))
    if svg is not None:
        write_durably(svg, draw_diagram(network).encode())
        say(f"written   {show(svg)}: open it in a browser")
    elif not as_json:
        for part in (LayerTable(network), "", total_table(network)):
            emit(part)
        say(f"counted   {COUNTED}")
    say("next: xception summary --explain")


def _explain(*, as_json: bool) -> None:
    from xception_cli.summary.explanation import explain, explanation_parts

    explained = explain()
    for part in [json.dumps(explained.to_dict())] if as_json else explanation_parts(explained):
        emit(part)
    say("next: xception summary --svg xception.svg")
