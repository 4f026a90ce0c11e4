"""Suspect labels: how many swapped and how many correct labels are listed.

    python tests/benchmarks/labels.py DIR... [--swaps 0.05] [--seeds 10]

Each DIR is a folder of images, one folder per class. The images are those that `xception check
--deep` compares, with its features and its groups of near-copies. For each seed, a share of the
labels is replaced by another class at random, and the probe is fitted again. Drawn sets are added:
`--drawn 12x40 12x20` takes sets of 12 classes with 40 and with 20 images each from one sample
without wrong labels.

`listed` is the share of images listed without swaps (for several drawn sets: the mean and the
maximum), `recall` the share of swaps that are listed, `precision` the share of swaps among the
listed images. The first rule is confident learning (Northcutt et al. 2021), for comparison; the
second is `find_suspects`, and the others are the same with other thresholds.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import print_table

from xception_cli.check import labels as labels_module
from xception_cli.check.features import compute_features
from xception_cli.check.survey import survey_folder
from xception_cli.data.folder import read_folder
from xception_cli.model.probe import fit_probe
from xception_cli.sample.run import draw_sample

SAMPLE = (12, 200)  # classes and images of the sample that drawn sets are cut from


@dataclass(frozen=True)
class Images:
    features: np.ndarray
    labels: np.ndarray
    units: np.ndarray


@dataclass(frozen=True)
class Probed:
    """Predictions of a probe, the labels that it was fitted to, and which of these were swapped."""

    labels: np.ndarray
    log_probabilities: np.ndarray
    swapped: np.ndarray


Rule = Callable[[Probed], np.ndarray]  # a mask of the images that it lists


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR")
    parser.add_argument("--drawn", nargs="*", default=["12x40", "12x20", "6x40", "2x40"])
    parser.add_argument("--swaps", type=float, default=0.05, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--chances", nargs="*", type=float, default=[0.05, 0.2, 0.5])
    parser.add_argument("--scratch", type=Path, help="keeps the drawn sample (default: a new one)")
    given = parser.parse_args()
    sets = {folder.name: [read(folder)] for folder in given.folders}
    if given.drawn:
        sample = read_sample(given.scratch or Path(tempfile.mkdtemp()))
        sets |= {f"drawn {size}": cut(sample, *map(int, size.split("x"))) for size in given.drawn}
    probed = {name: [probe(images, given) for images in some] for name, some in sets.items()}
    for title, rule in rules(given).items():
        print(f"\n{title}")
        print_table([{"set": name} | measure(rule, some) for name, some in probed.items()])


def read(folder: Path) -> Images:
    survey = survey_folder(read_folder(folder))
    seen = [i for i, look in enumerate(survey.looks) if look.original]
    photos, _ = survey.in_units()
    labels = np.array([photos[i].label for i in seen])
    units = np.array([photos[i].unit for i in seen])
    return Images(compute_features(survey, seen, "imagenet")[0], labels, units)


def read_sample(scratch: Path) -> Images:
    classes, images = SAMPLE
    if not (scratch / "sample").is_dir():
        draw_sample(scratch / "sample", classes=classes, images=images)
    return read(scratch / "sample")


def cut(sample: Images, classes: int, images: int) -> list[Images]:
    """Return disjoint sets of the first classes."""
    numbers = np.empty(len(sample.labels), int)
    for label in np.unique(sample.labels):
        of_class = sample.labels == label
        numbers[of_class] = np.arange(of_class.sum())
    parts = []
    for start in range(0, SAMPLE[1] - images + 1, images):
        kept = (sample.labels < classes) & (numbers >= start) & (numbers < start + images)
        parts.append(Images(sample.features[kept], sample.labels[kept], sample.units[kept]))
    return parts


def probe(images: Images, given: argparse.Namespace) -> list[Probed]:
    """Return predictions of probes: without swaps, then with those of each seed."""
    classes, found = int(images.labels.max()) + 1, []
    for seed in (None, *range(given.seeds)):
        labels = images.labels.copy()
        if seed is not None:
            generator = np.random.default_rng(seed)
            count = round(given.swaps * len(labels))
            chosen = generator.choice(len(labels), count, replace=False)
            labels[chosen] += generator.integers(1, classes, count)
            labels %= classes
        fitted = fit_probe(images.features, labels, images.units, class_count=classes, seed=0)
        found.append(Probed(labels, fitted.held_out, labels != images.labels))
    return found


def rules(given: argparse.Namespace) -> dict[str, Rule]:
    found: dict[str, Rule] = {"confident learning": confident_learning}
    for chance in (labels_module._LEAST_CHANCE, *given.chances):
        found[f"chance of a wrong label at least {chance:g}"] = suspects(chance)
    return found


def suspects(chance: float) -> Rule:
    def rule(probed: Probed) -> np.ndarray:
        labels_module._LEAST_CHANCE = chance
        found = labels_module.find_suspects(probed.labels, probed.log_probabilities)
        return np.isin(np.arange(len(probed.labels)), [suspect.index for suspect in found])

    return rule


def confident_learning(probed: Probed) -> np.ndarray:
    probabilities, labels = np.exp(probed.log_probabilities), probed.labels
    known = ~np.isnan(probabilities[:, 0])
    confident = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(labels[known]):
        confident[label] = probabilities[known & (labels == label), label].mean()
    counted = np.where(probabilities >= confident, probabilities, -1)
    own = probabilities[np.arange(len(labels)), labels]
    return known & (counted.argmax(1) != labels) & (counted.max(1) > own)


def measure(rule: Rule, sets: list[list[Probed]]) -> dict[str, str]:
    unswapped = [rule(without) for without, *_ in sets]
    listed = f"{np.concatenate(unswapped).mean():.1%}"
    if len(sets) > 1:
        listed += f", at most {max(mask.mean() for mask in unswapped):.1%}"
    pairs = [(rule(probed), probed.swapped) for _, *others in sets for probed in others]
    masks, swapped = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    hits = (masks & swapped).sum()
    return {
        "sets": str(len(sets)),
        "images": str(len(unswapped[0])),
        "listed": listed,
        "recall": f"{hits / swapped.sum():.1%}",
        "precision": f"{hits / max(masks.sum(), 1):.1%}",
    }


if __name__ == "__main__":
    main()
