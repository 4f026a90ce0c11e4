"""What each candidate model answered on val, and what choosing the best of them costs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.sparse import csr_array

from xception_cli.console import show
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.eval_report import Corrected, EvalReport, join_notes
from xception_cli.evaluation.intervals import RESAMPLES, Estimate, proportion_interval, unit_weights
from xception_cli.evaluation.scored import Scored
from xception_cli.files import write_durably
from xception_cli.rundir import RunDir
from xception_cli.settings import read_toml

Array = NDArray[Any]

VAL_NOTE = "validation also selected this model: expect a little less on new images"
_HINT = "put the file back, or start a new run"


@dataclass(frozen=True)
class Candidates:
    """The models that the best one was selected among.

    Attributes:
        epochs: Of each, ascending, `(candidates,)`; 0 is the linear probe.
        predicted: The class that each gives each image of val, `(candidates, images)`.
        losses: What each image adds to the cross-entropy, as `predicted`, float32.
    """

    epochs: Array
    predicted: Array
    losses: Array

    @property
    def are_complete(self) -> bool:
        """Whether none is missing, as in a run that an earlier version began."""
        first = int(self.epochs[0]) if len(self.epochs) else -1
        every = np.arange(first, first + len(self.epochs))
        return first in {0, 1} and np.array_equal(self.epochs, every)

    def with_epoch(self, epoch: int, predicted: Array, losses: Array) -> "Candidates":
        """Add a candidate; those of this and later epochs are replaced, as on a resume.

        Args:
            epoch: Its epoch.
            predicted: `(images,)`, int.
            losses: `(images,)`.
        """
        before = self.epochs < epoch
        return Candidates(
            np.append(self.epochs[before], epoch).astype(np.int32),
            np.vstack([self.predicted[before], predicted[None]]).astype(np.uint16),
            np.vstack([self.losses[before], losses[None]]).astype(np.float32),
        )


def no_candidates(images: int) -> Candidates:
    """Return the candidates before the first one."""
    return Candidates(np.empty(0, np.int32), np.empty((0, images)), np.empty((0, images)))


def write_candidates(candidates: Candidates, path: Path) -> None:
    """Write the file.

    Raises:
        MachineError: The disk is full or read-only.
    """
    write_durably(path, save(vars(candidates)))


def read_candidates(path: Path, images: int) -> Candidates:
    """Read the file; a missing one holds none.

    Args:
        path: The file.
        images: Of val.

    Raises:
        ArtifactError: It is damaged, or of other images.
    """
    try:
        found = Candidates(**load(path.read_bytes()))
    except FileNotFoundError:
        return no_candidates(images)
    except (OSError, SafetensorError, TypeError) as error:
        raise ArtifactError(f"cannot use {show(path)}: {show(error)}", hint=_HINT) from error
    if {found.predicted.shape, found.losses.shape} != {(len(found.epochs), images)}:
        raise ArtifactError(f"{show(path)} is not of {images} validation images", hint=_HINT)
    return found


def add_candidate(path: Path, epoch: int, predicted: Any, losses: Any) -> None:
    """Add what one more model answers on val to a file; those of this epoch and later ones go.

    Args:
        path: The file; it need not exist.
        epoch: Of the model; 0 is the linear probe.
        predicted: The class of each image, `(images,)`.
        losses: What each adds to the cross-entropy, `(images,)`.

    Raises:
        ArtifactError: The file is damaged.
        MachineError: It cannot be written.
    """
    found = read_candidates(path, len(predicted))
    found = found.with_epoch(epoch, np.asarray(predicted), np.asarray(losses))
    write_candidates(found, path)


def correct_report(run: RunDir, report: EvalReport, scored: Scored) -> EvalReport:
    """Correct a report on the run's val, which selected the run's model.

    Args:
        run: The run.
        report: On its val.
        scored: What it is of.

    Returns:
        With a note instead, where the run is of a version that kept no candidates.

    Raises:
        ArtifactError: The run's file of candidates is damaged.
    """
    every = read_candidates(run.candidates, len(scored.photos))
    if not every.are_complete:
        return replace(report, note=join_notes(report.note, VAL_NOTE))
    kept = [at for at, photo in enumerate(scored.photos) if photo.problem is None]
    some = replace(every, predicted=every.predicted[:, kept], losses=every.losses[:, kept])
    sound, monitor = scored.sound(), read_toml(run.config).get("monitor", "accuracy")
    found = correct_for_selection(some, sound.labels, sound.units, monitor=monitor)
    note = VAL_NOTE if found is None and len(every.epochs) > 1 else None  # a single unit
    return replace(report, corrected=found, note=join_notes(report.note, note))


def correct_for_selection(
    candidates: Candidates, labels: Array, units: Array, *, monitor: str
) -> Corrected | None:
    """Correct the accuracy of the best candidate for having been selected on the same images.

    The bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis (2018), over units: in
    each resample the best candidate is selected again, and is judged on the units that the resample
    lacks. The mean of that is the accuracy; Wilson's interval of the real number of images is put
    around it, since the middle 95% of the resamples, each judged on a third of the images, would be
    far too wide (tests/evaluation/test_simulations.py).

    Args:
        candidates: One or more.
        labels: `(images,)`, true classes.
        units: `(images,)`, what each belongs to.
        monitor: What the best was selected by: `accuracy` or `macro_recall`; then the lower loss.

    Returns:
        None where there was no choice, or where no resample leaves out a unit.
    """
    count = len(candidates.epochs)
    if count < 2:
        return None
    hits = (candidates.predicted == labels).T.astype(np.float64)  # (images, candidates)
    losses = candidates.losses.T.astype(np.float64)
    recalled = labels if monitor == "macro_recall" else None
    totals, measured = 0.0, 0
    for weights in unit_weights(units, RESAMPLES):
        best = _select(weights, hits, losses, recalled)
        left_out = weights == 0
        images = left_out.sum(axis=1)
        right = (left_out * hits[:, best].T).sum(axis=1)
        known = images > 0
        totals += float((right[known] / images[known]).sum())
        measured += int(known.sum())
    if not measured:
        return None
    chosen = int(_select(np.ones((1, len(labels))), hits, losses, recalled)[0])
    share = min(totals / measured, float(hits[:, chosen].mean()))  # a choice only flatters
    ends = proportion_interval(hits[:, chosen], units, share=share)
    return Corrected(count, Estimate(share, *ends))


def _select(weights: Array, hits: Array, losses: Array, labels: Array | None) -> Array:
    """Return the best candidate in each resample, as `History.offer` selects it.

    Args:
        weights: `(resamples, images)`.
        hits: `(images, candidates)`.
        losses: `(images, candidates)`.
        labels: `(images,)`, where macro recall selects; None where accuracy does.
    """
    if labels is None:
        scores = weights @ hits
    else:
        _, numbers = np.unique(labels, return_inverse=True)
        images = _by_class(weights, np.ones(len(labels)), numbers)
        present = images > 0
        parts = (_by_class(weights, row, numbers) / np.maximum(images, 1) for row in hits.T)
        scores = np.stack([part.sum(axis=1) / present.sum(axis=1) for part in parts], axis=1)
    best = scores >= scores.max(axis=1, keepdims=True) - 1e-9
    chosen: Array = np.where(best, weights @ losses, np.inf).argmin(axis=1)
    return chosen


def _by_class(weights: Array, values: Array, numbers: Array) -> Array:
    """Sum the weighted values of each class, `(resamples, classes)`."""
    places = (np.arange(len(numbers)), numbers)
    return np.asarray(weights @ csr_array((values, places)))
