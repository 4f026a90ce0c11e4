"""How many neighbours the distance for `unknown` averages over: acceptance and rejection by number.

python tests/benchmarks/unknown.py RUN... [--kind REGEX]

Uses only each run's own training images, as its model remembers them. Each class in turn is left
out, and its images should be rejected; with --kind, each kind of a class as well (the first group
of the expression in its path, `/(.+)_` for the groceries' varieties), and its images should be
accepted, although none of the kind was trained on. The threshold accepts 95% of the rest, by 5-fold
cross-validation.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from xception_cli.data.recorded import read_split
from xception_cli.model import unknown
from xception_cli.model.bundle import load_model
from xception_cli.rundir import RunDir
from xception_cli.runtime import decide_runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--kind", type=re.compile)
    given = parser.parse_args()
    for path in given.runs:
        run = RunDir(path)
        bundle = load_model(run.model, decide_runtime(device="cpu"))
        images = read_split(run.split, bundle.classes).of("train")
        labels = np.array([image.label for image in images])
        kept = unknown.spread(labels)
        levels, labels = bundle.about.unknown.reference.levels, labels[kept]
        kinds = np.array([kind_of(given.kind, images[at].path) for at in kept])
        for count in (1, 3, 5, 10, 20):
            unknown.NEIGHBOURS = count
            print(f"{path.name}: {count:2} neighbours: {describe(levels, labels, kinds)}")


def kind_of(pattern: re.Pattern[str] | None, path: str) -> str:
    found = pattern.search(path) if pattern else None
    return found[1] if found else ""


def describe(levels: np.ndarray, labels: np.ndarray, kinds: np.ndarray) -> str:
    classes = [refused(levels, labels == label) for label in np.unique(labels)]
    text = f"refuses {np.concatenate(classes).mean():.1%} of classes left out"
    own = []
    for kind in np.unique(kinds):
        of_kind, label = kinds == kind, labels[kinds == kind][0]
        if of_kind.sum() >= 3 and (labels == label).sum() - of_kind.sum() >= 10:
            own.append(refused(levels, of_kind))
    return f"{text}, {np.concatenate(own).mean():.1%} of kinds left out" if own else text


def refused(levels: np.ndarray, out: np.ndarray) -> np.ndarray:
    known = levels[~out]
    folds = np.random.default_rng(0).permutation(len(known)) % 5
    distances = np.concatenate(
        [unknown.Reference(known[folds != f]).distances(known[folds == f]) for f in range(5)]
    )
    return unknown.Reference(known).distances(levels[out]) > np.quantile(distances, 0.95)


if __name__ == "__main__":
    main()
