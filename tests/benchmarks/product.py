"""Our code, set up for benchmarks. Only cases that need it import it, so no baseline loads it."""

import time
from argparse import Namespace
from pathlib import Path

import torch
from ignite.engine import Engine
from materials import CLASSES, fill, weights_file
from safetensors.torch import save_file
from torch import nn

from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import WeightsError
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, save_model
from xception_cli.model.network import build_network, build_seeded_network
from xception_cli.model.weights import load_pretrained
from xception_cli.runs import make_run
from xception_cli.runtime import Runtime, decide_runtime
from xception_cli.settings import resolve
from xception_cli.training.engines import create_trainer
from xception_cli.training.estimate import measure_draft
from xception_cli.training.handlers import attach_ema, attach_schedule, attach_train_loss
from xception_cli.training.job import Job
from xception_cli.training.learner import create_learner
from xception_cli.training.preparation import draft_job, start_job


def keep_weights(options: Namespace) -> str:
    """Store the backbone's weights where all cases find them; return a description."""
    try:
        pretrained = load_pretrained("imagenet")
        backbone, note = pretrained.backbone, f"weights: ImageNet, {pretrained.source}"
    except WeightsError:
        backbone, note = (
            _random_backbone(),
            "weights: RANDOM, the ImageNet weights could not be obtained",
        )
    save_file(backbone, weights_file(options))
    return note


def _random_backbone() -> dict[str, torch.Tensor]:
    network = build_seeded_network(2, seed=0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    # With batch norm statistics of its own, activations keep their scale from layer to layer.
    # Without, they shrink to denormal numbers, which are slow.
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 96, 96) * 2 - 1)
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("last_linear") and not name.endswith("num_batches_tracked")
    }


def create_bundle(options: Namespace, runtime: Runtime | None = None) -> ModelBundle:
    """Create the model as `xception predict` does.

    Args:
        options: Options of the benchmark.
        runtime: None for the default on this device.
    """
    runtime = runtime or decide_runtime(device=options.device)
    return ModelBundle(
        network=runtime.place(fill(build_network(len(CLASSES)), options)),
        about=About(CLASSES, Preprocessing.for_size(options.image_size)),
        runtime=runtime,
    )


def write_model(options: Namespace, path: Path) -> None:
    """Write a model file for `xception predict --model`."""
    save_model(
        path,
        fill(build_network(len(CLASSES)), options).state_dict(),
        About(CLASSES, Preprocessing.for_size(options.image_size)),
    )


def create_job(options: Namespace, photos: Path, run: str, **settings: object) -> Job:
    """Start a training run like `xception train`, up to the computation of features."""
    given = {
        "data": str(photos),
        "weights": str(weights_file(options)),
        "image_size": options.image_size,
        "device": options.device,
    }
    config = resolve(given | settings, None).config
    runtime = decide_runtime(device=config.device)
    output = Path(options.scratch, run)
    draft, costs = measure_draft(draft_job(config, None, runtime, output), (), time.monotonic())
    run = make_run(draft.job.root, output)
    return start_job(draft, costs, run, time.monotonic())


def create_training(job: Job, example: torch.Tensor | None = None) -> Engine:
    """Create a training engine with all per-step work, like `run_training`.

    Args:
        job: From `create_job`.
        example: See `create_trainer`.
    """
    config, learner = job.config, create_learner(job)
    trainer = create_trainer(
        learner.trained,
        learner.optimizer,
        learner.scaler,
        job.criterion,
        runtime=job.runtime,
        accumulate=config.accumulate,
        clip=config.clip,
        batch_norm=False,
        example=example,
    )
    attach_schedule(trainer, learner.optimizer, warmup=config.warmup)
    attach_ema(trainer, learner.ema, learner.trained, config.ema)
    attach_train_loss(trainer, job.runtime.device)
    return trainer
