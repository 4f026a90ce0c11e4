"""Learner: what changes while a network trains; and the engines that change and validate it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine
from torch.optim.swa_utils import AveragedModel

from xception_cli.console import show
from xception_cli.data.inputs import ImageInputs
from xception_cli.errors import SMALLER_STEPS, ArtifactError, DivergedError, is_out_of_memory
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.layers import without_layers_head
from xception_cli.model.network import Segment, cut, parameter_groups
from xception_cli.records import Scores
from xception_cli.training.checkpoint import NEW_RUN
from xception_cli.training.engines import (
    create_evaluator,
    create_optimizer,
    create_trainer,
    learning_rate,
)
from xception_cli.training.job import Job


def validate(
    evaluator: Engine,
    inputs: FeatureInputs | ImageInputs | list[object],
    support: Sequence[int],
    top_k: int,
) -> Scores:
    """Run the evaluator and read its metrics.

    Raises:
        DivergedError: The loss is not finite.
    """
    metrics = evaluator.run(inputs).metrics
    if not math.isfinite(metrics["loss"]):
        raise DivergedError(
            f"the loss on val is {metrics['loss']}",
            hint=SMALLER_STEPS,
        )
    recall = [
        float(value) if n else None
        for value, n in zip(metrics["recall"].tolist(), support, strict=True)
    ]
    present = [value for value in recall if value is not None]
    return Scores(
        loss=float(metrics["loss"]),
        accuracy=float(metrics["accuracy"]),
        macro_recall=sum(present) / len(present),
        recall=recall,
        top_k=top_k,
        top_k_accuracy=float(metrics["top_k_accuracy"]) if top_k > 1 else None,
    )


class Paired(NamedTuple):
    """Tensors of a moving average and of the network that it follows: weights, batch counters."""

    averages: list[torch.Tensor]
    weights: list[torch.Tensor]
    average_counts: list[torch.Tensor]
    counts: list[torch.Tensor]


def pair(ema: AveragedModel, trained: Segment) -> Paired:
    """Pair the tensors of a moving average with the network's; they stay the same in training."""
    averages, current = ema.module.state_dict(), trained.state_dict()
    floats = [name for name, average in averages.items() if average.is_floating_point()]
    others = [name for name in averages if name not in floats]
    return Paired(
        [averages[name] for name in floats],
        [current[name] for name in floats],
        [averages[name] for name in others],
        [current[name] for name in others],
    )


def update_ema(ema: AveragedModel, paired: Paired, decay: float) -> None:
    """Move a moving average towards the weights, with a decay that is ramped up to `decay`.

    The ramp min(decay, (1 + n) / (10 + n)) is TensorFlow's: a short run forgets its start too.
    The count is read on the CPU: torch's own `update_parameters` (2.14) would wait for the device.
    """
    count = int(ema.n_averaged)
    ramped = min(decay, (1 + count) / (10 + count)) if count else 0.0
    with torch.no_grad():
        # A few kernels on a GPU, instead of about 280, one for each tensor.
        torch._foreach_lerp_(paired.averages, paired.weights, 1 - ramped)
        if paired.counts:
            torch._foreach_copy_(paired.average_counts, paired.counts)
        ema.n_averaged += 1


@dataclass(frozen=True)
class Learner:
    """The objects that a training state is made of.

    Attributes:
        trained: The part of the network that is trained.
        optimizer: Over its parameters.
        scaler: Of the loss, for fp16.
        ema: The moving average of `trained`; what is validated and kept.
    """

    trained: Segment
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel

    def state(self) -> dict[str, Any]:
        """Return the training state as plain data and tensors."""
        return {
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state` returned.

        Raises:
            ArtifactError: It belongs to another training, or is forged.
        """
        try:
            self.trained.load_state_dict(state["trained"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.ema.load_state_dict(state["ema"])
        except Exception as error:  # torch raises many kinds on what does not fit
            if is_out_of_memory(error):
                raise
            raise ArtifactError(
                f"the training state is not of this training: {show(error)}", hint=NEW_RUN
            ) from error

    def learning_rate(self) -> float:
        """Return the rate of the network's body."""
        return learning_rate(self.optimizer)


class BestModel:
    """The best model so far: held on the device, and written together with the training state.

    So the two always agree, and short epochs do not wait for the disk.
    """

    def __init__(self, job: Job, ema: AveragedModel) -> None:
        self._job = job
        self._ema = ema
        self._held: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None

    def hold(self, epoch: int, scores: Scores) -> None:
        """Take the moving average as the best model."""
        if self._job.leads:
            state = {name: t.clone() for name, t in self._ema.module.state_dict().items()}
            about = {"trained": "fine-tuned", "epoch": epoch, "val_accuracy": scores.accuracy}
            self._held = state, about

    def write(self) -> None:
        """Write the model file, unless it holds the best model already.

        Raises:
            DivergedError: A weight is not finite; the earlier file stays.
        """
        if self._held is not None:
            state, about = self._held
            # The head on several layers was fitted to the frozen network.
            plain = without_layers_head(self._job.network.state_dict())
            self._job.save_model({**plain, **state}, about)
            self._held = None


def create_learner(job: Job) -> Learner:
    """Make the learner of a training that starts, with the job's network."""
    config = job.config
    _, trained = cut(job.network, config.unfreeze, dropout=config.dropout)
    if config.compile:
        trained.compile()
    groups = parameter_groups(
        trained,
        lr=config.lr,
        head_lr=config.head_lr,
        layer_decay=config.layer_decay,
        weight_decay=config.weight_decay,
    )
    optimizer = create_optimizer(config.optimizer, groups, fused=job.runtime.device.type == "cuda")
    fp16 = job.runtime.precision == "fp16"
    scaler = torch.amp.GradScaler(job.runtime.device.type, enabled=fp16)
    return Learner(trained, optimizer, scaler, AveragedModel(trained, use_buffers=True))


class Engines(NamedTuple):
    """The engines of a training: one trains the learner, one validates its moving average."""

    trainer: Engine
    evaluator: Engine


def create_engines(job: Job, learner: Learner, train: FeatureInputs | ImageInputs) -> Engines:
    """Make the engines, without handlers."""
    config, runtime = job.config, job.runtime
    trainer = create_trainer(
        learner.trained,
        learner.optimizer,
        learner.scaler,
        job.criterion,
        runtime=runtime,
        accumulate=config.accumulate,
        clip=config.clip,
        batch_norm=job.pretrained is None,
        # A batch to capture CUDA graphs with.
        example=train.example(min(config.batch_size, train.batches.count))
        if runtime.device.type == "cuda" and not config.compile
        else None,
        files=[image.path for image in job.split.of("train")],  # named in an error
    )
    # Random weights keep the head of the best epoch; others are given a new one, see `settle`.
    mirror = job.pretrained is None and job.preprocessing.mirror
    average = learner.ema.module
    evaluator = create_evaluator(average, runtime=runtime, top_k=job.top_k, mirror=mirror)
    return Engines(trainer, evaluator)
