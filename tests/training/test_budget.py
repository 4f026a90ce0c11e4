"""The clock of a run with a budget: its decisions, its record, and reading it back."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from runs import Clock

from xception_cli.rundir import RunDir, read_json, write_json
from xception_cli.training import handlers
from xception_cli.training.budget import Budget, new_record
from xception_cli.training.schedule import learning_rate_factor

START = {"after": "start", "views": 4, "epochs": 12, "why": "the plan"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that moves only when it is advanced; the epochs use it, too."""
    clock = Clock()
    for module in ("budget", "job", "handlers"):
        monkeypatch.setattr(
            f"xception_cli.training.{module}.time", SimpleNamespace(monotonic=clock)
        )
    return clock


@pytest.fixture
def run() -> RunDir:
    """A run with some entries in its run.json."""
    run = RunDir(Path("run"))
    run.path.mkdir()
    write_json(run.info, {"command": "xception train", "classes": ["a", "b"]})
    return run


def record(**changes: Any) -> dict[str, Any]:
    """Create the record of 600 seconds, 30 of them for the evaluation and 10 spent."""
    made = new_record(
        budget=600.0,
        spent=10.0,
        expected={"features": 99.0, "fine-tuning": 120.0, "evaluation": 30.0},
        views=4,
        epochs=12,
    )
    return made | changes


def test_a_new_record_has_the_plan_and_the_time_of_the_evaluation():
    assert record() == {
        "budget": 600.0,
        "spent": 10.0,
        "evaluation": 30.0,
        "epoch": 10.0,
        "decisions": [START],
    }
    probe = new_record(
        budget=60.0, spent=1.26, expected={"probe": 3.0, "evaluation": 2.04}, views=1, epochs=1
    )
    assert probe == {
        "budget": 60.0,
        "spent": 1.3,
        "evaluation": 2.0,
        "epoch": 0.0,
        "decisions": [START | {"views": 1, "epochs": 1}],
    }


def test_time_for_the_selection_is_reserved_with_that_for_the_evaluation(clock, run):
    expected = {"fine-tuning": 120.0, "selection": 50.0, "evaluation": 30.0}
    made = new_record(budget=600.0, spent=10.0, expected=expected, views=4, epochs=12)
    assert made == record(evaluation=80.0)
    assert Budget(run, made).left == 510.0


def test_the_time_left_is_the_budget_minus_the_evaluation_and_the_time_spent(clock, run):
    budget = Budget(run, record())
    assert (budget.left, budget.views, budget.epochs) == (560.0, 4, 12)
    clock.advance(500)
    assert budget.left == 60.0
    clock.advance(100)
    assert budget.left == -40.0


def test_the_time_spent_is_added_to_the_entries_of_run_json(clock, run):
    budget = Budget(run, record())
    clock.advance(12.34)
    budget.keep()
    assert read_json(run.info) == {
        "command": "xception train",
        "classes": ["a", "b"],
        "timed": record(spent=22.3),
    }


def test_time_between_processes_does_not_count(clock, run):
    first = Budget(run, record())
    clock.advance(100)
    first.keep()
    clock.advance(10_000)  # between the processes
    second = Budget(run, read_json(run.info)["timed"])
    assert second.left == 460.0
    clock.advance(5)
    assert second.left == 455.0
    assert first.left < 0  # the control: by the old process's clock


# Views


@pytest.mark.parametrize(
    ("gone", "seconds", "epoch", "expected"),
    [
        (0, 100, 10, True),
        (300, 140, 10, True),  # 260 are left: 140 and 12 epochs of 10 just fit
        (300, 140.1, 10, False),
        (300, 140, 10.1, False),
        (300, 140.1, 0, True),
        (570, 0, 0, False),
    ],
)
def test_another_view_is_computed_if_the_training_after_it_still_fits(
    clock, run, gone, seconds, epoch, expected
):
    budget = Budget(run, record(epoch=epoch))
    clock.advance(gone)
    assert budget.another_view(2, seconds) is expected
    assert budget.views == (4 if expected else 2)
    assert budget.epochs == 12
    decided = [
        {"after": "view 2", "views": 2, "epochs": 12, "why": "there is no time for more views"}
    ]
    assert read_json(run.info)["timed"] == record(
        epoch=epoch, spent=10.0 + gone, decisions=[START, *([] if expected else decided)]
    )


