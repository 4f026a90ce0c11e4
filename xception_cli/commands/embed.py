"""embed: the features that a model computes of images, for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from xception_cli.api import decide_workers, open_classifier
from xception_cli.commands.options import (
    Device,
    Listed,
    ListRoot,
    MaxPixels,
    ModelFile,
    RunFolder,
    Workers,
    check_classifier,
    choose_model,
    require_all_read,
)
from xception_cli.console import quoted, say, screen, show
from xception_cli.errors import DataError, UsageError
from xception_cli.files import check_new_file, utf8, write_durably


def embed(
    output: Annotated[Path, typer.Option(help="A new .npz file.")],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE|DIR|GLOB|TABLE...", help="Images.")
    ] = None,
    listed: Listed = None,
    root: ListRoot = None,
    run: RunFolder = None,
    model: ModelFile = None,
    device: Device = "auto",
    workers: Workers = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Write the features of images: 2048 numbers each, what the last layer of the model sees.

    The file is NumPy's: `features` (images, 2048) in float32, `paths`, and `digests` of the
    contents, as in split.csv. Images that cannot be read are left out.
    """
    check_new_file(output, (".npz",), "write features to")
    chosen = choose_model(run, model, max_pixels)
    check_classifier(chosen, device=device)

    from xception_cli.commands.inputs import read_inputs

    images = read_inputs(paths or [], listed, root).images

    from io import BytesIO

    import numpy as np

    from xception_cli.data.images import inspect
    from xception_cli.inference import classify_images
    from xception_cli.model.bundle import ModelBundle

    bundle = open_classifier(chosen, device=device)
    if not isinstance(bundle, ModelBundle):
        raise UsageError(
            f"{show(chosen)} gives no features: an exported file keeps them inside",
            hint="--run RUN, or --model with the model.safetensors that it was made from",
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
        raise DataError("none of the images could be read", hint="xception check looks at a folder")
    buffer = BytesIO()
    np.savez(buffer, features=np.stack(rows), paths=names, digests=digests)
    write_durably(output, buffer.getvalue())
    say(f"written   {show(output)}: features of {len(rows):,} images")
    require_all_read(len(images) - len(rows), len(images))
    shape = f"print(numpy.load({str(output)!r})['features'].shape)"
    say(f"next: python -c {quoted(f'import numpy; {shape}')}")
