"""Shortcuts: properties of the files that predict the class, such as their size or brightness."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from xception_cli.check.measures import Measures
from xception_cli.check.report import Problem
from xception_cli.check.scan import Look
from xception_cli.console import enumerated
from xception_cli.data.folder import DataFolder
from xception_cli.data.original import Original
from xception_cli.data.photo import Photo
from xception_cli.data.units import Fold, unit_folds

_FOLDS = 5
_LEAST = 10  # images that a class needs to be predicted
_MOST = 5000  # images to predict, approximately; evenly sampled
_SKILL = 0.4  # from chance (0) to perfect (1); brightness of real leaves reaches 0.32
_DEVIATIONS = 4  # standard deviations above chance, for small sets
_ONE_CLASS = 0.9  # recall and precision of a single class

_Property = Callable[[Photo, Original, Measures], tuple[float | str, ...]]
_PROPERTIES: dict[str, _Property] = {
    "file format": lambda i, o, m: (o.format,),
    "colour mode": lambda i, o, m: (o.mode, float(m.colourfulness < 2)),
    "image size": lambda i, o, m: (o.width, o.height),
    "aspect ratio": lambda i, o, m: (o.width / o.height,),
    "brightness": lambda i, o, m: (m.brightness,),
    "sub-folder": lambda i, o, m: (_sub_folder(i),),
}


def find_shortcuts(
    folder: DataFolder, looks: Sequence[Look], units: Sequence[str]
) -> list[Problem]:
    """Report each property that predicts the class far above chance.

    A small decision tree predicts the class from it, and its cross-validated mean recall (5 folds)
    is compared with chance.

    Args:
        folder: The data folder.
        looks: One for each of its images.
        units: The unit of each image; folds keep units whole.
    """
    known = [
        (replace(image, unit=unit), look.original, look.measures)
        for image, look, unit in zip(folder.images, looks, units, strict=True)
        if look.original and look.measures
    ]
    known = known[:: max(1, len(known) // max(_MOST, 2 * _LEAST * len(folder.classes)))]
    count = Counter(image.label for image, _, _ in known)
    known = [item for item in known if count[item[0].label] >= _LEAST]
    labels = np.array([image.label for image, _, _ in known], np.int64)
    names = [image.unit for image, _, _ in known]
    folds = unit_folds(names, folds=_FOLDS, seed=0, labels=labels)
    if len(np.unique(labels)) < 2 or len(folds) < 2:
        return []
    problems = []
    for name, of in _PROPERTIES.items():
        values = [of(*item) for item in known]
        if name == "sub-folder" and (folder.table is not None or _is_hierarchy(values, labels)):
            continue  # a table's images are often stored by class
        if len(set(values)) > 1:
            sentence = _verdict(name, folder, labels, _predict(values, labels, folds))
            if sentence:
                problems.append(Problem("shortcut", "warning", sentence))
    return problems


def _predict(
    values: list[tuple[float | str, ...]], labels: NDArray[np.int64], folds: list[Fold]
) -> NDArray[np.int64]:
    columns = [
        np.unique(column, return_inverse=True)[1] if isinstance(column[0], str) else column
        for column in zip(*values, strict=True)
    ]
    tree = DecisionTreeClassifier(
        max_leaf_nodes=64, min_samples_leaf=2, class_weight="balanced", random_state=0
    )
    return np.asarray(cross_val_predict(tree, np.stack(columns, axis=1), labels, cv=folds))


def _verdict(
    name: str, folder: DataFolder, labels: NDArray[np.int64], predicted: NDArray[np.int64]
) -> str:
    """Describe how well the property predicts; empty if not far above chance."""
    right = labels == predicted
    present, counts = np.unique(labels, return_counts=True)
    recalls = np.array([right[labels == label].mean() for label in present])
    precisions = np.array([right[predicted == label].sum() for label in present]) / np.maximum(
        [(predicted == label).sum() for label in present], 1
    )
    recall, chance = recalls.mean(), 1 / len(present)
    deviation = np.sqrt(chance * (1 - chance) * (1 / counts).sum()) * chance
    if recall > max(chance + _SKILL * (1 - chance), chance + _DEVIATIONS * deviation):
        figures = f"{recall:.0%} recall (chance: {chance:.0%})"
        return f"{name} alone predicts the class with {figures}"
    apart = present[np.minimum(recalls, precisions) >= _ONE_CLASS]
    if len(apart):
        names = enumerated([folder.classes[label] for label in apart])
        return f"{name} alone separates {names} from the other classes"
    return ""


def _sub_folder(image: Photo) -> str:
    """Return the folders between the class and the file."""
    above = 2 if image.split else 1
    return "/".join(PurePath(image.path).parts[above:-1])


def _is_hierarchy(values: list[tuple[float | str, ...]], labels: NDArray[np.int64]) -> bool:
    """Return whether sub-folders are kinds of their class: several per class, each in one only."""
    classes, inside = defaultdict(set), defaultdict(set)
    for value, label in zip(values, labels.tolist(), strict=True):
        classes[value].add(label)
        inside[label].add(value)
    return max(map(len, classes.values())) == 1 and max(map(len, inside.values())) > 1
