"""Learner: what changes while a network trains; and History: which model is the best so far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine
from torch.optim.swa_utils import AveragedModel

from xception_cli.console import show
from xception_cli.data.inputs import ImageInputs
from xception_cli.entries import read_entries
from xception_cli.errors import ArtifactError, DivergedError, is_out_of_memory
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.layers import without_layers_head
from xception_cli.model.network import Segment, cut, parameter_groups
from xception_cli.records import Scores
from xception_cli.training.engines import create_optimizer, learning_rate
from xception_cli.training.job import Job

_HINT = "start a new run; the model file of this one may still be usable"


def validate(
    evaluator: Engine,
    inputs: FeatureInputs | ImageInputs | list[object],
    support: Sequence[int],
    top_k: int,
) -> Scores:
    """Run the evaluator and read its metrics.

    Args:
        evaluator: From `create_evaluator`.
        inputs: Batches of val.
        support: Images of each class in val.
        top_k: Of the evaluator.

    Raises:
        DivergedError: The loss is not finite.
    """
    metrics = evaluator.run(inputs).metrics
    if not math.isfinite(metrics["loss"]):
        raise DivergedError(
            f"the loss on val is {metrics['loss']}",
            hint="a smaller --lr and --head-lr; the best model so far is kept",
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


@dataclass
class History:
    """What training remembers between epochs; saved with the state.

    Attributes:
        best_epoch: Epoch of the best fine-tuned model; 0 if there is none yet.
        best_score: Its monitored metric.
        best_loss: Its val loss, which breaks ties.
        epochs_without_better: Epochs since then.
        stopped_early: Patience ran out.
        metrics_bytes: Length of metrics.jsonl.
    """

    best_epoch: int = 0
    best_score: float = float("-inf")
    best_loss: float = float("inf")
    epochs_without_better: int = 0
    stopped_early: bool = False
    metrics_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data, with None for infinity, which JSON lacks."""
        return {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "History":
        """Rebuild a history from the result of `to_dict`.

        Raises:
            ArtifactError: It is damaged.
        """
        finite = {n: v for n, v in data.items() if v not in (None, -math.inf, math.inf)}
        try:
            return read_entries(cls, finite)
        except ValueError as error:
            raise ArtifactError(f"the training state is damaged: {error}", hint=_HINT) from error

    @classmethod
    def of_state(cls, saved: Mapping[str, Any] | None, epochs: int | None) -> "History":
        """Return the history of a saved state, or of a new run.

        Args:
            saved: The state; None in a new run.
            epochs: Planned number of epochs; None if a time budget decides it. If it is larger than
                before, patience starts again.
        """
        if saved is None:
            return cls()
        history = cls.from_dict(saved["history"])
        if epochs is not None and epochs > saved["max_epochs"]:
            history.stopped_early, history.epochs_without_better = False, 0
        return history

    def offer(self, epoch: int, scores: Scores, monitor: str) -> bool:
        """Keep a model if it is the best so far; a tie goes to the lower val loss.

        Args:
            epoch: Of the model.
            scores: On val.
            monitor: The setting: with `last`, each epoch replaces the one before.
        """
        if monitor == "last":
            self.best_epoch, self.best_score, self.best_loss = epoch, -scores.loss, scores.loss
            return True
        score = getattr(scores, monitor)
        # A nan score compares as False. A nan loss would only decide a tie, but a model of nan
        # weights still has an accuracy: that of always predicting the first class.
        if not math.isnan(scores.loss) and (
            (score, -scores.loss) > (self.best_score, -self.best_loss)
        ):
            self.best_epoch, self.best_score, self.best_loss = epoch, score, scores.loss
            self.epochs_without_better = 0
            return True
        self.epochs_without_better += 1
        return False


STEP_DECAY, STEP_EPOCHS = 0.94, 2  # the paper's, section 4.3


def learning_rate_factor(iteration: int, total: int, warmup: float) -> float:
    """Return the fraction of the peak learning rate at an iteration: linear warmup, then a cosine.

    The first iteration after warmup has the peak rate; 0 would be reached after the last one.

    The cosine is Loshchilov and Hutter's (SGDR, 2017) without restarts.

    Args:
        iteration: From 1 to `total`.
        total: Iterations of the whole training.
        warmup: Fraction of them in which the rate rises.
    """
    rising = round(total * warmup)
    if iteration <= rising:
        return iteration / (rising + 1)
    progress = (iteration - rising - 1) / max(1, total - rising)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def stepped_factor(iteration: int, total: int, warmup: float, epoch_length: int) -> float:
    """Return the fraction of the peak learning rate at an iteration: linear warmup, then steps.

    The steps are the Xception paper's: down by 6% every 2 epochs, counted from the start.

    Args:
        iteration: From 1 to `total`.
        total: Iterations of the whole training.
        warmup: Fraction of them in which the rate rises.
        epoch_length: Iterations of an epoch.
    """
    rising = round(total * warmup)
    if iteration <= rising:
        return iteration / (rising + 1)
    return float(STEP_DECAY ** ((iteration - 1) // (STEP_EPOCHS * epoch_length)))


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
                f"the training state is not of this training: {show(error)}", hint=_HINT
            ) from error

    def learning_rate(self) -> float:
        """Return the rate of the network's body."""
        return learning_rate(self.optimizer)


class BestModel:
    """The best model so far: held on the device, and written together with the training state.

    So the two always agree, and short epochs do not wait for the disk.

    Args:
        job: The run that it is written into.
        ema: The moving average that is validated.
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
    """Make the learner of a training that starts, with the job's network.

    Args:
        job: Its config decides what is trained, and how.
    """
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
