"""Accuracy of whole trainings against time.

    python tests/benchmarks/accuracy.py --data DIR --test DIR

All cases start from the same weights and train on the same photos: DIR/train, with DIR/val as val
where it is needed; without these folders, every fifth photo of a class is val. The test photos are
in one folder per class and are used only for measuring. The baselines are measured after each
epoch, with the clock stopped, and are credited with their best epoch on the test photos, an
advantage that they would not have in practice. Ours is the command `xception train` from start to
end, including start-up, data check and evaluation, once as it is and once up to the linear probe.

A round is a seed. `reaches` is the time until the accuracy of that baseline's best epoch, and in
brackets the speed-up over the baseline.
"""

import json
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from statistics import median
from typing import Any

import materials
import torch
from baselines import Timm, Tutorial
from harness import Case, Result, Step, missing, print_table, run


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="photos to train on")
    parser.add_argument("--test", type=Path, required=True, help="photos to measure on")
    parser.add_argument("--tutorial-epochs", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--timm-epochs", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--train", default="", metavar="OPTIONS", help="more options of xception train, as one text"
    )


def setup(options: Namespace) -> str:
    import product

    split = all((options.data / name).is_dir() for name in ("train", "val"))
    for folder in sorted(path for path in options.data.iterdir() if path.is_dir()):
        if split and folder.name in {"train", "val"}:
            shutil.copytree(folder, photos(options) / folder.name)
        elif not split:
            for number, path in enumerate(sorted(p for p in folder.iterdir() if p.is_file())):
                name = "val" if number % 5 == 0 else "train"
                target = photos(options) / name / folder.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    if class_names(photos(options) / "train") != class_names(options.test):
        sys.exit(f"{options.data} and {options.test} have different classes")
    folders = [photos(options) / "train", photos(options) / "val", options.test]
    counts = [sum(path.is_file() for path in folder.rglob("*")) for folder in folders]
    return (
        f"{product.keep_weights(options)}\n"
        f"photos: {counts[0]} train, {counts[1]} val, {counts[2]} test"
    )


def photos(options: Namespace) -> Path:
    return Path(options.scratch, "photos")


def class_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def cases(options: Namespace) -> list[Case]:
    return [
        Case(
            "tutorial",
            lambda: plain(Tutorial(options), options.tutorial_epochs),
            baseline="tutorial",
        ),
        Case(
            "timm, its best flags",
            lambda: plain(Timm(options), options.timm_epochs),
            baseline="timm",
            skip=missing("timm"),
        ),
        Case(
            "timm's features, logistic regression",
            lambda: probe(Timm(options)),
            skip=missing("timm"),
        ),
        Case("xception train --unfreeze head", lambda: ours(options, "--unfreeze", "head")),
        Case("xception train", lambda: ours(options, *options.train.split())),
    ]


Point = dict[str, Any]  # `after` (what), `seconds` of training, `accuracy`


def plain(loop: Tutorial, epochs: int) -> Step:
    options = loop.options
    torch.manual_seed(options.round)

    def step() -> dict[str, list[Point]]:
        seconds, points = 0.0, []
        began = time.perf_counter()
        network = loop.create_network(len(class_names(options.test)))
        train = loop.create_loader(photos(options) / "train", training=True)
        test = loop.create_loader(options.test, training=False)
        optimizer = loop.create_optimizer(network)
        schedule = loop.create_schedule(optimizer, epochs)
        for epoch in range(1, epochs + 1):
            loop.train_epoch(network, optimizer, train)
            schedule(epoch)
            seconds += time.perf_counter() - began
            right, seen = loop.classify(network, test)
            points.append({"after": f"epoch {epoch}", "seconds": seconds, "accuracy": right / seen})
            began = time.perf_counter()
        return {"points": points}

    return step


def probe(loop: Timm) -> Step:
    """Fit scikit-learn's logistic regression to the features of train and val."""
    from sklearn.linear_model import LogisticRegression

    options = loop.options

    def step() -> dict[str, list[Point]]:
        began = time.perf_counter()
        network = loop.create_network(len(class_names(options.test)))
        network.reset_classifier(0)  # the outputs are the pooled features
        parts = [loop.embed(network, photos(options) / name) for name in ("train", "val")]
        features, labels = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        head = LogisticRegression(max_iter=1000).fit(features, labels)
        seconds = time.perf_counter() - began
        features, labels = (part.numpy() for part in loop.embed(network, options.test))
        accuracy = float(head.score(features, labels))
        return {"points": [{"after": "the fit", "seconds": seconds, "accuracy": accuracy}]}

    return step


def ours(options: Namespace, *more: str) -> Step:
    def step() -> dict[str, list[Point]]:
        output = Path(options.scratch, f"run-{options.round}-{options.case}")
        began = time.perf_counter()
        xception(
            *("train", "--data", photos(options), "--output", output),
            *("--weights", materials.weights_file(options), "--image-size", options.image_size),
            *("--device", options.device, "--seed", options.round, *more),
        )
        seconds = time.perf_counter() - began
        said = xception("eval", output, "--data", options.test, "--json")
        kept = json.loads((output / "result.json").read_text())["kept"]
        accuracy = json.loads(said)["accuracy"]
        return {"points": [{"after": kept, "seconds": seconds, "accuracy": accuracy}]}

    return step


def xception(*arguments: object) -> str:
    line = [sys.executable, "-m", "xception_cli", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{line}\n{done.stderr}")
    return done.stdout


def report(results: list[Result], options: Namespace) -> dict[str, Any]:
    baselines = [result for result in results if result.case.baseline]
    rows, found = [], []
    for result in results:
        for points in zip(*(measured["points"] for measured in result.rounds), strict=True):
            row = {
                "case": result.case.name,
                "after": ", ".join(dict.fromkeys(p["after"] for p in points)),
                "seconds": f"{median(p['seconds'] for p in points):.0f}",
                "test accuracy, by seed": ", ".join(f"{p['accuracy']:.1%}" for p in points),
            }
            rows.append(row)
    print_table(rows)
    rows = []
    for result in results:
        row = {"case": result.case.name}
        for baseline in baselines:
            times = _times(result, baseline)
            row[f"reaches {baseline.case.baseline}'s best"] = _sooner(times)
            found.append({"case": result.case.name, "to": baseline.case.baseline, "seconds": times})
        rows.append(row)
    if baselines:
        print_table(rows)
    return {"reaches": found}


def _times(result: Result, baseline: Result) -> list[tuple[float | None, float]]:
    """Return, by round, when the case and the baseline reached the baseline's best accuracy."""
    times = []
    for measured, theirs in zip(result.rounds, baseline.rounds, strict=True):
        goal = max(theirs["points"], key=lambda point: point["accuracy"])
        reached = (p["seconds"] for p in measured["points"] if p["accuracy"] >= goal["accuracy"])
        times.append((next(reached, None), goal["seconds"]))
    return times


def _sooner(times: list[tuple[float | None, float]]) -> str:
    reached = [(ours, theirs) for ours, theirs in times if ours is not None]
    if not reached:
        return "not reached"
    share = "" if len(reached) == len(times) else f", {len(reached)} of {len(times)} seeds"
    seconds = median(ours for ours, _ in reached)
    return f"{seconds:.0f} s ({median(theirs / ours for ours, theirs in reached):.1f}x{share})"


if __name__ == "__main__":
    run(
        __doc__,
        cases,
        arguments=arguments,
        setup=setup,
        warm_up=False,
        report=report,
        with_baselines=False,
    )