# Epochs


@pytest.mark.parametrize(
    ("done", "wanted", "seconds", "expected"),
    [
        (1, 12, 10, 12),  # 200 seconds are left
        (1, 12, 18, 12),
        (1, 12, 18.2, 11),
        (1, 12, 40, 6),
        (1, 12, 40.1, 5),
        (4, 12, 200, 5),
        (4, 12, 200.1, 4),
        (4, 12, 10_000, 4),
        (12, 12, 1, 12),
        (3, 3, 1, 3),
    ],
)
def test_the_epochs_that_fit_are_done_up_to_the_requested_number(
    clock, run, done, wanted, seconds, expected
):
    budget = Budget(run, record())
    clock.advance(360)
    assert budget.fit_epochs(done, wanted, seconds) == expected
    assert budget.epochs == expected


def test_without_time_left_no_further_epoch_is_done(clock, run, capsys):
    budget = Budget(run, record())
    clock.advance(5000)
    assert budget.fit_epochs(1, 12, 1.0) == 1
    assert "after epoch 1: 1 epoch in all; an epoch takes 1 s\n" in capsys.readouterr().err


def test_decisions_are_recorded_printed_and_continued_by_the_next_process(clock, run, capsys):
    first = Budget(run, record())
    clock.advance(160)
    first.another_view(3, 1000.0)
    clock.advance(200)  # 200 are left
    assert first.fit_epochs(1, 12, 50.0) == 5
    clock.advance(40)
    assert first.fit_epochs(2, 12, 53.0) == 5  # nothing new
    decisions = [
        START,
        {"after": "view 3", "views": 3, "epochs": 12, "why": "there is no time for more views"},
        {"after": "epoch 1", "views": 3, "epochs": 5, "why": "an epoch takes 50 s"},
    ]
    assert read_json(run.info)["timed"] == record(spent=410.0, decisions=decisions)
    assert capsys.readouterr().err.splitlines() == [
        "plan      after view 3: 3 views in all; there is no time for more views",
        "plan      after epoch 1: 5 epochs in all; an epoch takes 50 s",
    ]
    second = Budget(run, read_json(run.info)["timed"])
    assert (second.views, second.epochs, second.left) == (3, 5, 160.0)
    assert second.fit_epochs(3, 12, 20.0) == 11  # epochs are faster now: some are restored
    assert second.fit_epochs(4, 7, 20.0) == 7  # but at most the requested ones
    second.end_now(4)
    assert (second.views, second.epochs) == (3, 4)
    decisions += [
        {"after": "epoch 3", "views": 3, "epochs": 11, "why": "an epoch takes 20 s"},
        {"after": "epoch 4", "views": 3, "epochs": 7, "why": "an epoch takes 20 s"},
        {"after": "epoch 4", "views": 3, "epochs": 4, "why": "the time is up during the next one"},
    ]
    assert read_json(run.info)["timed"] == record(spent=410.0, decisions=decisions)


# On the training engine


