"""The training step, the evaluator and their handlers."""

import gc
import json
import math
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from networks import CPU, lively_network
from runs import Clock
from sklearn.metrics import accuracy_score, log_loss, recall_score, top_k_accuracy_score
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from xception_cli.data.dataset import KeyedBatches
from xception_cli.data.inputs import Inputs
from xception_cli.errors import DivergedError, MachineError
from xception_cli.model.network import FEATURES, Segment
from xception_cli.records import Scores
from xception_cli.runtime import Runtime
from xception_cli.training import handlers
from xception_cli.training.engines import (
    StepOutput,
    capture,
    create_evaluator,
    create_trainer,
)
from xception_cli.training.history import History
from xception_cli.training.learner import pair, update_ema, validate
from xception_cli.training.saving import StateSaving

FP16 = Runtime(torch.device("cpu"), "fp16")
BF16 = Runtime(torch.device("cpu"), "bf16")


@pytest.fixture
def trained():
    """The exit flow of a randomly initialised Xception, without dropout."""
    return Segment(lively_network(), "block12", "head")


def a_batch(seed: int = 0, count: int = 6) -> Inputs:
    """Draw outputs of block 11 at 71 pixels."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((count, 728, 5, 5), generator=generator)
    return Inputs(values, torch.arange(count) % 3, torch.arange(count) + 10)


def make_trainer(
    trained: Segment,
    *,
    lr: float = 0.1,
    optimizer: torch.optim.Optimizer | None = None,
    runtime: Runtime = CPU,
    scaler: torch.amp.GradScaler | None = None,
    accumulate: int = 1,
    clip: float = 0.0,
    criterion: torch.nn.CrossEntropyLoss | None = None,
) -> Engine:
    # Plain SGD: its step is the gradient, while AdamW's first step is its sign.
    return create_trainer(
        trained,
        optimizer or torch.optim.SGD(trained.parameters(), lr=lr),
        scaler or torch.amp.GradScaler("cpu", enabled=False),
        criterion or torch.nn.CrossEntropyLoss(),
        runtime=runtime,
        accumulate=accumulate,
        clip=clip,
        batch_norm=False,
        files=[f"{index}.jpg" for index in range(16)],
    )


def weights(segment: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in segment.parameters()])


def step(trained: Segment, batch: Inputs, **settings: object) -> tuple[StepOutput, torch.Tensor]:
    """Do one step; return its output and the change of the weights."""
    before = weights(trained)
    trainer = make_trainer(trained, **settings)
    trainer.run([batch], max_epochs=1)
    return trainer.state.output, weights(trained) - before


# The step


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_loss_is_the_mean_cross_entropy_of_the_batch(trained, smoothing, accumulate):
    batch = a_batch()
    with torch.no_grad():
        log_p = functional.log_softmax(deepcopy(trained).eval()(batch.values).double(), 1)
    hits = log_p[range(6), batch.labels]
    by_hand = -(1 - smoothing) * hits.mean() - smoothing * log_p.mean()
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    output, _ = step(trained, batch, criterion=criterion, accumulate=accumulate)
    assert output.loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert output.loss.item() == pytest.approx(
        functional.cross_entropy(log_p, batch.labels, label_smoothing=smoothing).item(), abs=1e-5
    )
    assert (output.finite.item(), output.images) == (True, 6)
    assert not output.loss.requires_grad


@pytest.mark.parametrize("accumulate", [1, 4])
def test_class_weights_act_like_repeated_images(trained, accumulate):
    batch = a_batch(count=5)  # labels 0, 1, 2, 0, 1
    chosen = [0, 1, 1, 2, 2, 2, 3, 4, 4]  # class 1 twice, class 2 three times
    repeated = Inputs(batch.values[chosen], batch.labels[chosen], batch.indices[chosen])
    other = deepcopy(trained)
    criterion = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))
    weighted, moved = step(trained, batch, criterion=criterion, accumulate=accumulate)
    expected, moved_by_repeating = step(other, repeated)
    assert weighted.loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)
    assert (moved - moved_by_repeating).norm() < 1e-4 * moved.norm()
    _, plain = step(deepcopy(other), batch)
    assert (plain - moved).norm() > 1e-2 * moved.norm()  # the control


def test_a_batch_in_pieces_changes_the_weights_like_the_whole(trained):
    other, batch = deepcopy(trained), a_batch()
    whole, moved = step(trained, batch)
    pieces, moved_in_pieces = step(other, batch, accumulate=4)  # 2, 2 and 2 images
    assert pieces.loss.item() == pytest.approx(whole.loss.item(), abs=1e-6)
    assert (moved - moved_in_pieces).norm() < 1e-5 * moved.norm()
    _, uneven = step(deepcopy(other), a_batch(count=5), accumulate=2)  # 3 and 2 images
    _, even = step(deepcopy(other), a_batch(count=5))
    assert (uneven - even).norm() < 1e-5 * even.norm()
    assert (even - moved).norm() > 0.1 * moved.norm()  # the control: one image less differs


def test_the_step_is_the_gradient_of_the_loss_times_the_learning_rate(trained):
    reference, batch = deepcopy(trained).eval(), a_batch()
    functional.cross_entropy(reference(batch.values), batch.labels).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
    _, moved = step(trained, batch, lr=0.5)
    torch.testing.assert_close(moved, -0.5 * gradient, atol=1e-6, rtol=1e-3)


def test_training_learns_a_batch(trained):
    batch = a_batch()
    adam = torch.optim.AdamW(trained.parameters(), lr=1e-3)
    trainer, losses = make_trainer(trained, optimizer=adam, clip=1.0), []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output.loss.item())
    )
    trainer.run([batch] * 8, max_epochs=1)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_padding_of_a_batch_changes_no_weight(trained, accumulate):
    """On a GPU an epoch's last batch is padded to the shape of the others."""
    other, batch = deepcopy(trained), a_batch(count=5)
    filling = torch.randn(3, *batch.values.shape[1:], generator=torch.Generator().manual_seed(9))
    filled = batch._replace(values=torch.cat([batch.values, filling]))
    plain, moved = step(trained, batch, accumulate=accumulate)
    found, moved_too = step(other, filled, accumulate=accumulate)
    assert found.loss.item() == pytest.approx(plain.loss.item(), abs=1e-6)
    assert (moved - moved_too).norm() < 1e-5 * moved.norm()
    assert (found.images, plain.images) == (5, 5)
    labels = torch.cat([batch.labels, torch.zeros(3, dtype=torch.int64)])
    eight = Inputs(filled.values, labels, torch.arange(8))
    _, otherwise = step(deepcopy(other), eight, accumulate=accumulate)
    assert (otherwise - moved).norm() > 0.1 * moved.norm()  # the control: as images they would


