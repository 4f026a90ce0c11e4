"""A run with a time budget: it ends on time with a model, and a resume follows its plan."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ignite.engine import Engine, Events
from images import draw_photos
from runs import Clock, call, quick_settings, train_run

from xception_cli.config import TrainConfig
from xception_cli.errors import UsageError
from xception_cli.evaluation.candidates import FINAL, read_candidates
from xception_cli.files import file_digest
from xception_cli.model import feature_store, features
from xception_cli.rundir import RunDir, read_json
from xception_cli.toml_files import read_toml
from xception_cli.training import baseline, handlers, judge
from xception_cli.training.schedule import learning_rate_factor

PEAK = TrainConfig().lr
EPOCH = 3  # iterations
TIMED = {"budget": "1h", "epochs": 4, "patience": 0, "save_every_minutes": 0.0}


class Crash(BaseException):
    """Stands for a kill: nothing in the package catches it, and nothing is saved after it."""


def crash(*_: object, **__: object) -> None:
    raise Crash


def set_clock(patch: pytest.MonkeyPatch) -> Clock:
    """Time a run with a clock that moves only when it is advanced."""
    clock = Clock()
    for module in ("budget", "job", "baseline", "handlers", "saving"):
        patch.setattr(f"xception_cli.training.{module}.time", SimpleNamespace(monotonic=clock))
    return clock


def at_each_iteration(patch: pytest.MonkeyPatch, action: Callable[[int], None]) -> None:
    """Call a function with the iteration number when an iteration starts."""
    reseed = handlers.attach_reseeding

    def patched(trainer: Engine, *more: Any) -> None:
        reseed(trainer, *more)
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: action(e.state.iteration))

    patch.setattr(handlers, "attach_reseeding", patched)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | TIMED


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> Iterator[RunDir]:
    """A run of 4 requested epochs in an hour, at 300 seconds per iteration: 3 fit."""
    folder = tmp_path_factory.mktemp("cut")
    settings = quick_settings(draw_photos(folder / "photos"), random_weights) | TIMED
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        clock = set_clock(patch)
        at_each_iteration(patch, lambda _: clock.advance(300))
        train_run(settings)
    return RunDir(folder / "run")


def rows(run: RunDir) -> list[dict[str, Any]]:
    text = run.metrics.read_text() if run.metrics.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def decisions(run: RunDir) -> list[dict[str, Any]]:
    return list(read_json(run.info)["timed"]["decisions"])


def outcome(run: RunDir) -> dict[str, str]:
    """Digest what must be equal: the metrics, the model, the final state."""
    named = [run.metrics, run.model, *run.checkpoints.glob("*.json")]
    return {path.name: file_digest(path) for path in named}


def selected_of(run: RunDir) -> str:
    """Return the model to keep by the run's own numbers: the probe, or the last epoch's."""
    candidates = read_candidates(run.candidates, read_json(run.info)["images"]["val"])
    last = len(rows(run))
    assert candidates.epochs.tolist() == ([0, FINAL] if last else [0])
    if last:
        gains = candidates.losses[0].astype(float) - candidates.losses[1]
        if gains.mean() > gains.std(ddof=1) / len(gains) ** 0.5:  # each image is a unit here
            return f"fine-tuned, epoch {last}"
    return "the linear probe"


START = {"after": "start", "views": 2, "epochs": 4, "why": "the plan"}
THREE = {"after": "epoch 1", "views": 2, "epochs": 3, "why": "an epoch takes 15 min 0 s"}


# Ending on time


@pytest.mark.slow
def test_a_run_with_more_time_than_it_needs_does_everything_planned(
    settings: dict[str, Any],
) -> None:
    del settings["views"]  # ours to choose; the layers and epochs are given
    run = train_run(settings | {"epochs": 1}).run
    config, timed = read_toml(run.config), read_json(run.info)["timed"]
    assert (config["unfreeze"], config["views"], config["epochs"]) == ("exit", 4, 1)
    assert [row["epoch"] for row in rows(run)] == [1]
    assert timed.keys() == {"budget", "spent", "evaluation", "epoch", "decisions"}
    assert timed["budget"] == 3600
    assert timed["decisions"] == [START | {"views": 4, "epochs": 1}]
    assert 0 < timed["spent"] < 600
    assert 0 < timed["evaluation"] < 600
    assert 0 < timed["epoch"] < 600
    log = run.log.read_text()
    assert "setting   budget = 1h (--budget)" in log
    assert "plan      --budget 1h: training the exit flow on 4 views for 1 epoch, about " in log
    assert re.search(r"expected  about \d.*: preparation ", log)


@pytest.mark.slow
def test_epochs_that_do_not_fit_are_left_out_and_the_rate_falls_to_the_new_end(cut: RunDir) -> None:
    assert decisions(cut) == [START, THREE]
    assert [row["epoch"] for row in rows(cut)] == [1, 2, 3]
    assert [row["lr"] for row in rows(cut)] == [
        PEAK * learning_rate_factor(EPOCH, 4 * EPOCH, 0.05),  # the end was not known yet
        PEAK * learning_rate_factor(2 * EPOCH, 3 * EPOCH, 0.05),
        PEAK * learning_rate_factor(3 * EPOCH, 3 * EPOCH, 0.05),
    ]
    assert rows(cut)[-1]["lr"] < 0.1 * PEAK
    assert rows(cut)[-1]["lr"] != PEAK * learning_rate_factor(3 * EPOCH, 4 * EPOCH, 0.05)
    assert cut.is_finished
    assert read_json(cut.result)["kept"] == selected_of(cut)
    assert "plan      after epoch 1: 3 epochs in all; an epoch takes 15 min 0 s" in (
        cut.log.read_text()
    )
    assert not cut.features.exists()
    assert len(list(cut.checkpoints.glob("*.json"))) == 1


def test_the_result_of_a_run_has_the_number_of_epochs(cut: RunDir) -> None:
    assert read_json(cut.result)["epochs"] == 3


@pytest.mark.parametrize(
    ("iteration", "whole"),
    [pytest.param(5, 1, id="second", marks=pytest.mark.slow), pytest.param(2, 0, id="first")],
)
def test_when_the_time_is_up_inside_an_epoch_a_model_is_selected_and_a_resume_only_evaluates(
    settings: dict[str, Any],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    iteration: int,
    whole: int,
) -> None:
    at_each_iteration(monkeypatch, lambda i: clock.advance(4000 if i == iteration else 1))
    with monkeypatch.context() as patch:
        patch.setattr(judge, "compute_outcomes", crash)
        with pytest.raises(Crash):
            train_run(settings)
    run = RunDir(Path("run"))
    before, trained = decisions(run), rows(run)
    assert not run.is_finished
    at_each_iteration(monkeypatch, crash)
    capsys.readouterr()
    assert call("train", "--resume", "run") == 0
    assert capsys.readouterr().out == "run\n"
    assert run.is_finished
    assert (decisions(run), rows(run)) == (before, trained)
    assert [row["epoch"] for row in rows(run)] == [*range(1, whole + 1)]
    assert read_json(run.result)["kept"] == selected_of(run)
    assert decisions(run) == [
        START,
        {"after": f"epoch {whole}", "views": 2, "epochs": whole,
         "why": "the time is up during the next one"},
    ]  # fmt: skip
    assert (run.evaluation("val") / "metrics.json").is_file()


# Refused


def test_too_little_time_is_refused_and_leaves_no_run(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    before = sorted(Path.cwd().rglob("*"))
    for where in ([], ["--output=run"], ["--plan"]):
        assert call("train", *flags, "--budget=1s", *where) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "error: a budget of 1s is too short: training the exit flow on 2 views" in shown.err
        assert re.search(r"^hint: --budget \d+m$", shown.err, re.MULTILINE)
        assert sorted(Path.cwd().rglob("*")) == before


# Resuming


@pytest.mark.slow
def test_a_killed_run_resumes_with_its_decisions_to_the_same_bytes(
    settings: dict[str, Any], cut: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(Path("run"))
    with monkeypatch.context() as patch:
        clock = set_clock(patch)

        def tick_and_die(iteration: int) -> None:
            clock.advance(300)
            if iteration == 6:
                raise Crash

        at_each_iteration(patch, tick_and_die)
        with pytest.raises(Crash):
            train_run(settings)
    assert decisions(run) == [START, THREE]
    for flags, message in (
        ({"epochs": 9}, "epochs is 9, but the run's budget of 1h decides the number of epochs"),
        ({"epochs": 3}, "epochs is 3, but the run's budget of 1h"),
        ({"budget": "2h"}, "budget: the run has 1h, now 2h"),
        ({"views": 1}, "views: the run has 2, now 1"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            train_run(flags, resume=True)
        assert caught.value.exit_code == 2
    clock = set_clock(monkeypatch)
    at_each_iteration(monkeypatch, lambda _: clock.advance(300))
    train_run({"budget": "1h", "epochs": 4}, resume=True)
    assert decisions(run) == [START, THREE]
    assert outcome(run) == outcome(cut)
    assert len(rows(run)) == 3


@pytest.mark.slow
def test_a_killed_run_that_runs_short_of_time_does_even_fewer_epochs(
    settings: dict[str, Any], cut: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also the control of the test before: the resumed process is slower.
    clock = set_clock(monkeypatch)

    def tick_and_die(iteration: int) -> None:
        clock.advance(300)
        if iteration == 5:
            raise Crash

    with monkeypatch.context() as patch:
        at_each_iteration(patch, tick_and_die)
        with pytest.raises(Crash):
            train_run(settings)
    at_each_iteration(monkeypatch, lambda _: clock.advance(600))
    train_run({}, resume=True)
    run = RunDir(Path("run"))
    two = {"after": "epoch 2", "views": 2, "epochs": 2, "why": "an epoch takes 30 min 0 s"}
    assert decisions(run) == [START, THREE, two]
    assert [row["epoch"] for row in rows(run)] == [1, 2]
    assert outcome(run) != outcome(cut)


@pytest.mark.parametrize("flags", [{}, {"epochs": 4}, {"budget": "1h"}], ids=str)
def test_a_finished_run_has_used_up_its_time(
    cut: RunDir, capsys: pytest.CaptureFixture[str], flags: dict[str, Any]
) -> None:
    files = [path for path in cut.path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    result = train_run(flags, str(cut.path), resume=True)
    assert result.kept == read_json(cut.result)["kept"]
    assert capsys.readouterr().err.endswith("is already finished: its --budget is used up\n")
    assert {path: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()} == before


def test_a_finished_run_cannot_be_extended_past_its_time(
    cut: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", "--resume", str(cut.path), "--epochs", "20") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "error: --epochs is 20, but the run's budget of 1h decides the number of epochs\n"
        "hint: leave --epochs out, or start a new run\n"
    )
    assert cut.is_finished


# Fewer views


def slow_features(patch: pytest.MonkeyPatch, clock: Clock, seconds: float) -> None:
    """Make each block of images take this long."""
    write = feature_store.write_durably

    def write_slowly(path: Path, content: bytes) -> None:
        write(path, content)
        clock.advance(seconds)

    patch.setattr(feature_store, "write_durably", write_slowly)


ONE = {"after": "view 1", "views": 1, "epochs": 4, "why": "there is no time for more views"}


@pytest.mark.slow
def test_the_time_to_fit_a_probe_is_not_that_of_a_view(
    settings: dict[str, Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = baseline._fit_probes

    def slow_fit(*given: Any) -> Any:
        monkeypatch.setattr(baseline, "_fit_probes", fit)  # the first one alone
        clock.advance(2000)
        return fit(*given)

    monkeypatch.setattr(baseline, "_fit_probes", slow_fit)
    monkeypatch.setattr(baseline, "_is_above", lambda *_: False)
    slow_features(monkeypatch, clock, 10)
    at_each_iteration(monkeypatch, lambda _: clock.advance(1))
    run = train_run(settings | {"views": 3, "ceiling": 0.9, "epochs": 1}).run
    assert decisions(run) == [START | {"views": 3, "epochs": 1}]


@pytest.mark.slow
def test_views_that_do_not_fit_are_left_out_and_a_resume_computes_none_of_them(
    settings: dict[str, Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two blocks of val and one of train, and 200 seconds are left: another view would take longer.
    slow_features(monkeypatch, clock, 1130)
    at_each_iteration(monkeypatch, lambda _: clock.advance(1))
    with monkeypatch.context() as patch:
        at_each_iteration(patch, lambda i: crash() if i == 5 else None)
        with pytest.raises(Crash):
            train_run(settings)
    run = RunDir(Path("run"))
    assert decisions(run) == [START, ONE]
    # The files for both views of train keep their size; both views of val are there.
    val, train = ((run.features / f"{name}.bin").stat().st_size for name in ("val", "train"))
    images = read_json(run.info)["images"]
    assert train / images["train"] == val / images["val"] == 2 * 5 * 5 * 728 * 2
    with monkeypatch.context() as patch:
        patch.setattr(features, "to_bits", lambda _: pytest.fail("computed again"))
        train_run({}, resume=True)
    assert decisions(run) == [START, ONE]
    assert [row["epoch"] for row in rows(run)] == [1, 2, 3, 4]

    # It equals the training on one view, to the byte.
    plain = {name: value for name, value in settings.items() if name != "budget"}
    single = train_run(plain | {"views": 1}, "single").run
    assert outcome(run)["metrics.jsonl"] == outcome(single)["metrics.jsonl"]
    double = train_run(plain | {"epochs": 1}, "double").run  # the control
    assert double.metrics.read_text() != single.metrics.read_text().splitlines(keepends=True)[0]
