"""serve: a model on a local web page, to show it to a person."""

from pathlib import Path
from typing import Annotated

import typer

from xception_cli.api import open_classifier
from xception_cli.commands.options import Device, MaxPixels, ModelFile, choose_model
from xception_cli.console import emit, say
from xception_cli.errors import UsageError


def serve(
    run: Annotated[Path | None, typer.Argument(help="Run folder (default: the latest).")] = None,
    model: ModelFile = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes a free one.")
    ] = 8000,
    device: Device = "auto",
    max_pixels: MaxPixels = None,
) -> None:
    """Show a model on a local web page: drop photos, see classes, confidence and heat maps.

    Only browsers on this machine reach the page. It is for showing a model to a person, not for
    production.
    """
    if run is not None and model is not None:
        raise UsageError("RUN and --model exclude each other")
    chosen = choose_model(run, model, max_pixels)

    from xception_cli.serve.server import Server

    with Server(port) as server:  # a port that is taken is reported before torch is loaded
        bundle = open_classifier(chosen, device=device)

        from xception_cli.serve.demo import Demo

        demo = Demo(bundle)
        demo.warm_up()
        say(f"serving   {server.url} (Ctrl-C stops it)")
        say("note      for showing a model to a person, not for production")
        emit(server.url)
        server.show(demo.page(), demo.answer)