def test_padding_is_not_in_the_statistics_of_batch_norm_in_training():
    batch = a_batch(count=5)
    filled = batch._replace(values=torch.cat([batch.values, torch.zeros_like(batch.values[:3])]))
    seen = []
    for given in (batch, filled):
        network = Segment(lively_network(), "block12", "head")
        trainer = create_trainer(
            network,
            torch.optim.SGD(network.parameters(), lr=0.1),
            torch.amp.GradScaler("cpu", enabled=False),
            torch.nn.CrossEntropyLoss(),
            runtime=CPU,
            accumulate=1,
            clip=0.0,
            batch_norm=True,
        )
        trainer.run([given])
        seen.append(torch.cat([buffer.flatten().float() for buffer in network.buffers()]))
    assert torch.equal(seen[0], seen[1])


def test_validation_does_not_count_padding(trained):
    batch = a_batch(count=5)
    filled = batch._replace(values=torch.cat([batch.values, batch.values[:3]]))
    evaluator = create_evaluator(trained, runtime=CPU, top_k=1)
    plain, found = (validate(evaluator, [given], [2, 2, 1], 1) for given in (batch, filled))
    assert found.loss == pytest.approx(plain.loss, abs=1e-6)
    assert (found.accuracy, found.recall) == (plain.accuracy, plain.recall)


