"""What a training costs: seconds by phase, from measured `Costs`, and bytes on disk."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from xception_cli.check.curve import LARGEST_SAMPLE
from xception_cli.config import TrainConfig
from xception_cli.data.transforms import Preprocessing
from xception_cli.model.feature_store import activation_bytes
from xception_cli.model.layers import POOLED
from xception_cli.model.probe import LARGEST_SEARCH, MOST_ROWS
from xception_cli.numerals import about

PROBE_SECONDS = 3.0  # to fit the probe on a few hundred images; a cautious guess, not measured
# For each row, feature and class of a fit: measured 75 s for 81 classes of 12 images in 3 views,
# with another program running on the same two cores (AVX512).
FIT_SECONDS = 6e-9
REPORT_SECONDS = 2.0  # to load the model, render the confusion matrix and write the report
TEMPERATURE_SECONDS = 2e-6  # for each image and class of val: six fits in float64
FIRST_VIEWS = 2  # the centre crop and, by default, its mirror image; the others are random crops
CACHED = 0.5  # of the time to decode a file: reading it from the cache and augmenting it, roughly


@dataclass(frozen=True)
class Costs:
    """What each part of a training costs on this machine, in seconds per image.

    Attributes:
        decode: From the file to pixels, as far as it does not overlap with the network.
        features: The frozen prefix and the rest of the network, in inference.
        step: Training on one image.
        validation: The trained part, in inference.
        memory: Peak memory of the process in bytes; on a GPU, of the GPU.
    """

    decode: float
    features: float
    step: float
    validation: float
    memory: int


class Images(NamedTuple):
    """The number of images in each split, and of classes; 0 for too few to matter."""

    train: int
    val: int
    test: int
    classes: int = 0

    def seen(self, config: TrainConfig) -> int:
        """Count the images whose features are computed before training, once per view."""
        return self.train * train_views(config) + self.val * val_views(config)


@dataclass(frozen=True)
class Forecast:
    """What a training is expected to do and to take on this machine.

    Attributes:
        config: The settings, with everything decided.
        reasons: A sentence for each decision.
        images: In the splits.
        device: PyTorch's name of the device.
        seconds: By phase, in their order.
        cached: Share of the features that are in the cache already, 0 to 1.
        memory: Peak memory in bytes; None if unknown.
        disk: Bytes on disk of features or decoded images, which the run removes at its end.
    """

    config: TrainConfig
    reasons: tuple[str, ...]
    images: Images
    device: str
    seconds: dict[str, float]
    cached: float
    memory: int | None
    disk: int

    @property
    def total_seconds(self) -> float:
        """The time of all phases."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return {
            "device": self.device,
            "images": self.images._asdict(),
            "settings": asdict(self.config),
            "reasons": list(self.reasons),
            "seconds": self.seconds,
            "total_seconds": self.total_seconds,
            "cached": self.cached,
            "memory_bytes": self.memory,
            "disk_bytes": self.disk,
        }

    def rows(self) -> dict[str, str]:
        """Return the time by phase, memory and disk for people."""
        described = {name: about(seconds) for name, seconds in self.seconds.items()}
        if self.cached:
            described["features"] += f" ({self.cached:.0%} are cached)"
        return {
            **described,
            "in all": f"about {about(self.total_seconds)}",
            "memory": "unknown" if self.memory is None else f"{self.memory / 1e9:.1f} GB",
            "disk": f"{self.disk / 1e9:.1f} GB"
            if self.disk >= 1e8
            else f"{self.disk / 1e6:.0f} MB",
        }


def has_mirrored(config: TrainConfig) -> bool:
    """Return whether the second of several views of an image is its mirror image."""
    return config.flip and config.views > 1 and config.augment != "rotate90"


def _may_mirror(config: TrainConfig) -> bool:
    """Return whether the model may also classify the mirror image."""
    views_are_computed = config.unfreeze != "all" and has_mirrored(config)
    return config.tta == "mirror" or (config.tta == "auto" and views_are_computed)


def train_views(config: TrainConfig) -> int:
    """Return how many views of each training image are computed before training."""
    # With all layers trained, each further view would take a pass of the whole network.
    return 1 if config.unfreeze == "all" else config.views


def val_views(config: TrainConfig) -> int:
    """Return how many views of each val image are computed before training."""
    answered = 1 + _may_mirror(config)  # the views that an answer averages
    # In the end the head is fitted to val too, with as many views as train.
    return max(answered, train_views(config)) if config.refit else answered


