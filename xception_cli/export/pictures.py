"""The pictures that an export is judged by: the run's own, drawn ones, and very large ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from xception_cli.console import say, show
from xception_cli.data.folder import images_below
from xception_cli.data.images import decode, read_bytes
from xception_cli.data.sample import draw_sample
from xception_cli.errors import DataError, UsageError
from xception_cli.evaluation.selection import select_own
from xception_cli.rundir import RunDir

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
