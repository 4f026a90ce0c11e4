"""Exact resume: after any interruption anywhere, resuming gives the same bytes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine, Events
from images import draw_photos
from runs import Crash, crash, outcome, quick_settings, train_run

from xception_cli.errors import DataError, RunBusyError, StoppedError
from xception_cli.rundir import RunDir
from xception_cli.training import handlers


@pytest.fixture
def at_iteration(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something once, when an iteration starts or when an epoch's validation does."""
    reseed, validate = handlers.attach_reseeding, handlers.attach_validation

    def install(iteration: int, action: Callable[[], None], *, validation: bool = False) -> None:
        waiting = True

        def act(trainer: Engine) -> None:
            nonlocal waiting
            if waiting and trainer.state.iteration >= iteration:
                waiting = False
                action()

        def patched_reseeding(trainer: Engine, *args: Any) -> None:
            reseed(trainer, *args)
            if not validation:
                trainer.add_event_handler(Events.ITERATION_STARTED, act)

        def patched_validation(trainer: Engine, evaluator: Engine, *args: Any, **more: Any) -> None:
            validate(trainer, evaluator, *args, **more)
            if validation:
                evaluator.add_event_handler(Events.ITERATION_STARTED, lambda _: act(trainer))

        monkeypatch.setattr(handlers, "attach_reseeding", patched_reseeding)
        monkeypatch.setattr(handlers, "attach_validation", patched_validation)

    return install


