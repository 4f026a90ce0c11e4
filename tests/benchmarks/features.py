"""The features pass: the frozen part of the network, computed once per photo and view.

    python tests/benchmarks/features.py

From JPEG files. The baselines run the whole network on the photos, as their evaluation does, and
keep nothing. `whole network, our loader` is the plain network with our decoding and precision: the
difference to ours is the gain of folding minus the cost of storing activations. Ours is the phase
that `xception train` calls `features`, for train and val.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import materials
import torch
from baselines import Timm, Tutorial
from harness import Case, Step, cpu_seconds, missing, run


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--photos", type=int, default=120, help="(default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=512, help="width (default: %(default)s)")
    parser.add_argument("--views", type=int, default=4, help="(default: %(default)s)")


def setup(options: Namespace) -> str:
    import product

    width = options.pixels
    materials.draw_photos(folder(options), options.photos, width, width * 3 // 4)
    return product.keep_weights(options)


def folder(options: Namespace) -> Path:
    return Path(options.scratch, "photos")


def cases(options: Namespace) -> list[Case]:
    views = options.views
    return [
        Case("tutorial", lambda: plain(Tutorial(options), options), baseline="tutorial"),
        Case(
            "timm, its best flags",
            lambda: plain(Timm(options), options),
            baseline="timm",
            skip=missing("timm"),
        ),
        Case("whole network, our loader", lambda: whole_network(options)),
        Case("ours: head", lambda: ours(options, "head", 1)),
        Case("ours: exit, 1 view", lambda: ours(options, "exit", 1)),
        Case(f"ours: exit, {views} views", lambda: ours(options, "exit", views)),
        Case(f"ours: middle, {views} views", lambda: ours(options, "middle", views)),
    ]


def plain(loop: Tutorial, options: Namespace) -> Step:
    network = loop.create_network(len(materials.CLASSES))
    batches = loop.create_loader(folder(options), training=False)
    return lambda: loop.classify(network, batches)[1]


def whole_network(options: Namespace) -> Step:
    import product

    job = product.create_job(options, folder(options), f"whole-{options.round}", unfreeze="head")

    @torch.inference_mode()
    def step() -> int:
        for name in ("train", "val"):
            for inputs in job.image_inputs(name):
                with job.runtime.autocast():
                    job.network(inputs.values).cpu()
        return options.photos

    return step


def ours(options: Namespace, unfreeze: str, views: int) -> Step:
    import product

    from xception_cli.training.baseline import compute_baseline
    from xception_cli.training.history import History
    from xception_cli.training.job import Job

    run = f"{unfreeze}-{views}-{options.round}"
    job = product.create_job(options, folder(options), run, unfreeze=unfreeze, views=views)

    class Clocked(Job):
        @contextmanager
        def phase(self, name: str) -> Iterator[None]:
            before = cpu_seconds()
            with super().phase(name):
                yield
            self.seconds[f"{name}: CPU"] = cpu_seconds() - before

    clocked = Clocked(**{field.name: getattr(job, field.name) for field in fields(job)})

    def step() -> dict[str, float]:
        compute_baseline(clocked, History())  # the probe is not counted
        return {
            "items": views * (len(job.split.of("train")) + len(job.split.of("val"))),
            "wall": job.seconds["features"],
            "cpu": job.seconds["features: CPU"],
        }

    return step


if __name__ == "__main__":
    # Not warmed up: a second pass over the same run would find all features computed.
    run(
        __doc__,
        cases,
        arguments=arguments,
        setup=setup,
        warm_up=False,
        unit="photo and view",
    )
