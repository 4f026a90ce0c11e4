"""Scoring: a model's outcomes on images, as a report and each image's answer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xception_cli.answers import answer_all
from xception_cli.console import screen, show
from xception_cli.data.photo import Photo
from xception_cli.errors import DataError
from xception_cli.evaluation.eval_report import EvalReport, Uncounted
from xception_cli.evaluation.metrics import contaminate, measure
from xception_cli.evaluation.scored import Scored
from xception_cli.inference import classify
from xception_cli.model.bundle import Classifier, ModelBundle, Outcome
from xception_cli.model.cached_outcomes import open_outcomes
from xception_cli.numerals import count_of

_SHOWN = 5  # failures listed in an error; the files list them all
_AT_ONCE = 1024  # images that are scored at once


def evaluate_images(
    bundle: Classifier,
    root: Path,
    images: Sequence[Photo],
    *,
    name: str,
    workers: int,
    data: str = "",
    trained_on: Sequence[Photo] = (),
) -> tuple[EvalReport, Scored]:
    """Measure a model on images.

    Args:
        bundle: The model.
        root: Folder that paths are relative to.
        images: The images, with their labels.
        name: Name of the split or folder.
        workers: Processes that decode; results do not depend on it.
        data: The folder, as it is printed.
        trained_on: Further images, for the accuracy including them.

    Returns:
        The results, and each image with its answer, in order; an image that cannot be decoded is a
        failure and does not count.

    Raises:
        DataError: No image could be scored.
        MachineError: A process that decodes died.
    """
    every = [*images, *trained_on]
    outcomes = compute_outcomes(bundle, root, every, workers=workers)
    judged, known = outcomes[: len(images)], outcomes[len(images) :]
    report, scored = report_outcomes(bundle, images, judged, name=name, data=data)
    trained = _score(bundle, trained_on, known).sound()
    if trained.photos:
        report = contaminate(report, scored.sound(), trained)
    return report, scored


def compute_outcomes(
    bundle: Classifier,
    root: Path,
    images: Sequence[Photo],
    *,
    workers: int,
) -> list[Outcome | str]:
    """Run images through a model; see `evaluate_images`.

    Returns:
        For each image, in order: its outcome, or why there is none.

    Raises:
        MachineError: A process that decodes died.
    """
    kept = None
    if isinstance(bundle, ModelBundle):
        kept = open_outcomes(bundle, [image.digest for image in images])
    known: dict[int, Outcome | str] = {} if kept is None else {**kept.load()}
    known |= {at: image.problem for at, image in enumerate(images) if image.problem is not None}
    left = [image for at, image in enumerate(images) if at not in known]
    computed = classify(
        bundle,
        root,
        [image.path for image in left],
        workers=workers,
        is_part=True,
        digests=None if kept is None else [image.digest for image in left],
    )
    outcomes: list[Outcome | str] = []
    with screen.bar("evaluating", len(images)) as bar:
        for at in range(len(images)):
            outcome = known[at] if at in known else next(computed)
            if isinstance(outcome, Outcome) and kept is not None:
                kept.keep(at, outcome)
            outcomes.append(outcome if isinstance(outcome, str) else replace(outcome, pooled=None))
            bar.advance(1)
    return outcomes


def report_outcomes(
    bundle: Classifier,
    images: Sequence[Photo],
    outcomes: Sequence[Outcome | str],
    *,
    name: str,
    data: str = "",
) -> tuple[EvalReport, Scored]:
    """Measure a model by its outcomes on images; see `evaluate_images`.

    Its temperature may have changed since the outcomes were computed.
    """
    scored = _score(bundle, images, outcomes)
    failures = [Uncounted(photo.path, photo.problem or "") for photo in scored.failures]
    if len(failures) == len(images):
        shown = [f"\n  {show(f.path)}: {show(f.reason)}" for f in failures[:_SHOWN]]
        raise DataError(
            f"none of {count_of(len(images), 'image')} could be evaluated{''.join(shown)}"
        )
    sound = scored.sound()
    answered = np.array([reason is None for reason in sound.unknown])
    report = measure(
        sound.labels,
        sound.probabilities,
        sound.units,
        bundle.classes,
        name=name,
        data=data,
        answered=answered if bundle.thresholds is not None else None,
        failures=failures,
    )
    return report, scored


def _score(
    bundle: Classifier, images: Sequence[Photo], outcomes: Sequence[Outcome | str]
) -> Scored:
    unknown: list[str | None] = [None] * len(images)
    probabilities = np.full((len(images), len(bundle.classes)), np.nan, np.float32)
    scored = [(at, found) for at, found in enumerate(outcomes) if isinstance(found, Outcome)]
    for begin in range(0, len(scored), _AT_ONCE):
        places, found = zip(*scored[begin : begin + _AT_ONCE], strict=True)
        for at, answer in zip(places, answer_all(bundle, found, bundle.thresholds), strict=True):
            probabilities[at], unknown[at] = answer[:2]
    photos = tuple(
        replace(photo, problem=found) if isinstance(found, str) else photo
        for photo, found in zip(images, outcomes, strict=True)
    )
    return Scored(tuple(bundle.classes), photos, probabilities, tuple(unknown))
