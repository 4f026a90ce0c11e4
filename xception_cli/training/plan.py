"""What `auto` decides, and why; and the learning-rate schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xception_cli.config import TrainConfig
from xception_cli.errors import UsageError
from xception_cli.runtime import Runtime

IMBALANCED = 3.0  # largest class over smallest


@dataclass(frozen=True)
class Plan:
    """The decisions of a run.

    Attributes:
        config: The settings with every number-affecting `auto` decided.
        reasons: A sentence for each decision.
    """

    config: TrainConfig
    reasons: tuple[str, ...]


def make_plan(config: TrainConfig, runtime: Runtime, class_counts: Sequence[int]) -> Plan:
    """Decide what the settings leave open.

    Args:
        config: The settings as given.
        runtime: Where it will be computed.
        class_counts: Training images of each class.

    Raises:
        UsageError: Settings that contradict each other.
    """
    reasons = []
    unfreeze, monitor = config.unfreeze, config.monitor
    if config.weights == "none":
        if unfreeze not in {"auto", "all"}:
            raise UsageError(
                f"--weights none starts from random numbers, and --unfreeze {unfreeze} would "
                "freeze some of them",
                hint="--unfreeze all, or pretrained --weights",
            )
        unfreeze = "all"
        reasons.append("training everything from random weights, as --weights none asks")
    elif unfreeze == "auto":
        unfreeze = "exit" if runtime.device.type == "cpu" else "all"
        reasons.append(
            "training the exit flow (--unfreeze exit): on a CPU the rest is computed once"
            if unfreeze == "exit"
            else "training the whole network (--unfreeze all): there is a GPU"
        )
    if monitor == "auto":
        ratio = max(class_counts) / min(class_counts)
        monitor = "macro_recall" if ratio > IMBALANCED else "accuracy"
        reasons.append(
            f"choosing by {monitor.replace('_', ' ')} on val: the largest class has {ratio:.1f} "
            "times the images of the smallest"
        )
    decided = config.replace(unfreeze=unfreeze, monitor=monitor, precision=runtime.precision)
    return Plan(decided, tuple(reasons))


def learning_rate_factor(iteration: int, total: int, warmup: float) -> float:
    """Return the part of the peak learning rate at an iteration: linear rise, then a cosine.

    The first iteration behind the rise has the peak; 0 would be reached behind the last one.

    The cosine is Loshchilov and Hutter's (SGDR, 2017) without restarts.

    Args:
        iteration: From 1 to `total`.
        total: Iterations of the whole training.
        warmup: Part of them in which the rate rises.
    """
    rising = round(total * warmup)
    if iteration <= rising:
        return iteration / (rising + 1)
    progress = (iteration - rising - 1) / max(1, total - rising)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