def train(
    clock: Clock, budget: Budget, seconds: list[float], *, wanted: int = 4
) -> tuple[Engine, list[float], list[int]]:
    """Run an engine of 3 iterations per epoch of `seconds`; return rates and whole epochs."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)
    optimizer.param_groups[0]["peak_lr"] = 1.0
    taken, rates, completed = iter(seconds), [], []

    def step(*_: object) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        clock.advance(next(taken))

    trainer = Engine(step)
    handlers.attach_schedule(trainer, optimizer, warmup=0.0)
    handlers.attach_budget(trainer, budget, wanted=wanted)
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: completed.append(engine.state.epoch)
    )
    trainer.run(range(3), max_epochs=wanted)
    return trainer, rates, completed


def rates_of(*epochs: tuple[int, int]) -> list[float]:
    """Return the rates of epochs, each for the number of all epochs at that time."""
    return [
        learning_rate_factor(3 * (epoch - 1) + i, 3 * total, 0.0)
        for epoch, total in epochs
        for i in (1, 2, 3)
    ]


def test_with_enough_time_every_epoch_is_done_at_its_rate(clock, run):
    _, rates, completed = train(clock, Budget(run, record()), [1.0] * 12)
    assert completed == [1, 2, 3, 4]
    assert rates == rates_of((1, 4), (2, 4), (3, 4), (4, 4))


def test_fewer_epochs_end_with_the_rate_of_their_own_end(clock, run):
    # 560 seconds: an epoch of 240 leaves 320, which is one more.
    trainer, rates, completed = train(clock, Budget(run, record()), [80.0] * 6)
    assert completed == [1, 2]
    assert trainer.state.max_epochs == 2
    assert rates == rates_of((1, 4), (2, 2))
    assert rates[-1] < 0.1 < rates_of((1, 4), (2, 4))[-1]  # the control: otherwise it stays high


def test_epochs_faster_than_the_first_restore_some(clock, run):
    _, rates, completed = train(clock, Budget(run, record()), [80.0] * 3 + [20.0] * 9)
    assert completed == [1, 2, 3, 4]
    assert rates == rates_of((1, 4), (2, 2), (3, 4), (4, 4))
    decisions = read_json(run.info)["timed"]["decisions"]
    assert [(d["after"], d["epochs"]) for d in decisions] == [
        ("start", 12), ("epoch 1", 2), ("epoch 2", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "iterations", "completed", "after"),
    [
        ([1.0] * 4 + [600.0], 5, [1], "epoch 1"),
        ([600.0], 1, [], "epoch 0"),
        ([1.0, 600.0], 2, [], "epoch 0"),
    ],
    ids=["in the second epoch", "in the first iteration", "in the first epoch"],
)
def test_training_ends_inside_an_epoch_when_the_time_is_up(
    clock, run, seconds, iterations, completed, after
):
    trainer, rates, whole = train(clock, Budget(run, record()), seconds)
    assert (trainer.state.iteration, len(rates), whole) == (iterations, iterations, completed)
    assert read_json(run.info)["timed"]["decisions"][-1] == {
        "after": after,
        "views": 4,
        "epochs": len(completed),
        "why": "the time is up during the next one",
    }


def test_an_epoch_whose_last_iteration_uses_up_the_time_is_complete(clock, run):
    _, _, completed = train(clock, Budget(run, record()), [1.0, 1.0, 600.0])
    assert completed == [1]
    decision = read_json(run.info)["timed"]["decisions"][-1]
    assert (decision["after"], decision["epochs"]) == ("epoch 1", 1)
    assert decision["why"] == "an epoch takes 10 min 2 s"


def test_an_epoch_without_a_measurement_decides_nothing(clock, run):
    # A run that was killed in validation does it after the restart, and no iteration before it.
    budget = Budget(run, record(decisions=[START, START | {"epochs": 2}]))
    trainer = Engine(lambda *_: None)
    handlers.attach_budget(trainer, budget, wanted=4)
    trainer.load_state_dict({"iteration": 3, "epoch_length": 3, "max_epochs": 2})
    clock.advance(0.1)
    trainer.fire_event(Events.EPOCH_COMPLETED)
    assert trainer.state.max_epochs == 2
    assert "timed" not in json.loads(run.info.read_text())


def test_an_epoch_resumed_in_the_middle_counts_as_a_whole_one(clock, run):
    budget = Budget(run, record())
    trainer = Engine(lambda *_: clock.advance(80.0))
    handlers.attach_budget(trainer, budget, wanted=4)
    trainer.load_state_dict({"iteration": 2, "epoch_length": 3, "max_epochs": 4})
    trainer.run(range(3), max_epochs=4)
    # One iteration of 80 seconds means 240 for an epoch: 480 are left, for two.
    decision = read_json(run.info)["timed"]["decisions"][1]
    assert (decision["epochs"], decision["why"]) == (3, "an epoch takes 4 min 0 s")
