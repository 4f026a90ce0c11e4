"""Answers: a model's calibrated probabilities, or why it answers `unknown`."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from xception_cli.errors import UsageError
from xception_cli.model.about import NO_FEATURES
from xception_cli.model.bundle import Array, Classifier, Outcome
from xception_cli.model.unknown import UNSURE, Thresholds
from xception_cli.notation import parse_unknown


class Answer(NamedTuple):
    """A model's answer for one image.

    Attributes:
        probabilities: `(classes,)`, calibrated.
        refusal: Why the answer is `unknown`, else None.
        unlike: See `inference.Prediction`.
    """

    probabilities: Array
    refusal: str | None
    unlike: bool


def decide_unknown(bundle: Classifier, wanted: str) -> Thresholds | float | None:
    """Return when to answer `unknown`: by the model's own thresholds, or below a probability.

    Args:
        bundle: The model.
        wanted: `off`, `auto` or a probability.

    Raises:
        UsageError: `wanted` is something else, or the model has no thresholds.
    """
    meant = parse_unknown(wanted)
    if meant == "off":
        return None
    if meant == "auto":
        if bundle.thresholds is None:
            unfinished = "this model has no thresholds for `unknown`: its training did not finish"
            raise UsageError(
                NO_FEATURES if bundle.about.lacks_features else unfinished,
                hint="--unknown 0.8 answers unknown below this probability",
            )
        return bundle.thresholds
    return float(meant)


def answer_all(
    bundle: Classifier, outcomes: Sequence[Outcome], unknown: Thresholds | float | None
) -> list[Answer]:
    """Turn outcomes into answers: calibrated probabilities, and refusals.

    Args:
        bundle: The model. Its calibration may be newer than the outcomes: training fits it to the
            outcomes of the validation images.
        outcomes: Outcomes of the same weights; they are copied in memory.
        unknown: See `decide_unknown`.
    """
    logits = torch.from_numpy(np.stack([outcome.logits for outcome in outcomes]))
    probabilities: Array = bundle.calibrated(logits).numpy()
    confidences = probabilities.max(axis=1).tolist()
    distances, own = [0.0] * len(outcomes), bundle.thresholds
    if own is not None:
        distances = bundle.distances(outcomes)
    refusals: Iterable[str | None]
    if isinstance(unknown, Thresholds):
        refusals = map(unknown.judge, confidences, distances)
    else:
        refusals = (UNSURE if best < (unknown or 0.0) else None for best in confidences)
    unlike = (own is not None and own.is_far(distance) for distance in distances)
    return [Answer(*parts) for parts in zip(probabilities, refusals, unlike, strict=True)]
