"""create_trainer and create_evaluator: one step each, no handlers."""

import gc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine
from ignite.metrics import Accuracy, Loss, Metric, Recall, TopKCategoricalAccuracy
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from xception_cli.console import show
from xception_cli.data.inputs import Inputs
from xception_cli.errors import SMALLER_STEPS, DivergedError
from xception_cli.model.network import Segment, train_mode
from xception_cli.runtime import Runtime
from xception_cli.training.distributed import distribute, gradients_exchanged


class Answers(NamedTuple):
    """The answers of a candidate model on val.

    Attributes:
        predicted: The class of each image, `(images,)`, int64.
        losses: The cross-entropy of each image, `(images,)`, float32.
    """

    predicted: torch.Tensor
    losses: torch.Tensor


class StepOutput(NamedTuple):
    """The output of one training iteration.

    Attributes:
        loss: Of the batch, a scalar on the device.
        finite: Whether loss and gradient were finite, a scalar on the device.
        images: Number in the batch; approximate with several processes.
    """

    loss: torch.Tensor
    finite: torch.Tensor
    images: int


def create_optimizer(
    name: str, groups: list[dict[str, Any]], *, fused: bool
) -> torch.optim.Optimizer:
    """Make the optimizer.

    Args:
        name: `adamw` or `sgd`, the latter with the paper's momentum.
        groups: Parameters with their learning rates and weight decay.
        fused: In one kernel, on a GPU.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, fused=fused)
    return torch.optim.AdamW(groups, fused=fused)


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the backbone: of its last block, if the groups have names."""
    groups = {group.get("name"): group["lr"] for group in optimizer.param_groups}
    return float(groups.get("conv4", optimizer.param_groups[0]["lr"]))


def create_trainer(
    trained: Segment,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    criterion: nn.CrossEntropyLoss,
    *,
    runtime: Runtime,
    accumulate: int,
    clip: float,
    batch_norm: bool,
    example: torch.Tensor | None = None,
    files: Sequence[str] = (),
) -> Engine:
    """Make the training engine: forward, loss, guard, backward, clip, optimizer.

    One iteration is one optimizer step on one batch, computed in `accumulate` pieces; it gives a
    `StepOutput`. On a CPU, a loss or gradient that is not finite stops the run before the weights
    change. On a GPU, checking each step would synchronize, so `attach_finite_check` checks the
    outputs every few iterations.

    With several processes, each computes a part of the batch and steps by the gradient of the whole
    batch. DistributedDataParallel averages gradients over the processes, so the loss of each part
    is scaled to make this mean the gradient of the batch's loss.

    Args:
        trained: What is trained.
        optimizer: Over its parameters.
        scaler: Of the loss; disabled except for fp16.
        criterion: The loss, on the device.
        runtime: Where to compute.
        accumulate: Pieces of a batch.
        clip: Gradient-norm clipping; 0 disables it.
        batch_norm: Whether batch norm is trained; else it stays in inference mode.
        example: On CUDA, a batch of the usual shape: passes of it are captured as CUDA graphs.
        files: Paths of the images by index, for error messages.
    """
    processes = runtime.processes
    network: Callable[[torch.Tensor], torch.Tensor] = distribute(
        trained, runtime, batch_norm=batch_norm
    )
    train_mode(trained, batch_norm=batch_norm)
    if example is not None and network is trained and accumulate == 1 and not batch_norm:
        network = capture(trained, example, runtime)

    def step(engine: Engine, batch: Inputs) -> StepOutput:
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=runtime.device)
        whole = processes.total(_weight(batch.labels, criterion)) / processes.count
        # Padding stays, so that all batches have one shape; unless the batch is split, or batch
        # norm would count it.
        padded = accumulate == 1 and not batch_norm
        rows = batch.values if padded else batch.values[: len(batch.labels)]
        pieces = list(zip(rows.chunk(accumulate), batch.labels.chunk(accumulate), strict=True))
        for number, (values, labels) in enumerate(pieces, start=1):
            with gradients_exchanged(network, now=number == len(pieces)):
                with runtime.autocast():
                    logits = network(values)[: len(labels)]
                loss = criterion(logits.float(), labels) * (_weight(labels, criterion) / whole)
                if processes.count == 1:  # else the gradient is checked in all at once
                    guard(engine, loss.detach(), "loss", batch.indices)
                scaler.scale(loss).backward()
            total += loss.detach()
        scaler.unscale_(optimizer)
        norm = clip_grad_norm_(trained.parameters(), clip or float("inf"))
        finite = total.isfinite()
        if not scaler.is_enabled():  # the scaler skips a step with an infinite gradient by itself
            guard(engine, norm, "gradient", batch.indices)
            finite &= norm.isfinite()
        scaler.step(optimizer)
        scaler.update()
        return StepOutput(total, finite, len(batch.indices) * processes.count)

    def guard(engine: Engine, value: torch.Tensor, what: str, indices: torch.Tensor) -> None:
        if not runtime.is_asynchronous and not value.isfinite():
            batch = ", ".join(show(files[index]) for index in indices.tolist()) if files else "-"
            raise DivergedError(
                f"the {what} is {value.item()} at iteration {engine.state.iteration:,}, learning "
                f"rate {learning_rate(optimizer):.2g}; the batch: {batch}",
                hint=SMALLER_STEPS,
            )

    return Engine(step)


