"""The views of an image, computed once; the first ones are always the same."""

from multiprocessing import active_children
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from networks import CPU
from runs import train_run

from xception_cli.config import TrainConfig
from xception_cli.data.images import read_image
from xception_cli.training import handlers
from xception_cli.training.preparation import draft_job


def pixels(settings: dict[str, Any], **changes: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the evaluation crop of an image of train, and its views."""
    job = draft_job(TrainConfig(**settings | {"views": 4} | changes), None, CPU, None).job
    path = job.root / job.split.of("train")[0].path
    image = read_image(path, least_side=job.preprocessing.least_side)
    views = []
    for number, inputs in enumerate(job.views("train")):
        inputs.batches.epoch = number
        batch = next(iter(inputs))
        views.append(batch.values[batch.indices.tolist().index(0)])
    return job.preprocessing.normalize(job.preprocessing.evaluation_transform()(image)), views


def rotations(view: torch.Tensor) -> list[torch.Tensor]:
    return [torch.rot90(view, turns, (1, 2)) for turns in range(4)]


def is_one_of(view: torch.Tensor, others: list[torch.Tensor]) -> bool:
    return any(torch.equal(view, other) for other in others)


@pytest.mark.parametrize("flip", [True, False])
def test_with_rotations_the_second_view_is_the_centre_crop_rotated(settings, flip):
    crop, views = pixels(settings, augment="rotate90", flip=flip)
    assert torch.equal(views[0], crop)
    assert is_one_of(views[1], rotations(crop)[1:])
    assert not any(
        is_one_of(view, [*rotations(crop), *rotations(crop.flip(2))]) for view in views[2:]
    )


def test_validation_reads_the_evaluation_crop_in_every_epoch(settings):
    job = draft_job(TrainConfig(**settings | {"unfreeze": "all"}), None, CPU, None).job
    job.run.path.mkdir(parents=True)
    each, once = (job.image_inputs("val", epochs=epochs) for epochs in (True, False))
    expected = torch.cat([batch.values for batch in once])
    for _ in range(2):  # decoded, then from the cache
        assert torch.equal(torch.cat([batch.values for batch in each]), expected)
    assert len(list(job.run.decoded.iterdir())) == len(expected)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_no_worker_waits_through_fine_tuning_for_the_views_to_be_read_again(settings, monkeypatch):
    attach, counts = handlers.attach_ema, []

    def attach_and_count(trainer: Engine, *args: Any) -> None:
        attach(trainer, *args)
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: counts.append(len(active_children()))
        )

    monkeypatch.setattr(handlers, "attach_ema", attach_and_count)
    train_run(settings | {"unfreeze": "all", "workers": 1, "epochs": 1})
    assert set(counts) == {2}  # one reads train, the other val


def test_random_views_are_those_without_rotations_but_rotated(settings):
    _, light = pixels(settings)
    _, rotated = pixels(settings, augment="rotate90")
    assert torch.equal(light[1], light[0].flip(2))
    for before, after in zip(light[2:], rotated[2:], strict=True):
        assert is_one_of(after, rotations(before))
    _, again = pixels(settings, augment="rotate90")
    assert all(torch.equal(one, other) for one, other in zip(rotated, again, strict=True))


def test_a_random_view_depends_on_the_content_and_not_on_seed_and_split(settings):
    def random_views(seed: int) -> dict[str, torch.Tensor]:
        job = draft_job(TrainConfig(**settings | {"views": 3, "seed": seed}), None, CPU, None).job
        inputs = job.views("train")[2]
        inputs.batches.epoch = 2
        return {
            job.digests("train")[index]: pixels
            for batch in inputs
            for index, pixels in zip(batch.indices.tolist(), batch.values, strict=True)
        }

    one, other = random_views(0), random_views(1)
    both = one.keys() & other.keys()
    assert len(both) > 2
    assert list(one) != list(other)
    assert all(torch.equal(one[digest], other[digest]) for digest in both)
    assert len({view.numpy().tobytes() for view in one.values()}) == len(one)
