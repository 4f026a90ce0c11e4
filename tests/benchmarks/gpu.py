"""Inference and training on a GPU by precision, layout, batch size and compiling; and data loading.

    python tests/benchmarks/gpu.py --weights FILE --json FILE

All rows run in one process, like a training: the context and the kernels are loaded once. Each row
is measured after three warm-up steps, on data in GPU memory unless stated otherwise. `ours` trains
like `run_training`: Ignite, clipping, AdamW, the moving average. A row is printed as soon as it is
measured. On a CPU (`--device cpu --image-size 71`) it only shows that it runs.
"""

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import materials
import product
import torch
from baselines import Timm, Tutorial, choose_device, synchronize
from harness import _about, describe, print_table
from torch.nn import functional

from xception_cli.console import screen
from xception_cli.data.inputs import Inputs
from xception_cli.data.loading import read_parts
from xception_cli.inference import classify
from xception_cli.model.features import compute_pooled
from xception_cli.model.network import Segment, cut
from xception_cli.runtime import Runtime, decide_runtime
from xception_cli.training import handlers
from xception_cli.training.baseline import _every_epoch
from xception_cli.training.job import Job

PHOTO = (500, 375)  # like the small files of most data sets


@dataclass
class Bench:
    """Shared by all rows."""

    options: Namespace
    device: torch.device
    runtime: Runtime
    rows: list[dict[str, Any]]

    def report(self, group: str, name: str, **found: Any) -> None:
        row = {"group": group, "name": name, **found}
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def measure(self, group: str, name: str, step: Callable[[], int]) -> None:
        """Time a step that returns its number of images, for about a second."""
        if self.options.only and self.options.only not in f"{group}: {name}":
            return
        try:
            self._reset_peak()
            began = time.perf_counter()
            for _ in range(3):
                count = step()
            synchronize(self.device)
            set_up = time.perf_counter() - began
            rates = []
            while sum(count * 3 / rate for rate in rates) < self.options.seconds:
                began = time.perf_counter()
                for _ in range(3):
                    step()
                synchronize(self.device)
                rates.append(3 * count / (time.perf_counter() - began))
            rates.sort()
            middle = rates[len(rates) // 2]
            self.report(
                group,
                name,
                images_per_s=round(middle, 1),
                lowest=round(rates[0], 1),
                highest=round(rates[-1], 1),
                set_up_s=round(set_up, 2),
                peak_gb=self._peak(),
            )
        except Exception as error:  # the other rows still run
            self.report(group, name, error=f"{type(error).__name__}: {str(error)[:300]}")
            traceback.print_exc()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _peak(self) -> float | None:
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)


def pixels(bench: Bench, batch: int) -> torch.Tensor:
    size = bench.options.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)


def normalized(bench: Bench, batch: int, runtime: Runtime | None = None) -> torch.Tensor:
    values = pixels(bench, batch).to(bench.device).float() / 127.5 - 1
    return values.contiguous(memory_format=(runtime or bench.runtime).memory_format)


# Inference


def inference(bench: Bench) -> None:
    batch = bench.options.batch_size
    group = f"inference, batch {batch}"
    bench.measure(group, "ours", our_inference(bench, bench.runtime, batch))
    bundle, held = product.create_bundle(bench.options, bench.runtime), pixels(bench, batch)

    def from_memory() -> int:
        bundle.outputs(held)
        return batch

    bench.measure(group, "ours, from pixels in memory", from_memory)
    fp32 = decide_runtime(device=bench.options.device, precision="fp32")
    bench.measure(group, "ours: fp32", our_inference(bench, fp32, batch))
    for name, loop in plain_loops(bench.options).items():
        with tf32_as_usual():
            bench.measure(group, name, plain_inference(loop, batch))


def plain_loops(options: Namespace) -> dict[str, Tutorial]:
    return {
        "timm, its best flags": Timm(options),
        "plain loop: bf16, channels_last": Tutorial(options, precision="bf16", channels_last=True),
        "plain loop: fp32, NCHW": Tutorial(options),
    }


@contextmanager
def tf32_as_usual() -> Iterator[None]:
    """Let baselines compute fp32 convolutions in TF32, which is torch's default."""
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = False


def compiled(bench: Bench) -> None:
    batch, runtime = bench.options.batch_size, bench.runtime
    step = our_inference(bench, runtime, batch, compiled=True)
    bench.measure(f"inference, batch {batch}", "ours, compiled", step)
    batch = bench.options.train_batch
    step = our_training(bench, runtime, batch, "all", compiled=True)
    bench.measure(f"training all layers, batch {batch}", "ours, compiled", step)


