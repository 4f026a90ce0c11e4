"""run_evaluation: evaluate a model on a split of its run, or on another folder."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

from xception_cli.console import say, show
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import read_recorded
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.correction import correct_report
from xception_cli.evaluation.eval_report import (
    NEAR_COPY,
    OTHER_CLASS,
    TRAINED_ON,
    EvalReport,
    Uncounted,
    read_report,
)
from xception_cli.evaluation.files import write_evaluation
from xception_cli.evaluation.notes import (
    FITTED_NOTE,
    VAL_NOTE,
    choosers_note,
    join_notes,
    left_out_note,
)
from xception_cli.evaluation.scored import read_digests
from xception_cli.evaluation.scoring import evaluate_images
from xception_cli.evaluation.selection import (
    HELD_OUT,
    Selection,
    choose_own,
    keep_listed,
    select_images,
)
from xception_cli.model.about import REFIT, trained_splits
from xception_cli.model.bundle import Classifier
from xception_cli.rundir import METRICS, RunDir


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
        trained_splits=trained_splits(bundle.about.provenance, run),
    )
    chosen = refine(chosen)
    fitted = fitted and chosen.name == "val"
    if fitted and is_whole:
        return _measured_before(run)
    has_selected = chosen.name == "val" and not fitted  # the model, from its candidates
    if only is not None:
        chosen = keep_listed(chosen, only)
    left_out = [Uncounted(photo.path, TRAINED_ON) for photo in chosen.trained_on]
    left_out += [Uncounted(photo.path, NEAR_COPY) for photo in chosen.copies]
    left_out += [Uncounted(path, OTHER_CLASS) for path in chosen.others]
    # The correction is for the answers of the run's own model on all of val.
    is_corrected = has_selected and is_whole
    name = chosen.name if variant is None else f"{chosen.name}-{variant}"
    report, scored = evaluate_images(
        bundle,
        chosen.root,
        chosen.images,
        name=_choose_name(run, name, chosen.images),
        workers=workers,
        data=chosen.data,
        trained_on=[*chosen.trained_on, *chosen.copies],
    )
    note = join_notes(
        left_out_note(left_out, len(chosen.images)),
        choosers_note(scored.photos, chosen.choosers),
        chosen.note,
        VAL_NOTE if has_selected and not is_corrected else None,
        FITTED_NOTE if fitted else None,
    )
    report = replace(report, left_out=tuple(left_out), note=note)
    if is_corrected:
        report = correct_report(run, report, scored)
    write_evaluation(run.evaluation(report.name), report, scored)
    return report


def _choose_name(run: RunDir, name: str, images: Sequence[Photo]) -> str:
    """Name an evaluation: NAME, or NAME-2 and so on if that is an evaluation of other images."""
    if name in HELD_OUT:
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
