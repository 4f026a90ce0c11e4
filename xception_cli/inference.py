"""Inference: one Prediction per image, in input order."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xception_cli.answers import answer_all
from xception_cli.console import show
from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.loading import PART, create_loader, read_parts
from xception_cli.errors import DataError, UsageError
from xception_cli.files import utf8
from xception_cli.model.bundle import Array, Classifier, ModelBundle, Outcome
from xception_cli.model.layers import fill_rows
from xception_cli.model.network import FEATURES
from xception_cli.model.unknown import Thresholds
from xception_cli.settings import StrPath

AnyImage: TypeAlias = StrPath | Image.Image | NDArray[np.uint8]

FoundT = TypeVar("FoundT", bound=Path | Image.Image)

# Images that are classified at a time: a longer list stays out of memory, but starts workers again.
_PART = 65_536


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        path: Path of the image, as given or found; None for an image in memory.
        classes: Names, the most probable first; empty if there is an error.
        probabilities: Probability of each of these classes, in 0..1.
        error: Why there is no prediction, else None.
        unknown: Why the answer is `unknown`, else None.
        label: Label from a table; None without one.
        unlike: Whether the image is clearly unlike the training images, see `Thresholds.is_far`;
            False if the model has no features of them.
    """

    path: Path | None
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    error: str | None = None
    unknown: str | None = None
    label: str | None = None
    unlike: bool = False

    @property
    def answer(self) -> str | None:
        """The most probable class, or `unknown`; None if there is an error."""
        if self.error is not None:
            return None
        return "unknown" if self.unknown is not None else self.classes[0]

    @property
    def margin(self) -> float:
        """The probability of the best class minus that of the second, in 0..1."""
        best, second = self.probabilities[:2]
        return best - second

    def to_dict(self) -> dict[str, Any]:
        r"""Return plain data that JSON can hold; names that are not UTF-8 are written `\xNN`."""
        data = {
            "path": None if self.path is None else utf8(str(self.path)),
            "classes": [utf8(name) for name in self.classes],
            "probabilities": [float(f"{p:.6g}") for p in self.probabilities],
            "error": None if self.error is None else utf8(self.error),
        }
        if self.unknown is not None:
            data["unknown"] = self.unknown
        return data if self.label is None else data | {"label": utf8(self.label)}


def predict_images(
    bundle: Classifier,
    images: Iterable[Path | Image.Image],
    *,
    top: int = 5,
    unknown: Thresholds | float | None = None,
    workers: int,
) -> Iterator[Prediction]:
    """Classify images batch by batch; memory does not grow with their number.

    Args:
        bundle: The model.
        images: Image files, or images in memory; a long list of files need not be in memory.
        top: Number of classes in each prediction, at most all of them.
        unknown: When to answer `unknown`, see `decide_unknown`.
        workers: Image-loading processes; results do not depend on it.

    Yields:
        One prediction per image, in order; an image that cannot be decoded has an `error`.

    Raises:
        MachineError: An image-loading process died.
    """
    classified = classify_images(bundle, images, workers=workers)
    # A batch at a time: for one image, threads of BLAS and the workers would wait for each other.
    while batch := list(islice(classified, _batch_size(bundle))):
        outcomes = [outcome for _, outcome in batch if not isinstance(outcome, str)]
        answers = iter(answer_all(bundle, outcomes, unknown) if outcomes else ())
        for image, outcome in batch:
            path = image if isinstance(image, Path) else None
            if isinstance(outcome, str):
                yield Prediction(path, (), (), outcome)
                continue
            probabilities, refusal, unlike = next(answers)
            best = np.argsort(-probabilities, kind="stable")[:top]
            yield Prediction(
                path,
                tuple(bundle.classes[label] for label in best),
                tuple(probabilities[best].tolist()),
                unknown=refusal,
                unlike=unlike,
            )


def _batch_size(bundle: Classifier) -> int:
    """Return the images per pass through the network; those of any size pass one by one."""
    return 1 if bundle.side is None else bundle.runtime.inference_batch


