"""Training state: written durably, committed by a manifest, verified, rotated.

Order of a save: state file, then its manifest (the commit marker), and only then are older states
removed. The manifest also stores what validation changes (see `note`), so that an epoch's state,
hundreds of megabytes, is written once. Ignite's `Checkpoint` (0.5.5) removes before it writes,
forgets its files on resume, and calls a failing save handler twice; so this is our own.
"""

import io
import re
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from xception_cli.console import say, show
from xception_cli.errors import ArtifactError, DivergedError, MachineError, StoppedError
from xception_cli.files import write_durably
from xception_cli.model.tensors import load_torch
from xception_cli.processes import ALONE, Processes
from xception_cli.rundir import read_json, write_json
from xception_cli.training.learner import History
from xception_cli.training.stopping import StopSignals

SCHEMA = 2
_KEEP = 2
_NOTES = ("iteration", "phase", "history", "max_epochs")  # in version 1 they were in the state
_NAME = re.compile(r"state-(\d{8})\.pt")


class _NewerSchemaError(ArtifactError):
    """A state that a newer version wrote."""


class StateStore:
    """The saved training states of a run.

    Args:
        folder: Where they lie; made at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: Mapping[str, Any], *, iteration: int, notes: Mapping[str, Any]) -> None:
        """Write a state durably, then remove older ones.

        Args:
            state: Plain data and dense tensors only, so that it loads without running code.
            iteration: How far training is.
            notes: See `note`.

        Raises:
            DivergedError: A tensor is not finite; nothing is written.
            MachineError: The disk is full or gone; the states before are intact.
        """
        bad = _first_not_finite(state)
        if bad:
            raise DivergedError(
                f"{bad} is not finite at iteration {iteration}; nothing was saved",
                hint="a smaller --lr and --head-lr; the best model so far is kept",
            )
        buffer = io.BytesIO()  # first into memory: torch hides the errno of a full disk
        torch.save({"schema": SCHEMA, **state}, buffer)
        content = buffer.getvalue()
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise MachineError(
                f"cannot make the folder {show(self.folder)}: {error.strerror}"
            ) from error
        # A state of the same iteration is replaced. Its manifest stays until then: a full disk must
        # not cost the state that is there.
        path = self._path(iteration)
        write_durably(path, content)
        manifest = {
            "schema": SCHEMA,
            "iteration": iteration,
            **notes,
            "bytes": len(content),
            "sha256": sha256(content).hexdigest(),
        }
        write_json(path.with_suffix(".json"), manifest)
        self.keep(_KEEP)

    def note(self, iteration: int, notes: Mapping[str, Any]) -> None:
        """Change the notes of the state that was saved at an iteration; its tensors stay.

        Args:
            iteration: Of the state.
            notes: JSON data: `phase` (`train`, or `eval_pending` when the epoch's validation is
                still to do), `history` and `max_epochs`.

        Raises:
            MachineError: The disk is full or gone; the state is as it was.
        """
        manifest = self._path(iteration).with_suffix(".json")
        write_json(manifest, read_json(manifest) | dict(notes))

    def _path(self, iteration: int) -> Path:
        return self.folder / f"state-{iteration:08d}.pt"

    def keep(self, count: int) -> None:
        """Remove all but the newest committed states, and whatever was never committed."""
        if not self.folder.is_dir():
            return
        kept = {path.name for path in self._committed()[:count]}
        for path in self.folder.glob("state-*"):
            if path.with_suffix(".pt").name not in kept and path.suffix in {".json", ".partial"}:
                path.unlink(missing_ok=True)  # manifests before states
        for path in self.folder.glob("state-*.pt"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _committed(self) -> list[Path]:
        """Return the states that have a manifest, the newest first."""
        if not self.folder.is_dir():
            return []
        named = sorted(p for p in self.folder.iterdir() if _NAME.fullmatch(p.name))
        return [path for path in reversed(named) if path.with_suffix(".json").is_file()]

    def load(self) -> dict[str, Any] | None:
        """Read the newest good state; None when none was ever committed.

        Raises:
            ArtifactError: States are there, but none is good; or a newer version wrote them.
        """
        committed = self._committed()
        for path in committed:
            try:
                return self._read(path)
            except _NewerSchemaError:
                raise
            except ArtifactError as error:
                say(f"warning: {error.message}; looking for an older state")
        if committed:
            raise ArtifactError(
                f"no training state in {show(self.folder)} is good",
                hint="start a new run; the model file of this one may still be usable",
            )
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        manifest = read_json(path.with_suffix(".json"))
        schema = manifest.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise _NewerSchemaError(
                f"{show(path)} has format {schema}, this version reads {SCHEMA}",
                hint="upgrade: pip install -U xception-cli",
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{show(path)} cannot be read: {error.strerror}") from error
        # torch.load checks no sums: a flipped bit would load as another number.
        if sha256(content).hexdigest() != manifest.get("sha256"):
            raise ArtifactError(f"{show(path)} is damaged (its SHA-256 differs)")
        missing = [name for name in _NOTES if schema == SCHEMA and name not in manifest]
        if missing:
            raise ArtifactError(f"{show(path)} is damaged (its manifest lacks {missing[0]})")
        # A run folder may come from anyone, its sums with it: nothing in a state is run.
        state = dict(load_torch(io.BytesIO(content), show(path)))
        return state | {name: manifest[name] for name in _NOTES if name in manifest}


def _first_not_finite(state: Any, name: str = "the training state") -> str | None:
    """Name the first float tensor with a nan or an infinity in it, in nested plain data."""
    if isinstance(state, torch.Tensor):
        return name if state.is_floating_point() and not state.isfinite().all() else None
    items: Any = ()
    if isinstance(state, Mapping):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    return next(
        (bad for key, value in items if (bad := _first_not_finite(value, f"{name}: {key}"))), None
    )


BETWEEN_STATES = 15.0  # seconds


class StateSaving:
    """Decides when the training state is saved: every few minutes, and at the end of epochs.

    On a GPU an epoch may take a second, and writing a state half a second: at the end of an epoch
    a state is saved only if the last one is `least` seconds old.

    Args:
        save: Saves the state in a phase, with the history as it was; with `tensors=False` only what
            validation changes.
        history: Of the run.
        every: Seconds between states inside an epoch.
        least: Seconds between states at the end of epochs.
        processes: All save together.

    Attributes:
        validating: Whether an epoch's training is done and its validation is not.
    """

    def __init__(
        self,
        save: Callable[..., None],
        history: History,
        *,
        every: float,
        least: float = BETWEEN_STATES,
        processes: Processes = ALONE,
    ) -> None:
        self.validating = False
        self.processes = processes
        self._save = save
        self._history = history
        self._before = history.to_dict()  # before the validation that is going on
        self._every, self._least = every, min(every, least)
        self._last = time.monotonic()
        self._is_saved = False  # while validating: that there is a state of this epoch's end

    def is_due(self) -> bool:
        """Tell whether a state is due in any process; all must call this together."""
        wait = self._least if self.validating else self._every
        return self.processes.largest(time.monotonic() - self._last > wait) > 0

    def save(self) -> None:
        """Save the state, unless this epoch's end is saved already."""
        if not self._is_saved:
            if self.validating:
                self._save("eval_pending", self._before)
            else:
                self._save("train", self._history.to_dict())
            self._last, self._is_saved = time.monotonic(), self.validating

    def begin_validation(self) -> None:
        """Save the state before validation, so that a kill costs the validation, not the epoch."""
        self.validating, self._before = True, self._history.to_dict()
        if self.is_due():
            self.save()

    def end_validation(self, *, needed: bool) -> None:
        """Add the result of validation to the saved state; if `needed`, save one where none is."""
        self.validating = False
        if self._is_saved:
            self._save("train", self._history.to_dict(), tensors=False)
            self._is_saved = False
        elif needed:
            self.save()


