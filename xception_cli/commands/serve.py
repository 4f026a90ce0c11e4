"""serve: a model on a local web page, for demonstrations."""

from typing import Annotated

import typer

from xception_cli.classifiers import open_classifier
from xception_cli.commands.options import (
    MACHINE,
    Device,
    HiddenRun,
    MaxPixels,
    ModelFile,
    Run,
    allow_pixels,
    choose_model,
    one_run,
)
from xception_cli.console import emit, say
from xception_cli.imports import importing


def serve(
    run: Run = None,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Port of the page; 0 selects a free one.",
            rich_help_panel=MACHINE,
        ),
    ] = 8000,
    model: ModelFile = None,
    max_pixels: MaxPixels = None,
    device: Device = "auto",
    same_run: HiddenRun = None,
) -> None:
    """Serve a model on a local web page: drop images, see classes, confidence and heat maps.

    Only browsers on this machine can reach the page. It is for demonstrations, not for production.
    """
    chosen = choose_model(one_run(run, same_run), model, device=device)

    from xception_cli.serve.server import Server

    with Server(port) as server:  # a port in use is reported before torch is loaded
        allow_pixels(max_pixels)
        with importing():
            from xception_cli.serve.demo import Demo, name_of

        bundle = open_classifier(chosen, device=device)
        demo = Demo(bundle, name_of(chosen))
        demo.warm_up()
        say(f"serving   {server.url} (Ctrl-C stops it)")
        say("note      for demonstrations, not for production")
        emit(server.url)
        server.show(demo.page(), demo.answer)
