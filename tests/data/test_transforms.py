"""The pixel numbers, and the transforms made from them."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pretrainedmodels
import pytest
import torch
from images import photo
from PIL import Image

from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError
from xception_cli.seeds import drawing_from


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_defaults_are_those_of_the_imagenet_weights():
    published = pretrainedmodels.pretrained_settings["xception"]["imagenet"]
    ours = Preprocessing()
    assert [3, ours.image_size, ours.image_size] == published["input_size"]
    assert [ours.mean] * 3 == published["mean"]
    assert [ours.std] * 3 == published["std"]
    assert published["input_range"] == [0, 1]
    assert ours.image_size / ours.resize_size == pytest.approx(published["scale"], abs=0.01)


@pytest.mark.parametrize(("size", "resize"), [(299, 333), (71, 79), (150, 167), (2048, 2281)])
def test_other_sizes_keep_the_proportion_of_the_crop(size, resize):
    assert Preprocessing.for_size(size) == Preprocessing(size, resize, 0.5, 0.5)


@pytest.mark.parametrize("size", [71, 150, 299, 600])
def test_no_crop_of_an_image_decoded_at_a_reduced_size_is_enlarged(size):
    preprocessing = Preprocessing.for_size(size)
    assert preprocessing.least_side == 2 * preprocessing.resize_size
    transform = preprocessing.training_transform(augment="none", flip=False)
    crop = transform.transforms[0]
    area, flattest = min(crop.scale), max(crop.ratio)
    # The shorter side of the smallest and flattest crop of the smallest image.
    side = preprocessing.least_side * math.sqrt(area / flattest)
    assert side >= size
    assert side / 2 < size  # the control: half of that would be enlarged


def plain_pillow(image: Image.Image, resize: int, size: int) -> Image.Image:
    """The same with Pillow alone."""
    width, height = image.size
    if width <= height:
        width, height = resize, int(resize * height / width)
    else:
        width, height = int(resize * width / height), resize
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


@pytest.mark.parametrize(
    ("width", "height"),
    [(96, 96), (200, 100), (100, 201), (333, 400), (1, 1), (60, 3), (79, 79), (500, 375)],
)
@pytest.mark.parametrize("size", [71, 150])
def test_the_evaluation_transform_is_pillows_resize_and_centre_crop(width, height, size):
    preprocessing = Preprocessing.for_size(size)
    image = picture(width, height)
    found = preprocessing.evaluation_transform()(image)
    reference = tensor(plain_pillow(image, preprocessing.resize_size, size))
    assert found.dtype is torch.uint8
    assert torch.equal(found, reference)
    if width > 10:
        other = tensor(plain_pillow(image, preprocessing.resize_size + 2, size))
        assert not torch.equal(found, other)  # the control: another size differs


def test_the_evaluation_transform_uses_no_random_numbers():
    transform, image = Preprocessing.for_size(71).evaluation_transform(), picture(90, 80)
    views = []
    for seed in (0, 1):
        with drawing_from(seed):
            views.append(transform(image))
    assert torch.equal(*views)


def test_normalized_pixels_are_those_of_the_published_formula():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    found = Preprocessing(mean=0.4, std=0.2).normalize(pixels)
    assert (found.dtype, found.shape) == (torch.float32, pixels.shape)
    reference = (np.arange(256) / 255 - 0.4) / 0.2
    assert np.allclose(found[1, 2].flatten().numpy(), reference, atol=1e-6)
    ours = Preprocessing().normalize(pixels)
    assert (ours.min().item(), ours.max().item()) == (-1.0, 1.0)


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["light", "rotate90", "none"])
def test_a_training_view_depends_only_on_the_random_state(augment):
    preprocessing = Preprocessing.for_size(71)
    first = preprocessing.training_transform(augment=augment, flip=True)
    second = preprocessing.training_transform(augment=augment, flip=True)
    image = picture(120, 90)
    views = []
    for transform, seed in ((first, 3), (first, 3), (second, 3), (first, 4)):
        with drawing_from("view", seed):
            views.append(transform(image))
        torch.rand(7)
        np.random.rand(3)
    assert views[0].shape == (3, 71, 71)
    assert views[0].dtype is torch.uint8
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[3])


def views_of(image: Image.Image, count: int, **options) -> list[torch.Tensor]:
    transform = Preprocessing.for_size(71).training_transform(**options)
    views = []
    for seed in range(count):
        with drawing_from(seed):
            views.append(transform(image).float())
    return views


def mirrored(views: list[torch.Tensor]) -> int:
    """Count the views that do not grow brighter to the right, of an image that does."""
    return sum(view[:, 20:50, 18:30].mean() > view[:, 20:50, 41:53].mean() for view in views)


@pytest.mark.parametrize("augment", ["light", "none"])
def test_without_flip_no_view_is_mirrored_and_with_it_about_half(augment):
    ramp = np.linspace(20, 190, 128).astype(np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (128, 1))] * 3, -1))
    assert mirrored(views_of(image, 100, augment=augment, flip=False)) == 0
    assert 30 <= mirrored(views_of(image, 100, augment=augment, flip=True)) <= 70


def orientation(view: torch.Tensor) -> tuple[bool, bool, bool]:
    """Return how a view of `slope` is turned: whether red grows downwards, and the bright sides.

    Args:
        view: `(3, side, side)`.
    """
    across = view[:2, :, 41:53].mean((1, 2)) - view[:2, :, 18:30].mean((1, 2))
    down = view[:2, 41:53].mean((1, 2)) - view[:2, 18:30].mean((1, 2))
    is_turned = bool(down[0].abs() > across[0].abs())
    red, green = (down[0], across[1]) if is_turned else (across[0], down[1])
    return is_turned, bool(red > 0), bool(green > 0)


def slope() -> Image.Image:
    """Draw an image whose red grows to the right and whose green grows downwards."""
    ramp = np.tile(np.linspace(20, 190, 128).astype(np.uint8), (128, 1))
    return Image.fromarray(np.stack([ramp, ramp.T, np.full_like(ramp, 100)], -1))


def test_rotated_views_have_all_8_symmetries_of_the_square_and_without_flip_the_4_rotations():
    both = Counter(map(orientation, views_of(slope(), 400, augment="rotate90", flip=True)))
    assert len(both) == 8
    assert min(both.values()) >= 30
    rotated = Counter(map(orientation, views_of(slope(), 200, augment="rotate90", flip=False)))
    assert set(rotated) == {
        orientation(torch.rot90(tensor(slope().resize((71, 71))).float(), turns, (1, 2)))
        for turns in range(4)
    }
    assert len(rotated) == 4
    assert min(rotated.values()) >= 30
    assert len(set(map(orientation, views_of(slope(), 50, augment="light", flip=True)))) == 2


def test_a_rotated_view_has_exactly_the_pixels_of_the_view_without_rotation():
    image = photo(1)
    light = views_of(image, 30, augment="light", flip=True)
    rotated = views_of(image, 30, augment="rotate90", flip=True)
    turns = [
        [n for n in range(4) if torch.equal(torch.rot90(before, n, (1, 2)), after)]
        for before, after in zip(light, rotated, strict=True)
    ]
    assert {n for (n,) in turns} == {0, 1, 2, 3}


def test_the_rotation_of_the_evaluation_crop_depends_on_its_pixels_only():
    preprocessing, turns = Preprocessing.for_size(71), []
    for number in range(40):
        image, views = photo(number), []
        for seed in (0, 1):
            with drawing_from(seed):
                views.append(preprocessing.rotated_transform()(image))
        assert torch.equal(*views)
        upright = preprocessing.evaluation_transform()(image)
        (turned,) = [n for n in range(4) if torch.equal(torch.rot90(upright, n, (1, 2)), views[0])]
        turns.append(turned)
    counts = Counter(turns)
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) >= 5


def test_without_augmentation_a_view_is_only_a_crop_and_with_it_colours_change():
    grey = Image.new("RGB", (100, 80), (120, 60, 30))
    for view in views_of(grey, 20, augment="none", flip=True):
        assert view.amax((1, 2)).tolist() == view.amin((1, 2)).tolist() == [120, 60, 30]
    changed = [
        view.mean((1, 2)).tolist() != [120, 60, 30]
        for view in views_of(grey, 40, augment="light", flip=True)
    ]
    assert 5 <= sum(changed) <= 30  # at most half of them, to which it is applied


def test_a_crop_keeps_at_least_35_percent_of_the_image():
    ramp = np.linspace(0, 255, 200).round().astype(np.uint8)
    across = np.tile(ramp, (200, 1))
    image = Image.fromarray(np.stack([across, across.T, across], -1))
    areas = []
    for view in views_of(image, 100, augment="none", flip=True):
        width, height = (float(view[c].max() - view[c].min()) / 255 for c in (0, 1))
        areas.append(width * height)
    assert min(areas) > 0.33
    assert min(areas) < 0.45
    assert max(areas) > 0.9


# --- in the model file -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [Preprocessing(), Preprocessing.for_size(71), Preprocessing(100, 100, 0.0, 1e-3)],
    ids=["default", "small", "odd"],
)
def test_preprocessing_survives_a_round_trip_through_plain_data(made):
    assert Preprocessing.from_dict(made.to_dict()) == made
    assert set(made.to_dict()) == {"image_size", "resize_size", "mean", "std"}
    mirrored = replace(made, mirror=True)
    assert Preprocessing.from_dict(mirrored.to_dict()) == mirrored != made


GOOD = Preprocessing().to_dict()


@pytest.mark.parametrize(
    "data",
    [
        {**GOOD, "image_size": 70},
        {**GOOD, "image_size": 334},
        {**GOOD, "resize_size": 4097},
        {**GOOD, "resize_size": 10**9},
        {**GOOD, "image_size": 299.0},
        {**GOOD, "image_size": True},
        {**GOOD, "image_size": None},
        {**GOOD, "mean": "0.5"},
        {**GOOD, "mean": [0.5, 0.5, 0.5]},
        {**GOOD, "mean": math.nan},
        {**GOOD, "mean": math.inf},
        {**GOOD, "std": 0.0},
        {**GOOD, "std": -1.0},
        {**GOOD, "std": math.nan},
        {**GOOD, "std": math.inf},
        {**GOOD, "std": None},
        {**GOOD, "grey_bits": 9},
        {**GOOD, "grey_bits": 12.0},
        {**GOOD, "max_pixels": 0},
        {**GOOD, "max_pixels": 10**10},
        {**GOOD, "crop": 1},
        {**GOOD, 5: 1},
        None,
        [1, 2],
        "text",
    ],
    ids=repr,
)
def test_impossible_preprocessing_is_refused(data):
    with pytest.raises(ArtifactError, match="preprocessing in the model file"):
        Preprocessing.from_dict(data)


def test_the_largest_allowed_preprocessing_is_accepted():
    data = {**GOOD, "image_size": 4096, "resize_size": 4096}
    assert Preprocessing.from_dict(data).to_dict() == data
