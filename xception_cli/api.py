"""The Python API: load, train, evaluate and Model. No torch at import."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast, overload

from xception_cli.classifiers import decide_workers, open_classifier
from xception_cli.console import screen, show
from xception_cli.errors import MachineError, UsageError, is_out_of_memory
from xception_cli.files import why_and_where
from xception_cli.processes import started_by_torchrun
from xception_cli.recipes import find_config
from xception_cli.runs import choose_run_path, find_run
from xception_cli.settings import Settings, StrPath, resolve
from xception_cli.suggestions import expect_choice
from xception_cli.toml_files import check_names
from xception_cli.values import checked, checked_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xception_cli.evaluation.eval_report import EvalReport
    from xception_cli.inference import AnyImage, Prediction
    from xception_cli.model.bundle import Classifier
    from xception_cli.training.result import TrainResult


@contextmanager
def _foreseen() -> Iterator[None]:
    """Raise errors of the operating system, and of too little memory, as `MachineError`."""
    try:
        yield
    except OSError as error:
        raise MachineError(why_and_where(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(f"out of memory: {show(error)}") from error


@contextmanager
def _printing(verbose: bool) -> Iterator[None]:
    """Print no messages, unless `verbose` is set."""
    before, screen.quiet = screen.quiet, screen.quiet or not verbose
    try:
        yield
    finally:
        screen.quiet = before


class Model:
    """A trained classifier, ready for new images; `load` returns one."""

    def __init__(self, classifier: "Classifier") -> None:
        self._classifier = classifier

    def __repr__(self) -> str:
        return f"<Model: {len(self.classes)} classes, {self._classifier.runtime.describe()}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the network's outputs."""
        return self._classifier.classes

    # A str is an iterable of str, so the overloads overlap: the first one applies.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        images: "AnyImage",
        *,
        top: int = 5,
        unknown: str | float = "off",
        workers: int | None = None,
    ) -> "Prediction": ...
    @overload
    def predict(
        self,
        images: "Iterable[AnyImage]",
        *,
        top: int = 5,
        unknown: str | float = "off",
        workers: int | None = None,
    ) -> "list[Prediction]": ...
    def predict(
        self,
        images: "AnyImage | Iterable[AnyImage]",
        *,
        top: int = 5,
        unknown: str | float = "off",
        workers: int | None = None,
    ) -> "Prediction | list[Prediction]":
        """Classify one image or several.

        Args:
            images: A path, a `PIL.Image` or a uint8 RGB array of shape `(height, width, 3)`; or an
                iterable of these, which may be mixed.
            top: Number of classes to return for each image.
            unknown: When to answer `unknown`: `off`, `auto` (by the model's own thresholds), or
                the minimum probability of an answer.
            workers: Image-loading processes; results do not depend on it. None: by machine.

        Returns:
            A `Prediction` for one image; a list of them, in order, for several. An image that
            cannot be read has no classes and an `error`.

        Raises:
            UsageError: An argument is invalid.
            MachineError: An image-loading process died.
        """
        from xception_cli.answers import decide_unknown
        from xception_cli.inference import predict_images, to_images

        top = checked("top", top, int, 1, None)
        found, is_one = to_images(images)
        rule = decide_unknown(self._classifier, str(unknown))
        workers = decide_workers(workers, self._classifier.runtime)
        made = predict_images(self._classifier, found, top=top, unknown=rule, workers=workers)
        return next(made) if is_one else list(made)

    def embed(
        self, images: "AnyImage | Iterable[AnyImage]", *, workers: int | None = None
    ) -> "NDArray[np.float32]":
        """Compute the pooled features that the last layer classifies.

        Args:
            images: See `predict`.
            workers: See `predict`.

        Returns:
            float32 of shape `(2048,)` for one image, `(images, 2048)` for several.

        Raises:
            UsageError: The model is an ONNX file, or an argument is invalid.
            DataError: An image cannot be read.
            MachineError: An image-loading process died.
        """
        from xception_cli.inference import embed_images, to_images
        from xception_cli.model.bundle import ModelBundle

        if not isinstance(self._classifier, ModelBundle):
            raise UsageError(
                "an ONNX file returns no features",
                hint="load the run, or the model.safetensors that it was exported from",
            )
        found, is_one = to_images(images)
        workers = decide_workers(workers, self._classifier.runtime)
        features = embed_images(self._classifier, found, workers=workers)
        return features[0] if is_one else features


@_foreseen()
def load(path: StrPath, *, device: str = "auto", tta: str | None = None) -> Model:
    """Load a trained model.

    Args:
        path: A run folder, a `model.safetensors`, or an `.onnx` file of `xception export`.
        device: `auto`, `cpu`, `cuda` or `mps`. An ONNX file runs on the CPU.
        tta: Test-time augmentation, `mirror` or `none`; None: as decided in training.

    Raises:
        UsageError: There is no such model, or it cannot run on that device.
        ArtifactError: The file is damaged, or not a model of xception.
        MachineError: The device or the `onnx` extra is missing.
    """
    path = checked_path("path", path)
    is_named_as_file = path.suffix.lower() in {".safetensors", ".onnx"} and not path.is_dir()
    file = path if path.is_file() or is_named_as_file else find_run(path).model
    return Model(open_classifier(file, device=device, tta=tta))


