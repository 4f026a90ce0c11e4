"""check and sample: folders of photos."""

import json
from pathlib import Path
from typing import Annotated

import typer

from xception_cli.config import TrainConfig, check_pattern
from xception_cli.console import emit, quoted, say, show


def check(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of photos.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write issues.csv and a page with pictures there.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 3 for warnings too.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Ask the pretrained network which labels are suspect.")
    ] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="Measure whether more photos would help; does --deep.")
    ] = False,
    weights: Annotated[
        str, typer.Option(help="Of that network: imagenet or a file.")
    ] = TrainConfig.weights,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Keep images of one group together in cross-validation, as train --group-by does.",
        ),
    ] = None,
) -> None:
    """Look for what is wrong with a folder of photos. Nothing is changed there."""
    from xception_cli.data.folder import read_folder

    if group_by is not None:
        check_pattern(group_by)
    folder = read_folder(data)  # before anything heavy is loaded

    from xception_cli.check.page import ISSUES, PAGE, check_output, write_check
    from xception_cli.check.run import run_check
    from xception_cli.check.text import next_command, report_text

    if output is not None:
        check_output(data, output)
    report = run_check(folder, deep=deep, curve=curve, weights=weights, group_by=group_by)
    if output is not None:
        write_check(report, output)
        say(f"files     {show(output / ISSUES)}, {show(output / PAGE)}")
    emit(json.dumps(report.to_dict()) if as_json else report_text(report))
    say(f"next: {next_command(report, written=output is not None)}")
    if code := report.exit_code(strict=strict):
        raise typer.Exit(code)


def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    classes: Annotated[int, typer.Option(help="Kinds of food, 2 to 12.")] = 12,
    images: Annotated[int, typer.Option(help="Pictures of each.")] = 40,
) -> None:
    """Draw a small data set of 12 foods, to try everything with."""
    from xception_cli.data.sample import draw_sample

    count = draw_sample(folder, classes=classes, images=images)
    say(f"drawn     {count} pictures of {classes} foods in {show(folder)}")
    say(f"next: xception train --data {quoted(folder)} --classes {classes}")