class Asynchronous(Runtime):
    """A CPU that is treated as an asynchronous device."""

    @property
    def is_asynchronous(self) -> bool:
        return True


@pytest.mark.parametrize("asynchronous", [True, False])
def test_no_result_is_read_in_a_training_step_on_an_asynchronous_device(
    trained, monkeypatch, asynchronous
):
    runtime = (Asynchronous if asynchronous else Runtime)(torch.device("cpu"), "fp32")
    groups = [{"params": list(trained.parameters()), "lr": 0.1, "peak_lr": 0.1, "name": "conv4"}]
    adam = torch.optim.AdamW(groups, fused=True)  # like on a GPU
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    trainer = make_trainer(trained, optimizer=adam, runtime=runtime, clip=1.0, criterion=smoothed)
    ema = AveragedModel(trained, use_buffers=True)
    handlers.attach_schedule(trainer, adam, warmup=0.1)
    handlers.attach_ema(trainer, ema, trained, 0.999)
    handlers.attach_train_loss(trainer, torch.device("cpu"))
    reads = []
    for name in ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__"):
        read = getattr(torch.Tensor, name)

        def counted(tensor, *given, read=read, name=name, **more):
            if tensor is not ema.n_averaged:  # this counter is always on the CPU
                reads.append(name)
            return read(tensor, *given, **more)

        monkeypatch.setattr(torch.Tensor, name, counted)
    steps = []  # the mean loss is read at the epoch's end, outside of a step
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=3), lambda _: steps.append(list(reads))
    )
    trainer.run([a_batch()] * 3, max_epochs=1)
    assert bool(steps[0]) != asynchronous


def test_no_garbage_is_collected_while_graphs_are_captured(trained, monkeypatch):
    enabled = []

    def graphed(module: torch.nn.Module, _: object) -> None:
        enabled.append(gc.isenabled())

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    values = a_batch().values
    compute = capture(trained, values, CPU)
    assert enabled == [False]
    assert gc.isenabled()
    assert compute(values).equal(trained(values))


def test_clipping_bounds_the_gradient_and_0_disables_it(trained):
    other, batch = deepcopy(trained), a_batch()
    _, free = step(trained, batch, lr=1.0)
    _, clipped = step(other, batch, lr=1.0, clip=0.25)
    assert free.norm() > 0.5
    assert clipped.norm() == pytest.approx(0.25, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), atol=1e-5, rtol=1e-2)


def test_a_gradient_below_the_bound_is_unchanged(trained):
    other, batch = deepcopy(trained), a_batch()
    _, free = step(trained, batch)
    _, clipped = step(other, batch, clip=1e4)
    assert torch.equal(free, clipped)


# Numbers that are not finite


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(trained, bad, accumulate):
    good, poisoned = a_batch(), a_batch()
    poisoned.values[-1, 0, 0, 0] = bad
    trainer = make_trainer(trained, accumulate=accumulate)
    after_each = [weights(trained)]
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: after_each.append(weights(trained))
    )
    buffers = [buffer.clone() for buffer in trained.buffers()]
    with pytest.raises(
        DivergedError,
        match=r"the loss is nan at iteration 2, learning rate 0\.1; the batch: 10\.jpg, 11",
    ) as caught:
        trainer.run([good, poisoned], max_epochs=1)
    assert "--lr" in caught.value.hint
    assert len(after_each) == 2
    assert not torch.equal(after_each[0], after_each[1])  # the good batch did change them
    assert torch.equal(after_each[1], weights(trained))
    assert all(torch.equal(a, b) for a, b in zip(buffers, trained.buffers(), strict=True))


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(trained, clip):
    trained.get_parameter("last_linear.bias").register_hook(lambda gradient: gradient * math.inf)
    before = weights(trained)
    with pytest.raises(
        DivergedError, match=r"the gradient is (inf|nan) at iteration 1, learning rate"
    ):
        step(trained, a_batch(), clip=clip)
    assert torch.equal(before, weights(trained))


