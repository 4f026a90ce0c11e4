"""The progress bars of a resumed training start where it was stopped."""

from contextlib import suppress

from ignite.engine import Engine, Events

from xception_cli.console import Bar
from xception_cli.training.handlers import attach_progress
from xception_cli.training.history import History


class Recorded(Bar):
    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int, note: str = "") -> None:
        self.done += count

    def restart(self, what: str, done: int = 0) -> None:
        self.done = done


def begun(iteration: int) -> tuple[int, int]:
    """Return the epochs and images on the bars when training starts after an iteration."""
    trainer, epochs, images = Engine(lambda *_: None), Recorded(), Recorded()
    attach_progress(trainer, History(), epochs, images, batch_size=8, every=1, rate=lambda: 0.1)
    if iteration:
        trainer.load_state_dict({"iteration": iteration, "epoch_length": 5, "max_epochs": 30})
    trainer.add_event_handler(Events.EPOCH_STARTED, trainer.terminate)
    trainer.add_event_handler(Events.GET_BATCH_STARTED, trainer.terminate)
    found = []
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda _: found.append((epochs.done, images.done))
    )
    with suppress(AttributeError):  # the step has no outcome here
        trainer.run([0] * 5, max_epochs=30, epoch_length=5)
    return found[0]


def test_the_bars_start_at_the_finished_epochs_and_images():
    assert begun(0) == (0, 0)
    assert begun(30) == (6, 0)  # in epoch 7
    assert begun(33) == (6, 24)  # in the middle of it
    assert begun(35) == (7, 0)