def attach_pending_state(trainer: Engine, saving: StateSaving) -> None:
    """Save the state between an epoch's training and its validation, if it is due."""

    @trainer.on(Events.EPOCH_COMPLETED)
    def _begin(_: Engine) -> None:
        saving.begin_validation()


def attach_state_saving(
    trainer: Engine,
    evaluator: Engine,
    stop: StopSignals,
    saving: StateSaving,
    *,
    epoch_length: int,
) -> None:
    """Save the state at epoch ends and every few minutes, if due, and when a signal asks for it.

    Processes that train together do so all at once, whichever of them the signal came to.

    A stop in the last iteration of an epoch, or in its validation, is carried out in validation,
    where the state says that it is still to do: else the epoch's validation would be lost.
    """
    processes = saving.processes

    @trainer.on(Events.ITERATION_COMPLETED)
    def _inside_epoch(engine: Engine) -> None:
        if engine.state.iteration % epoch_length == 0:
            return
        if asked_to_stop(stop, processes):
            saving.save()
            raise stopped(stop, engine)
        if processes.largest(stop.save_requested) or saving.is_due():
            saving.save()
            stop.save_requested = False

    @evaluator.on(Events.ITERATION_COMPLETED)
    def _inside_validation(_: Engine) -> None:
        if asked_to_stop(stop, processes):
            saving.save()
            raise stopped(stop, trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _after_epoch(engine: Engine) -> None:
        is_last = bool(engine.should_terminate) or engine.state.epoch == engine.state.max_epochs
        stopping = asked_to_stop(stop, processes)
        wanted = processes.largest(stop.save_requested) > 0
        saving.end_validation(needed=is_last or stopping or wanted)
        stop.save_requested = False
        if stopping:
            raise stopped(stop, engine)


def asked_to_stop(stop: StopSignals, processes: Processes) -> bool:
    """Tell whether a signal asks for the end, in this process or in another one."""
    number = processes.largest(stop.requested or 0)
    if number:  # else one that came just now, to this process alone, is for the next time
        stop.requested = number
    return number != 0


def stopped(stop: StopSignals, trainer: Engine) -> StoppedError:
    """Make the error of a run that a signal has stopped, behind the state that was saved."""
    where = f"iteration {trainer.state.iteration} (epoch {trainer.state.epoch})"
    return stop.error(stop.requested or 0, f"the state is saved at {where}")