# Half precision


def test_a_step_in_bf16_is_close_to_one_in_fp32(trained):
    other, batch = deepcopy(trained), a_batch()
    full, moved = step(trained, batch)
    half, moved_half = step(other, batch, runtime=BF16)
    assert 0 < abs(half.loss.item() - full.loss.item()) < 0.02
    assert functional.cosine_similarity(moved, moved_half, dim=0) > 0.98
    assert half.loss.dtype == torch.float32
    assert weights(other).dtype == torch.float32


def fp16_scaler(scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=True, init_scale=scale)


def test_a_step_in_fp16_is_scaled_and_unscaled_again(trained):
    other, batch = deepcopy(trained), a_batch()
    full, moved = step(trained, batch, clip=0.25)
    half, moved_half = step(other, batch, clip=0.25, runtime=FP16, scaler=fp16_scaler(2.0**10))
    assert 0 < abs(half.loss.item() - full.loss.item()) < 0.02
    assert half.finite.item()
    assert functional.cosine_similarity(moved, moved_half, dim=0) > 0.99
    assert moved_half.norm() == pytest.approx(moved.norm().item(), rel=0.01)


def test_an_infinite_gradient_in_fp16_is_skipped_and_the_scale_halved(trained):
    scaler, batch = fp16_scaler(2.0**10), a_batch()
    bias = trained.get_parameter("last_linear.bias")
    hook = bias.register_hook(lambda gradient: gradient * math.inf)
    output, moved = step(trained, batch, clip=1.0, runtime=FP16, scaler=scaler)
    assert not moved.any()
    assert weights(trained).isfinite().all()
    assert output.finite.item()  # normal for the scaler, not a divergence
    assert scaler.get_scale() == 2.0**9
    hook.remove()
    _, moved = step(trained, batch, clip=1.0, runtime=FP16, scaler=scaler)
    assert moved.any()
    assert scaler.get_scale() == 2.0**9


def gpu_trainer(count: int, bad: int | None) -> Engine:
    """Return outputs of steps on a GPU, one of them not finite; every 4th is checked."""
    finite = [torch.tensor(number != bad) for number in range(1, count + 1)]
    loss = torch.tensor(1.0)
    trainer = Engine(lambda engine, _: StepOutput(loss, finite[engine.state.iteration - 1], 1))
    ones = torch.ones
    with pytest.MonkeyPatch.context() as patch:  # no GPU is needed here to keep the flag on
        patch.setattr(torch, "ones", lambda *shape, device, **rest: ones(*shape, **rest))
        device = torch.device("cuda")
        handlers.attach_finite_check(trainer, every=4, device=device, rate=lambda: 0.5)
    return trainer


@pytest.mark.parametrize(
    ("bad", "noticed", "between"), [(1, 4, "1 and 4"), (4, 4, "1 and 4"), (6, 8, "5 and 8")]
)
def test_a_gpu_is_checked_for_finite_values_at_intervals(bad, noticed, between):
    trainer = gpu_trainer(20, bad)
    with pytest.raises(DivergedError, match=rf"between iterations {between} \(learning rate 0\.5"):
        trainer.run(range(20), max_epochs=1)
    assert trainer.state.iteration == noticed


@pytest.mark.parametrize("bad", [None, 7])
def test_a_gpu_is_checked_at_the_end_of_an_epoch_before_validation(bad):
    trainer, validated = gpu_trainer(7, bad), []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validated.append)
    if bad is None:
        trainer.run(range(7), max_epochs=1)
        assert validated == [trainer]
    else:
        with pytest.raises(DivergedError, match="between iterations 4 and 7"):
            trainer.run(range(7), max_epochs=1)
        assert validated == []


def test_on_a_cpu_every_step_is_checked():
    trainer = Engine(lambda *_: None)
    handlers.attach_finite_check(trainer, every=1, device=torch.device("cpu"), rate=lambda: 0.5)
    trainer.run([0], max_epochs=1)  # its output is not read


# Handlers