def plain_inference(loop: Tutorial, batch: int) -> Callable[[], int]:
    state: list[Any] = []

    @torch.inference_mode()
    def step() -> int:
        if not state:
            size = loop.options.image_size
            images = torch.rand(batch, 3, size, size, device=loop.device) * 2 - 1
            network = loop.create_network(len(materials.CLASSES)).eval()
            state.extend([network, loop.place(images)])
        with loop.autocast():
            state[0](state[1])
        return batch

    return step


def our_inference(
    bench: Bench, runtime: Runtime, batch: int, *, compiled: bool = False
) -> Callable[[], int]:
    state: list[Any] = []

    @torch.inference_mode()
    def step() -> int:
        if not state:
            bundle = product.create_bundle(bench.options, runtime)
            backbone, head = bundle._backbone, Segment(bundle.network, "head", "head")
            state.extend([torch.compile(backbone) if compiled else backbone, head])
            state.append(normalized(bench, batch, runtime))
        with runtime.autocast():
            activations = state[0](state[2])
        state[1](activations)
        return batch

    return step


# Training


def training(bench: Bench) -> None:
    batch = bench.options.train_batch
    group = f"training all layers, batch {batch}"
    for size in bench.options.train_batches:
        name = f"training all layers, batch {size}"
        bench.measure(name, "ours", our_training(bench, bench.runtime, size, "all"))
    name = f"training the exit flow on kept activations, batch {batch}"
    bench.measure(name, "ours", our_training(bench, bench.runtime, batch, "exit"))
    for name, loop in plain_loops(bench.options).items():
        with tf32_as_usual():
            bench.measure(group, name, plain_training(loop, batch))


def plain_training(loop: Tutorial, batch: int) -> Callable[[], int]:
    state: list[Any] = []

    def step() -> int:
        if not state:
            network = loop.create_network(len(materials.CLASSES)).train()
            size = loop.options.image_size
            images = torch.rand(batch, 3, size, size, device=loop.device) * 2 - 1
            labels = torch.arange(batch, device=loop.device) % len(materials.CLASSES)
            state.extend([network, loop.create_optimizer(network), loop.place(images), labels])
        network, optimizer, images, labels = state
        optimizer.zero_grad()
        with loop.autocast():
            loss = functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        return batch

    return step


def our_training(
    bench: Bench, runtime: Runtime, batch: int, unfreeze: str, *, compiled: bool = False
) -> Callable[[], int]:
    state: list[Any] = []

    def step() -> int:
        if not state:
            job = training_job(bench, runtime, batch, unfreeze, compiled=compiled)
            labels = torch.arange(batch) % len(job.split.classes)
            values = normalized(bench, batch, runtime)
            prefix, _ = cut(job.network, unfreeze)
            if prefix is not None:
                with torch.no_grad(), runtime.autocast():
                    values = prefix(values)
                values = values.to(runtime.dtype)
            inputs = Inputs(values, labels.to(bench.device), labels)
            state.extend([create_run(job, values), inputs])
        run, inputs = state
        run([inputs] * 4)
        return 4 * batch

    return step


def training_job(
    bench: Bench,
    runtime: Runtime,
    batch: int,
    unfreeze: str,
    *,
    compiled: bool = False,
    photos: str = "few",
) -> Job:
    job = product.create_job(
        bench.options,
        Path(bench.options.scratch, photos),
        f"run-{len(bench.rows)}-{time.monotonic_ns()}",
        unfreeze=unfreeze,
        batch_size=batch,
        compile=compiled,
        precision=runtime.precision,
        val_fraction=0.1,
    )
    return replace(job, runtime=runtime, network=runtime.place(job.network))


def create_run(job: Job, example: torch.Tensor) -> Callable[[Any], Any]:
    """Return a function that trains for one pass over batches, like `run_training`."""
    captures = job.runtime.device.type == "cuda" and not job.config.compile
    trainer = product.create_training(job, example if captures else None)
    handlers.attach_finite_check(
        trainer, every=job.config.log_every, device=job.runtime.device, rate=lambda: 0.0
    )
    return lambda batches: trainer.run(batches, max_epochs=1, epoch_length=len(batches))


# From files


