"""export: a model as an ONNX or OpenVINO file, with a program to run it."""

from pathlib import Path
from typing import Annotated

import typer

from xception_cli.commands.complete import choices
from xception_cli.commands.options import OUTPUT, HiddenRun, Run, choose_run, one_run
from xception_cli.console import say, show
from xception_cli.errors import UsageError
from xception_cli.imports import importing
from xception_cli.onnx import check_export_output, require_onnx, require_openvino
from xception_cli.suggestions import expect_choice


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
    chosen = choose_run(run)
    check_export_output(output, form)
    with importing():
        require_onnx()
        if form == "openvino":
            require_openvino()

        from xception_cli.onnx.program import hand_over
        from xception_cli.onnx.run import export_run

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