def test_the_average_of_the_weights_equals_a_calculation_by_hand():
    live = Segment(lively_network(), "head", "head")
    bias = live.get_parameter("last_linear.bias")
    ema = AveragedModel(live, use_buffers=True)
    values = iter([1.0, 2.0, 5.0, 3.0])

    def move(*_: object) -> None:
        with torch.no_grad():
            bias.fill_(next(values))

    trainer, found = Engine(move), []
    handlers.attach_ema(trainer, ema, live, 0.999)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda _: found.append(ema.module.get_parameter("last_linear.bias")[0].item()),
    )
    trainer.run(range(4), max_epochs=1)
    second = 1.0 * 2 / 11 + 2.0 * 9 / 11
    third = second * 3 / 12 + 5.0 * 9 / 12
    assert found == pytest.approx([1.0, second, third, third * 4 / 13 + 3.0 * 9 / 13])


@pytest.mark.parametrize(
    ("decay", "count", "kept"),
    [(0.999, 0, 0), (0.999, 1, 2 / 11), (0.5, 7, 8 / 17), (0.5, 99, 0.5), (0.0, 9, 0)],
)
def test_the_ramp_ends_at_the_decay(decay, count, kept):
    live = Segment(lively_network(), "head", "head")
    ema = AveragedModel(live, use_buffers=True)
    with torch.no_grad():
        live.get_parameter("last_linear.bias").fill_(0.0)
        ema.module.get_parameter("last_linear.bias").fill_(1.0)
    ema.n_averaged.fill_(count)
    update_ema(ema, pair(ema, live), decay)
    assert ema.module.get_parameter("last_linear.bias")[0].item() == pytest.approx(kept)


def test_the_average_shares_no_memory_with_the_live_model(trained):
    ema = AveragedModel(trained, use_buffers=True)
    update_ema(ema, pair(ema, trained), 0.999)
    live, averaged = trained.state_dict(), ema.module.state_dict()
    assert list(live) == list(averaged)
    before = {name: tensor.clone() for name, tensor in live.items()}
    for name, tensor in averaged.items():
        assert tensor.data_ptr() != live[name].data_ptr()
        tensor.zero_()
    assert all(torch.equal(before[name], live[name]) for name in live)


def test_the_averages_batch_norm_is_that_of_the_live_model(trained):
    ema = AveragedModel(trained, use_buffers=True)
    update_ema(ema, pair(ema, trained), 0.999)
    first = trained.get_buffer("bn4.running_mean").clone()
    trained.get_buffer("bn4.running_mean").add_(1.0)
    update_ema(ema, pair(ema, trained), 0.999)
    expected = first * 2 / 11 + (first + 1) * 9 / 11
    torch.testing.assert_close(ema.module.get_buffer("bn4.running_mean"), expected)


def test_the_rate_of_each_group_follows_the_schedule(trained):
    optimizer = torch.optim.SGD(
        [
            {"params": [trained.get_parameter("last_linear.bias")], "lr": 0.0, "peak_lr": 8.0},
            {"params": [trained.get_parameter("bn4.bias")], "lr": 0.0, "peak_lr": 2.0},
        ]
    )
    trainer, rates = Engine(lambda *_: None), []
    handlers.attach_schedule(trainer, optimizer, warmup=0.5)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda _: rates.append([g["lr"] for g in optimizer.param_groups]),
    )
    trainer.run(range(2), max_epochs=2)  # the schedule continues over the epochs
    by_hand = [1 / 3, 2 / 3, 1.0, 0.5]
    assert np.array(rates) == pytest.approx(np.outer(by_hand, [8.0, 2.0]), abs=1e-9)


