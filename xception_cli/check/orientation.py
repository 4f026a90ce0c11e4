"""Whether labels depend on the orientation of an image: what `--augment rotate90` would change."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.report import ORIENTATION, ROTATE, Problem
from xception_cli.evaluation.correction import paired_gain
from xception_cli.model.probe import cross_validate

Array = NDArray[Any]

_LARGEST = 5_000  # images used, so that it takes seconds


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
    """Suggest rotation as augmentation where labels do not depend on orientation.

    Two linear probes are cross-validated: one fitted to the upright images, one to the rotated
    images as well. Rotation is suggested if the second classifies left-out upright images better,
    and does not classify them better than the same images rotated. With few images, the first
    condition alone can be met by chance; see docs/recipe.md.

    Args:
        upright: `(n, 2048)`, pooled features.
        rotated: `(n, 2048)`, pooled features of the rotated images.
        labels: `(n,)`, class indices.
        units: `(n,)`, the unit of each image; folds keep units whole.
        class_count: Number of classes.
        strength: Inverse regularisation that is best for the upright images.
        seed: Seed of the folds, and of the sample where there are many images.

    Returns:
        A note, if the second probe lowers the log loss of upright images by more than its standard
        error over units, and does not raise that of rotated images by more than two.
    """
    some = np.random.default_rng(seed).permutation(len(labels))[:_LARGEST]
    labels, units, upright, rotated = (rows[some] for rows in (labels, units, upright, rotated))

    def losses(*views: Array) -> Array:
        """Return the log loss of left-out images by view, `(views, n)`."""
        held_out = cross_validate(
            np.stack(views), labels, units, class_count=class_count, seed=seed, strength=strength
        )
        return -held_out[:, np.arange(len(labels)), labels].astype(np.float64)

    (alone,), (both, turned) = losses(upright), losses(upright, rotated)
    known = np.isfinite(alone) & np.isfinite(both)  # for the others see `cross_validate`
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
