"""Accuracy and time of `xception train`, before and after a change.

    python tests/benchmarks/recipe.py DIR... --results FILE [--before CHECKOUT] [--images 10 all]
        [--seeds 3] [--train OPTIONS]

Each DIR is a data set: one folder per class, or train/ and test/ (else val/) of them. Without test
images, a third of the groups is held out, sampled by seed. For each seed, `--images` per class are
sampled for training, and `xception train` and `xception eval` run on them from start to end,
once with the code in CHECKOUT (a git worktree) and once with this one.

Each result is a line in FILE. A second call with the same FILE computes only what is missing, and
with `--seeds 0` only prints the table. `gain` is the mean difference of the accuracies on the same
test images, with a 95% interval over their groups; `seconds` is the wall time of training, `CPU`
the ratio of CPU seconds, which depend less on other programs.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import print_table

from xception_cli.check.survey import survey_folder
from xception_cli.data.folder import read_folder
from xception_cli.data.photo import Photo
from xception_cli.data.units import unit_folds

ALL = "all"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--results", type=Path, required=True, metavar="FILE")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--images", nargs="+", default=[ALL], help="of each class, or all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", default="", metavar="OPTIONS", help="of this code, as one text")
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    codes = {"before": options.before, f"after {options.train}".strip(): here}
    done = {(r["set"], r["images"], r["seed"], r["code"]) for r in read(options.results)}
    for seed in range(options.seeds):
        for folder in options.folders:
            for images in options.images:
                for code, checkout in codes.items():
                    if checkout and (folder.name, images, seed, code) not in done:
                        more = options.train.split() if code != "before" else []
                        row = measure(folder, images, seed, checkout, more)
                        keep(options.results, row | {"code": code})
    report(read(options.results))


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def keep(path: Path, row: Row) -> None:
    with path.open("a") as file:
        file.write(f"{json.dumps(row)}\n")
    print(*(f"{name}={row[name]}" for name in ("set", "images", "seed", "code", "accuracy")))


def measure(folder: Path, images: str, seed: int, checkout: Path, more: list[str]) -> Row:
    """Train on some images of a set and evaluate on its test images, in fresh processes."""
    train, test, classes = split(folder, seed)
    if images != ALL:
        train = draw(train, int(images), seed)
    unit_of = {flat_name(photo, classes): photo.unit for photo in test}
    with tempfile.TemporaryDirectory() as scratch:
        for name, photos in (("train", train), ("test", test)):
            for photo in photos:
                place = Path(scratch, name, flat_name(photo, classes))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / photo.path, place)
        run = Path(scratch, "run")
        given = ["--data", Path(scratch, "train"), "--output", run, "--seed", seed, *more]
        wall, cpu = call(checkout, "train", *given)
        call(checkout, "eval", run, "--data", Path(scratch, "test"))
        (place,) = (path for path in (run / "eval").iterdir() if path.name != "val")
        metrics = json.loads((place / "metrics.json").read_text())
        with (place / "predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        result = json.loads((run / "result.json").read_text())
    right = {row["path"]: int(row["true"] == row["predicted"]) for row in rows}
    return {
        "set": folder.name,
        "images": images,
        "seed": seed,
        "train": len(train),
        "test": len(right),
        "kept": result["kept"],
        "accuracy": metrics["accuracy"],
        "log_loss": metrics["log_loss"],
        "calibration_error": metrics["calibration_error"],
        "macro_recall": metrics["macro_recall"],
        "seconds": round(wall, 1),
        "cpu": round(cpu, 1),
        "right": {path: [unit_of[path], found] for path, found in right.items()},
    }


def flat_name(photo: Photo, classes: Sequence[str]) -> str:
    return f"{classes[photo.label]}/{photo.path.replace('/', '-')}"


def call(checkout: Path, *arguments: object) -> tuple[float, float]:
    """Run a command to its end, and return its wall and CPU seconds."""
    line = [sys.executable, "-m", "xception_cli", *map(str, arguments)]
    # Otherwise the working folder, perhaps another checkout, comes first.
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "PYTHONSAFEPATH": "1"}
    began, before = time.monotonic(), spent()
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{line}\n{done.stderr}")
    return time.monotonic() - began, spent() - before


def spent() -> float:
    """Return the CPU seconds of all finished children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def split(folder: Path, seed: int) -> tuple[list[Photo], list[Photo], tuple[str, ...]]:
    """Return training and test images with their units, and the classes."""
    data = read_folder(folder)
    survey = survey_folder(data)
    photos, _ = survey.in_units()
    given = "test" if "test" in data.given_splits else "val"
    if given in data.given_splits:
        train = [photo for photo in photos if photo.split == "train"]
        return train, [photo for photo in photos if photo.split == given], data.classes
    units = np.array([photo.unit for photo in photos], np.str_)
    labels = np.array([photo.label for photo in photos])
    train, test = next(iter(unit_folds(units, folds=3, seed=seed, labels=labels)))
    return [photos[at] for at in train], [photos[at] for at in test], data.classes