def draws(*, resume_at: int | None = None) -> list[tuple[int, list[int], float]]:
    """Run 2 epochs of 3 batches; record the batches and random numbers of each iteration."""
    batches = KeyedBatches(8, 3, seed=5, shuffle=True)
    drawn = []

    def look(engine: Engine, keys: list[tuple[int, int]]) -> None:
        drawn.append((engine.state.iteration, [index for _, index in keys], torch.rand(()).item()))

    trainer = Engine(look)
    handlers.attach_reseeding(trainer, batches, seed=5)
    torch.manual_seed(resume_at or 0)  # earlier random numbers do not matter
    if resume_at is not None:
        trainer.load_state_dict({"iteration": resume_at, "epoch_length": 3, "max_epochs": 2})
    trainer.run(batches, max_epochs=2, epoch_length=3)
    return drawn


@pytest.mark.parametrize("resume_at", [1, 2, 3, 4, 5])
def test_a_resumed_engine_has_the_same_batches_and_random_numbers(resume_at):
    unbroken = draws()
    assert [iteration for iteration, *_ in unbroken] == [1, 2, 3, 4, 5, 6]
    assert len({number for *_, number in unbroken}) == 6
    assert sorted(index for _, indices, _ in unbroken[:3] for index in indices) == list(range(8))
    assert unbroken[0][1] != unbroken[3][1]
    assert draws(resume_at=resume_at) == unbroken[resume_at:]


def test_the_train_loss_is_the_mean_over_the_epoch_and_not_the_last_batch():
    losses = iter([4.0, 1.0, 1.0, 10.0, 20.0, 30.0])
    trainer = Engine(lambda *_: StepOutput(torch.tensor(next(losses)), torch.tensor(data=True), 1))
    handlers.attach_train_loss(trainer, torch.device("cpu"))
    found: list[float] = []
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: found.append(engine.state.metrics["train_loss"])
    )
    trainer.run(range(3), max_epochs=2)
    assert found == [2.0, 20.0]


# Validation


def validation(count: int, classes: int, *, without: int | None = None):
    """Draw features and labels, in batches; and the head's probabilities."""
    head = Segment(lively_network(classes), "head", "head", dropout=0.9)
    generator = torch.Generator().manual_seed(4)
    values = torch.randn((count, FEATURES), generator=generator)
    labels = torch.arange(count) % classes
    labels[labels == without] = 0
    bounds = [0, 7, 14, count]
    batches = [Inputs(values[a:b], labels[a:b], torch.arange(a, b)) for a, b in pairwise(bounds)]
    with torch.no_grad():
        head.eval()
        probabilities = torch.softmax(head(values).double(), 1).numpy()
    return head.train(), batches, labels.numpy(), probabilities


def test_the_scores_equal_scikit_learns():
    head, batches, labels, probabilities = validation(23, 6)
    evaluator = create_evaluator(head, runtime=CPU, top_k=3)
    support = np.bincount(labels, minlength=6).tolist()
    scores = validate(evaluator, batches, support, 3)
    guesses = probabilities.argmax(1)
    recall = recall_score(labels, guesses, average=None)
    assert scores.accuracy == pytest.approx(accuracy_score(labels, guesses))
    assert scores.recall == pytest.approx(recall.tolist())
    assert scores.macro_recall == pytest.approx(recall.mean())
    assert scores.loss == pytest.approx(log_loss(labels, probabilities), abs=1e-5)
    assert scores.top_k == 3
    assert scores.top_k_accuracy == pytest.approx(top_k_accuracy_score(labels, probabilities, k=3))
    assert 0 < scores.accuracy < scores.top_k_accuracy < 1  # otherwise a mistake could pass
    assert scores.macro_recall != pytest.approx(scores.accuracy)
    assert validate(evaluator, batches, support, 3) == scores  # nothing remains of the first run
    assert not head.training


def test_a_class_that_val_lacks_has_no_recall_and_does_not_count():
    head, batches, labels, probabilities = validation(20, 5, without=3)
    evaluator = create_evaluator(head, runtime=CPU, top_k=1)
    scores = validate(evaluator, batches, np.bincount(labels, minlength=5).tolist(), 1)
    there = [0, 1, 2, 4]
    recall = recall_score(labels, probabilities.argmax(1), labels=there, average=None)
    assert scores.recall[3] is None
    assert [scores.recall[label] for label in there] == pytest.approx(recall.tolist())
    assert scores.macro_recall == pytest.approx(recall.mean())
    assert scores.top_k_accuracy is None