@_foreseen()
def train(
    data: StrPath | None = None,
    *,
    output: StrPath | None = None,
    config: StrPath | None = None,
    resume: StrPath | None = None,
    tensorboard: bool = False,
    verbose: bool = False,
    **settings: Unpack[Settings],
) -> "TrainResult":
    """Train a classifier on a folder of images, as `xception train` does.

    Args:
        data: One folder per class, or `train/` and `val/`; or a table (.csv, .tsv, .parquet).
        output: The run folder; None for `runs/<data folder name>`.
        config: A TOML file, or the name of a recipe. Keywords override it.
        resume: A run folder: continue this run instead of starting one.
        tensorboard: Also log the epochs for TensorBoard.
        verbose: Print the command's messages to stderr. `train.log` always has them.
        settings: Any setting of the command, with `_` for `-`: `batch_size=16`.

    Raises:
        XceptionError: One of its subclasses; states saved earlier are intact. Ctrl-C saves the
            training state and raises `StoppedError`.
    """
    if started_by_torchrun():
        raise UsageError(
            "torchrun starts the command, not Python code",
            hint="torchrun --nproc-per-node 2 -m xception_cli train",
        )
    if resume is not None and (output is not None or config is not None):
        raise UsageError("resume cannot be combined with output or config: a run has its own")
    check_names(settings, "train()")
    given = {"data": data, **settings}
    flags = {n: os.fspath(v) if isinstance(v, os.PathLike) else v for n, v in given.items()}
    run = None if resume is None else find_run(checked_path("resume", resume), finished=False)
    place = None if output is None else checked_path("output", output)
    if config is not None:
        checked_path("config", config)  # as a Path, `./quick` would be the recipe `quick`
    screen.log_to(None)  # earlier messages belong to no run
    with _printing(verbose):
        resolved = resolve(flags, None if config is None else find_config(os.fspath(config)))
        if run is None and not resolved.config.data:
            raise UsageError("data is missing: the folder with your images")
        if run is None:  # before torch is loaded
            choose_run_path(Path(resolved.config.data), place)

        from xception_cli.training.result import read_result
        from xception_cli.training.run import run_training

        result = run_training(
            resolved, output=place, resume=run, flags=flags, tensorboard=tensorboard
        )
    found = cast("TrainResult", result)  # None is for processes of torchrun
    return found if found.reports else read_result(found.run)


@_foreseen()
def evaluate(
    run: StrPath,
    data: StrPath | None = None,
    split: str | None = None,
    *,
    root: StrPath | None = None,
    only: Iterable[StrPath] | None = None,
    ignore_extra_classes: bool = False,
    model: StrPath | None = None,
    tta: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    verbose: bool = False,
) -> "EvalReport":
    """Evaluate a run on images that its model was not trained on, as `xception eval` does.

    The files of the evaluation are written to `eval/` in the run folder.

    Args:
        run: The run folder.
        data: Another folder or table with the same classes; None for the run's own data.
        split: `val` or `test`; None for the test split if there is one, else val.
        root: The folder that the paths in a table are relative to; None for the table's own.
        only: Paths of the images to evaluate; None for all.
        ignore_extra_classes: Ignore images of classes that the model does not have.
        model: An exported `.onnx` file, instead of the run's model.
        tta: See `load`.
        device: See `load`.
        workers: See `Model.predict`.
        verbose: Show progress on stderr.

    Returns:
        The metrics; `failures` lists the images that could not be read.

    Raises:
        UsageError: There is no such run, folder or split.
        DataError: No image can be scored, or the folder has other classes.
        ArtifactError: A file is damaged; or `model` is that of another run.
    """
    folder = None if data is None else checked_path("data", data)
    base = None if root is None else checked_path("root", root)
    file = None if model is None else checked_path("model", model)
    if isinstance(only, str | os.PathLike) or not isinstance(only, Iterable | None):
        raise UsageError("only is not a list of paths", hint="only=[path] for a single image")
    listed = None if only is None else [checked_path("only", path) for path in only]
    check_selection(folder, split, base)
    chosen = find_run(checked_path("run", run))

    from xception_cli.check.copies import set_copies_aside
    from xception_cli.evaluation.evaluate import run_evaluation
    from xception_cli.evaluation.selection import Selection, folder_name
    from xception_cli.model.about import check_origin

    variants = [folder_name(file)] if file else []
    variants += [f"tta-{tta}"] if tta else []
    with _printing(verbose):
        classifier = open_classifier(file or chosen.model, device=device, tta=tta)

        def check_file(*, on_others: bool) -> None:
            if file is not None:
                check_origin(file, classifier.about.provenance, chosen, on_others=on_others)

        def refine(selection: Selection) -> Selection:
            check_file(on_others=selection.folder is not None)  # `data` may be the run's own
            return set_copies_aside(chosen, selection)

        check_file(on_others=folder is not None)
        return run_evaluation(
            chosen,
            classifier,
            data=folder,
            root=base,
            only=listed,
            split=split,
            ignore_extra_classes=ignore_extra_classes,
            workers=decide_workers(workers, classifier.runtime),
            variant="-".join(variants) or None,
            refine=refine,
        )


def check_selection(data: Path | None, split: str | None, root: Path | None) -> None:
    """Refuse a folder, table or split that does not exist, before torch is loaded."""
    if split is not None:
        expect_choice("split", split, ("val", "test"))
    from xception_cli.data.source import check_data
    from xception_cli.data.table import is_table

    if data is None:
        if root is not None:
            raise UsageError("--root is for the paths in a table", hint="--data TABLE --root DIR")
        return
    check_data(data, root)
    if not is_table(data) and not os.path.isdir(data):  # noqa: PTH112 - Path's raises on odd names
        raise UsageError(f"the data folder {show(data)} does not exist", hint="check the path")
