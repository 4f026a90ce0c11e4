"""Units for tests about other things: each image is its own."""

from collections.abc import Sized

import numpy as np


def alone(images: Sized) -> np.ndarray:
    return np.arange(len(images)).astype(str)