def test_validation_changes_neither_the_random_state_nor_the_gradients():
    head, batches, labels, _ = validation(20, 5)
    evaluator = create_evaluator(head, runtime=CPU, top_k=1)
    before = torch.get_rng_state()
    validate(evaluator, batches, np.bincount(labels, minlength=5).tolist(), 1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in head.parameters())


# The best model


def scored(accuracy: float, loss: float, macro_recall: float = 0.0) -> Scores:
    return Scores(loss, accuracy, macro_recall, [], 1, None)


def test_the_best_model_has_the_better_score_or_else_the_lower_loss():
    history = History()
    offers = [
        (scored(0.5, 1.0), True),  # the first
        (scored(0.5, 1.0), False),  # the first of two equal models is kept
        (scored(0.5, 1.1), False),
        (scored(0.4, 0.1), False),
        (scored(0.5, 0.9), True),  # a tie, by the loss
        (scored(0.6, 5.0), True),  # the score comes first
        (scored(math.nan, 0.1), False),
        (scored(0.9, math.nan), False),  # weights of nan always predict the first class
        (scored(0.7, 5.0), True),
    ]
    since = [0, 1, 2, 3, 0, 0, 1, 2, 0]
    for epoch, ((scores, expected), bad) in enumerate(zip(offers, since, strict=True), start=1):
        assert history.offer(epoch, scores, "accuracy") == expected, epoch
        assert history.epochs_without_better == bad
    assert (history.best_epoch, history.best_score, history.best_loss) == (9, 0.7, 5.0)


def test_equal_macro_recalls_of_different_classes_are_a_tie():
    one, other = (sum(count / 7 for count in right) / 3 for right in ([0, 0, 5], [0, 1, 4]))
    assert 0 < abs(one - other) < 1e-15  # 5 of 21 images each, but not to the bit
    history = History()
    assert history.offer(1, scored(0.5, 1.0, min(one, other)), "macro_recall")
    assert not history.offer(2, scored(0.5, 1.1, max(one, other)), "macro_recall")
    assert history.epochs_without_better == 1
    assert history.offer(3, scored(0.5, 0.9, min(one, other)), "macro_recall")


def test_with_last_each_epoch_is_kept():
    history = History()
    assert history.best_epoch == 0  # none yet
    for epoch, loss in enumerate([1.0, 0.9, 1.1, math.nan, 0.8], start=1):
        assert history.offer(epoch, scored(1 / epoch, loss), "last"), epoch  # accuracy falls
        assert (history.best_epoch, history.epochs_without_better) == (epoch, 0)
    assert (history.best_score, history.best_loss) == (-0.8, 0.8)


@pytest.mark.parametrize("scores", [scored(math.nan, 1.0), scored(0.3, math.nan)])
def test_a_model_with_a_nan_loss_is_never_the_best(scores):
    history = History()
    assert not history.offer(1, scores, "accuracy")
    assert history.best_epoch == 0  # none yet


def test_the_monitored_score_decides():
    history = History()
    assert history.offer(1, scored(0.9, 1.0, macro_recall=0.3), "macro_recall")
    assert not history.offer(2, scored(1.0, 0.5, macro_recall=0.2), "macro_recall")
    assert (history.best_epoch, history.best_score) == (1, 0.3)


def saved_by(
    monkeypatch, seconds: list[float], *, needed: bool = False, stumbles: bool = False, **more
) -> list[str]:
    """Return the saves in epochs that end at these seconds."""
    clock, saved = Clock(), []
    monkeypatch.setattr("xception_cli.training.saving.time.monotonic", clock)

    history = History()

    def save(phase: str, remembered: dict[str, object], *, tensors: bool = True) -> None:
        found = history.best_epoch if phase == "train" else history.best_epoch - validated
        assert remembered["best_epoch"] == found  # before validation: the earlier value
        saved.append(f"{clock.now - 1000:g} {phase}{'' if tensors else ', noted'}")

    saving = StateSaving(save, history, **more)
    for second in seconds:
        clock.now, validated = 1000 + second, 0
        saving.begin_validation()
        clock.now += 1
        history.best_epoch += 1  # result of validation
        validated = 1
        if stumbles:
            saving.save()  # retry after a failed save
        saving.end_validation(needed=needed)
    return saved


