"""Judged: the answers of the kept model on val or test, which the processes compute together."""

from collections.abc import Sequence
from dataclasses import dataclass

from xception_cli.evaluation.scoring import compute_outcomes
from xception_cli.model.bundle import ModelBundle, Outcome, load_model
from xception_cli.model.layers import last_layer
from xception_cli.training.costs import val_is_known
from xception_cli.training.job import Job
from xception_cli.training.settle import Settled, classify_kept


@dataclass(frozen=True)
class Judged:
    """The kept model, and its outcomes on the images of a split."""

    bundle: ModelBundle
    outcomes: Sequence[Outcome | str]


def judge_together(job: Job, split: str) -> Judged | None:
    """Run the kept model, from its file, on the images of a split; None in idle processes.

    Processes of one machine share the images, and the leader gets all outcomes. Other machines have
    no model file, so with several machines the leader works alone.
    """
    processes = job.runtime.processes
    processes.wait()  # until the leader has written the file
    shared = processes.local_count == processes.count
    if not shared and not job.leads:
        return None
    rank, count = (processes.rank, processes.count) if shared else (0, 1)
    bundle, images = load_model(job.run.model, job.runtime.alone()), job.split.of(split)
    with job.phase("evaluation"):
        own = compute_outcomes(bundle, job.root, images[rank::count], workers=job.workers)
        parts = processes.gather(own) if shared else [own]
    return Judged(bundle, [_turn(parts, number) for number in range(len(images) * bool(parts))])


def judge_val(job: Job, settled: Settled | None) -> Judged | None:
    """Return the kept model's outcomes on val, from features if they are known.

    Args:
        job: The run, in each process.
        settled: The kept model, in the leader; None for random weights.

    Returns:
        The outcomes; None in idle processes.
    """
    mirror = job.preprocessing.mirror
    is_known = settled is not None and (
        settled.epoch == 0 or val_is_known(job.config, job.runtime.precision)
    )
    if not job.runtime.processes.once(lambda: is_known):
        return judge_together(job, "val")
    if settled is None:  # this process does not lead
        return None
    with job.phase("evaluation"):
        bundle = load_model(job.run.model, job.runtime.alone())
        logits = classify_kept(bundle.network, settled.val, bundle.runtime, mirror=mirror)
        rows = zip(logits.numpy(), last_layer(settled.val[0]), strict=True)
        return Judged(bundle, [Outcome(*row) for row in rows])


def _turn(parts: Sequence[Sequence[Outcome | str]], number: int) -> Outcome | str:
    return parts[number % len(parts)][number // len(parts)]
