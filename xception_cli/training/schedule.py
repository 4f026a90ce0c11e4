"""Schedule: the learning rate as a function of the iteration, so that resuming needs no state."""

import math

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
