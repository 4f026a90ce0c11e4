"""Preprocessing: the pixel numbers, and the transforms made from them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from xception_cli.errors import ArtifactError

Transform = Callable[[Image.Image], torch.Tensor]


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
        mirror: Also classify the mirror image, and average the logits: test-time augmentation.
    """

    image_size: int = 299
    resize_size: int = 333
    mean: float = 0.5
    std: float = 0.5
    mirror: bool = False

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
        """Return plain data; `mirror` only if it is true, because earlier versions lack it."""
        return {name: value for name, value in asdict(self).items() if value is not False}

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
            kinds != [int, int, float, float, bool]
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
        """Resize and crop the centre."""
        return v2.Compose(  # type: ignore[no-any-return]
            [
                v2.Resize(self.resize_size, InterpolationMode.BICUBIC, antialias=True),
                v2.CenterCrop(self.image_size),
            ]
        )

    def evaluation_transform(self) -> Transform:
        """`evaluation_crop`, as uint8 of shape `(3, image_size, image_size)`."""
        return v2.Compose([self.evaluation_crop(), v2.PILToTensor()])  # type: ignore[no-any-return]

    def mirrored_transform(self) -> Transform:
        """Return `evaluation_transform` of the mirror image."""
        mirror = v2.RandomHorizontalFlip(p=1.0)
        return v2.Compose([self.evaluation_crop(), mirror, v2.PILToTensor()])  # type: ignore[no-any-return]

    def rotated_transform(self) -> Transform:
        """Return `evaluation_transform`, rotated by 90, 180 or 270 degrees, by its pixels."""
        return v2.Compose([self.evaluation_transform(), rotate_by_content])  # type: ignore[no-any-return]

    @property
    def source_side(self) -> int:
        """Shorter side of the cached images that random crops are taken from, in pixels.

        A fifth larger than in evaluation: two thirds of the crops of a square image are not
        enlarged, and an image takes 0.6 MB.
        """
        return round(1.2 * self.resize_size)

    def training_source(self, picture: Image.Image) -> Image.Image:
        """Shrink an image to `source_side`; a smaller one is returned unchanged."""
        if min(picture.size) <= self.source_side:
            return picture
        shrink = v2.Resize(self.source_side, InterpolationMode.BICUBIC, antialias=True)
        return shrink(picture)  # type: ignore[no-any-return]

    def training_transform(self, *, augment: str, flip: bool) -> Transform:
        """Random crop, mirror and light RandAugment, from torch's generator.

        Args:
            augment: `light`; `rotate90`, which adds rotation; or `none` (crop and mirror only).
            flip: Mirror half of the images. With `rotate90`, all 8 symmetries of the square are
                equally likely; without the mirror, all 4 rotations.
        """
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
            steps.append(rotate90)
        return v2.Compose(steps)  # type: ignore[no-any-return]


def rotate90(pixels: torch.Tensor) -> torch.Tensor:
    """Rotate `(3, side, side)` by 0, 90, 180 or 270 degrees at random, without interpolation."""
    return _rotate(pixels, int(torch.randint(4, ())))


def rotate_by_content(pixels: torch.Tensor) -> torch.Tensor:
    """Rotate `(3, side, side)` by 90, 180 or 270 degrees, always the same for the same pixels.

    So results of rotated images can be cached by the content of the file.
    """
    return _rotate(pixels, 1 + crc32(pixels.numpy().tobytes()) % 3)


def _rotate(pixels: torch.Tensor, quarters: int) -> torch.Tensor:
    return torch.rot90(pixels, quarters, (1, 2)).contiguous()
