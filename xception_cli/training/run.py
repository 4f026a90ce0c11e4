"""run_training: `xception train` from start to end. Read this file first.

A run is prepared, new or resumed (`preparation.py`). The outputs of the frozen layers are computed
once, and the linear probe is fitted to them (`baseline.py`). The other layers are fine-tuned, here.
One of the two models is selected (`settle.py`), and its answers on val and test are computed
(`judge.py`); with them it is calibrated, evaluated and reported (`finish.py`).

Under torchrun each process runs this file with the same arguments. The leader decides and writes;
`processes.once` calls a function in the leader and returns its result in every process.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from xception_cli.check.survey import Survey
from xception_cli.config import TrainConfig
from xception_cli.console import quoted, say, screen, show
from xception_cli.errors import MachineError, XceptionError
from xception_cli.numerals import count_of
from xception_cli.processes import ALONE, Processes, joined_processes
from xception_cli.rundir import RunDir
from xception_cli.runs import make_run
from xception_cli.runtime import Runtime, decide_runtime
from xception_cli.settings import ResolvedConfig
from xception_cli.training import handlers
from xception_cli.training.baseline import TuningInputs, compute_baseline
from xception_cli.training.checkpoint import StateStore
from xception_cli.training.costs import Forecast
from xception_cli.training.estimate import forecast
from xception_cli.training.finish import finish, measure
from xception_cli.training.history import History
from xception_cli.training.job import Job
from xception_cli.training.judge import judge_together, judge_val
from xception_cli.training.learner import (
    BestModel,
    Engines,
    Learner,
    create_engines,
    create_learner,
)
from xception_cli.training.preparation import (
    decide_job,
    reopen_job,
    resumed_config,
    share_job,
    start_job,
)
from xception_cli.training.result import TrainResult
from xception_cli.training.saving import (
    BETWEEN_STATES,
    StateSaving,
    StateWriter,
    attach_pending_state,
    attach_state_saving,
    resume_trainer,
    saved_on_failure,
)
from xception_cli.training.settle import settle
from xception_cli.training.stopping import StopSignals, asked_to_stop, stopped_error
from xception_cli.training.tensorboard import (
    attach_tensorboard,
    begin_tensorboard,
    require_tensorboard,
)


def run_training(
    settings: ResolvedConfig,
    *,
    survey: Survey | None = None,
    output: Path | None = None,
    resume: RunDir | None = None,
    flags: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    began: float | None = None,
) -> TrainResult | None:
    """Train a classifier on a folder of images.

    Args:
        settings: From `settings.resolve`; a resumed run uses its config.toml instead.
        survey: The survey of the data folder, if it was made already.
        output: The run folder; None makes `runs/<data folder name>`.
        resume: A run to resume, instead of a new one.
        flags: The settings given on the command line, checked against a resumed run's.
        tensorboard: Log the epochs for TensorBoard too; on resume, a run with a log keeps logging.
        began: When the command began, by `time.monotonic`; None means now.

    Returns:
        The result; None in a process that does not lead.

    Raises:
        XceptionError: See `errors.py`; what was saved before is intact.
    """
    began = time.monotonic() if began is None else began
    tensorboard = tensorboard or (resume is not None and resume.tensorboard.is_dir())
    if tensorboard:
        require_tensorboard()
    with ExitStack() as held, _errors_logged(), joined_processes() as processes:
        if resume is not None and processes.leads:
            held.enter_context(resume.lock())  # before any of its files is read or written
        config = processes.once(partial(_config, settings, resume, flags or {}))
        if finished := processes.once(partial(_finished, resume, config)):
            return finished if processes.leads else None
        runtime = _runtime(config, processes)
        with StopSignals(_how_to_continue(resume)) as stop:
            job = None
            if resume is not None:
                job = reopen_job(config, runtime, resume)
            elif processes.leads:
                draft, costs = decide_job(settings, survey, runtime, output, began)
                run = make_run(draft.job.folder.place, output)
                held.enter_context(run.lock())
                job = start_job(draft, costs, run, began)
            job = share_job(job, runtime)
            if tensorboard:
                begin_tensorboard(job.run.tensorboard)
            job.seconds["preparation"] = time.monotonic() - began
            stop.hint = _how_to_continue(job.run)
            try:
                return _train(job, stop)
            except MachineError as error:
                error.hint = "; then: ".join(filter(None, (error.hint, stop.hint)))
                raise


def _how_to_continue(run: RunDir | None) -> str:
    """Return the hint of a training that is stopped, of this run or before there is one."""
    if run is None:
        return "nothing was written yet; run the same command again"
    return f"xception train --resume {quoted(run.path)}"


def _train(job: Job, stop: StopSignals) -> TrainResult | None:
    """Fit the linear probe, fine-tune the network, and finish with the better of the two."""
    processes = job.runtime.processes
    states = StateStore(job.run.checkpoints)
    saved = processes.once(states.load)  # None in a new run
    history = History.of_state(saved, job.epochs if job.budget is None else None)
    if job.leads:
        handlers.check_metrics_log(history, job.run.metrics)

    baseline = compute_baseline(job, history)
    job = job.averaging_mirror(baseline.mirror)
    if reason := baseline.skipped(job.config.ceiling):
        say(f"plan      {reason}")
    elif baseline.inputs is not None:
        with job.phase("fine-tuning"):
            _fine_tune(job, baseline.inputs, history, states, saved, stop)

    settled = settle(job.alone(), baseline, history) if job.leads else None
    on_val = judge_val(job, settled)
    measured = None
    if job.leads and on_val is not None:
        measured = measure(job.alone(), baseline, history, settled, on_val)
    on_test = judge_together(job, "test")
    processes.separate()
    if measured is None or on_test is None:
        return None
    states.keep(1)
    return finish(job.alone(), baseline, history, measured, on_test)


def _fine_tune(
    job: Job,
    inputs: TuningInputs,
    history: History,
    states: StateStore,
    saved: Mapping[str, Any] | None,
    stop: StopSignals,
) -> None:
    """Train the layers that are not frozen, from the probe's head or from a saved state.

    Args:
        job: The run.
        inputs: From `compute_baseline`.
        history: Records which model is the best so far.
        states: The run's store of training states.
        saved: The state to resume from; None starts at the first epoch.
        stop: Signals that stop the run after the current batch.
    """
    processes, train = job.runtime.processes, inputs.train
    learner = create_learner(job)
    engines = create_engines(job, learner, train)
    trainer = engines.trainer
    train_loss = handlers.attach_train_loss(trainer, job.runtime.device)
    best = BestModel(job, learner.ema)
    saving = StateSaving(
        StateWriter(states, trainer, learner, train_loss, best, processes).write,
        history,
        every=60 * job.config.save_every_minutes,
        # A run with a time budget saves after every epoch: its last one may be the result.
        least=BETWEEN_STATES if job.budget is None else 0.0,
        processes=processes,
    )
    with _handlers_attached(job, learner, engines, inputs, best, saving, stop):
        stop.graceful = True  # a signal no longer raises; the handlers save and stop
        if saved is not None and job.epochs > 0:  # 0: the budget ran out in the first epoch
            learner.restore(saved)
            resume_trainer(
                trainer, train_loss, saved, epoch_length=len(train), max_epochs=job.epochs
            )
        if trainer.state.iteration < job.epochs * len(train) and not history.stopped_early:
            with saved_on_failure(saving, best, stop, trainer):
                trainer.run(train, max_epochs=job.epochs, epoch_length=len(train))
        best.write()
        stop.graceful = False
        if asked_to_stop(stop, processes):  # a signal that came after the last handler
            raise stopped_error(stop, trainer)


@contextmanager
def _handlers_attached(
    job: Job,
    learner: Learner,
    engines: Engines,
    inputs: TuningInputs,
    best: BestModel,
    saving: StateSaving,
    stop: StopSignals,
) -> Iterator[None]:
    """Attach all that happens in fine-tuning in addition to the steps; at the end, close displays.

    Ignite calls the handlers of an event in the order in which they are attached.
    """
    (trainer, evaluator), (train, val), history = engines, inputs, saving.history
    config, runtime = job.config, job.runtime
    rate = learner.learning_rate  # a function
    # Iterations between reads of the loss: on a GPU, reading a value synchronizes.
    every = 1 if runtime.device.type == "cpu" else config.log_every

    with ExitStack() as displays:
        # Around each iteration:
        handlers.attach_reseeding(trainer, train.batches, config.seed)
        handlers.attach_schedule(
            trainer, learner.optimizer, schedule=config.schedule, warmup=config.warmup
        )
        handlers.attach_ema(trainer, learner.ema, learner.trained, config.ema)
        handlers.attach_finite_check(
            trainer, every=every, device=runtime.device, rate=rate, processes=runtime.processes
        )
        # When an epoch is completed:
        attach_pending_state(trainer, saving)  # first: what follows may fail
        handlers.attach_prefetch(trainer, train, val)
        handlers.attach_validation(
            trainer, evaluator, val, support=job.split.counts("val"), top_k=job.top_k
        )
        handlers.attach_best_model(trainer, history, monitor=config.monitor, hold=best.hold)
        if config.monitor != "last":
            handlers.attach_early_stopping(trainer, history, config.patience)
        if job.budget is not None:
            handlers.attach_budget(trainer, job.budget, wanted=job.epochs)
        if job.leads:
            if config.monitor != "last":
                handlers.attach_candidates(trainer, evaluator, job.run.candidates)
            handlers.attach_metrics_log(trainer, history, job.run.metrics, rate)
            if job.run.tensorboard.is_dir():
                displays.enter_context(attach_tensorboard(trainer, job.run.tensorboard, rate))
        # Both:
        attach_state_saving(trainer, evaluator, stop, saving, epoch_length=len(train))
        handlers.attach_progress(
            trainer,
            history,
            displays.enter_context(screen.bar("fine-tuning", config.epochs, "epochs")),
            displays.enter_context(screen.bar("epoch", train.batches.count)),
            batch_size=config.batch_size,
            every=every,
            rate=rate,
            monitor=config.monitor,
            smoothed=config.label_smoothing > 0,
        )
        yield


def plan_training(
    settings: ResolvedConfig, *, survey: Survey | None, output: Path | None, began: float
) -> Forecast:
    """Report what a training run would do and how long it would take; write nothing.

    Args:
        settings: From `settings.resolve`.
        survey: See `run_training`.
        output: The run folder that would be created.
        began: When the command began, by `time.monotonic`.

    Returns:
        Its time by phase, memory and disk; the decisions are also printed.

    Raises:
        XceptionError: As `run_training` would.
    """
    runtime = _runtime(settings.config, ALONE)
    draft, costs = decide_job(settings, survey, runtime, output, began, planned=True)
    return forecast(draft, costs, time.monotonic() - began)


def _config(
    settings: ResolvedConfig, resume: RunDir | None, flags: Mapping[str, Any]
) -> TrainConfig:
    return settings.config if resume is None else resumed_config(resume, flags)


def _finished(run: RunDir | None, config: TrainConfig) -> TrainResult | None:
    """Return the result of a finished run, without reports; None if there is more to train."""
    if run is None or not run.is_finished:
        return None
    result = run.read_result()
    name, epochs = show(run.path), count_of(config.epochs, "epoch")
    if config.budget is not None:
        say(f"{name} is already finished: its --budget is used up")
    elif not result.has_tuned:
        say(f"{name} is already finished: without fine-tuning, it has no epochs to extend")
    elif result.epochs == config.epochs:
        say(f"{name} is already finished ({epochs}); a larger --epochs extends it")
    else:
        return None
    return TrainResult(run, result.kept, None, {}, result.seconds)


def _runtime(config: TrainConfig, processes: Processes) -> Runtime:
    return decide_runtime(
        device=config.device,
        precision=config.precision,
        deterministic=config.deterministic,
        compiled=config.compile,
        processes=processes,
    )


@contextmanager
def _errors_logged() -> Iterator[None]:
    """Write an error that ends the run into its log too, and close the log."""
    try:
        yield
    except XceptionError as error:
        say(f"error: {error.message}", log_only=True)  # the caller prints it
        raise
    finally:
        screen.log_to(None)