def test_a_state_is_written_once_an_epoch_and_not_in_epochs_of_a_second(monkeypatch):
    assert saved_by(monkeypatch, [20, 40], every=600) == [
        *("20 eval_pending", "21 train, noted", "40 eval_pending", "41 train, noted"),
    ]
    assert saved_by(monkeypatch, [2, 4, 16, 18, 31], every=600) == [
        *("16 eval_pending", "17 train, noted"),
    ]
    assert saved_by(monkeypatch, [2, 4], every=600, least=0.0) == [
        *("2 eval_pending", "3 train, noted", "4 eval_pending", "5 train, noted"),
    ]
    assert len(saved_by(monkeypatch, [2, 4], every=0.0)) == 4
    assert saved_by(monkeypatch, [2], every=600, needed=True) == ["3 train"]  # the last epoch
    assert saved_by(monkeypatch, [2], every=600, stumbles=True) == [
        *("3 eval_pending", "3 train, noted"),
    ]


@pytest.mark.parametrize(("patience", "epochs"), [(0, 9), (1, 3), (3, 5)])
def test_training_ends_when_patience_runs_out(patience, epochs):
    history, saved = History(), []
    trainer = Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _score(engine: Engine) -> None:  # the second epoch stays the best
        engine.state.metrics["scores"] = scored(min(engine.state.epoch, 2) / 2, 1.0)

    handlers.attach_best_model(
        trainer, history, monitor="accuracy", hold=lambda epoch, _: saved.append(epoch)
    )
    handlers.attach_early_stopping(trainer, history, patience)
    trainer.run([0], max_epochs=9)
    assert trainer.state.epoch == epochs
    assert history.stopped_early == (patience > 0)
    assert saved == [1, 2]


# The rows of metrics.jsonl


def log_epochs(history: History, path: Path, *, epochs: int, top_k: int = 1) -> None:
    trainer = Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def _score(engine: Engine) -> None:
        share = 0.5 if top_k > 1 else None
        engine.state.metrics["train_loss"] = torch.tensor(0.25)
        engine.state.metrics["scores"] = Scores(0.5, 0.75, 0.5, [1.0, None], top_k, share)

    handlers.attach_metrics_log(trainer, history, path, rate=lambda: 1e-4)
    trainer.run([0], max_epochs=epochs)


def test_each_epoch_has_a_row_and_a_resume_removes_rows_after_its_state():
    path, history = Path("metrics.jsonl"), History()
    log_epochs(history, path, epochs=2)
    whole = path.read_bytes()
    rows = whole.splitlines(keepends=True)
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2]
    assert json.loads(rows[0]) == {
        "epoch": 1,
        "lr": 1e-4,
        "train_loss": 0.25,
        "val_loss": 0.5,
        "accuracy": 0.75,
        "macro_recall": 0.5,
        "recall": [1.0, None],
    }
    assert history.metrics_bytes == len(whole)
    path.write_bytes(whole + b'{"epoch": 3, "half a r')
    log_epochs(History(metrics_bytes=len(whole)), path, epochs=1)
    assert path.read_bytes() == whole + rows[0]
    log_epochs(History(), path, epochs=1)
    assert path.read_bytes() == rows[0]


def test_the_top_k_accuracy_is_named_after_its_k():
    log_epochs(History(), Path("metrics.jsonl"), epochs=1, top_k=5)
    assert json.loads(Path("metrics.jsonl").read_text())["top5_accuracy"] == 0.5


def test_a_row_that_cannot_be_written_is_a_machine_error():
    with pytest.raises(MachineError, match=r"cannot write gone/metrics\.jsonl"):
        log_epochs(History(), Path("gone/metrics.jsonl"), epochs=1)
