"""What `auto` and a time budget decide, and why.

Everything here is a pure function of the settings and, with a budget, of measured `Costs`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xception_cli.config import Balance, Monitor, TrainConfig, Unfreeze, check_frozen
from xception_cli.errors import UsageError
from xception_cli.notation import parse_duration
from xception_cli.numerals import count_of, duration
from xception_cli.runtime import Runtime
from xception_cli.training.costs import Costs, Images, disk_bytes, expected_seconds

IMBALANCED = 3.0  # largest class over smallest
# Images times epochs from which compiling pays: on an H200 it takes 30 s, then saves 0.1 ms for
# each image.
COMPILE_PAYS = 300_000
# Mean number of training images per class from which validation images may show that fine-tuning
# on a CPU beats the linear probe (docs/recipe.md, "When fine-tuning pays").
LEAST_TUNED = 15
MARGIN = 0.95  # share of a budget that is planned for: speeds vary


@dataclass(frozen=True)
class Plan:
    """The decisions of a run.

    Attributes:
        config: The settings with every number-affecting `auto` decided.
        reasons: A sentence for each decision.
    """

    config: TrainConfig
    reasons: tuple[str, ...]


def make_plan(
    config: TrainConfig, runtime: Runtime, class_counts: Sequence[int], val_count: int
) -> Plan:
    """Decide what the settings leave open, independently of the clock and of free memory.

    Args:
        config: The settings as given.
        runtime: Where it will be computed.
        class_counts: Training images of each class.
        val_count: Validation images.

    Raises:
        UsageError: The settings contradict each other, or need more disk than allowed.
    """
    unfreeze, of_unfreeze = _decide_unfreeze(config, runtime, class_counts)
    balance, of_balance = _decide_balance(config, class_counts)
    monitor, of_monitor = _decide_monitor(config, class_counts)
    decided = config.replace(
        unfreeze=unfreeze, monitor=monitor, balance=balance, precision=runtime.precision
    )
    compiling = _suggest_compiling(decided, runtime, sum(class_counts) * config.epochs)
    fitted, of_disk = _fit_disk(decided, config, sum(class_counts), val_count)
    if fitted.unfreeze != decided.unfreeze:
        of_unfreeze = None  # it was decided again, for the reason `of_disk`
    reasons = (of_unfreeze, compiling, of_balance, of_monitor, of_disk)
    return Plan(fitted, tuple(filter(None, reasons)))


def _decide_unfreeze(
    config: TrainConfig, runtime: Runtime, class_counts: Sequence[int]
) -> tuple[Unfreeze, str | None]:
    check_frozen(config)
    if config.weights == "none":
        return "all", "training everything from random weights, as --weights none asks"
    if config.unfreeze != "auto":
        return config.unfreeze, None
    if runtime.device.type != "cpu":
        return "all", "training the whole network (--unfreeze all): there is a GPU"
    mean = sum(class_counts) / len(class_counts)
    if mean < LEAST_TUNED:
        return "head", (
            f"stopping at the linear probe (--unfreeze head): with under {LEAST_TUNED} training "
            f"images per class on average ({mean:.1f}), val cannot show that fine-tuning is better"
        )
    return "exit", "training the exit flow (--unfreeze exit): on a CPU the rest is computed once"


def _suggest_compiling(decided: TrainConfig, runtime: Runtime, passes: int) -> str | None:
    is_worth_it = decided.unfreeze == "all" and passes >= COMPILE_PAYS
    if runtime.device.type != "cuda" or decided.compile or not is_worth_it:
        return None
    return f"--compile would be faster: {count_of(passes, 'image')} in all epochs are enough"


def _decide_balance(config: TrainConfig, class_counts: Sequence[int]) -> tuple[Balance, str | None]:
    if config.balance != "auto":
        return config.balance, None
    if max(class_counts) <= IMBALANCED * min(class_counts):
        return "none", None
    return "sampler", "drawing images of rare classes more often (--balance sampler)"


def _decide_monitor(config: TrainConfig, class_counts: Sequence[int]) -> tuple[Monitor, str | None]:
    if config.monitor != "auto":
        return config.monitor, None
    if config.weights != "none":
        return "last", None
    ratio = max(class_counts) / min(class_counts)
    monitor: Monitor = "macro_recall" if ratio > IMBALANCED else "accuracy"
    return monitor, (
        f"selecting the model by {monitor.replace('_', ' ')} on val: the largest class has "
        f"{ratio:.1f} times the images of the smallest"
    )


def class_weights(class_counts: Sequence[int]) -> list[float]:
    """Return class weights that give rare classes more weight.

    A weight is the inverse square root of the class's image count, so that a class a hundred times
    rarer weighs ten times as much: halfway between equal images and equal classes. Their mean over
    the images is 1, which keeps the scale of the loss.
    """
    roots = [count**-0.5 for count in class_counts]
    total = sum(count * root for count, root in zip(class_counts, roots, strict=True))
    return [root * sum(class_counts) / total for root in roots]


def _fit_disk(
    decided: TrainConfig, given: TrainConfig, train_count: int, val_count: int
) -> tuple[TrainConfig, str | None]:
    limit, needed = decided.cache_gb * 1e9, disk_bytes(decided, train_count, val_count)
    if needed <= limit:
        return decided, None
    fewer = (decided.replace(views=views) for views in range(decided.views - 1, 0, -1))
    fitting = (c for c in fewer if disk_bytes(c, train_count, val_count) <= limit)
    if fitted := next(fitting, None):
        return fitted, (
            f"{fitted.views} of {count_of(decided.views, 'view')}: all of them would take "
            f"{needed / 1e9:.1f} GB, over --cache-gb {decided.cache_gb:g}"
        )
    one = disk_bytes(decided.replace(views=1), train_count, val_count) / 1e9
    if given.unfreeze == decided.unfreeze:
        raise UsageError(
            f"--unfreeze {given.unfreeze} keeps {one:.1f} GB of activations for one view of the "
            f"images, over --cache-gb {decided.cache_gb:g}",
            hint=f"--cache-gb {math.ceil(one * 11) / 10:g}, --unfreeze head, or --unfreeze all",
        )
    return decided.replace(unfreeze="head"), (
        f"training the head only (--unfreeze head): one view of the images would take {one:.1f} "
        f"GB, over --cache-gb {decided.cache_gb:g}"
    )


class Rung(NamedTuple):
    """What a training could do within a budget."""

    unfreeze: str
    views: int
    epochs: int


# From the best choice to the least. Each further view costs a pass of the whole network, each epoch
# only one of the trained part; too few steps hardly change the head. On a CPU the second rung is
# the default, and more time buys the first.
LADDER = {
    "cpu": (
        Rung("exit", 4, 12),
        Rung("exit", 3, 12),
        Rung("exit", 2, 12),
        Rung("exit", 2, 8),
        Rung("exit", 1, 8),
        Rung("exit", 1, 4),
        Rung("head", 3, 1),
        Rung("head", 1, 1),
    ),
    "gpu": (
        Rung("all", 1, 12),
        Rung("all", 1, 8),
        Rung("all", 1, 5),
        Rung("all", 1, 3),
        Rung("exit", 2, 8),
        Rung("head", 3, 1),
        Rung("head", 1, 1),
    ),
}


def ladder(config: TrainConfig, given: Collection[str], device: str) -> list[Rung]:
    """Return the rungs that agree with the given settings, best first.

    Args:
        config: The settings, with everything decided. Where `auto` chose the head alone, for lack
            of images or of disk space, no budget changes that.
        given: Names of the settings that the user chose.
        device: Its type, such as `cpu`.
    """
    steps = LADDER["cpu" if device == "cpu" else "gpu"]
    if config.weights == "none" or "unfreeze" in given or config.unfreeze == "head":
        usual = steps[0].unfreeze
        steps = tuple(r._replace(unfreeze=config.unfreeze) for r in steps if r.unfreeze == usual)
    rungs: list[Rung] = []
    for rung in steps:
        views = config.views if "views" in given else rung.views
        epochs = config.epochs if "epochs" in given else rung.epochs
        made = Rung(rung.unfreeze, views, epochs)
        if made not in rungs:
            rungs.append(made)
    return rungs


def fit_budget(
    plan: Plan,
    rungs: Sequence[Rung],
    costs: Mapping[str, Costs],
    images: Images,
    spent: float,
) -> Plan:
    """Choose the best rung that fits into the time.

    Args:
        plan: The decisions that need no clock; its config holds the budget.
        rungs: From `ladder`.
        costs: By `unfreeze`.
        images: In the splits.
        spent: Seconds spent already.

    Raises:
        UsageError: The time is too short for the last rung; the error gives the time needed.
    """
    text = plan.config.budget or ""
    budget = parse_duration(text)
    needed = spent
    for rung in rungs:
        config = plan.config.replace(**rung._asdict())
        needed = spent + sum(expected_seconds(config, costs[rung.unfreeze], images).values())
        if needed > MARGIN * budget or disk_bytes(config, images.train, images.val) > (
            config.cache_gb * 1e9
        ):
            continue
        reason = f"--budget {text}: {describe_rung(rung)}, about {duration(needed)} in all"
        if rung == rungs[0]:
            reason += "; a longer budget changes nothing"
        is_head = plan.config.unfreeze == "head"  # it was not decided again
        others = (other for other in plan.reasons if is_head or "--unfreeze" not in other)
        return Plan(config, (*others, reason))
    least = needed / MARGIN
    raise UsageError(
        f"a budget of {text} is too short: {describe_rung(rungs[-1])} takes about "
        f"{duration(least)} on this machine",
        hint=f"--budget {int(least * 1.1 / 60) + 1}m",
    )


def describe_rung(rung: Rung) -> str:
    """Describe a rung for people."""
    part = {"exit": "the exit flow", "middle": "the middle and exit flow", "all": "everything"}
    views = f" on {count_of(rung.views, 'view')}"
    if rung.unfreeze == "head":
        return f"the linear probe alone{views}"
    if rung.unfreeze == "all":
        views = ""
    return f"training {part[rung.unfreeze]}{views} for {count_of(rung.epochs, 'epoch')}"
