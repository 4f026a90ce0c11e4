"""Units for tests that are about something else: each image for itself."""

from collections.abc import Sized

import numpy as np


def alone(images: Sized) -> np.ndarray:
    return np.arange(len(images)).astype(str)