def classify(
    bundle: Classifier,
    root: Path,
    paths: Sequence[str],
    *,
    workers: int,
    in_memory: Mapping[int, Image.Image] | None = None,
    is_part: bool = False,
    digests: Sequence[str] | None = None,
) -> Iterator[Outcome | str]:
    """Stream images through a model.

    Args:
        bundle: The model.
        root: Folder that the paths are relative to.
        paths: Image files.
        workers: Image-loading processes.
        in_memory: Images in memory, by index; their paths are not read.
        is_part: Whether they follow other images, in batches of the same size.
        digests: Digests of the images' contents, if outcomes are cached by them: a file must still
            have that content, and all batches are full, so that the outcome of an image does not
            depend on the others, to the last bit.

    Yields:
        For each path, in order: the outcome, or why there is none.

    Raises:
        MachineError: An image-loading process died.
    """
    batch_size = _batch_size(bundle)
    # One worker would decode them all, and starting it costs more than decoding here.
    workers = workers if len(paths) > max(1, min(PART, batch_size)) else 0
    dataset = ImageDataset(
        root,
        paths,
        [0] * len(paths),
        bundle.transform(),
        least_side=bundle.least_side,
        grey_bits=bundle.about.preprocessing.grey_bits,
        in_memory=in_memory,
        digests=digests,
    )
    loader = create_loader(
        dataset,
        KeyedBatches(len(paths), batch_size, shuffle=False),
        workers=workers,
        side=bundle.side,
        device=bundle.runtime.device,
    )
    filled = batch_size if is_part or len(paths) > batch_size else 0
    for parts in read_parts(loader):
        outcomes: dict[int, Outcome | str] = dict(f for part in parts for f in part.failures)
        good = [part for part in parts if len(part.indices)]
        if good:
            indices = torch.cat([part.indices for part in good]).tolist()
            pixels = bundle.runtime.join_parts([part.pixels for part in good], filled)
            if digests is not None:
                pixels = fill_rows(pixels, batch_size)
            found = bundle.outcomes(pixels)[: len(indices)]  # without padding
            outcomes |= dict(zip(indices, found, strict=True))
        for index in sorted(outcomes):
            yield outcomes[index]


def classify_images(
    bundle: Classifier,
    images: Iterable[FoundT],
    *,
    workers: int,
) -> Iterator[tuple[FoundT, Outcome | str]]:
    """Stream image files and images in memory through a model, in parts.

    Yields:
        Each image, in order, with what `classify` yields for it.

    Raises:
        MachineError: An image-loading process died.
    """
    left, is_part = iter(images), False
    while part := list(islice(left, _PART)):
        in_memory = {at: image for at, image in enumerate(part) if isinstance(image, Image.Image)}
        outcomes = classify(
            bundle,
            Path(),
            ["" if at in in_memory else str(image) for at, image in enumerate(part)],
            # An image may have its file open, and workers would share the file's position.
            workers=0 if in_memory else workers,
            in_memory=in_memory,
            is_part=is_part,
        )
        yield from zip(part, outcomes, strict=True)
        is_part = True


def embed_images(
    bundle: ModelBundle, images: Sequence[Path | Image.Image], *, workers: int
) -> Array:
    """Compute the pooled features of images, the inputs of the last layer.

    Args:
        bundle: The model.
        images: Image files, or images in memory.
        workers: Image-loading processes; results do not depend on it.

    Returns:
        `(images, 2048)`, float32.

    Raises:
        DataError: An image cannot be decoded.
        MachineError: An image-loading process died.
    """
    features = np.empty((len(images), FEATURES), np.float32)
    outcomes = classify_images(bundle, images, workers=workers)
    for at, (image, outcome) in enumerate(outcomes):
        if isinstance(outcome, str):
            name = show(image) if isinstance(image, Path) else f"image {at}"
            raise DataError(f"{name} cannot be embedded: {outcome}", hint="leave it out")
        features[at] = outcome.features
    return features


def to_images(given: AnyImage | Iterable[AnyImage]) -> tuple[list[Path | Image.Image], bool]:
    """Return the given images as a list, and whether a single one was given.

    Raises:
        UsageError: Something other than an image was given.
    """
    if isinstance(given, str | bytes | np.ndarray) or not isinstance(given, Iterable):
        return [_to_image(given)], True
    return [_to_image(image) for image in given], False


def _to_image(given: object) -> Path | Image.Image:
    if isinstance(given, Image.Image):
        return given
    if isinstance(given, str | os.PathLike):
        return Path(given)
    kind = type(given).__name__
    if isinstance(given, np.ndarray):
        if given.dtype == "uint8" and given.ndim == 3 and given.shape[2] == 3:
            return Image.fromarray(given)
        kind = f"{given.dtype} array of shape {given.shape}"
    raise UsageError(
        f"an image is a {kind}, expected a path, a PIL.Image or a uint8 array (height, width, 3)",
        hint="use PIL.Image.fromarray for other arrays, PIL.Image.open for bytes, list() for a "
        "batch",
    )
