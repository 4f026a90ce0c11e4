"""When the training state is saved, what is in it, and how training resumes from it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine, Events
from ignite.metrics import Average

from xception_cli.console import say
from xception_cli.errors import DataError, DivergedError, MachineError
from xception_cli.processes import ALONE, Processes
from xception_cli.training.checkpoint import StateStore
from xception_cli.training.history import History
from xception_cli.training.learner import BestModel, Learner
from xception_cli.training.stopping import StopSignals, asked_to_stop, stopped_error


def _train_loss_state(metric: Average) -> Mapping[str, Any]:
    """Return the state of `attach_train_loss`'s metric; all processes must call this together."""
    # On the CPU: a GPU's tensor, sent to another process, would open that GPU there.
    held = copy(metric)
    held.accumulator = metric.accumulator.cpu()
    return held.state_dict()


@dataclass(frozen=True)
class StateWriter:
    """Writes the training state of a run, and the best model with it.

    Attributes:
        states: Of the run.
        trainer: Knows the iteration.
        learner: What changes while training.
        train_loss: The mean loss of the epoch so far.
        best: The best model.
        processes: All call `write` together; only the leader touches the disk.
    """

    states: StateStore
    trainer: Engine
    learner: Learner
    train_loss: Average
    best: BestModel
    processes: Processes

    def write(self, phase: str, history: Mapping[str, Any], *, tensors: bool = True) -> None:
        """Write a state.

        Args:
            phase: `train`, or `eval_pending` if the epoch's validation is still to do.
            history: As it was in that phase.
            tensors: False updates only what validation changes, in the existing state.
        """
        at = self.trainer.state
        notes = {"phase": phase, "history": history, "max_epochs": at.max_epochs}
        if tensors:
            state = self.learner.state() | {"train_loss": _train_loss_state(self.train_loss)}
        if self.processes.leads:
            self.best.write()
            if tensors:
                self.states.save(state, iteration=at.iteration, notes=notes)
            else:
                self.states.note(at.iteration, notes)
        self.processes.wait()  # torchrun ends the leader when another process ends first


def resume_trainer(
    trainer: Engine,
    train_loss: Average,
    saved: Mapping[str, Any],
    *,
    epoch_length: int,
    max_epochs: int,
) -> None:
    """Move the trainer to where the state was saved, and run a pending validation."""
    iteration = saved["iteration"]
    trainer.load_state_dict(
        {"iteration": iteration, "epoch_length": epoch_length, "max_epochs": max_epochs}
    )
    say(f"resuming  after iteration {iteration:,} of {epoch_length * max_epochs:,}")
    if saved["phase"] == "eval_pending":
        train_loss.load_state_dict(saved["train_loss"])
        trainer.fire_event(Events.EPOCH_COMPLETED)
    elif iteration % epoch_length:
        # The metric is reset when the epoch starts, so it is restored just after that.
        current = iteration // epoch_length + 1
        trainer.add_event_handler(
            Events.EPOCH_STARTED(once=current),
            lambda _: train_loss.load_state_dict(saved["train_loss"]),
        )


BETWEEN_STATES = 15.0  # seconds


class StateSaving:
    """Decides when the training state is saved: every few minutes, and at the end of epochs.

    On a GPU an epoch may take a second, and writing a state half a second: at the end of an epoch
    a state is saved only if the last one is `least` seconds old.

    Args:
        write: See `StateWriter.write`.
        history: Of the run.
        every: Seconds between states inside an epoch.
        least: Seconds between states at the end of epochs.
        processes: All save together.

    Attributes:
        history: See above, like `processes`.
        validating: Whether an epoch's training is done and its validation is not.
    """

    def __init__(
        self,
        write: Callable[..., None],
        history: History,
        *,
        every: float,
        least: float = BETWEEN_STATES,
        processes: Processes = ALONE,
    ) -> None:
        self.validating = False
        self.processes = processes
        self._write = write
        self.history = history
        self._before = history.to_dict()  # before the current validation
        self._every, self._least = every, min(every, least)
        self._last = time.monotonic()
        self._is_saved = False  # while validating: whether this epoch's end is saved

    def is_due(self) -> bool:
        """Return whether a state is due in any process; all must call this together."""
        wait = self._least if self.validating else self._every
        return self.processes.largest(time.monotonic() - self._last > wait) > 0

    def save(self) -> None:
        """Save the state, unless this epoch's end is saved already."""
        if not self._is_saved:
            if self.validating:
                self._write("eval_pending", self._before)
            else:
                self._write("train", self.history.to_dict())
            self._last, self._is_saved = time.monotonic(), self.validating

    def begin_validation(self) -> None:
        """Save the state before validation, so that a kill costs the validation, not the epoch."""
        self.validating, self._before = True, self.history.to_dict()
        if self.is_due():
            self.save()

    def end_validation(self, *, needed: bool) -> None:
        """Add the result of validation to the saved state; if `needed` and there is none, save."""
        self.validating = False
        if self._is_saved:
            self._write("train", self.history.to_dict(), tensors=False)
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

    All processes do so together, whichever of them received the signal.

    A stop in the last iteration of an epoch, or in its validation, takes effect in validation,
    which the state marks as pending: else the epoch's validation would be lost.
    """
    processes = saving.processes

    @trainer.on(Events.ITERATION_COMPLETED)
    def _inside_epoch(engine: Engine) -> None:
        if engine.state.iteration % epoch_length == 0:
            return
        if asked_to_stop(stop, processes):
            saving.save()
            raise stopped_error(stop, engine)
        if processes.largest(stop.save_requested) or saving.is_due():
            saving.save()
            stop.save_requested = False

    @evaluator.on(Events.ITERATION_COMPLETED)
    def _inside_validation(_: Engine) -> None:
        if asked_to_stop(stop, processes):
            saving.save()
            raise stopped_error(stop, trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _after_epoch(engine: Engine) -> None:
        is_last = bool(engine.should_terminate) or engine.state.epoch == engine.state.max_epochs
        stopping = asked_to_stop(stop, processes)
        wanted = processes.largest(stop.save_requested) > 0
        saving.end_validation(needed=is_last or stopping or wanted)
        stop.save_requested = False
        if stopping:
            raise stopped_error(stop, engine)


@contextmanager
def saved_on_failure(
    saving: StateSaving, best: BestModel, stop: StopSignals, trainer: Engine
) -> Iterator[None]:
    """Save the state if an image or a worker is lost, so that training can be resumed from there.

    If training diverged, only the best model is saved. Ignite (0.5.5) fetches a batch before it
    counts the iteration, so the state is that of a complete iteration.
    """
    try:
        yield
    except (DataError, MachineError):
        if saving.processes.count > 1:  # the others are elsewhere: there is no common state
            raise
        if trainer.state.iteration:
            saving.save()
        if stop.requested is not None:  # the signal may have ended the workers too
            raise stopped_error(stop, trainer) from None
        raise
    except DivergedError:
        best.write()  # the error promises that it is kept
        raise
