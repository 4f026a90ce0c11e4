"""Peak memory of training, by number of photos, and of inference.

    python tests/benchmarks/memory.py

Training is the command `xception train`. Its memory is that of all its processes, shared pages
counted once: `own` can only be in RAM; `with files` adds mapped pages of stored activations, which
the system can reclaim. The slope is the memory of another thousand photos. The baseline is four
batches of the tutorials' loop. Inference is the network alone, with and without our runtime's
settings of the C allocator. Linux only.
"""

import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

from harness import Case, Result, Step, print_table, report_ratios, run

INTERVAL = 0.2  # seconds between two samples


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--photos", type=int, nargs="+", default=[500, 2000], help="(default: 500 2000)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument(
        "--batches", type=int, default=2, help="of inference (default: %(default)s)"
    )
    parser.add_argument(
        "--train",
        default="--epochs 1 --views 1",
        metavar="OPTIONS",
        help="more options of xception train, as one text (default: %(default)s)",
    )


def setup(options: Namespace) -> str:
    import materials
    import product

    for count in options.photos:
        materials.draw_photos(folder(options, count), count, 340, 300)
    return product.keep_weights(options)


def folder(options: Namespace, count: int) -> Path:
    return Path(options.scratch, str(count))


def cases(options: Namespace) -> list[Case]:
    inference = f"inference, batch of {options.batch_size}"
    return [
        Case("tutorial", lambda: plain_inference(options), inference, baseline="tutorial"),
        Case("ours, allocator as it is", lambda: ours_inference(options, decided=False), inference),
        Case("ours", lambda: ours_inference(options, decided=True), inference),
        Case("tutorial", lambda: plain_training(options), "training", baseline="tutorial"),
        *(
            Case(ours(count), lambda n=count: ours_training(options, n), "training")
            for count in options.photos
        ),
    ]


def warmed_up(step: Step) -> Step:
    step()
    return step


def plain_inference(options: Namespace) -> Step:
    import inference
    from baselines import Tutorial

    return warmed_up(inference.plain(Tutorial(options), options))


def ours_inference(options: Namespace, *, decided: bool) -> Step:
    import inference
    from baselines import best_precision, choose_device

    from xception_cli.runtime import Runtime

    if decided:
        return warmed_up(inference.ours(options))
    device = choose_device(options)
    return warmed_up(inference.ours(options, Runtime(device, best_precision(device))))


def plain_training(options: Namespace) -> Step:
    import materials
    from baselines import Tutorial

    loop = Tutorial(options)
    network = loop.create_network(len(materials.CLASSES))
    batches = loop.create_loader(folder(options, options.photos[0]), training=True)

    def step() -> dict[str, float]:
        with Watch() as watch:
            loop.train_epoch(network, loop.create_optimizer(network), islice(batches, 4))
        return watch.peak

    return step


def ours_training(options: Namespace, count: int) -> Step:
    line = [
        *(sys.executable, "-m", "xception_cli", "train", "--data", folder(options, count)),
        *("--weights", Path(options.scratch, "weights.safetensors"), "--device", options.device),
        *("--image-size", options.image_size, *options.train.split()),
        *("--output", Path(options.scratch, f"run-{count}-{options.round}")),
    ]

    def step() -> dict[str, float]:
        with Watch() as watch:
            done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{line}\n{done.stderr}")
        return watch.peak

    return step


class Watch:
    """Sample the memory of this process and its descendants.

    Attributes:
        peak: Peak in megabytes: `own`, and `with_files`.
    """

    def __init__(self) -> None:
        self.peak = {"own": 0.0, "with_files": 0.0}
        self._ended = Event()
        self._thread = Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(INTERVAL):
            seen = [_memory(process) for process in _descendants(os.getpid())]
            for name in self.peak:
                self.peak[name] = max(self.peak[name], sum(memory[name] for memory in seen))


def _descendants(process: int) -> list[int]:
    found = [process]
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            found += [p for child in children.read_text().split() for p in _descendants(int(child))]
    return found


def _memory(process: int) -> dict[str, float]:
    """Return the megabytes of a process; shared pages count proportionally (PSS)."""
    parts: dict[str, int] = {}
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split()[:2]
            parts[name.rstrip(":")] = int(value)
    own = parts.get("Pss_Anon", 0) + parts.get("Pss_Shmem", 0)
    return {"own": own * 1024 / 1e6, "with_files": parts.get("Pss", 0) * 1024 / 1e6}


def report(results: list[Result], options: Namespace) -> dict[str, Any]:
    ratios = report_ratios([r for r in results if r.case.group != "training"], "image")
    peaks = {
        result.case.name: {
            name: median(measured[name] for measured in result.rounds)
            for name in ("own", "with_files")
        }
        for result in results
        if result.case.group == "training"
    }
    rows = [
        {
            "training": case,
            "own MB": f"{peak['own']:.0f}",
            "with files": f"{peak['with_files']:.0f}",
        }
        for case, peak in peaks.items()
    ]
    few, many = min(options.photos), max(options.photos)
    slope = {}
    if few < many and {ours(few), ours(many)} <= peaks.keys():
        slope = {
            name: (peaks[ours(many)][name] - peaks[ours(few)][name]) / (many - few) * 1000
            for name in ("own", "with_files")
        }
        per_thousand = {name: f"{value:+.0f}" for name, value in slope.items()}
        rows.append(
            {
                "training": "per 1000 photos more",
                "own MB": per_thousand["own"],
                "with files": per_thousand["with_files"],
            }
        )
    if rows:
        print_table(rows)
    return {"ratios": ratios, "training": peaks, "mb_per_1000_photos": slope}


def ours(count: int) -> str:
    return f"xception train, {count} photos"


if __name__ == "__main__":
    run(__doc__, cases, arguments=arguments, setup=setup, warm_up=False, report=report)
