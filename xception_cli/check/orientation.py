"""Whether labels depend on the orientation of an image: what `--augment rotate90` would change."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.report import ORIENTATION, ROTATE, Problem
from xception_cli.evaluation.candidates import paired_gain
from xception_cli.model.probe import cross_validate

Array = NDArray[Any]

_LARGEST = 5_000  # images that are asked about: seconds, not minutes


def orientation_problem(
    upright: Array,
    rotated: Array,
    labels: Array,
    units: Array,
    *,
    class_count: int,
    strength: float,
    seed: int,
) -> list[Problem]:
    """Suggest rotations as augmentation where labels do not depend on the orientation.

    Linear probes that see the upright images, and the rotated ones as well, are cross-validated.
    Rotations are suggested if they help to classify the left-out images as they are, and these are
    not classified better than the same images rotated. The first alone can be chance where there
    are few images; see docs/recipe.md.

    Args:
        upright: `(n, 2048)`, pooled features.
        rotated: The same of the rotated images.
        labels: `(n,)`.
        units: `(n,)`, what each image belongs to; folds keep units whole.
        class_count: Number of classes.
        strength: Inverse regularisation, the best for the upright images.
        seed: Of the folds, and of the images that are used of very many.

    Returns:
        A note, if the log loss of upright images is lower by more than its standard error over
        units, and that of rotated images not higher by more than two.
    """
    some = np.random.default_rng(seed).permutation(len(labels))[:_LARGEST]
    labels, units, upright, rotated = (rows[some] for rows in (labels, units, upright, rotated))

    def losses(*views: Array) -> Array:
        """Return the log losses of left-out images by each view, `(views, n)`."""
        held_out = cross_validate(
            np.stack(views), labels, units, class_count=class_count, seed=seed, strength=strength
        )
        return -held_out[:, np.arange(len(labels)), labels].astype(np.float64)

    (alone,), (both, turned) = losses(upright), losses(upright, rotated)
    known = np.isfinite(alone) & np.isfinite(both)  # the others: see `cross_validate`
    if not known.any():
        return []
    gain, error = paired_gain(np.stack([alone, both])[:, known], units[known])
    gap, gap_error = paired_gain(np.stack([turned, both])[:, known], units[known])
    if not gain > error or gap > 2 * gap_error:
        return []
    summary = (
        "labels do not seem to depend on orientation: the log loss of a linear probe (a classifier "
        f"on the frozen network) on left-out images falls by {gain:.3f} (standard error "
        f"{error:.3f}) if it is also trained on rotated images; train with {ROTATE}"
    )
    return [Problem(ORIENTATION, "note", summary)]