def _weight(labels: torch.Tensor, criterion: nn.CrossEntropyLoss) -> torch.Tensor:
    """Return the total weight of these images in the loss."""
    if criterion.weight is None:
        return torch.full((), float(len(labels)), device=labels.device)
    return criterion.weight[labels].sum()


def capture(
    trained: Segment, example: torch.Tensor, runtime: Runtime
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Capture a forward and a backward pass as CUDA graphs, for batches of one shape.

    In batches of up to 64, launching the thousand kernels takes longer than computing them; a graph
    is one launch. Dropout still depends on the seed of the step.

    Args:
        trained: Already in its training mode.
        example: A batch of that shape; other shapes are computed without the graphs.
        runtime: Of the GPU.

    Returns:
        A function that computes logits as `trained` does. The next backward pass overwrites its
        gradients, so they cannot be accumulated.
    """
    plain = trained.forward
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        # The captured backward pass ran on another stream than the optimizer: harmless here.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)

    def forward(values: torch.Tensor) -> torch.Tensor:
        # Autocast is entered here, so that the captured backward pass is outside of it, as usual.
        # Its cache is off: the graph must not use a cast from before the capture.
        with runtime.autocast(cache=False):
            return plain(values)

    trained.forward = forward  # type: ignore[assignment, method-assign]
    was_enabled = gc.isenabled()
    gc.disable()  # what an earlier training left may call CUDA when freed, which ends a capture
    try:
        torch.cuda.make_graphed_callables(trained, (example,))
    finally:
        if was_enabled:
            gc.enable()
    replay = trained.forward
    del trained.forward  # back to the class's own

    def compute(values: torch.Tensor) -> torch.Tensor:
        same = values.shape == example.shape and values.stride() == example.stride()
        logits: torch.Tensor = replay(values) if same else trained(values)
        return logits

    return compute


def create_evaluator(
    network: nn.Module, *, runtime: Runtime, top_k: int, mirror: bool = False
) -> Engine:
    """Make the validation engine, with Ignite's metrics.

    Metrics: `loss`, `accuracy`, `recall` (per class) and, for `top_k` above 1, `top_k_accuracy`;
    and `answers`, an `Answers` in the leading process, None in the others.

    Args:
        network: Gives logits; put in eval mode.
        runtime: Where to compute.
        top_k: For the top-k accuracy.
        mirror: Average over each image and its mirror image.
    """

    @torch.inference_mode()
    def step(_: Engine, batch: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        network.eval()
        with runtime.autocast():
            logits = network(batch.values)
            if mirror:
                logits = (logits + network(batch.values.flip(-1))) / 2
        return logits[: len(batch.labels)].float(), batch.labels, batch.indices

    evaluator = Engine(step)
    common: dict[str, Any] = {"output_transform": lambda out: out[:2], "device": runtime.device}
    Loss(functional.cross_entropy, **common).attach(evaluator, "loss")
    Accuracy(**common).attach(evaluator, "accuracy")
    Recall(average=False, **common).attach(evaluator, "recall")
    if top_k > 1:
        TopKCategoricalAccuracy(top_k, **common).attach(evaluator, "top_k_accuracy")
    _Answers(runtime).attach(evaluator, "answers")
    return evaluator


class _Answers(Metric):
    """Collects the answers of all processes, in the order of the images; see `Answers`."""

    def __init__(self, runtime: Runtime) -> None:
        self._processes = runtime.processes
        self._parts: list[tuple[torch.Tensor, ...]] = []
        super().__init__(device=runtime.device)

    def reset(self) -> None:
        self._parts = []

    def update(self, output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        logits, labels, indices = output
        losses = functional.cross_entropy(logits, labels, reduction="none")
        self._parts.append((indices, logits.argmax(dim=1), losses))

    def compute(self) -> Answers | None:
        own = [torch.cat(column).cpu() for column in zip(*self._parts, strict=True)]
        parts = self._processes.gather(own)
        if not parts:
            return None
        indices, predicted, losses = (torch.cat(column) for column in zip(*parts, strict=True))
        count = int(indices.max()) + 1
        answers = Answers(torch.empty(count, dtype=torch.int64), torch.empty(count))
        answers.predicted[indices], answers.losses[indices] = predicted, losses
        return answers
