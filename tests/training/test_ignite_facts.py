"""Facts about Ignite that the code relies on: an upgrade that changes one fails here."""

from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Average

LENGTH, EPOCHS = 3, 2


class Data:
    """Three batches that record when they are requested."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self) -> Iterator[int]:
        self.seen.append("iterator made")
        yield from range(LENGTH)


def make_engine(seen: list[str]) -> Engine:
    engine = Engine(lambda engine, batch: seen.append(f"{engine.state.iteration}: batch {batch}"))
    for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
        engine.add_event_handler(event, noting(seen, event))
    return engine


def noting(seen: list[str], event: Events) -> Callable[[Engine], None]:
    return lambda engine: seen.append(f"{event.value} {engine.state.epoch}")


def position(iteration: int, epochs: int = EPOCHS) -> dict[str, int]:
    return {"iteration": iteration, "epoch_length": LENGTH, "max_epochs": epochs}


# The order of events and the data


def test_the_iterator_is_created_after_epoch_started():
    seen: list[str] = []
    make_engine(seen).run(Data(seen), max_epochs=EPOCHS, epoch_length=LENGTH)
    assert seen == [
        "started 0",
        "epoch_started 1",
        "iterator made",
        "1: batch 0",
        "2: batch 1",
        "3: batch 2",
        "epoch_completed 1",
        "epoch_started 2",
        "iterator made",
        "4: batch 0",
        "5: batch 1",
        "6: batch 2",
        "epoch_completed 2",
        "completed 2",
    ]


def test_an_engine_that_resumes_inside_an_epoch_starts_it_again_and_skips_no_batch():
    # So batches are skipped by KeyedBatches.start, set at EPOCH_STARTED.
    seen: list[str] = []
    engine = make_engine(seen)
    engine.load_state_dict(position(4))
    assert (engine.state.iteration, engine.state.epoch) == (4, 1)
    engine.run(Data(seen), max_epochs=EPOCHS, epoch_length=LENGTH)
    assert seen[:4] == ["started 1", "epoch_started 2", "iterator made", "5: batch 0"]
    assert seen[4:] == ["6: batch 1", "epoch_completed 2", "completed 2"]


def test_an_engine_that_resumes_between_two_epochs_starts_the_next():
    seen: list[str] = []
    engine = make_engine(seen)
    engine.load_state_dict(position(3))
    engine.run(Data(seen), max_epochs=EPOCHS, epoch_length=LENGTH)
    assert seen[:4] == ["started 1", "epoch_started 2", "iterator made", "4: batch 0"]
    assert "epoch_completed 1" not in seen  # why a state records whether validation is pending


def test_data_of_another_length_is_not_noticed():
    seen: list[str] = []
    engine = make_engine(seen)
    engine.run(range(5), max_epochs=1, epoch_length=LENGTH)
    assert engine.state.iteration == LENGTH


@pytest.mark.parametrize("iteration", [LENGTH * EPOCHS, None])
def test_a_finished_engine_starts_again(iteration):
    # So the trainer is not run if its state is already at the end.
    seen: list[str] = []
    engine = make_engine(seen)
    if iteration is None:
        engine.run(Data(seen), max_epochs=EPOCHS, epoch_length=LENGTH)
    else:
        engine.load_state_dict(position(iteration))
    seen.clear()
    engine.run(Data(seen), max_epochs=EPOCHS, epoch_length=LENGTH)
    assert "1: batch 0" in seen
    assert sum("batch" in what for what in seen) == LENGTH * EPOCHS


def test_more_epochs_continue_where_fewer_ended():
    seen: list[str] = []
    engine = make_engine(seen)
    engine.load_state_dict(position(LENGTH * EPOCHS, EPOCHS + 1))
    engine.run(Data(seen), max_epochs=EPOCHS + 1, epoch_length=LENGTH)
    assert [what for what in seen if "batch" in what] == ["7: batch 0", "8: batch 1", "9: batch 2"]


# Handlers


def test_handlers_are_called_in_the_order_they_were_attached():
    called: list[str] = []
    engine = Engine(lambda *_: None)
    for name in "cabd":
        engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda _, name: called.append(name), name
        )
    engine.run([0, 0], max_epochs=1)
    assert "".join(called) == "cabdcabd"


def test_the_iteration_is_counted_before_the_step():
    seen: list[int] = []
    engine = Engine(lambda engine, _: seen.append(engine.state.iteration))
    engine.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: seen.append(engine.state.iteration)
    )
    engine.run([0, 0], max_epochs=1)
    assert seen == [1, 1, 2, 2]


@pytest.mark.parametrize("where", ["step", "handler"])
def test_an_exception_propagates_from_run(where):
    seen: list[str] = []
    engine = make_engine(seen)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    if where == "step":
        engine = Engine(fail)
        engine.add_event_handler(Events.COMPLETED, noting(seen, Events.COMPLETED))
    else:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), fail)
    with pytest.raises(ZeroDivisionError):
        engine.run(Data(seen), max_epochs=EPOCHS, epoch_length=LENGTH)
    assert not any(what.startswith(("epoch_completed", "completed")) for what in seen)


def test_an_exception_handler_swallows_the_exception():
    # The reason why none is attached.
    engine = Engine(lambda *_: 1 / 0)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda *_: None)
    engine.run([0], max_epochs=1)


def test_terminate_lets_the_later_handlers_of_the_same_event_run():
    # Early stopping is attached before the metrics log and the saving of the state.
    seen: list[str] = []
    engine = Engine(lambda *_: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.terminate())
    engine.add_event_handler(Events.EPOCH_COMPLETED, noting(seen, Events.EPOCH_COMPLETED))
    engine.run([0], max_epochs=5)
    assert seen == ["epoch_completed 1"]


def test_an_event_can_be_fired_before_the_run_and_metrics_see_it():
    # A resume uses this to do a validation that a stop left pending.
    seen: list[str] = []
    engine, average = make_engine(seen), Average(output_transform=lambda _: 1.0)
    average.attach(engine, "average")
    engine.load_state_dict(position(3))
    average.update(4.0)
    engine.fire_event(Events.EPOCH_COMPLETED)
    assert seen == ["epoch_completed 1"]
    assert engine.state.metrics["average"] == 4.0
    engine.run(Data(seen), max_epochs=1 + EPOCHS, epoch_length=LENGTH)
    assert seen[1] == "started 1"


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_an_event_filter_of_a_resumed_engine_counts_epochs_from_the_start(epoch):
    seen: list[str] = []
    engine = Engine(lambda *_: None)
    engine.add_event_handler(Events.EPOCH_STARTED(once=epoch), noting(seen, Events.EPOCH_STARTED))
    engine.load_state_dict(position((epoch - 1) * LENGTH + 1, 5))
    engine.run(Data([]), max_epochs=5, epoch_length=LENGTH)
    assert seen == [f"epoch_started {epoch}"]


def test_an_engines_state_has_its_place_and_no_metric():
    engine = Engine(lambda *_: 1.0)
    Average().attach(engine, "average")
    engine.run([0, 0], max_epochs=3)
    assert dict(engine.state_dict()) == {"epoch_length": 2, "max_epochs": 3, "iteration": 6}


# Metrics


def averages(*, resumed: bool) -> list[float]:
    """Average the numbers 1 to 6 by epoch; optionally stopped and resumed inside the second."""

    def make() -> tuple[Engine, Average]:
        engine = Engine(lambda engine, _: torch.tensor(float(engine.state.iteration)))
        average = Average()
        average.attach(engine, "average")
        engine.add_event_handler(
            Events.EPOCH_COMPLETED, lambda engine: found.append(engine.state.metrics["average"])
        )
        return engine, average

    found: list[float] = []
    engine, average = make()
    if resumed:
        saved = BytesIO()

        def stop(_: Engine) -> None:
            torch.save(average.state_dict(), saved)
            raise KeyboardInterrupt

        engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), stop)
        with pytest.raises(KeyboardInterrupt):
            engine.run(Data([]), max_epochs=EPOCHS, epoch_length=LENGTH)
        engine, average = make()
        saved.seek(0)
        state = torch.load(saved, weights_only=True)
        engine.load_state_dict(position(5))
        engine.add_event_handler(
            Events.EPOCH_STARTED(once=2), lambda _: average.load_state_dict(state)
        )
    engine.run(Data([]), max_epochs=EPOCHS, epoch_length=LENGTH)
    return found


def test_an_average_restored_at_epoch_started_continues_inside_the_epoch():
    # The metric is also reset at EPOCH_STARTED, by a handler attached earlier.
    assert averages(resumed=False) == [2.0, 5.0]
    assert averages(resumed=True) == [2.0, 5.0]