CHANGES = {"ema": 0.9, "dropout": 0.3, "save_every_minutes": 0.0}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> dict[str, str]:
    """The outcome of an uninterrupted run: 2 epochs of 3 iterations."""
    folder = tmp_path_factory.mktemp("unbroken")
    settings = quick_settings(draw_photos(folder / "photos"), random_weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_run(settings | CHANGES)
        return outcome("run")


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, on images of the test's own."""
    return settings | CHANGES


@pytest.mark.parametrize(
    ("iteration", "validation"),
    [
        pytest.param(1, False, id="first", marks=pytest.mark.slow),
        pytest.param(2, False, id="inside an epoch"),
        pytest.param(3, False, id="last of an epoch", marks=pytest.mark.slow),
        pytest.param(3, True, id="in validation"),
        pytest.param(4, False, id="first of the second epoch", marks=pytest.mark.slow),
        pytest.param(6, False, id="last of all", marks=pytest.mark.slow),
        pytest.param(6, True, id="in the last validation", marks=pytest.mark.slow),
    ],
)
def test_a_crashed_run_resumes_to_the_same_bytes(
    settings: dict[str, Any],
    unbroken: dict[str, str],
    at_iteration: Callable[..., None],
    iteration: int,
    validation: bool,
) -> None:
    at_iteration(iteration, crash, validation=validation)
    with pytest.raises(Crash):
        train_run(settings)
    train_run({}, resume=True)
    assert outcome("run") == unbroken


@pytest.mark.slow
def test_training_of_all_layers_with_workers_resumes_to_the_same_bytes(
    settings: dict[str, Any], at_iteration: Callable[..., None]
) -> None:
    settings |= {"unfreeze": "all", "workers": 1}
    train_run(settings, "whole")
    at_iteration(5, crash)
    with pytest.raises(Crash):
        train_run(settings)
    train_run({"workers": 0}, resume=True)
    assert outcome("run") == outcome("whole")


@pytest.mark.slow
def test_an_image_that_vanishes_in_training_stops_the_run_with_its_state_saved(
    settings: dict[str, Any], photos: Path, at_iteration: Callable[..., None]
) -> None:
    settings |= {"unfreeze": "all", "save_every_minutes": 60.0, "batch_size": 2}
    aside = photos.parent / "aside"
    at_iteration(2, lambda: (photos / "red").rename(aside))
    with pytest.raises(DataError, match=r"red/.*: file not found"):
        train_run(settings)
    (state,) = Path("run/checkpoints").glob("*.json")
    assert 2 <= int(state.stem.removeprefix("state-")) <= 6
    aside.rename(photos / "red")
    assert train_run({}, resume=True).run.is_finished


def test_a_repeated_sigterm_is_a_single_stop(
    settings: dict[str, Any], at_iteration: Callable[..., None]
) -> None:
    def terminate_twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    at_iteration(2, terminate_twice)
    with pytest.raises(StoppedError, match="the state is saved at iteration 2 "):
        train_run(settings)


@pytest.mark.slow
def test_a_crash_while_computing_features_loses_only_the_current_block(
    settings: dict[str, Any], unbroken: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xception_cli.model import features

    write, notes = features.write_durably, []

    def write_twice(path: Path, content: bytes) -> None:
        if len(notes) == 1:
            raise Crash
        notes.append(content)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(features, "write_durably", write_twice)
        with pytest.raises(Crash):
            train_run(settings)
    assert [json.loads(note)["images"] for note in notes] == [11]  # all of val
    train_run({}, resume=True)
    assert outcome("run") == unbroken


@pytest.mark.slow
def test_the_comparison_detects_a_resume_that_starts_the_epoch_again(
    settings: dict[str, Any],
    unbroken: dict[str, str],
    at_iteration: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_iteration(3, crash)  # the state after iteration 2 is inside the first epoch
    with pytest.raises(Crash):
        train_run(settings)
    monkeypatch.setattr(
        "xception_cli.data.loading.KeyedBatches.start",
        property(lambda _: 0, lambda *_: None),
        raising=False,
    )
    train_run({}, resume=True)
    assert outcome("run") != unbroken


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["ema", "optimizer", "train_loss"])
def test_the_comparison_detects_a_state_that_is_not_restored(
    settings: dict[str, Any],
    unbroken: dict[str, str],
    at_iteration: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    at_iteration(3, crash)  # the state after iteration 2 is inside the first epoch
    with pytest.raises(Crash):
        train_run(settings)
    target = {
        "ema": "torch.optim.swa_utils.AveragedModel.load_state_dict",
        "optimizer": "torch.optim.AdamW.load_state_dict",
        "train_loss": "ignite.metrics.Average.load_state_dict",
    }[lost]
    monkeypatch.setattr(target, lambda *_: None)
    train_run({}, resume=True)
    assert outcome("run") != unbroken


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_stops_and_the_run_resumes_to_the_same_bytes(
    settings: dict[str, Any],
    unbroken: dict[str, str],
    at_iteration: Callable[..., None],
    number: signal.Signals,
    code: int,
) -> None:
    before = signal.getsignal(number)
    at_iteration(2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(StoppedError, match=r"the state is saved at iteration 2 ") as caught:
        train_run(settings | {"save_every_minutes": 60.0})
    assert caught.value.exit_code == code
    assert caught.value.hint == "xception train --resume run"
    assert signal.getsignal(number) == before
    train_run({}, resume=True)
    assert outcome("run") == unbroken


@pytest.mark.slow
def test_a_signal_in_validation_leaves_the_validation_to_the_resumed_run(
    settings: dict[str, Any], unbroken: dict[str, str], at_iteration: Callable[..., None]
) -> None:
    at_iteration(3, lambda: os.kill(os.getpid(), signal.SIGTERM), validation=True)
    with pytest.raises(StoppedError, match=r"iteration 3 \(epoch 1\)"):
        train_run(settings)
    assert not Path("run/metrics.jsonl").exists()
    train_run({}, resume=True)
    assert outcome("run") == unbroken


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once_with_the_last_state_intact(
    settings: dict[str, Any], unbroken: dict[str, str], at_iteration: Callable[..., None]
) -> None:
    def interrupt_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_iteration(3, interrupt_twice)
    with pytest.raises(StoppedError, match="what was saved before is intact") as caught:
        train_run(settings)
    assert caught.value.exit_code == 130
    states = sorted(path.name for path in Path("run/checkpoints").glob("*.json"))
    assert states == ["state-00000001.json", "state-00000002.json"]
    train_run({}, resume=True)
    assert outcome("run") == unbroken


_KILLED = """
import os, signal, sys
from ignite.engine import Events
from xception_cli.cli import main
from xception_cli.training import checkpoint, handlers

reseed = handlers.attach_reseeding
def reseed_and_die(trainer, *args):
    reseed(trainer, *args)
    trainer.add_event_handler(
        Events.ITERATION_STARTED(once=5), lambda _: os.kill(os.getpid(), signal.SIGKILL)
    )
handlers.attach_reseeding = reseed_and_die
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_resumes_in_another_process_to_the_same_bytes(
    settings: dict[str, Any], unbroken: dict[str, str]
) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, "train", *flags, "--output=run"],
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = subprocess.run(
        [sys.executable, "-m", "xception_cli", "train", "--resume", "run", "--workers", "1"],
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert resumed.returncode == 0, resumed.stderr.decode()
    assert resumed.stdout.decode() == "run\n"
    assert outcome("run") == unbroken


def test_two_trainings_cannot_write_one_run(settings: dict[str, Any]) -> None:
    train_run(settings | {"unfreeze": "head"})
    Path("run/result.json").unlink()
    with RunDir(Path("run")).lock(), pytest.raises(RunBusyError) as caught:
        train_run({}, resume=True)
    assert f"process {os.getpid()}" in caught.value.message
    assert caught.value.exit_code == 8