def draw(photos: list[Photo], count: int, seed: int) -> list[Photo]:
    """Sample this many images of each class, or all if there are fewer."""
    order = np.random.default_rng(seed).permutation(len(photos))
    drawn: dict[int, list[Photo]] = defaultdict(list)
    for at in order.tolist():
        if len(drawn[photos[at].label]) < count:
            drawn[photos[at].label].append(photos[at])
    return [photo for label in sorted(drawn) for photo in drawn[label]]


def report(rows: list[Row]) -> None:
    by: dict[tuple[str, str, str], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        by[row["set"], row["images"], row["code"]][row["seed"]] = row
    table = []
    for (name, images, code), of_seeds in by.items():
        found = list(of_seeds.values())
        line = {
            "set": name,
            "images of a class": images,
            "train": f"{found[0]['train']}",
            "test": f"{found[0]['test']}",
            "code": code,
            "accuracy, by seed": ", ".join(f"{100 * row['accuracy']:.1f}" for row in found),
            "log loss": f"{np.mean([row['log_loss'] for row in found]):.3f}",
            "ECE": f"{np.mean([row['calibration_error'] for row in found]):.3f}",
            "seconds": f"{np.median([row['seconds'] for row in found]):.0f}",
            "gain (95% CI)": "",
            "CPU": "",
        }
        before = by.get((name, images, "before"), {})
        pairs = [(row, before[seed]) for seed, row in of_seeds.items() if seed in before]
        if code != "before" and pairs:
            gain, low, high = paired(pairs)
            line["gain (95% CI)"] = f"{100 * gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            ratios = [row["cpu"] / other["cpu"] for row, other in pairs]
            line["CPU"] = f"{np.median(ratios):.2f}x"
        table.append(line)
    print_table(sorted(table, key=lambda line: (line["images of a class"], line["set"])))


def paired(pairs: list[tuple[Row, Row]]) -> tuple[float, float, float]:
    """Return the mean gain on the images that both scored, and its 95% interval over the groups.

    An image that is a test image for several seeds counts once, with its mean.
    """
    gains: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, other in pairs:
        for path, (unit, right) in row["right"].items():
            if path in other["right"]:
                gains[unit, path].append(right - other["right"][path][1])
    of_unit: dict[str, list[float]] = defaultdict(list)
    for (unit, _), found in gains.items():
        of_unit[unit].append(float(np.mean(found)))
    gain = float(np.mean([value for values in of_unit.values() for value in values]))
    sums = np.array([sum(value - gain for value in values) for values in of_unit.values()])
    error = np.sqrt((sums**2).sum()) / len(gains)
    return gain, gain - 1.96 * error, gain + 1.96 * error


if __name__ == "__main__":
    main()
