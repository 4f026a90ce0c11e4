"""Candidates: the models that validation could select, with their answers on val; and their file.

With pretrained weights there are two: the linear probe, and the network at the end of fine-tuning.
"""

from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from xception_cli.console import show
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.intervals import Array
from xception_cli.files import write_durably
from xception_cli.model.seal import check_seal, seal

FINAL = 2**31 - 1  # the final fine-tuned network; sorts after every epoch
_HINT = "restore the file, or start a new run"


@dataclass(frozen=True)
class Candidates:
    """The models that the best one was selected from.

    Attributes:
        epochs: Of each, ascending, `(candidates,)`; 0 is the linear probe, and `FINAL` the
            fine-tuned network with a head for its own features. If a metric selected the epoch, all
            epochs are between them, with their trained heads.
        predicted: The predicted class of each image of val, `(candidates, images)`.
        losses: The cross-entropy of each image, like `predicted`, float32.
    """

    epochs: Array
    predicted: Array
    losses: Array

    @property
    def have_epochs(self) -> bool:
        """Whether a metric selected the epoch of the network, from those listed."""
        return len(self.epochs) > 2 and bool(self.epochs[-1] == FINAL)

    def are_complete(self, monitor: str) -> bool:
        """Return whether none is missing; runs of an earlier version lack some.

        Args:
            monitor: What selected the epoch; with `last`, the other epochs were not candidates.
        """
        if monitor == "last":
            return self.epochs.tolist() in ([0], [0, FINAL])
        epochs = self.epochs[self.epochs != FINAL]
        first = int(epochs[0]) if len(epochs) else -1
        return first in {0, 1} and np.array_equal(epochs, np.arange(first, first + len(epochs)))

    def only(self, epochs: Collection[int]) -> "Candidates":
        """Return some of the candidates."""
        at = np.isin(self.epochs, list(epochs))
        return Candidates(self.epochs[at], self.predicted[at], self.losses[at])

    def with_epoch(self, epoch: int, predicted: Array, losses: Array) -> "Candidates":
        """Add a candidate; those of this and later epochs are replaced, as in a resumed run.

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
    """Return an empty set of candidates."""
    return Candidates(np.empty(0, np.int32), np.empty((0, images)), np.empty((0, images)))


def write_candidates(candidates: Candidates, path: Path) -> None:
    """Write the file.

    Raises:
        MachineError: The disk is full or read-only.
    """
    write_durably(path, seal(save(vars(candidates))))


def read_candidates(path: Path, images: int) -> Candidates:
    """Read the file; if it does not exist, return an empty set.

    Args:
        path: The file.
        images: Number of images of val.

    Raises:
        ArtifactError: It is damaged, or has another number of images.
    """
    try:
        content = path.read_bytes()
        found = Candidates(**load(content))
    except FileNotFoundError:
        return no_candidates(images)
    except (OSError, SafetensorError, TypeError) as error:
        raise ArtifactError(f"cannot use {show(path)}: {show(error)}", hint=_HINT) from error
    check_seal(BytesIO(content), path, hint=_HINT)
    shapes = {found.predicted.shape, found.losses.shape}
    if found.epochs.ndim != 1 or shapes != {(len(found.epochs), images)}:
        raise ArtifactError(f"{show(path)} does not fit {images:,} validation images", hint=_HINT)
    numbers = [
        array.dtype.kind in "iuf" and np.isfinite(array).all() for array in vars(found).values()
    ]
    if not all(numbers) or found.epochs.dtype.kind != "i" or (found.predicted < 0).any():
        raise ArtifactError(f"{show(path)} is damaged: it has impossible numbers", hint=_HINT)
    return found


def start_candidates(path: Path, predicted: Any, losses: Any) -> None:
    """Write the linear probe's answers to the file, before those that a resumed run already has.

    Raises:
        ArtifactError: The file is damaged.
        MachineError: It cannot be written.
    """
    found = read_candidates(path, len(predicted))
    others = found.only(found.epochs[found.epochs > 0])
    probe = no_candidates(len(predicted)).with_epoch(0, predicted, losses)
    pairs = zip(vars(probe).values(), vars(others).values(), strict=True)
    write_candidates(Candidates(*map(np.concatenate, pairs)), path)


def add_candidate(path: Path, epoch: int, predicted: Any, losses: Any) -> None:
    """Add a model's answers on val to the file; answers of this and later epochs are removed.

    Args:
        path: The file; it need not exist.
        epoch: Of the model; 0 is the linear probe.
        predicted: The predicted class of each image, `(images,)`.
        losses: The cross-entropy of each image, `(images,)`.

    Raises:
        ArtifactError: The file is damaged.
        MachineError: It cannot be written.
    """
    found = read_candidates(path, len(predicted))
    found = found.with_epoch(epoch, np.asarray(predicted), np.asarray(losses))
    write_candidates(found, path)
