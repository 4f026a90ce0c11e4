"""run_training: the whole story of `xception train`. Read this file first."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from xception_cli.check.survey import Survey, survey_data
from xception_cli.config import TrainConfig, parse_duration
from xception_cli.console import quoted, say, screen, show
from xception_cli.data.folder import check_trainable, read_folder
from xception_cli.data.loading import PictureInputs
from xception_cli.errors import DataError, DivergedError, MachineError, XceptionError
from xception_cli.model.features import FeatureInputs
from xception_cli.processes import ALONE, Processes, joined_processes
from xception_cli.rundir import RunDir, read_json
from xception_cli.runtime import Runtime, check_compiler, decide_runtime
from xception_cli.settings import ResolvedConfig
from xception_cli.training import checkpoint, handlers
from xception_cli.training.baseline import prepare
from xception_cli.training.checkpoint import StateStore
from xception_cli.training.engines import create_evaluator, create_trainer
from xception_cli.training.estimate import describe_phases, settle
from xception_cli.training.finish import TrainResult, finish, judge_together
from xception_cli.training.job import Job
from xception_cli.training.learner import BestModel, History, create_learner
from xception_cli.training.plan import Costs, expected_seconds
from xception_cli.training.preparation import (
    describe_job,
    draft_job,
    reopen_job,
    resumed_config,
    share_job,
    start_job,
)
from xception_cli.training.stopping import Budget, StopSignals, new_record


def run_training(
    settings: ResolvedConfig,
    *,
    survey: Survey | None = None,
    output: Path | None = None,
    resume: RunDir | None = None,
    flags: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
) -> TrainResult | None:
    """Train a classifier on a folder of photos.

    Args:
        settings: From `config.resolve`; a resumed run has its own.
        survey: Of the data folder, if it was made already.
        output: The run folder; None makes `runs/<data folder name>`.
        resume: A run to go on with, instead of a new one.
        flags: The settings given on the command line, checked against a resumed run's.
        tensorboard: Log the epochs for TensorBoard too; a resumed run that did so goes on with it.

    Returns:
        What it left; None in a process that does not lead, which is told all of the above.

    Raises:
        XceptionError: See `errors.py`; what was saved before is intact.
    """
    tensorboard = tensorboard or (resume is not None and resume.tensorboard.is_dir())
    if tensorboard:
        handlers.require_tensorboard()
    with ExitStack() as held:
        try:
            with joined_processes() as processes:
                if resume is not None and processes.leads:
                    held.enter_context(resume.lock())  # before anything in it is read or written
                return _run_locked(
                    settings, survey, output, resume, flags or {}, tensorboard, processes, held
                )
        except XceptionError as error:
            say(f"error: {error.message}", log_only=True)  # the screen gets it from the caller
            raise
        finally:
            screen.log_to(None)


def _run_locked(
    settings: ResolvedConfig,
    survey: Survey | None,
    output: Path | None,
    resume: RunDir | None,
    flags: Mapping[str, Any],
    tensorboard: bool,
    processes: Processes,
    held: ExitStack,
) -> TrainResult | None:
    began = time.monotonic()
    config = processes.once(
        lambda: settings.config if resume is None else resumed_config(resume, flags)
    )
    finished = processes.once(lambda: None if resume is None else _finished(resume, config))
    if finished is not None:
        return finished if processes.leads else None
    runtime = _runtime(config, processes)
    with StopSignals(hint="nothing was written yet; the same command starts again") as stop:
        job = None
        if resume is not None:
            folder = read_folder(Path(config.data))
            check_trainable(folder, config.classes)
            job = reopen_job(config, folder, runtime, resume)
        elif processes.leads:
            drafted = draft_job(config, survey or survey_data(config), runtime, output)
            job, costs = settle(drafted, _given(settings), began)
            job = start_job(job, output, settings.origins)
            held.enter_context(job.run.lock())
            say(f"expected  {_one_line(describe_phases(job, costs))}")
            job = _start_clock(job, costs, began)
        job = share_job(job, runtime)
        if tensorboard:
            _begin_tensorboard(job.run)
        job.seconds["preparation"] = time.monotonic() - began
        stop.hint = f"xception train --resume {quoted(job.run.path)}"
        return _train(job, stop)


def _finished(run: RunDir, config: TrainConfig) -> TrainResult | None:
    """Say so, if nothing is left to be done in a run."""
    if not run.is_finished:
        return None
    result = read_json(run.result)
    if config.budget is not None:
        say(f"{show(run.path)} is already finished; its time is used up")
    elif result["epochs"] == config.epochs:
        name, epochs = show(run.path), config.epochs
        say(f"{name} is already finished ({epochs} epochs); a larger --epochs extends it")
    else:
        return None
    return TrainResult(run, result["kept"], None, {}, {})


def plan_training(
    settings: ResolvedConfig, *, survey: Survey | None = None, output: Path | None = None
) -> dict[str, str]:
    """Say what a training would do and take, and write nothing.

    Args:
        settings: From `config.resolve`.
        survey: See `run_training`.
        output: The run folder that it would have.

    Returns:
        Time by phase, memory and disk, as text; the decisions are said on the screen.

    Raises:
        XceptionError: As `run_training` would.
    """
    began = time.monotonic()
    config = settings.config
    runtime = _runtime(config, ALONE)
    drafted = draft_job(config, survey or survey_data(config), runtime, output)
    job, costs = settle(drafted, _given(settings), began)
    describe_job(job, settings.origins)
    return describe_phases(job, costs)


def _runtime(config: TrainConfig, processes: Processes) -> Runtime:
    runtime = decide_runtime(
        device=config.device,
        precision=config.precision,
        deterministic=config.deterministic,
        processes=processes,
    )
    if config.compile:
        check_compiler(runtime.device)
    return runtime


def _given(settings: ResolvedConfig) -> set[str]:
    """Return the names of the settings that somebody chose; `auto` is no choice."""
    return {name for name in settings.origins if getattr(settings.config, name) != "auto"}


def _one_line(expected: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in expected.items())


def _begin_tensorboard(run: RunDir) -> None:
    """Make the folder of the log; that it is there is what asks for the log."""
    try:
        run.tensorboard.mkdir(exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make {show(run.tensorboard)}: {error.strerror}") from error
    say(f"live view tensorboard --logdir {quoted(run.tensorboard)}")


def _start_clock(job: Job, costs: Costs, began: float) -> Job:
    """Begin to keep the time of a run with a budget."""
    config = job.config
    if config.budget is None:
        return job
    record = new_record(
        budget=parse_duration(config.budget),
        spent=time.monotonic() - began,
        expected=expected_seconds(config, costs, job.images),
        views=config.views,
        epochs=config.epochs,
    )
    budget = Budget(job.run, record)
    budget.keep()
    return replace(job, budget=budget)


def _train(job: Job, stop: StopSignals) -> TrainResult | None:
    states = StateStore(job.run.checkpoints)
    saved = job.runtime.processes.once(states.load)
    history = History.from_dict(saved["history"]) if saved else History()
    if (
        saved and job.budget is None and job.config.epochs > saved["max_epochs"]
    ):  # more is wanted: patience starts anew
        history.stopped_early, history.epochs_without_better = False, 0
    training = prepare(job, history)
    if training.train is not None and training.val is not None:
        with job.phase("fine-tuning"):
            _fine_tune(job, training.train, training.val, history, states, saved, stop)
    judged = judge_together(job)
    job.runtime.processes.separate()
    if not job.leads or judged is None:
        return None
    states.keep(1)
    return finish(job.alone(), training, history, judged)


def _fine_tune(
    job: Job,
    train: FeatureInputs | PictureInputs,
    val: FeatureInputs | PictureInputs,
    history: History,
    states: StateStore,
    saved: Mapping[str, Any] | None,
    stop: StopSignals,
) -> None:
    config, processes = job.config, job.runtime.processes
    learner = create_learner(job)
    best = BestModel(job, learner.ema)
    paths = [image.path for image in job.split.of("train")]

    def describe(engine: Engine, indices: torch.Tensor) -> str:
        files = ", ".join(show(paths[index]) for index in indices.tolist())
        return (
            f"at iteration {engine.state.iteration}, learning rate {learner.learning_rate:.2g}; "
            f"the batch: {files}"
        )

    trainer = create_trainer(
        learner.trained,
        learner.optimizer,
        learner.scaler,
        runtime=job.runtime,
        label_smoothing=config.label_smoothing,
        accumulate=config.accumulate,
        clip=config.clip,
        batch_norm=job.pretrained is None,
        class_weights=_loss_weights(job),
        example=_example(job, train),
        describe=describe,
    )
    evaluator = create_evaluator(learner.ema.module, runtime=job.runtime, top_k=job.top_k)
    every = 1 if job.runtime.device.type == "cpu" else config.log_every
    support = job.split.counts("val")

    def save_state(phase: str, remembered: Mapping[str, Any], *, tensors: bool = True) -> None:
        iteration, epochs = trainer.state.iteration, trainer.state.max_epochs
        notes = {"phase": phase, "history": remembered, "max_epochs": epochs}
        if tensors:
            state = learner.state() | {"train_loss": handlers.train_loss_state(train_loss)}
        if job.leads:
            best.write()
            if tensors:
                states.save(state, iteration=iteration, notes=notes)
            else:
                states.note(iteration, notes)
        processes.wait()  # torchrun ends the leader when another one ends before it

    saving = checkpoint.StateSaving(
        save_state,
        history,
        every=60 * config.save_every_minutes,
        # When the budget is used up, the run ends with the state of the last whole epoch.
        least=checkpoint.BETWEEN_STATES if job.budget is None else 0.0,
        processes=processes,
    )
    with (
        screen.bar("fine-tuning", config.epochs, "epochs", heartbeat=False) as epochs,
        screen.bar("epoch", train.batches.count) as images,
        ExitStack() as held,
    ):
        handlers.attach_reseeding(trainer, train.batches, config.seed)
        handlers.attach_schedule(
            trainer, learner.optimizer, schedule=config.schedule, warmup=config.warmup
        )
        handlers.attach_ema(trainer, learner.ema, learner.trained, config.ema)
        train_loss = handlers.attach_train_loss(trainer, job.runtime.device)
        handlers.attach_finite_check(
            trainer,
            every=every,
            device=job.runtime.device,
            rate=lambda: learner.learning_rate,
            processes=processes,
        )
        checkpoint.attach_pending_state(trainer, saving)
        handlers.attach_prefetch(trainer, train, val)  # after it: workers may be dead
        handlers.attach_validation(trainer, evaluator, val, support=support, top_k=job.top_k)
        if job.leads:
            handlers.attach_candidates(trainer, evaluator, job.keep_candidate)
        handlers.attach_best_model(trainer, history, monitor=config.monitor, hold=best.hold)
        handlers.attach_early_stopping(trainer, history, config.patience)
        if job.budget is not None:
            handlers.attach_budget(trainer, job.budget, wanted=job.epochs)
        if job.leads:
            handlers.attach_metrics_log(
                trainer, history, job.run.metrics, rate=lambda: learner.learning_rate
            )
        if job.leads and job.run.tensorboard.is_dir():
            held.enter_context(
                handlers.attach_tensorboard(
                    trainer, job.run.tensorboard, rate=lambda: learner.learning_rate
                )
            )
        checkpoint.attach_state_saving(trainer, evaluator, stop, saving, epoch_length=len(train))
        handlers.attach_progress(
            trainer, history, epochs, images, every=every, rate=lambda: learner.learning_rate
        )
        stop.graceful = True
        if saved is not None and job.epochs > 0:  # 0: time was up inside the first one
            learner.restore(saved)
            _take_up(trainer, train_loss, saved, len(train), job.epochs)
        if trainer.state.iteration < job.epochs * len(train) and not history.stopped_early:
            try:
                trainer.run(train, max_epochs=job.epochs, epoch_length=len(train))
            except (DataError, MachineError):
                # A picture or a worker is gone. Ignite (0.5.5) fetches a batch before it counts
                # the iteration, so what was trained so far is whole.
                if processes.count > 1:  # the others are elsewhere: no state can be put together
                    raise
                if trainer.state.iteration:
                    saving.save()
                if stop.requested is not None:  # the signal that stops us may take the workers too
                    raise checkpoint.stopped(stop, trainer) from None
                raise
            except DivergedError:
                best.write()  # the error says that it is kept
                raise
        best.write()
        stop.graceful = False
        if checkpoint.asked_to_stop(stop, processes):  # it came behind the last look
            raise checkpoint.stopped(stop, trainer)


def _example(job: Job, train: FeatureInputs | PictureInputs) -> torch.Tensor | None:
    """Return values of most batches' shape, for a GPU to capture its passes with."""
    if job.runtime.device.type != "cuda" or job.config.compile:
        return None
    return train.example(min(job.config.batch_size, train.batches.count))


def _loss_weights(job: Job) -> torch.Tensor | None:
    if job.config.balance != "loss" or job.class_weights is None:
        return None
    return job.runtime.to_device(job.class_weights)


def _take_up(
    trainer: Engine,
    train_loss: Any,
    saved: Mapping[str, Any],
    epoch_length: int,
    max_epochs: int,
) -> None:
    """Put the engine where the state was saved, and do the validation that was still to do."""
    iteration = saved["iteration"]
    trainer.load_state_dict(
        {"iteration": iteration, "epoch_length": epoch_length, "max_epochs": max_epochs}
    )
    say(f"resuming  behind iteration {iteration} of {epoch_length * max_epochs}")
    if saved["phase"] == "eval_pending":
        train_loss.load_state_dict(saved["train_loss"])
        trainer.fire_event(Events.EPOCH_COMPLETED)
    elif iteration % epoch_length:
        # The metric is reset when the epoch starts again, so it is filled just behind that.
        current = iteration // epoch_length + 1
        trainer.add_event_handler(
            Events.EPOCH_STARTED(once=current),
            lambda _: train_loss.load_state_dict(saved["train_loss"]),
        )
