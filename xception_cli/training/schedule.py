"""The learning rate: how it rises and falls over a training."""

import math


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