def from_files(bench: Bench) -> None:
    batch = bench.options.train_batch
    job = training_job(bench, bench.runtime, batch, "all", photos="photos")
    group = f"from {PHOTO[0]} px JPEGs, {len(job.split.of('train'))} images"
    backbone = product.create_bundle(bench.options, bench.runtime)._backbone
    with clocked(bench, group, "features (their loader's start included)", job.images.train):
        compute_pooled(backbone, job.image_inputs("train"), "features")
    train, _ = _every_epoch(job)
    for epoch in range(3):
        name = f"loader alone, epoch {epoch + 1}"
        train.batches.epoch = epoch
        with clocked(bench, group, name, job.images.train):
            for _ in read_parts(train.loader):
                pass
    shutil.rmtree(job.run.decoded)
    train, _ = _every_epoch(job)
    run = create_run(job, train.example(job.config.batch_size))
    for epoch in range(4):
        train.batches.epoch = epoch
        with clocked(bench, group, f"training all layers, epoch {epoch + 1}", job.images.train):
            run(train)
    bundle = product.create_bundle(bench.options, bench.runtime)
    paths = [image.path for image in job.split.of("train")]
    for number in range(2):
        with clocked(bench, group, f"prediction, pass {number + 1}", len(paths)):
            list(classify(bundle, job.root, paths, workers=job.workers))


@contextmanager
def clocked(bench: Bench, group: str, name: str, count: int) -> Iterator[None]:
    synchronize(bench.device)
    began = time.perf_counter()
    yield
    synchronize(bench.device)
    seconds = time.perf_counter() - began
    bench.report(group, name, images_per_s=round(count / seconds, 1), seconds=round(seconds, 2))


# Where the time goes


def profile(bench: Bench) -> None:
    steps = {
        "inference": our_inference(bench, bench.runtime, bench.options.batch_size),
        "training": our_training(bench, bench.runtime, bench.options.train_batch, "all"),
    }
    activities = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if bench.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_cuda_time_total"
    with bench.options.profile.open("w") as file:
        for name, step in steps.items():
            for _ in range(3):
                step()
            synchronize(bench.device)
            with torch.profiler.profile(activities=activities) as profiler:
                count = step()
                synchronize(bench.device)
            table = profiler.key_averages().table(
                sort_by=key, row_limit=40, max_name_column_width=90
            )
            file.write(f"{name}, {count} images\n{table}\n")


def draw(number: int, *, folder: Path) -> None:
    materials.draw_photo(folder, number, *PHOTO)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--image-size", type=int, default=299)
    parser.add_argument("--weights", type=Path, help="of the backbone (default: as train has them)")
    parser.add_argument("--photos", type=int, default=4096, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each row")
    parser.add_argument("--batch-size", type=int, default=128, help="of inference")
    parser.add_argument("--train-batch", type=int, default=64)
    parser.add_argument("--train-batches", type=int, nargs="+", default=[64, 32, 128])
    parser.add_argument(
        "--parts", nargs="+", default=["from_files", "training", "compiled", "inference"]
    )
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", type=Path, help="write the kernels that take longest")
    options = parser.parse_args()
    parts = {
        "from_files": from_files,
        "training": training,
        "inference": inference,
        "compiled": compiled,
    }
    screen.quiet = True  # of the jobs
    with tempfile.TemporaryDirectory(prefix="xception-benchmark-") as scratch:
        options.scratch = Path(scratch)
        about = _about(__doc__)
        if options.weights is None:
            about["note"] = product.keep_weights(options)
        else:
            shutil.copy(options.weights, materials.weights_file(options))
        with multiprocessing.get_context("fork").Pool() as pool:
            pool.map(partial(draw, folder=Path(scratch, "photos")), range(options.photos), 32)
        for number in range(64):
            draw(number, folder=Path(scratch, "few"))
        runtime = decide_runtime(device=options.device)
        bench = Bench(options, choose_device(options), runtime, [])
        print(f"{about['title']}\n{describe(about)}\n{runtime.describe()}", flush=True)
        for part in options.parts:
            try:
                parts[part](bench)
            except Exception:
                traceback.print_exc()
        if options.profile is not None:
            profile(bench)
        if options.json is not None:
            rows = {**about, "device": runtime.describe(), "rows": bench.rows}
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    shown = [
        {
            "what": f"{row['group']}: {row['name']}",
            "images/s": str(row.get("images_per_s", "failed")),
        }
        for row in bench.rows
    ]
    if shown:
        print_table(shown)


if __name__ == "__main__":
    main()
