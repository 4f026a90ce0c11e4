"""One `attach_*` function per concern of training. Ignite calls handlers in their order."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average
from torch.optim.swa_utils import AveragedModel

from xception_cli.console import Bar, say, show
from xception_cli.data.dataset import KeyedBatches
from xception_cli.data.inputs import ImageInputs
from xception_cli.errors import SMALLER_STEPS, ArtifactError, DivergedError, MachineError
from xception_cli.evaluation.candidates import add_candidate
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.network import Segment
from xception_cli.numerals import percentage
from xception_cli.processes import ALONE, Processes
from xception_cli.records import Scores
from xception_cli.regular import open_regular
from xception_cli.seeds import seed_everything
from xception_cli.training.budget import Budget
from xception_cli.training.engines import StepOutput
from xception_cli.training.history import History
from xception_cli.training.learner import pair, update_ema, validate
from xception_cli.training.schedule import learning_rate_factor, stepped_factor


def attach_reseeding(trainer: Engine, batches: KeyedBatches, seed: int) -> None:
    """Make each random number a function of (seed, epoch or iteration), and resume in an epoch."""

    @trainer.on(Events.EPOCH_STARTED)
    def _position(engine: Engine) -> None:
        # Ignite makes the iterator after this event, also when it resumes inside an epoch.
        batches.epoch = engine.state.epoch - 1
        batches.start = engine.state.iteration - batches.epoch * len(batches)

    rank = batches.processes.rank
    own = [rank] if rank else []  # each process drops other features; rank 0 as if alone

    @trainer.on(Events.ITERATION_STARTED)
    def _seed(engine: Engine) -> None:
        seed_everything(seed, "step", engine.state.iteration, *own)


def attach_prefetch(
    trainer: Engine, train: FeatureInputs | ImageInputs, val: FeatureInputs | ImageInputs
) -> None:
    """Decode ahead: val during training, the next epoch during validation."""
    if not isinstance(train, ImageInputs) or not isinstance(val, ImageInputs):
        return

    @trainer.on(Events.EPOCH_STARTED)
    def _val(_: Engine) -> None:
        val.begin(0)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _train(engine: Engine) -> None:
        if engine.state.epoch < (engine.state.max_epochs or 0):
            train.begin(engine.state.epoch)


def attach_schedule(
    trainer: Engine, optimizer: torch.optim.Optimizer, *, warmup: float, schedule: str = "cosine"
) -> None:
    """Set each group's learning rate before each step; a function of the iteration, no state."""

    @trainer.on(Events.ITERATION_STARTED)
    def _set(engine: Engine) -> None:
        # Both are set by now; a time budget may change the number of epochs later.
        epoch_length = engine.state.epoch_length or 0
        total = (engine.state.max_epochs or 0) * epoch_length
        if schedule == "step":
            factor = stepped_factor(engine.state.iteration, total, warmup, epoch_length)
        else:
            factor = learning_rate_factor(engine.state.iteration, total, warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def attach_ema(trainer: Engine, ema: AveragedModel, trained: Segment, decay: float) -> None:
    """Update the moving average after each step."""
    paired = pair(ema, trained)

    @trainer.on(Events.ITERATION_COMPLETED)
    def _update(_: Engine) -> None:
        update_ema(ema, paired, decay)


def attach_train_loss(trainer: Engine, device: torch.device) -> Average:
    """Average the loss over the epoch, as the metric `train_loss`; summed up on the device."""
    metric = Average(output_transform=lambda output: output.loss, device=device)
    metric.attach(trainer, "train_loss")
    return metric


def attach_finite_check(
    trainer: Engine,
    *,
    every: int,
    device: torch.device,
    rate: Callable[[], float],
    processes: Processes = ALONE,
) -> None:
    """On a GPU, check every few iterations that all losses and gradients were finite."""
    if device.type == "cpu":  # the step itself checks them, at no cost
        return
    finite = torch.ones((), dtype=torch.bool, device=device)

    @trainer.on(Events.ITERATION_COMPLETED)
    def _collect(engine: Engine) -> None:
        nonlocal finite
        finite = finite & _output(engine).finite  # on the device, without waiting for it

    @trainer.on(Events.ITERATION_COMPLETED(every=every) | Events.EPOCH_COMPLETED)
    def _check(engine: Engine) -> None:
        if processes.largest(int(not finite)):
            last = engine.state.iteration
            first = max(1, last - every + 1)
            raise DivergedError(
                f"the loss or a gradient is not finite between iterations {first} and {last} "
                f"(learning rate {rate():.2g})",
                hint=SMALLER_STEPS,
            )


def _output(engine: Engine) -> StepOutput:
    return cast("StepOutput", engine.state.output)


def _scores(engine: Engine) -> Scores:
    return cast("Scores", engine.state.metrics["scores"])


def attach_validation(
    trainer: Engine,
    evaluator: Engine,
    inputs: FeatureInputs | ImageInputs,
    *,
    support: Sequence[int],
    top_k: int,
) -> None:
    """Validate at the end of each epoch; sets `trainer.state.metrics["scores"]`."""

    @trainer.on(Events.EPOCH_COMPLETED)
    def _validate(engine: Engine) -> None:
        engine.state.metrics["scores"] = validate(evaluator, inputs, support, top_k)


def attach_candidates(trainer: Engine, evaluator: Engine, path: Path) -> None:
    """Add each epoch's answers on val to the file of candidates."""

    @trainer.on(Events.EPOCH_COMPLETED)
    def _keep(engine: Engine) -> None:
        answers = evaluator.state.metrics["answers"]
        add_candidate(path, engine.state.epoch, answers.predicted, answers.losses)


def attach_best_model(
    trainer: Engine, history: History, *, monitor: str, hold: Callable[[int, Scores], None]
) -> None:
    """Hold the model when it is the best so far."""

    @trainer.on(Events.EPOCH_COMPLETED)
    def _offer(engine: Engine) -> None:
        if history.offer(engine.state.epoch, _scores(engine), monitor):
            hold(engine.state.epoch, _scores(engine))


def attach_early_stopping(trainer: Engine, history: History, patience: int) -> None:
    """Stop training after `patience` epochs without improvement; 0 disables it."""

    @trainer.on(Events.EPOCH_COMPLETED)
    def _stop(engine: Engine) -> None:
        if patience and history.epochs_without_better >= patience:
            history.stopped_early = True
            engine.terminate()


def attach_budget(trainer: Engine, budget: Budget, *, wanted: int) -> None:
    """Fit the number of epochs to the time left, and end training when it is used up."""
    began, first = time.monotonic(), None

    @trainer.on(Events.EPOCH_STARTED)
    def _begin(engine: Engine) -> None:
        nonlocal began, first
        began, first = time.monotonic(), engine.state.iteration

    @trainer.on(Events.EPOCH_COMPLETED)
    def _fit(engine: Engine) -> None:
        if first is None:  # resumed just here: nothing was measured
            return
        iterations = max(1, engine.state.iteration - first)
        seconds = (time.monotonic() - began) * (engine.state.epoch_length or 0) / iterations
        engine.state.max_epochs = budget.fit_epochs(engine.state.epoch, wanted, seconds)

    @trainer.on(Events.ITERATION_COMPLETED)
    def _end(engine: Engine) -> None:
        if budget.left <= 0 and engine.state.iteration % (engine.state.epoch_length or 1):
            budget.end_now(engine.state.epoch - 1)
            engine.terminate()


def epoch_row(engine: Engine, rate: float) -> dict[str, Any]:
    """Return the log row of an epoch; it holds no clock, so equal runs have equal rows."""
    scores = _scores(engine)
    row = {
        "epoch": engine.state.epoch,
        "lr": rate,
        "train_loss": float(engine.state.metrics["train_loss"]),
        "val_loss": scores.loss,
        "accuracy": scores.accuracy,
        "macro_recall": scores.macro_recall,
        "recall": scores.recall,
    }
    if scores.top_k_accuracy is not None:
        row[f"top{scores.top_k}_accuracy"] = scores.top_k_accuracy
    return row


def check_metrics_log(history: History, path: Path) -> None:
    """Check that metrics.jsonl has all rows of the state that is resumed.

    Raises:
        ArtifactError: It has fewer.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size < history.metrics_bytes:
        raise ArtifactError(
            f"{show(path)} has lost rows since the training state was saved",
            hint="restore the file, or start a new run",
        )


def attach_metrics_log(
    trainer: Engine, history: History, path: Path, rate: Callable[[], float]
) -> None:
    """Append a row to metrics.jsonl."""

    @trainer.on(Events.EPOCH_COMPLETED)
    def _append(engine: Engine) -> None:
        line = f"{json.dumps(epoch_row(engine, rate()))}\n".encode()
        check_metrics_log(history, path)
        try:
            with os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT), "r+b") as file:
                file.truncate(history.metrics_bytes)  # rows after the state we resumed from
                file.seek(history.metrics_bytes)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())  # the state that is saved next relies on this row
        except OSError as error:
            raise MachineError(f"cannot write {show(path)}: {error.strerror}") from error
        history.metrics_bytes += len(line)


def attach_progress(
    trainer: Engine,
    history: History,
    epochs: Bar,
    images: Bar,
    *,
    batch_size: int,
    every: int,
    rate: Callable[[], float],
    monitor: str = "accuracy",
    smoothed: bool = False,
) -> None:
    """Advance the bars and print a row per epoch; mark the best one if a metric selects it.

    A train loss with label smoothing has another name: it cannot reach 0, and val loss can.
    """
    loss = f"{'smoothed' if smoothed else 'train'} loss"
    counted = {"images": 0, "pending": 0, "since": time.monotonic(), "seconds": 0.0}

    @trainer.on(Events.STARTED)
    def _header(engine: Engine) -> None:
        epochs.restart("fine-tuning", engine.state.iteration // (engine.state.epoch_length or 1))
        say(f"epoch      lr  {loss}  val loss  accuracy  macro recall  images/s", style="bold")

    @trainer.on(Events.EPOCH_STARTED)
    def _begin(engine: Engine) -> None:
        done = engine.state.iteration % (engine.state.epoch_length or 1)  # not 0 if resumed here
        images.restart(f"epoch {engine.state.epoch}", done * batch_size)
        counted.update(images=0, pending=0, since=time.monotonic())

    @trainer.on(Events.ITERATION_COMPLETED)
    def _count(engine: Engine) -> None:
        output = _output(engine)
        counted["images"] += output.images
        counted["pending"] += output.images
        # Reading the loss waits for a GPU, so it is done every few iterations.
        if engine.state.iteration % every == 0:
            note = f"loss {float(output.loss):.3f}  lr {rate():.1e}"
            images.advance(int(counted["pending"]), note)
            counted["pending"] = 0
        if engine.state.iteration % (engine.state.epoch_length or 1) == 0:  # before validation
            float(output.loss)  # waits for a GPU
            counted["seconds"] = time.monotonic() - counted["since"]

    @trainer.on(Events.EPOCH_COMPLETED)
    def _row(engine: Engine) -> None:
        scores = _scores(engine)
        speed = counted["images"] / max(1e-9, counted["seconds"])
        is_best = monitor != "last" and history.best_epoch == engine.state.epoch
        say(
            f"{engine.state.epoch:5d} {rate():7.1e} "
            f"{float(engine.state.metrics['train_loss']):{len(loss) + 1}.4f} {scores.loss:9.4f} "
            f"{percentage(scores.accuracy):>9} {percentage(scores.macro_recall):>13} {speed:9.1f}"
            f"{'  best' if is_best else ''}"
        )
        epochs.advance(1)