def val_is_known(config: TrainConfig, precision: str) -> bool:
    """Return whether the features of val equal what the kept model computes from its images.

    A fine-tuned network's features are computed from activations that are stored in bf16.

    Args:
        config: The settings, with everything decided.
        precision: Precision of the network.
    """
    if config.weights == "none":
        return False
    return config.unfreeze in {"head", "all"} or precision == "bf16"


def _fit_seconds(config: TrainConfig, images: Images) -> float:
    """Return the seconds to fit the linear probe; see `fit_probe`."""
    searched = min(images.train, LARGEST_SEARCH)
    sought = 25 * 0.8 * searched * min(searched, POOLED)
    judged_and_fitted = (5 * 0.8 + 3) * _rows(config, images.train) * POOLED
    return FIT_SECONDS * images.classes * (sought + judged_and_fitted)


def _rows(config: TrainConfig, count: int) -> int:
    """Return the number of rows that a head is fitted to: one per view of `count` images."""
    return min(train_views(config) * count, max(count, MOST_ROWS))


def _head_seconds(config: TrainConfig, images: Images, count: int) -> float:
    """Return the seconds to fit the network's heads to `count` images."""
    return FIT_SECONDS * images.classes * 3 * _rows(config, count) * POOLED


def _calibration_seconds(images: Images) -> float:
    """Return the seconds to fit the temperature, and the probes that estimate class gains."""
    sample = min(images.train, LARGEST_SAMPLE)
    probes = (0.5 + 1) * 5 * 0.8 * sample * min(sample, POOLED)
    return images.classes * (FIT_SECONDS * probes + TEMPERATURE_SECONDS * images.val)


def expected_seconds(config: TrainConfig, costs: Costs, images: Images) -> dict[str, float]:
    """Return the expected seconds of each phase, without early stopping.

    Args:
        config: The settings, with everything decided.
        costs: Measured with this `unfreeze`.
        images: In the splits.
    """
    image = costs.decode + costs.features
    decoding = costs.decode * (1 + CACHED * (config.epochs - 1)) / config.epochs  # in an epoch
    judged = images.test if val_is_known(config, config.precision) else images.val + images.test
    evaluation = judged * (image + _may_mirror(config) * costs.features)
    if config.weights == "none":
        train = images.train * (decoding + costs.step)
        val = images.val * (decoding + (1 + _may_mirror(config)) * costs.validation)
        tuning = config.epochs * (train + val)
        return {"fine-tuning": tuning, "evaluation": evaluation, "report": REPORT_SECONDS}
    kept = config.unfreeze in {"exit", "middle"}
    phases = {
        "features": images.seen(config) * image,
        "probe": PROBE_SECONDS + _fit_seconds(config, images),
    }
    if config.unfreeze != "head":
        decode = 0.0 if kept else decoding
        train = images.train * (decode + costs.step)
        val = images.val * (decode + costs.validation)
        phases["fine-tuning"] = config.epochs * (train + val)
        again = costs.validation if kept else image
        heads = _head_seconds(config, images, images.train)
        phases["selection"] = images.seen(config) * again + heads
    phases |= {"evaluation": evaluation, "calibration": _calibration_seconds(images)}
    if config.refit:
        phases["refit"] = _head_seconds(config, images, images.train + images.val)
    return {**phases, "report": REPORT_SECONDS}


def decoded_bytes(image_size: int, train_count: int, val_count: int) -> int:
    """Return the approximate size of the decoded-image cache, assuming an aspect ratio of 4:3."""
    preprocessing = Preprocessing.for_size(image_size)
    source = preprocessing.source_side**2 * 4 // 3
    return 3 * (train_count * source + val_count * preprocessing.image_size**2)


def disk_bytes(config: TrainConfig, train_count: int, val_count: int) -> int:
    """Return the bytes that a training keeps on disk until it ends, without model and states.

    With frozen layers these are activations: of each view of train, and of val too if the head is
    finally fitted to it, else of one view. With all layers trained, they are decoded images, up to
    `cache_gb`.
    """
    if config.unfreeze == "all":
        decoded = decoded_bytes(config.image_size, train_count, val_count)
        return min(decoded, int(config.cache_gb * 1e9))
    if config.unfreeze == "head":
        return 0
    seen = Images(train_count, val_count, 0).seen(config)
    return activation_bytes(config.image_size, config.unfreeze) * seen
