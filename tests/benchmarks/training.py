"""An epoch of training the head, the exit flow, the middle flow and all layers.

    python tests/benchmarks/training.py

The baselines train all layers on photos that they decode and augment in each epoch; so does `ours:
all`. `ours: exit` and `ours: middle` train on activations of the frozen part computed before
(features.py measures that); an epoch sees one view of each photo. Times are per photo and epoch.
The head is a linear probe: its time is that of the whole fit, without epochs.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import materials
import numpy as np
from baselines import Timm, Tutorial, lacks_bf16
from harness import Case, Step, missing, run


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--photos", type=int, default=80, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="ours (default: %(default)s)")


def setup(options: Namespace) -> str:
    import product

    materials.draw_photos(folder(options), options.photos, 340, 300)
    return product.keep_weights(options)


def folder(options: Namespace) -> Path:
    return Path(options.scratch, "photos")


def cases(options: Namespace) -> list[Case]:
    def others(precision: str, *, channels_last: bool) -> Step:
        return plain(Tutorial(options, precision=precision, channels_last=channels_last), options)

    no_bf16 = lacks_bf16(options)
    return [
        Case(
            "tutorial: fp32, NCHW", lambda: others("fp32", channels_last=False), baseline="tutorial"
        ),
        Case("fp32, channels_last", lambda: others("fp32", channels_last=True)),
        Case("bf16, channels_last", lambda: others("bf16", channels_last=True), skip=no_bf16),
        Case(
            "timm, its best flags",
            lambda: plain(Timm(options), options),
            baseline="timm",
            skip=missing("timm"),
        ),
        Case("ours: all", lambda: ours(options, "all")),
        Case("ours: middle", lambda: ours(options, "middle")),
        Case("ours: exit", lambda: ours(options, "exit")),
        Case("ours: head (the whole probe)", lambda: head(options)),
    ]


def plain(loop: Tutorial, options: Namespace) -> Step:
    network = loop.create_network(len(materials.CLASSES))
    batches = loop.create_loader(folder(options), training=True)
    optimizer = loop.create_optimizer(network)
    return lambda: loop.train_epoch(network, optimizer, batches)


def ours(options: Namespace, unfreeze: str) -> Step:
    """Train like `run_training`: its inputs, step and moving average."""
    import product

    from xception_cli.training.baseline import compute_baseline
    from xception_cli.training.history import History

    job = product.create_job(
        options,
        folder(options),
        f"{unfreeze}-{options.round}",
        unfreeze=unfreeze,
        views=1,
        batch_size=options.batch_size,
    )
    inputs = compute_baseline(job, History()).inputs.train
    trainer = product.create_training(job)

    def step() -> int:
        output = trainer.run(inputs, max_epochs=1, epoch_length=len(inputs)).output
        output.loss.item()  # waits for a GPU
        return inputs.batches.count

    return step


def head(options: Namespace) -> Step:
    from xception_cli.model.network import FEATURES
    from xception_cli.model.probe import fit_probe

    labels = np.arange(options.photos) % len(materials.CLASSES)
    random = np.random.default_rng(0)
    centres = random.gamma(0.5, 0.5, (len(materials.CLASSES), FEATURES))
    noise = random.gamma(0.5, 0.5, (options.photos, FEATURES))
    features = (0.2 * centres[labels] + noise).astype(np.float32)

    units = np.arange(len(labels)).astype(str)

    def step() -> int:
        fit_probe(features, labels, units, class_count=len(materials.CLASSES), seed=0)
        return options.photos

    return step


if __name__ == "__main__":
    run(__doc__, cases, arguments=arguments, setup=setup)
