"""The images that an export is compared on: of the run, drawn if these are few, and large ones."""

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
from xception_cli.errors import DataError, UsageError
from xception_cli.evaluation.selection import select_own
from xception_cli.rundir import RunDir
from xception_cli.sample.run import draw_sample

LEAST = 64  # least number of images that an export is compared on
LARGE = 4  # number of these that are also enlarged to the size of a camera's
_LARGE_SIZE = (4000, 3000)  # 12 megapixels
_GRAIN = 12.0  # of 255; without it, an enlarged image has nothing that aliases


@dataclass(frozen=True)
class JudgeImage:
    """An image to compare two models on.

    Attributes:
        kind: `train`, `val`, `drawn` or `large`.
        source: The bytes of its file, or its path, because many may not fit into memory.
        label: Index of its class, if known.
    """

    kind: str
    source: bytes | Path
    label: int | None = None

    @property
    def content(self) -> bytes:
        """The bytes of its file."""
        return read_bytes(self.source) if isinstance(self.source, Path) else self.source


def judge_images(
    run: RunDir, classes: Sequence[str], *, least: int = LEAST, large: int = LARGE
) -> list[JudgeImage]:
    """Return the images that an export is compared on.

    Args:
        run: The run, of whose val images an even selection is taken.
        classes: Classes of its model.
        least: Least number of images, not counting the large ones; drawn images fill up.
        large: Number of images that are also enlarged to 12 megapixels.
    """
    chosen = own_images(run, classes, "val", least=least, most=least)
    spread = chosen[:: max(1, len(chosen) // large)][:large] if large else []
    return chosen + [
        JudgeImage("large", _enlarge(image.content, seed)) for seed, image in enumerate(spread)
    ]


def own_images(
    run: RunDir, classes: Sequence[str], split: str, *, least: int, most: int
) -> list[JudgeImage]:
    """Return an even selection of a split's images, and drawn images if there are too few.

    Args:
        run: The run.
        classes: Classes of its model.
        split: `train` or `val`.
        least: Least number of images; drawn images fill up.
        most: Most images of the split.
    """
    own = _spread(run, classes, split, most)
    return own + [JudgeImage("drawn", content) for content in _draw(least - len(own))]


def _spread(run: RunDir, classes: Sequence[str], split: str, most: int) -> list[JudgeImage]:
    try:
        selection = select_own(run, classes, split)
    except (DataError, UsageError) as error:
        say(f"note      using drawn images instead of {split}: {show(error.message)}")
        return []
    sound = [image for image in selection.images if image.problem is None]
    indices = np.linspace(0, len(sound) - 1, min(most, len(sound))).round().astype(int)
    chosen = [sound[index] for index in indices]
    return [JudgeImage(split, selection.root / image.path, image.label) for image in chosen]


def _draw(count: int) -> Iterator[bytes]:
    if count < 1:
        return
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn"
        draw_sample(drawn, classes=12, images=max(2, -(-count // 12)))
        for path in images_below(drawn)[:count]:
            yield path.read_bytes()


def _enlarge(content: bytes, seed: int) -> bytes:
    """Enlarge an image to a JPEG of 12 megapixels, with noise as fine as its pixels."""
    image = decode(content, grey_bits=None)
    size = _LARGE_SIZE if image.width >= image.height else _LARGE_SIZE[::-1]
    large = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(seed).standard_normal(large.shape[:2], np.float32)
    grainy = np.clip(large + _GRAIN * grain[..., None], 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(grainy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
