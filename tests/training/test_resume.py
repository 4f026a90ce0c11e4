"""Exact resume: after any interruption anywhere, resuming gives the same bytes."""

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine, Events
from images import draw_photos
from runs import Crash, copy_run, crash, outcome, quick_settings, train_run

from xception_cli.data import names
from xception_cli.errors import ArtifactError, DataError, RunBusyError, StoppedError
from xception_cli.rundir import RunDir
from xception_cli.training import handlers
from xception_cli.training import run as training


def act_at(
    patch: pytest.MonkeyPatch,
    iteration: int,
    action: Callable[[], Any],
    *,
    validation: bool = False,
) -> None:
    """Do something once, when an iteration starts or when an epoch's validation does."""
    reseed, validate = handlers.attach_reseeding, handlers.attach_validation
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

    patch.setattr(handlers, "attach_reseeding", patched_reseeding)
    patch.setattr(handlers, "attach_validation", patched_validation)


@pytest.fixture
def at_iteration(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return partial(act_at, monkeypatch)


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


def test_a_run_that_crashes_everywhere_resumes_to_the_same_bytes(
    settings: dict[str, Any], unbroken: dict[str, str], at_iteration: Callable[..., None]
) -> None:
    places = [(1, False), (2, False), (3, False), (3, True), (4, False), (6, False), (6, True)]
    for crashes, (iteration, validation) in enumerate(places):
        at_iteration(iteration, crash, validation=validation)
        with pytest.raises(Crash):
            train_run(settings if crashes == 0 else {}, resume=crashes > 0)
        states = sorted(path.name for path in Path("run/checkpoints").glob("*.json"))
        last = iteration if validation else iteration - 1
        assert states[-1:] == [f"state-{last:08d}.json"] * (last > 0)
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


def test_a_run_with_a_class_of_a_name_that_is_refused_today_can_be_resumed(
    settings: dict[str, Any],
    photos: Path,
    at_iteration: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (photos / "red").rename(photos / "holdout")
    at_iteration(2, crash)
    with monkeypatch.context() as patch:
        patch.delitem(names.WORDS, "holdout")  # as in a version that accepts it
        with pytest.raises(Crash):
            train_run(settings)
    with pytest.raises(DataError, match="is it a split"):
        train_run(settings, "new")  # the control
    assert train_run({}, resume=True).run.is_finished


@pytest.mark.slow
def test_a_crash_while_computing_features_loses_only_the_current_block(
    settings: dict[str, Any], unbroken: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xception_cli.model import feature_store

    write, notes = feature_store.write_durably, []

    def write_twice(path: Path, content: bytes) -> None:
        if len(notes) == 1:
            raise Crash
        notes.append(content)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store, "write_durably", write_twice)
        with pytest.raises(Crash):
            train_run(settings)
    assert [json.loads(note)["images"] for note in notes] == [13]  # the first view of train
    train_run({}, resume=True)
    assert outcome("run") == unbroken


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> Path:
    """A folder with `photos` and a `run` whose state, of iteration 2, is inside the first epoch."""
    folder = tmp_path_factory.mktemp("crashed")
    settings = quick_settings(draw_photos(folder / "photos"), random_weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        act_at(patch, 3, crash)
        with pytest.raises(Crash):
            train_run(settings | CHANGES)
    return folder


@pytest.mark.slow
def test_the_comparison_detects_a_resume_that_starts_the_epoch_again(
    crashed: Path, tmp_path: Path, unbroken: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_run(crashed, tmp_path)
    monkeypatch.setattr(
        "xception_cli.data.dataset.KeyedBatches.start",
        property(lambda _: 0, lambda *_: None),
        raising=False,
    )
    train_run({}, resume=True)
    assert outcome("run") != unbroken


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["ema", "optimizer", "train_loss"])
def test_the_comparison_detects_a_state_that_is_not_restored(
    crashed: Path,
    tmp_path: Path,
    unbroken: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    copy_run(crashed, tmp_path)
    target = {
        "ema": "torch.optim.swa_utils.AveragedModel.load_state_dict",
        "optimizer": "torch.optim.AdamW.load_state_dict",
        "train_loss": "ignite.metrics.Average.load_state_dict",
    }[lost]
    monkeypatch.setattr(target, lambda *_: None)
    train_run({}, resume=True)
    assert outcome("run") != unbroken


@pytest.mark.parametrize(
    ("number", "times", "code"),
    [
        pytest.param(signal.SIGTERM, 2, 143, id="a repeated SIGTERM is a single stop"),
        pytest.param(signal.SIGINT, 1, 130, id="SIGINT", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 1, 129, id="SIGHUP", marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, 1, 128 + signal.SIGUSR2, id="SIGUSR2, as schedulers send it"),
    ],
)
def test_a_signal_saves_and_stops_and_the_run_resumes_to_the_same_bytes(
    settings: dict[str, Any],
    unbroken: dict[str, str],
    at_iteration: Callable[..., None],
    number: signal.Signals,
    times: int,
    code: int,
) -> None:
    before = signal.getsignal(number)
    at_iteration(2, lambda: [signal.raise_signal(number) for _ in range(times)])
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
    at_iteration(3, lambda: signal.raise_signal(signal.SIGTERM), validation=True)
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
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_iteration(3, interrupt_twice)
    with pytest.raises(StoppedError, match="what was saved before is intact") as caught:
        train_run(settings)
    assert caught.value.exit_code == 130
    states = sorted(path.name for path in Path("run/checkpoints").glob("*.json"))
    assert states == ["state-00000001.json", "state-00000002.json"]
    train_run({}, resume=True)
    assert outcome("run") == unbroken


def test_a_resumed_run_that_is_stopped_while_it_is_reopened_names_the_command_again(
    probed: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed.result.unlink()
    stopped = "xception_cli.training.run.reopen_job"
    monkeypatch.setattr(stopped, lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(StoppedError) as caught:
        train_run({}, resume=True)
    assert caught.value.hint == "xception train --resume run"


def test_two_trainings_cannot_write_one_run(probed: RunDir) -> None:
    probed.result.unlink()
    with probed.lock(), pytest.raises(RunBusyError) as caught:
        train_run({}, resume=True)
    assert f"process {probed.read_info().process}" in caught.value.message
    assert caught.value.exit_code == 8


def test_rows_of_metrics_jsonl_that_are_lost_are_reported_before_anything_is_computed(
    settings: dict[str, Any], at_iteration: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_iteration(5, crash)
    with pytest.raises(Crash):
        train_run(settings)
    whole = Path("run/metrics.jsonl").read_bytes()
    Path("run/metrics.jsonl").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(training, "compute_baseline", lambda *_: pytest.fail("it was computed"))
        with pytest.raises(ArtifactError, match="has lost rows since the training state was saved"):
            train_run({}, resume=True)
    Path("run/metrics.jsonl").write_bytes(whole)
    assert train_run({}, resume=True).run.is_finished
