"""embed: the features that a model computes of images, for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from xception_cli.api import decide_workers, open_classifier
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
    choose_model,
    require_all_read,
    separate_run,
)
from xception_cli.console import quoted, say, screen, show
from xception_cli.errors import DataError, UsageError
from xception_cli.files import check_new_file, utf8, write_durably


def embed(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="New .npz file.", rich_help_panel=OUTPUT
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] IMAGE|DIR|GLOB|TABLE...",
            help="Images, and before them the run to use; without RUN, the latest finished run.",
            autocompletion=run_folders,
        ),
    ] = None,
    listed: Listed = None,
    root: ListRoot = None,
    run: RunFolder = None,
    model: ModelFile = None,
    device: Device = "auto",
    workers: Workers = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Compute image features for other tools: the 2048 inputs of the network's last layer.

    The file is NumPy's: `features` (images, 2048) in float32, `paths`, and `digests` of the
    contents, as in split.csv. Images that cannot be read are left out.
    """
    check_new_file(output, (".npz",), "write features to")
    paths, run = separate_run(paths or [], run, model)
    chosen = choose_model(run, model, max_pixels)

    from xception_cli.commands.inputs import read_inputs

    images = read_inputs(paths, listed, root).images

    from io import BytesIO

    import numpy as np

    from xception_cli.data.images import inspect
    from xception_cli.inference import classify_images
    from xception_cli.model.bundle import ModelBundle

    bundle = open_classifier(chosen, device=device)
    if not isinstance(bundle, ModelBundle):
        raise UsageError(
            f"{show(chosen)} gives no features: an exported file keeps them inside",
            hint="use the run, or --model with the model.safetensors that was exported",
        )
    count = decide_workers(workers, bundle.runtime)
    rows: list[np.ndarray] = []
    names: list[str] = []
    digests: list[str] = []
    with screen.bar("computing features", len(images)) as bar:
        for path, outcome in classify_images(bundle, images, workers=count):
            bar.advance(1)
            if isinstance(outcome, str) or outcome.features is None:
                say(f"left out  {show(path)}: {show(outcome)}")
                continue
            rows.append(np.asarray(outcome.features, np.float32))
            names.append(utf8(str(path)))
            digests.append(inspect(path, decoded=False).digest)
    if not rows:
        raise DataError(
            "none of the images could be read",
            hint="xception check DIR lists what is wrong with a folder",
        )
    buffer = BytesIO()
    np.savez(buffer, features=np.stack(rows), paths=names, digests=digests)
    write_durably(output, buffer.getvalue())
    say(f"written   {show(output)}: features of {len(rows):,} images")
    require_all_read(len(images) - len(rows), len(images))
    shape = f"print(numpy.load({str(output)!r})['features'].shape)"
    say(f"next: python -c {quoted(f'import numpy; {shape}')}")
