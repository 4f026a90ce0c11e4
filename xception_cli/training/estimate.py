"""What each part of a training costs on this machine, measured by running a little of each."""

import gc
import sys
import time
from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import replace
from typing import TypeVar

import torch

from xception_cli.data.inputs import Inputs
from xception_cli.errors import DivergedError
from xception_cli.model.folding import for_inference
from xception_cli.model.network import FIRST_TRAINED, backbone_of, cut
from xception_cli.notation import parse_duration
from xception_cli.runtime import Runtime
from xception_cli.training.budget import Budget, new_record
from xception_cli.training.costs import Costs, Forecast, disk_bytes, expected_seconds
from xception_cli.training.engines import create_optimizer, create_trainer
from xception_cli.training.job import Draft, Job
from xception_cli.training.plan import Plan, fit_budget, ladder

T = TypeVar("T")

_DECODED = 4  # images
_REPEATS = 5  # on a GPU, where a call takes milliseconds


def measure_costs(job: Job, unfreeze: str) -> Costs:
    """Measure costs on one batch, with a copy of the network; no random state changes.

    Args:
        job: Not yet started.
        unfreeze: What would be trained.
    """
    job = job.alone()
    runtime, network = job.runtime, deepcopy(job.network)
    batch = min(job.config.batch_size, len(job.split.of("train")))
    # The batch sizes that training will use: for each, cuDNN prepares its kernels once.
    passed = runtime.inference_batch if runtime.is_asynchronous else batch
    values = _random_values(job, max(batch, passed))
    if runtime.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    folded = for_inference(network, runtime)
    prefix, _ = cut(folded, unfreeze)
    rest = None if unfreeze == "head" else backbone_of(folded, FIRST_TRAINED[unfreeze])

    def compute(pixels: torch.Tensor) -> torch.Tensor:
        activations: torch.Tensor = pixels if prefix is None else prefix(pixels)
        if rest is not None:
            rest(activations)
        return activations

    with torch.inference_mode(), runtime.autocast():
        if not runtime.is_asynchronous:  # else `_seconds` warms up, at the size of the batch
            compute(values[:1])
        features, activations = _seconds(runtime, lambda: compute(values[:passed]))
        features, activations = features / passed, activations[:batch]
    step = validation = 0.0
    if unfreeze != "head":
        inputs = activations.clone()  # outside of inference mode, which forbids training
        step, validation = _time_training(job, network, unfreeze, inputs)
    costs = Costs(
        decode=_time_decoding(job, features),
        features=features,
        step=step / batch,
        validation=validation / batch,
        memory=_peak_memory(runtime),
    )
    if runtime.device.type == "cuda":  # engines and their handlers are reference cycles
        del network, folded, prefix, rest, values, activations
        gc.collect()
        torch.cuda.empty_cache()
    return costs


def _random_values(job: Job, count: int) -> torch.Tensor:
    """Return a batch of noise as the network sees images."""
    runtime, size = job.runtime, job.preprocessing.image_size
    shape = (count, 3, size, size)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator())
    values = job.preprocessing.normalize(runtime.to_device(pixels))
    return values.contiguous(memory_format=runtime.memory_format)


