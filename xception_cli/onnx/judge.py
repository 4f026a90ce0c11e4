"""The gate: an exported file must answer as PyTorch does on difficult images, or it is refused."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xception_cli.console import say, screen, show
from xception_cli.data.folder import images_below
from xception_cli.data.images import decode, read_bytes
from xception_cli.errors import ArtifactError, DataError, UsageError
from xception_cli.evaluation.selection import select_own
from xception_cli.inference import answer
from xception_cli.model.bundle import Classifier, ModelBundle
from xception_cli.rundir import RunDir
from xception_cli.runtime import Runtime
from xception_cli.sample import draw_sample

LEAST = 64  # pictures that an export is judged by
LARGE = 4  # of these, made as large as a camera's, beside them
_LARGE_SIZE = (4000, 3000)  # 12 megapixels
_GRAIN = 12.0  # of 255; an enlarged picture alone has nothing that aliases


@dataclass(frozen=True)
class JudgePicture:
    """A picture to compare two models on.

    Attributes:
        kind: `train`, `val`, `drawn` or `large`.
        source: The bytes of its file, or where they are: many together may not fit into memory.
        label: Index of its class, where it is known.
    """

    kind: str
    source: bytes | Path
    label: int | None = None

    @property
    def content(self) -> bytes:
        """The bytes of its file."""
        return read_bytes(self.source) if isinstance(self.source, Path) else self.source


def judge_pictures(
    run: RunDir, classes: Sequence[str], *, least: int = LEAST, large: int = LARGE
) -> list[JudgePicture]:
    """Gather the pictures that an export is judged by.

    Args:
        run: Its val images are taken, evenly spread; drawn ones make up for what is missing.
        classes: Of its model.
        least: Pictures, not counting the large ones.
        large: Pictures of 12 megapixels, made of the first ones.
    """
    chosen = own_pictures(run, classes, "val", least=least, most=least)
    spread = chosen[:: max(1, len(chosen) // large)][:large] if large else []
    return chosen + [
        JudgePicture("large", _enlarge(picture.content, seed))
        for seed, picture in enumerate(spread)
    ]


def own_pictures(
    run: RunDir, classes: Sequence[str], split: str, *, least: int, most: int
) -> list[JudgePicture]:
    """Gather pictures of a split of the run, evenly spread; drawn ones if there are too few.

    Args:
        run: The run.
        classes: Of its model.
        split: `train` or `val`.
        least: Pictures; drawn ones make up for what is missing.
        most: Of the run's own.
    """
    own = _spread(run, classes, split, most)
    return own + [JudgePicture("drawn", content) for content in _draw(least - len(own))]


def _spread(run: RunDir, classes: Sequence[str], split: str, most: int) -> list[JudgePicture]:
    try:
        selection = select_own(run, classes, split)
    except (DataError, UsageError) as error:
        say(f"note      drawn pictures instead of {split}: {show(error.message)}")
        return []
    sound = [image for image in selection.images if image.problem is None]
    indices = np.linspace(0, len(sound) - 1, min(most, len(sound))).round().astype(int)
    chosen = [sound[index] for index in indices]
    return [JudgePicture(split, selection.root / image.path, image.label) for image in chosen]


def _draw(count: int) -> Iterator[bytes]:
    if count < 1:
        return
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn"
        draw_sample(drawn, classes=12, images=max(2, -(-count // 12)))
        for path in images_below(drawn)[:count]:
            yield path.read_bytes()


def _enlarge(content: bytes, seed: int) -> bytes:
    """Make a 12 megapixel JPEG of a picture, with grain as fine as its pixels."""
    picture = decode(content)
    size = _LARGE_SIZE if picture.width >= picture.height else _LARGE_SIZE[::-1]
    large = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(seed).standard_normal(large.shape[:2], np.float32)
    grainy = np.clip(large + _GRAIN * grain[..., None], 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(grainy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


# Largest difference of a probability, and of the two best where the best may differ.
LIMIT_CROPPED = 1e-3
LIMIT_WHOLE = 2e-2  # its resize is a port of Pillow's, with other rounding


@dataclass(frozen=True)
class Parity:
    """How a file compares with PyTorch.

    Attributes:
        images: Pictures that both were shown.
        kinds: Of them, by where they are from: `val`, `drawn`, `large`.
        top1_agreement: Part of them with the same best class.
        contradictions: Pictures with another best class, where PyTorch's two best differ by the
            limit or more.
        largest_difference: Of a probability, or of the distance of `unknown`.
        limit: For it.
        decoded_smaller: Pictures that `xception predict --run` decodes at a part of their size.
        decoded_smaller_difference: Largest difference of a probability to what it says of these.
    """

    images: int
    kinds: dict[str, int]
    top1_agreement: float
    contradictions: int
    largest_difference: float
    limit: float
    decoded_smaller: int
    decoded_smaller_difference: float

    @property
    def passed(self) -> bool:
        """Whether the file says the same as PyTorch."""
        # `not >` would let nan through
        return self.contradictions == 0 and self.largest_difference <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def headline(self) -> str:
        """Say it in a line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        equal = round(self.top1_agreement * self.images)
        return (
            f"{self.images} pictures ({kinds}): best class equal on {equal}, probabilities within "
            f"{self.largest_difference:.1e} (limit {self.limit:g})"
        )


def compare(bundle: ModelBundle, exported: Classifier, pictures: Sequence[JudgePicture]) -> Parity:
    """Compare a file with PyTorch in float32 on the CPU.

    Args:
        bundle: The model.
        exported: The file.
        pictures: To show to both.
    """
    runtime = Runtime(torch.device("cpu"), "fp32")
    reference = replace(bundle, network=runtime.place(bundle.network), runtime=runtime)
    limit = LIMIT_WHOLE if exported.side is None else LIMIT_CROPPED
    differences, smaller, equal, contradictions = [], [], 0, 0
    with screen.bar("comparing", len(pictures)) as bar:
        for picture in pictures:
            whole = decode(picture.content)
            (expected, far), (found, found_far) = _ask(reference, whole), _ask(exported, whole)
            differences.append(float(max(abs(found - expected).max(), abs(found_far - far))))
            same = bool(found.argmax() == expected.argmax())
            second, best = sorted(expected)[-2:]
            equal += same
            contradictions += not same and best - second >= limit
            less = decode(picture.content, least_side=bundle.least_side)
            if less.size != whole.size:
                smaller.append(float(abs(found - _ask(reference, less)[0]).max()))
            bar.advance(1)
    return Parity(
        images=len(pictures),
        kinds=dict(Counter(picture.kind for picture in pictures)),
        top1_agreement=equal / len(pictures),
        contradictions=contradictions,
        largest_difference=max(differences),
        limit=limit,
        decoded_smaller=len(smaller),
        decoded_smaller_difference=max(smaller, default=0.0),
    )


def require_parity(parity: Parity) -> None:
    """Let a file out.

    Raises:
        ArtifactError: It does not say the same as PyTorch.
    """
    if not parity.passed:
        raise ArtifactError(
            f"the exported file does not say what PyTorch says, and was not written: "
            f"{parity.headline()}; {parity.contradictions} clear answers differ",
            hint="upgrade onnxruntime, or --input cropped; xception env shows the versions",
        )


def _ask(classifier: Classifier, picture: Image.Image) -> tuple[NDArray[Any], float]:
    """Return the probabilities, and the distance of `unknown`, 0 without a rule for it."""
    (outcome,) = classifier.outcomes(classifier.transform()(picture)[None])
    distance = 0.0 if classifier.thresholds is None else classifier.distance(outcome)
    return answer(classifier, outcome, None).probabilities, distance
