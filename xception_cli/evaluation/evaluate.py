"""run_evaluation: evaluate a model on a split of its run, or on another folder."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np

from xception_cli.answers import answer_all
from xception_cli.console import say, screen, show
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import read_recorded
from xception_cli.errors import ArtifactError, DataError
from xception_cli.evaluation.correction import correct_report
from xception_cli.evaluation.eval_report import (
    NEAR_COPY,
    TRAINED_ON,
    EvalFailure,
    EvalReport,
    LeftOut,
    read_report,
)
from xception_cli.evaluation.files import write_evaluation
from xception_cli.evaluation.metrics import contaminate, measure
from xception_cli.evaluation.notes import FITTED_NOTE, VAL_NOTE, join_notes, left_out_note
from xception_cli.evaluation.scored import Scored, read_digests
from xception_cli.evaluation.selection import (
    SPLITS,
    Selection,
    choose_own,
    keep_listed,
    select_images,
)
from xception_cli.inference import classify
from xception_cli.model.about import REFIT
from xception_cli.model.bundle import Classifier, ModelBundle, Outcome
from xception_cli.model.cached_outcomes import open_outcomes
from xception_cli.numerals import count_of
from xception_cli.rundir import METRICS, RunDir

_SHOWN = 5  # failures listed in an error; the files list them all
_AT_ONCE = 1024  # images that are scored at once


def run_evaluation(
    run: RunDir,
    bundle: Classifier,
    *,
    data: Path | None,
    root: Path | None = None,
    only: Iterable[Path] | None = None,
    split: str | None,
    ignore_extra_classes: bool,
    workers: int,
    variant: str | None = None,
    refine: Callable[[Selection], Selection] = lambda selection: selection,
) -> EvalReport:
    """Evaluate a run's model and write the files of the evaluation into the run.

    Args:
        run: The run.
        bundle: Its model.
        data: Another folder or table; None for the run's own data. Images that the model was
            trained on do not count, whatever their names; the accuracy including them is reported
            separately.
        root: Folder that paths in a table are relative to; None for the table's own.
        only: Images to evaluate, a subset; None for all.
        split: `test` or `val`; None for the run's test split if it has one, else val.
        ignore_extra_classes: Leave out images of classes that the model does not know.
        workers: Processes that decode.
        variant: Name of a model that is measured instead of the run's own; it is appended to the
            name of the evaluation.
        refine: Excludes further images, see `check.copies`.

    Returns:
        The results; `failures` lists the images that could not be scored.

    Raises:
        UsageError: There is no such folder or split.
        DataError: Unknown classes, or no image that can be scored.
        ArtifactError: A file of the run is damaged.
    """
    fitted, is_whole = REFIT in bundle.about.provenance, variant is None and only is None
    measured = fitted and is_whole and data is None  # its images may have moved since
    if measured and choose_own(read_recorded(run, bundle.classes), split) == "val":
        return _measured_before(run)
    chosen = select_images(
        run,
        bundle.classes,
        data=data,
        root=root,
        split=split,
        ignore_extra_classes=ignore_extra_classes,
        fitted_to_val=fitted,
    )
    chosen = refine(chosen)
    fitted = fitted and chosen.name == "val"
    if fitted and is_whole:
        return _measured_before(run)
    has_selected = chosen.name == "val" and not fitted  # the model, from its candidates
    if only is not None:
        chosen = keep_listed(chosen, only)
    left_out = [LeftOut(photo.path, TRAINED_ON) for photo in chosen.trained_on]
    left_out += [LeftOut(photo.path, NEAR_COPY) for photo in chosen.copies]
    # The correction is for the answers of the run's own model on all of val.
    is_corrected = has_selected and is_whole
    note = join_notes(
        left_out_note(left_out, len(chosen.images)),
        chosen.note,
        VAL_NOTE if has_selected and not is_corrected else None,
        FITTED_NOTE if fitted else None,
    )
    name = chosen.name if variant is None else f"{chosen.name}-{variant}"
    report, scored = evaluate_images(
        bundle,
        chosen.root,
        chosen.images,
        name=_choose_name(run, name, chosen.images),
        workers=workers,
        note=note,
        data=chosen.data,
        trained_on=[*chosen.trained_on, *chosen.copies],
    )
    report = replace(report, left_out=tuple(left_out))
    if is_corrected:
        report = correct_report(run, report, scored)
    write_evaluation(run.evaluation(report.name), report, scored)
    return report


def _choose_name(run: RunDir, name: str, images: Sequence[Photo]) -> str:
    """Name an evaluation: NAME, or NAME-2 and so on if that is an evaluation of other images."""
    if name in SPLITS:
        return name
    digests = {image.digest for image in images}
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    chosen = next(free for free in names if not _has_others(run, free, digests))
    if chosen != name:
        say(f"note      {show(run.evaluation(name))} is of other images, and is kept")
    return chosen


def _has_others(run: RunDir, name: str, digests: AbstractSet[str]) -> bool:
    """Return whether most images of an evaluation are not these, as those of another folder."""
    try:
        found = read_digests(run, name)
    except ArtifactError:  # there is none, or a damaged one, which is replaced
        return False
    return 2 * len(found & digests) < len(found)


def _measured_before(run: RunDir) -> EvalReport:
    """Return the report on val from before the model's head was fitted to val.

    Raises:
        ArtifactError: It is missing, and val cannot be measured again.
    """
    if not (run.evaluation("val") / METRICS).is_file():
        raise ArtifactError(
            f"{show(run.evaluation('val'))} is missing, and the model has been fitted to val since",
            hint="give new images with --data DIR",
        )
    try:
        report = read_report(run, "val")
    except ArtifactError as error:  # its hint is no help here: val cannot be measured again
        raise ArtifactError(error.message, hint="give new images with --data DIR") from error
    note = "measured with the head before its refit, which includes these images"
    return replace(report, note=join_notes(report.note, note))


def evaluate_images(
    bundle: Classifier,
    root: Path,
    images: Sequence[Photo],
    *,
    name: str,
    workers: int,
    note: str | None = None,
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
        note: Caveats for the reader.
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
    report, scored = report_outcomes(bundle, images, judged, name=name, note=note, data=data)
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
    note: str | None = None,
    data: str = "",
) -> tuple[EvalReport, Scored]:
    """Measure a model by its outcomes on images; see `evaluate_images`.

    Its temperature may have changed since the outcomes were computed.
    """
    scored = _score(bundle, images, outcomes)
    failures = [EvalFailure(photo.path, photo.problem or "") for photo in scored.failures]
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
        note=note,
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
