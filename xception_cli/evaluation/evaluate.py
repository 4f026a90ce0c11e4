"""run_evaluation: how good a model is on a split of its run, or on another folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from xception_cli.console import screen, show
from xception_cli.errors import DataError
from xception_cli.evaluation.metrics import EvalFailure, EvalReport, contaminate, measure
from xception_cli.evaluation.report import EvalRow, write_evaluation
from xception_cli.evaluation.selection import EvalImage, folder_name, select_images
from xception_cli.model.bundle import Classifier
from xception_cli.model.opening import open_classifier
from xception_cli.predict import Outcome, classify
from xception_cli.rundir import RunDir
from xception_cli.runtime import Runtime

_SHOWN = 5  # failures named in an error; the files name them all


def run_evaluation(
    run: RunDir,
    *,
    data: Path | None,
    split: str | None,
    ignore_extra_classes: bool,
    runtime: Runtime,
    workers: int,
    model: Path | None = None,
) -> EvalReport:
    """Evaluate a run's model and write the files of the evaluation into the run.

    Args:
        run: The run.
        data: Another folder; None for the run's own data. Images that the model was trained on
            do not count, whatever they are called there; what accuracy would be with them is
            reported beside.
        split: `test` or `val`; None for the run's test split if it has one, else val.
        ignore_extra_classes: Leave out images of classes that the model does not know.
        runtime: Where to compute.
        workers: Processes that decode.
        model: Another file with this model, as `xception export` makes; its evaluation bears its
            name too.

    Returns:
        What was measured; `failures` lists the images that could not be scored.

    Raises:
        UsageError: There is no such folder, split or model.
        DataError: Unknown classes, or no image that can be scored.
        ArtifactError: The model or a file of the run is damaged.
    """
    bundle = open_classifier(run.model if model is None else model, runtime)
    chosen = select_images(
        run,
        bundle.classes,
        data=data,
        split=split,
        ignore_extra_classes=ignore_extra_classes,
    )
    report, rows = evaluate_images(
        bundle,
        chosen.root,
        chosen.images,
        name=chosen.name if model is None else f"{chosen.name}-{folder_name(model)}",
        workers=workers,
        note=chosen.note,
        data=chosen.data,
        trained_on=chosen.trained_on,
    )
    write_evaluation(run.evaluation(report.name), report, rows)
    return report


def evaluate_images(
    bundle: Classifier,
    root: Path,
    images: Sequence[EvalImage],
    *,
    name: str,
    workers: int,
    batch_size: int | None = None,
    note: str | None = None,
    data: str = "",
    trained_on: Sequence[EvalImage] = (),
) -> tuple[EvalReport, list[EvalRow]]:
    """Measure a model on images.

    Args:
        bundle: The model.
        root: What the paths are relative to.
        images: With their labels.
        name: Of the split or folder.
        workers: Processes that decode; changes no number.
        batch_size: Images per pass through the network; None: the device's default.
        note: What the reader must know.
        data: The folder as it is to be shown.
        trained_on: Further images, for what accuracy would be with them.

    Returns:
        What was measured, and a row for each image, in order; one that cannot be decoded is a
        failure and an error row, and does not count.

    Raises:
        DataError: No image could be scored.
        MachineError: A process that decodes died.
    """
    every = [*images, *trained_on]
    outcomes = compute_outcomes(bundle, root, every, workers=workers, batch_size=batch_size)
    judged, known = outcomes[: len(images)], outcomes[len(images) :]
    report, rows = report_outcomes(bundle, images, judged, name=name, note=note, data=data)
    answers = [
        int(outcome.logits.argmax()) == image.label
        for image, outcome in zip(trained_on, known, strict=True)
        if isinstance(outcome, Outcome)
    ]
    return contaminate(report, answers) if answers else report, rows


def compute_outcomes(
    bundle: Classifier,
    root: Path,
    images: Sequence[EvalImage],
    *,
    workers: int,
    batch_size: int | None = None,
) -> list[Outcome | str]:
    """Run images through a model; see `evaluate_images`.

    Returns:
        For each image, in order: what the network says, or why it says nothing.

    Raises:
        MachineError: A process that decodes died.
    """
    sound = [image.path for image in images if image.problem is None]
    computed = classify(bundle, root, sound, workers=workers, batch_size=batch_size)
    outcomes: list[Outcome | str] = []
    with screen.bar("evaluating", len(images)) as bar:
        for image in images:
            outcomes.append(next(computed) if image.problem is None else image.problem)
            bar.advance(1)
    return outcomes


def report_outcomes(
    bundle: Classifier,
    images: Sequence[EvalImage],
    outcomes: Sequence[Outcome | str],
    *,
    name: str,
    note: str | None = None,
    data: str = "",
) -> tuple[EvalReport, list[EvalRow]]:
    """Measure a model on what it said of images; see `evaluate_images`.

    Its temperature may be another than the one that the outcomes were computed with.
    """
    pairs = list(zip(images, outcomes, strict=True))
    rows = [_row(bundle, image, outcome) for image, outcome in pairs]
    failures = [EvalFailure(row.path, row.error) for row in rows if row.error is not None]
    if len(failures) == len(rows):
        shown = [f"\n  {show(f.path)}: {show(f.reason)}" for f in failures[:_SHOWN]]
        raise DataError(f"none of {len(images)} images could be evaluated{''.join(shown)}")
    scored = [pair for pair in zip(images, rows, strict=True) if pair[1].error is None]
    answered = np.array([row.unknown is None for _, row in scored])
    report = measure(
        np.array([image.label for image, _ in scored]),
        np.array([row.probabilities for _, row in scored]),
        bundle.classes,
        name=name,
        data=data,
        answered=answered if bundle.unknown is not None else None,
        failures=failures,
        note=note,
    )
    return report, rows


def _row(bundle: Classifier, image: EvalImage, outcome: Outcome | str) -> EvalRow:
    true = bundle.classes[image.label]
    if isinstance(outcome, str):
        return EvalRow(image.path, true, None, (), outcome, digest=image.digest)
    probabilities = bundle.calibrated(torch.from_numpy(outcome.logits)[None])[0].numpy()
    best = int(probabilities.argmax())
    unknown = None
    if bundle.unknown is not None:
        unknown = bundle.unknown.judge(float(probabilities[best]), outcome.features)
    return EvalRow(
        image.path,
        true,
        bundle.classes[best],
        tuple(probabilities.tolist()),
        unknown=unknown,
        digest=image.digest,
    )
