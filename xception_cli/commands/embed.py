"""embed: features of images, for other tools."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from io import BytesIO
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
from xception_cli.errors import DataError, UsageError
from xception_cli.files import check_new_file, file_digest, utf8, write_durably
from xception_cli.imports import importing
from xception_cli.numerals import count_of
from xception_cli.parquet import SUFFIX as PARQUET
from xception_cli.parquet import require_parquet, to_parquet
from xception_cli.rundir import RunDir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xception_cli.model.bundle import ModelBundle, Outcome
    from xception_cli.model.unknown import Reference

_LISTED = 20  # images named that could not be read, as many as `xception eval` lists


def embed(
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="New .npz or .parquet file. After an interruption, the same command resumes.",
            rich_help_panel=OUTPUT,
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] IMAGE|DIR|GLOB|TABLE...",
            help="Images, or a table of them (.csv, .tsv or .parquet), after an optional run "
            "folder. Default: the latest finished run.",
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
    neighbours: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Also write the K nearest training images of each image, among those whose "
            "features the model keeps.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
) -> None:
    """Compute image features for other tools: the 2048 inputs of the network's last layer.

    A .npz file (NumPy) has the arrays `features` (images, 2048) in float32, `paths`, and `digests`
    of the file contents, as in split.csv; with --neighbours also `nearest_kept_train_paths` and
    `feature_cosines` (images, neighbours). A .parquet file has the same as columns. Images that
    cannot be read are left out.
    """
    check_new_file(output, (".npz", PARQUET), "write features to")
    if output.suffix.lower() == PARQUET:
        require_parquet()
    if neighbours and model is not None:
        raise UsageError(
            "--neighbours needs the paths of the training images, which a model file does not have",
            hint="use --run RUN",
        )
    paths, run = separate_run(paths or [], run, model)
    chosen = choose_model(run, model, device=device)

    from xception_cli.commands.inputs import read_inputs

    images = read_inputs(paths, listed, root).images

    with importing():
        from xception_cli.inference import classify_images
        from xception_cli.model.bundle import ModelBundle
    from xception_cli.partial import open_rows

    allow_pixels(max_pixels)
    bundle = open_classifier(chosen, device=device)
    if not isinstance(bundle, ModelBundle):
        raise UsageError(
            f"{show(chosen)} is an exported file, which returns no features",
            hint="use the run, or --model with the model.safetensors that was exported",
        )
    kept = _kept_images(RunDir(chosen.parent), bundle) if neighbours else None
    count = decide_workers(workers, bundle.runtime)
    options = (file_digest(chosen), device, max_pixels)
    with open_rows(output, images, options, "computing features") as rows:
        for path, outcome in classify_images(bundle, rows.left(), workers=count):
            rows.add(path, _to_row(path, outcome))
        found = _collect(images, rows.found)
        if kept is not None:
            names, reference = kept
            nearest, cosines = reference.nearest(found["features"], neighbours)
            found |= {"nearest_kept_train_paths": names[nearest], "feature_cosines": cosines}
            among = count_of(len(names), "training image")
            say(f"nearest   among the {among} whose features the model keeps")
        as_table = output.suffix.lower() == PARQUET
        write_durably(output, _to_parquet(found) if as_table else _npz(found))
    number = len(found["paths"])
    say(f"written   {show(output)}: features of {count_of(number, 'image')}")
    require_all_read(len(images) - number, len(images))
    say(f"next: python -c {quoted(_reading(output))}")


def _to_row(path: Path, outcome: "Outcome | str") -> dict[str, Any]:
    from xception_cli.data.inspection import inspect

    if isinstance(outcome, str) or outcome.features is None:
        return {"error": outcome}
    digest = inspect(path).digest
    return {"features": _to_text(outcome.features), "digest": digest}


def _collect(
    images: Iterable[Path], rows: Iterable[Mapping[str, Any]]
) -> "dict[str, NDArray[Any]]":
    """Return the arrays of the images that could be read; report the others."""
    import numpy as np

    names, digests, texts, left_out = [], [], [], 0
    for path, row in zip(images, rows, strict=True):
        if "error" in row:
            left_out += 1
            if left_out <= _LISTED:
                say(f"left out  {show(path)}: {show(row['error'])}")
            continue
        names.append(utf8(str(path)))
        digests.append(row["digest"])
        texts.append(row["features"])
    if left_out > _LISTED:
        say(f"left out  and {left_out - _LISTED:,} more")
    if not texts:
        raise DataError(
            "none of the images could be read",
            hint="xception check DIR lists the problems of a folder",
        )
    features = np.empty((len(texts), len(_from_text(texts[0]))), np.float32)
    for at, text in enumerate(texts):
        features[at] = _from_text(text)
    return {"features": features, "paths": np.array(names), "digests": np.array(digests)}


def _to_text(features: "NDArray[np.float32]") -> str:
    return b64encode(features.astype("<f4").tobytes()).decode()


def _from_text(text: str) -> "NDArray[np.float32]":
    import numpy as np

    return np.frombuffer(b64decode(text), "<f4")


def _kept_images(run: RunDir, bundle: "ModelBundle") -> "tuple[NDArray[np.str_], Reference]":
    """Return the paths of the training images whose features a run's model keeps, and these.

    Raises:
        UsageError: It keeps none, or those of another run.
    """
    from xception_cli.data.recorded import read_recorded
    from xception_cli.model.unknown import spread

    rule = bundle.about.unknown
    if rule is None:
        raise UsageError(
            f"the model of {show(run.path)} keeps no features of training images",
            hint="train again without --no-share-features, and let the training finish",
        )
    import numpy as np

    images = read_recorded(run, bundle.classes).of("train")
    kept = spread(np.array([image.label for image in images], np.int64))
    if len(kept) != len(rule.reference.levels):
        raise UsageError(
            f"the model of {show(run.path)} was not trained on the images in its split.csv",
            hint="give the run that the model is from with --run RUN",
        )
    return np.array([utf8(images[at].path) for at in kept]), rule.reference


def _npz(found: "dict[str, NDArray[Any]]") -> bytes:
    import numpy as np

    buffer = BytesIO()
    np.savez(buffer, **found)  # type: ignore[arg-type]
    return buffer.getvalue()


def _to_parquet(found: "dict[str, NDArray[Any]]") -> bytes:
    """Write a row for each image, with a column for each neighbour."""
    columns: dict[str, Any] = {"path": found["paths"], "digest": found["digests"]}
    for at in range(found["feature_cosines"].shape[1] if "feature_cosines" in found else 0):
        columns[f"nearest_kept_train_path_{at + 1}"] = found["nearest_kept_train_paths"][:, at]
        columns[f"feature_cosine_{at + 1}"] = found["feature_cosines"][:, at]
    return to_parquet(columns | {"features": found["features"]})


def _reading(output: Path) -> str:
    """Return Python code that reads the file."""
    name = json.dumps(str(output))  # in double quotes: the shell takes the single ones
    if output.suffix.lower() == PARQUET:
        return f"import pandas; print(pandas.read_parquet({name}))"
    return f'import numpy; print(numpy.load({name})["features"].shape)'
