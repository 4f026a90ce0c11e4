"""Correct labels that are listed as suspect, by the number of images of their class.

    python tests/benchmarks/rare_labels.py DIR

DIR is a folder of images, one folder per class. Four times, a class of 25 images or more is reduced
to a few images whose labels are not suspect among all images; then the probe is fitted again. The
classes take turns. The printed share is that of the kept images which are listed now.
"""

import sys
from pathlib import Path

import numpy as np

from xception_cli.check.features import compute_features
from xception_cli.check.labels import find_suspects
from xception_cli.check.survey import survey_folder
from xception_cli.data.folder import read_folder
from xception_cli.model.probe import fit_probe

REPEATS = 4


def main(folder: Path) -> None:
    survey = survey_folder(read_folder(folder))
    seen = [at for at, look in enumerate(survey.looks) if look.original]
    photos, _ = survey.in_units()
    features, _ = compute_features(survey, seen, "imagenet")
    labels = np.array([photos[at].label for at in seen])
    units = np.array([photos[at].unit for at in seen], np.str_)
    count = len(survey.folder.classes)

    def suspects(kept: np.ndarray) -> np.ndarray:
        some = (labels[kept], units[kept])
        probe = fit_probe(features[kept], *some, class_count=count, seed=0)
        found = find_suspects(some[0], probe.held_out, some[1])
        return kept[[suspect.index for suspect in found]]

    every, generator = np.arange(len(labels)), np.random.default_rng(0)
    listed = suspects(every)
    print(f"all images: {len(listed) / len(labels):.1%} listed")
    large = np.flatnonzero(np.bincount(labels, minlength=count) >= 25)
    for images in (2, 3, 5, 8, 10, 15, 20):
        found = 0
        for repeat in range(REPEATS):
            label = large[repeat % len(large)]
            sound = np.setdiff1d(every[labels == label], listed)
            rare = generator.choice(sound, images, replace=False)
            kept = np.sort(np.append(every[labels != label], rare))
            found += int((labels[suspects(kept)] == label).sum())
        print(f"a class of {images}: {found / (images * REPEATS):.0%} listed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
