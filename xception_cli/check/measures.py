"""Measures and Fingerprint: statistics of an image, and the data that identifies its copies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # of the grey thumbnail that is kept for comparisons
CELLS = 4  # per side of the grid of mean colours
SHARP_SIDE = 256  # longer side at which sharpness is measured, the same for every camera


@dataclass(frozen=True, slots=True)
class Measures:
    """Statistics of one image, on the scale of its pixels (0 to 255) unless stated otherwise.

    Attributes:
        brightness: Mean grey.
        contrast: Standard deviation of the grey.
        darkest: 5th percentile of the grey.
        brightest: 99th percentile of the grey.
        sharpness: Root mean square of the Laplacian, relative to the contrast, at a common size:
            about 0.5 for a photo, under 0.1 for a blurred one.
        colourfulness: Mean difference between the largest and the smallest of red, green, blue.
    """

    brightness: float
    contrast: float
    darkest: float
    brightest: float
    sharpness: float
    colourfulness: float


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Data that identifies an image after re-encoding, resizing or slight cropping.

    Attributes:
        cells: Mean colours of `CELLS` x `CELLS` cells, as bytes.
        grey: The thumbnail in grey, `SIDE` x `SIDE`, as bytes.
    """

    cells: bytes
    grey: bytes


def measure(image: Image.Image) -> Measures:
    """Measure an RGB image."""
    grey = np.asarray(_at_sharp_side(image.convert("L")), np.float32)
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.int16)
    contrast = float(grey.std())
    darkest, brightest = np.percentile(grey, [5, 99])
    return Measures(
        brightness=round(float(grey.mean()), 2),
        contrast=round(contrast, 2),
        darkest=round(float(darkest), 2),
        brightest=round(float(brightest), 2),
        sharpness=round(_roughness(grey) / max(contrast, 1), 4),
        colourfulness=round(float(np.ptp(small, axis=2).mean()), 2),
    )


def fingerprint(image: Image.Image) -> Fingerprint:
    """Compute the fingerprint of an RGB image."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    cells = small.resize((CELLS, CELLS), Image.Resampling.BOX)
    return Fingerprint(cells.tobytes(), small.convert("L").tobytes())


def _at_sharp_side(grey: Image.Image) -> Image.Image:
    scale = SHARP_SIDE / max(grey.size)
    if scale >= 1:  # a small image stays as it is: enlarging would blur it
        return grey
    width, height = (max(1, round(side * scale)) for side in grey.size)
    return grey.resize((width, height), Image.Resampling.BOX)


def _roughness(grey: NDArray[np.float32]) -> float:
    if min(grey.shape) < 3:
        return 0.0
    centre = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.sqrt(np.mean((4 * centre - around) ** 2)))