def _seconds(runtime: Runtime, work: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that a call takes, and its result; on a GPU, after two warm-up calls.

    The first call creates the context and loads kernels: it can take a thousand times as long.
    """
    repeats = 1
    if runtime.is_asynchronous:
        work()
        work()
        repeats = _REPEATS
    runtime.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        result = work()
    runtime.synchronize()
    return (time.perf_counter() - began) / repeats, result


def _time_training(
    job: Job, network: torch.nn.Module, unfreeze: str, values: torch.Tensor
) -> tuple[float, float]:
    """Return the seconds of a training step and of a validation step on this batch."""
    config, runtime = job.config, job.runtime
    _, trained = cut(network, unfreeze, dropout=config.dropout)
    trainer = create_trainer(
        trained,
        create_optimizer(
            config.optimizer,
            [{"params": list(trained.parameters()), "lr": 1e-6}],
            fused=runtime.device.type == "cuda",
        ),
        torch.amp.GradScaler(runtime.device.type, enabled=False),
        job.criterion,
        runtime=runtime,
        accumulate=config.accumulate,
        clip=config.clip,
        batch_norm=job.pretrained is None,
        example=values if runtime.device.type == "cuda" and not config.compile else None,
    )
    labels = torch.zeros(len(values), dtype=torch.int64)
    batch = Inputs(values, runtime.to_device(labels), labels)
    with torch.random.fork_rng(devices=[]):
        try:
            trainer.run([batch])  # the first one makes the optimizer's state
        except DivergedError as error:
            what = error.message.partition(" at iteration")[0]
            raise DivergedError(f"{what} in the measurement before training") from error
        step, _ = _seconds(runtime, lambda: trainer.run([batch]))
    trained.eval()
    with torch.inference_mode(), runtime.autocast():
        return step, _seconds(runtime, lambda: trained(values))[0]


def _time_decoding(job: Job, features: float) -> float:
    """Return the seconds that decoding an image adds to the network's."""
    dataset = job.image_inputs("train", "random").dataset
    count = min(_DECODED, len(dataset))
    began = time.perf_counter()
    for index in range(count):
        dataset[0, index]
    each = (time.perf_counter() - began) / count
    if job.runtime.device.type == "cpu":  # the same cores do both
        return each / torch.get_num_threads()
    return max(0.0, each / max(1, job.workers) - features)


def _peak_memory(runtime: Runtime) -> int:
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0  # not known without a further package
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_draft(draft: Draft, given: Collection[str], began: float) -> tuple[Draft, Costs]:
    """Measure the costs of a training and, with a time budget, make it fit.

    Args:
        draft: With all decisions that need no clock.
        given: Names of the settings that the user chose.
        began: When the run began, by `time.monotonic`.

    Returns:
        The draft, and what its parts cost.

    Raises:
        UsageError: The budget is too short; the error gives the time needed.
    """
    config = draft.job.config
    if config.budget is None:
        return _measure_within_memory(draft, config.unfreeze)
    rungs = ladder(config, given, draft.job.runtime.device.type)
    costs = {}
    for part in dict.fromkeys(rung.unfreeze for rung in rungs):
        draft, costs[part] = _measure_within_memory(draft, part)
    plan = Plan(draft.job.config, draft.reasons)
    plan = fit_budget(plan, rungs, costs, draft.job.images, time.monotonic() - began)
    draft = _with_plan(draft, plan)
    if cached := draft.job.cached_share():
        reason = (
            "the budget assumes an empty feature cache; "
            f"{cached:.0%} of the features are cached, so the run takes less time"
        )
        draft = replace(draft, reasons=(*draft.reasons, reason))
    return draft, costs[plan.config.unfreeze]


def _with_plan(draft: Draft, plan: Plan) -> Draft:
    return replace(draft, job=replace(draft.job, config=plan.config), reasons=plan.reasons)


def _measure_within_memory(draft: Draft, unfreeze: str) -> tuple[Draft, Costs]:
    """Measure the costs; if a batch does not fit into memory, split it in twice the pieces.

    This happens before the run is made, so its settings and its plan include it.

    Raises:
        torch.OutOfMemoryError: The smaller pieces do not fit either.
    """
    job = draft.job
    pieces = 2 * job.config.accumulate
    try:
        return draft, measure_costs(job, unfreeze)
    except torch.OutOfMemoryError:
        if pieces > job.config.batch_size or job.pretrained is None:
            raise  # batch norm is trained, and a piece has other statistics than its batch
    # After the except block, which holds the tensors that did not fit.
    gc.collect()
    torch.cuda.empty_cache()
    reason = (
        f"computing each batch in {pieces} pieces (--accumulate {pieces}): the device's memory is "
        "too small for larger ones"
    )
    plan = Plan(job.config.replace(accumulate=pieces), (*draft.reasons, reason))
    draft = _with_plan(draft, plan)
    return draft, measure_costs(draft.job, unfreeze)


def forecast(draft: Draft, costs: Costs, spent: float) -> Forecast:
    """Return what a training is expected to take.

    Args:
        draft: From `measure_draft`.
        costs: Of its parts.
        spent: Seconds since the start: imports, the scan, the split and the measurement.
    """
    job = draft.job
    images, processes = job.images, job.runtime.processes.count
    phases = {"preparation": spent, **expected_seconds(job.config, costs, images)}
    for shared in phases.keys() & {"features", "fine-tuning"}:
        phases[shared] /= processes
    cached = job.cached_share()
    if "features" in phases:
        phases["features"] *= 1 - cached
    return Forecast(
        config=job.config,
        reasons=draft.reasons,
        images=images,
        device=str(job.runtime.device),
        seconds=phases,
        cached=cached,
        memory=costs.memory or None,
        disk=disk_bytes(job.config, images.train, images.val),
    )


def start_clock(job: Job, costs: Costs, began: float) -> Job:
    """Start the clock of a run with a budget; other runs have none.

    Args:
        job: Its run folder exists.
        costs: Of its parts.
        began: When the run began, by `time.monotonic`.
    """
    config = job.config
    if config.budget is None:
        return job
    record = new_record(
        budget=parse_duration(config.budget),
        spent=time.monotonic() - began,
        expected=expected_seconds(config, costs, job.images),
        views=config.views,
        epochs=config.epochs,
    )
    budget = Budget(job.run, record)
    budget.keep()
    return replace(job, budget=budget)
