"""Preprocessing: sizes and scaling of the network's input, and the transforms made from them.

The evaluation transform equals torchvision's to the pixel, but calls Pillow: importing torchvision
takes as long as classifying an image, and only augmentation needs it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL import Image, ImageOps

from xception_cli.config import TrainConfig
from xception_cli.data.pixels import SCALES
from xception_cli.errors import ArtifactError

Transform = Callable[[Image.Image], torch.Tensor]

_ADDED = ("mirror", "grey_bits", "max_pixels")  # after the first version
_MOST_PIXELS = TrainConfig.__dataclass_fields__["max_pixels"].metadata["at_most"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input; stored in the model file.

    The shorter side is resized with Pillow's antialiased bicubic filter, the centre square is
    cropped, and each channel in 0..1 is shifted and scaled.

    Attributes:
        image_size: Side of the square, in pixels.
        resize_size: Shorter side before the crop, in pixels.
        mean: Subtracted from each channel.
        std: Divides each channel.
        mirror: Classify the mirror image too, and average the logits: test-time augmentation.
        grey_bits: Bits of 16-bit grey images whose header does not state them: one scale for the
            whole data set, the fewest of 10, 12, 14 and 16 that fit its largest value.
        max_pixels: Largest image to decode, in pixels; see `TrainConfig`.
    """

    image_size: int = 299
    resize_size: int = 333
    mean: float = 0.5
    std: float = 0.5
    mirror: bool = False
    grey_bits: int = 16
    max_pixels: int = TrainConfig.max_pixels

    @classmethod
    def for_size(cls, image_size: int) -> "Preprocessing":
        """Keep the ratio of 333 to 299 that the ImageNet weights were published with."""
        return cls(image_size=image_size, resize_size=round(image_size * 333 / 299))

    @property
    def least_side(self) -> int:
        """Least shorter side, in pixels, of an image that is decoded at a reduced size.

        Twice the size that evaluation resizes to, so that the filter does not lose detail.
        """
        return 2 * self.resize_size

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; fields that earlier versions lack are left out at their defaults."""
        unused = {name: getattr(Preprocessing, name) for name in _ADDED}
        return {n: v for n, v in asdict(self).items() if n not in unused or v != unused[n]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """Rebuild from the result of `to_dict`.

        Raises:
            ArtifactError: Fields are unknown, or numbers out of range.
        """
        try:
            made = cls(**data)
        except TypeError as error:
            raise ArtifactError("unknown preprocessing in the model file") from error
        kinds = [type(value) for value in asdict(made).values()]
        if (
            kinds != [int, int, float, float, bool, int, int]
            or made.grey_bits not in SCALES
            or not 0 < made.max_pixels <= _MOST_PIXELS
            or not 71 <= made.image_size <= made.resize_size <= 4096
            or not math.isfinite(made.mean)
            or not 0 < made.std < math.inf
        ):
            raise ArtifactError(f"impossible preprocessing in the model file: {made}")
        return made

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels into the network's float input, on their device.

        Args:
            pixels: `(batch, 3, image_size, image_size)`, uint8.

        Returns:
            The same shape, float32, in -1..1 for the default mean and std.
        """
        return (pixels.float() / 255 - self.mean) / self.std

    def evaluation_crop(self) -> Callable[[Image.Image], Image.Image]:
        """Return the resize and centre crop of an image."""
        return partial(_cut_centre, self.resize_size, self.image_size)

    def evaluation_transform(self) -> Transform:
        """Return `evaluation_crop`, as uint8 of shape `(3, image_size, image_size)`."""
        return partial(_do, (self.evaluation_crop(), to_pixels))

    def mirrored_transform(self) -> Transform:
        """Return `evaluation_transform` of the mirror image."""
        return partial(_do, (self.evaluation_crop(), ImageOps.mirror, to_pixels))

    def rotated_transform(self) -> Transform:
        """Return `evaluation_transform`, rotated by 90, 180 or 270 degrees: the pixels decide."""
        return partial(_do, (self.evaluation_transform(), _rotate_by_content))

    @property
    def source_side(self) -> int:
        """Shorter side of the cached images that random crops are taken from, in pixels.

        A fifth larger than in evaluation: two thirds of the crops of a square image are not
        enlarged, and an image takes 0.6 MB.
        """
        return round(1.2 * self.resize_size)

    def training_source(self, image: Image.Image) -> Image.Image:
        """Shrink an image to `source_side`; a smaller one stays as it is."""
        return image if min(image.size) <= self.source_side else _resize(image, self.source_side)

    def training_transform(self, *, augment: str, flip: bool) -> Transform:
        """Return the random crop, mirror and light RandAugment, from torch's generator.

        Args:
            augment: `light`; `rotate90`, which adds rotation; or `none` (crop and mirror only).
            flip: Mirror half of the images. With `rotate90`, all 8 symmetries of the square are
                equally likely; without the mirror, all 4 rotations.
        """
        from torchvision.transforms import InterpolationMode, v2

        steps: list[Any] = [
            v2.RandomResizedCrop(
                self.image_size,
                scale=(0.35, 1.0),
                interpolation=InterpolationMode.BICUBIC,
                antialias=True,
            )
        ]
        if flip:
            steps.append(v2.RandomHorizontalFlip())
        if augment != "none":
            steps.append(v2.RandomApply([v2.RandAugment(num_ops=2, magnitude=5)], p=0.5))
        steps.append(v2.PILToTensor())
        if augment == "rotate90":
            steps.append(_rotate90)
        return v2.Compose(steps)  # type: ignore[no-any-return]


def to_pixels(image: Image.Image) -> torch.Tensor:
    """Return the pixels of an RGB image, uint8, `(3, height, width)`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _do(steps: Sequence[Callable[[Any], Any]], value: Any) -> Any:
    """Do one step after the other."""
    for step in steps:
        value = step(value)
    return value


def _cut_centre(shorter: int, side: int, image: Image.Image) -> Image.Image:
    """Resize so that the shorter side has `shorter` pixels, and cut a square out of the centre."""
    resized = _resize(image, shorter)
    left, top = (round((length - side) / 2) for length in resized.size)
    return resized.crop((left, top, left + side, top + side))


def _resize(image: Image.Image, shorter: int) -> Image.Image:
    """Resize so that the shorter side has this many pixels."""
    least = min(image.size)
    width, height = (shorter if side == least else shorter * side // least for side in image.size)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _rotate90(pixels: torch.Tensor) -> torch.Tensor:
    """Rotate `(3, side, side)` by 0, 90, 180 or 270 degrees at random, without interpolation."""
    return _rotate(pixels, int(torch.randint(4, ())))


def _rotate_by_content(pixels: torch.Tensor) -> torch.Tensor:
    """Rotate `(3, side, side)` by 90, 180 or 270 degrees, always the same for the same pixels.

    So results of rotated images can be cached by the content of the file.
    """
    return _rotate(pixels, 1 + crc32(pixels.numpy().tobytes()) % 3)


def _rotate(pixels: torch.Tensor, quarters: int) -> torch.Tensor:
    return torch.rot90(pixels, quarters, (1, 2)).contiguous()
