"""look_deeper: the checks that use features of the pretrained network."""

import numpy as np

from xception_cli.check.curve import learning_curve
from xception_cli.check.features import compute_features
from xception_cli.check.labels import judge_labels
from xception_cli.check.orientation import orientation_problem
from xception_cli.check.report import Curve, Problem
from xception_cli.check.survey import Survey
from xception_cli.console import say
from xception_cli.errors import DataError
from xception_cli.model.probe import fit_probe, units_of_classes
from xception_cli.numerals import count_of

_SEED = 0


def look_deeper(
    survey: Survey, *, weights: str, with_curve: bool
) -> tuple[list[Problem], Curve | None]:
    """Fit linear probes to the pooled features of a folder's images, upright and rotated.

    Args:
        survey: The scanned folder.
        weights: Weights of the network: `imagenet` or a file.
        with_curve: Also measure the learning curve.

    Returns:
        Suspect labels and whether to rotate the images, and the learning curve if it was requested.

    Raises:
        DataError: Fewer than two classes have two images or more.
        XceptionError: The weights cannot be obtained, see `load_pretrained`.
    """
    seen = [i for i, look in enumerate(survey.looks) if look.original]
    every, _ = survey.in_units()
    images = [every[i] for i in seen]
    units = np.array([image.unit for image in images], np.str_)
    labels = np.array([image.label for image in images], np.int64)
    classes = survey.folder.classes
    if int((units_of_classes(labels, units, len(classes)) > 1).sum()) < 2:
        raise DataError(
            "labels cannot be compared: fewer than two classes have two different images or more",
            hint="leave --deep and --curve out",
        )
    features, rotated = compute_features(survey, seen, weights)
    probe = fit_probe(features, labels, units, class_count=len(classes), seed=_SEED)
    curve = None
    if with_curve:
        curve = learning_curve(
            features, labels, units, classes, strength=probe.strength, seed=_SEED
        )
    oriented = orientation_problem(
        features,
        rotated,
        labels,
        units,
        class_count=len(classes),
        strength=probe.strength,
        seed=_SEED,
    )
    judged = judge_labels(labels, probe.held_out, units, [image.path for image in images], classes)
    if not judged:
        say(f"labels    no label is suspect: {count_of(len(images), 'image')} judged")
    return [*judged, *oriented], curve
