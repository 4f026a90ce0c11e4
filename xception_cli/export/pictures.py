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
from xception_cli.evaluation.selection import select_images
from xception_cli.rundir import RunDir

LEAST = 64  # pictures that an export is judged by
LARGE = 4  # of these, made as large as a camera's, beside them
_LARGE_SIZE = (4000, 3000)  # 12 megapixels
_GRAIN = 12.0  # of 255; an enlarged picture alone has nothing that aliases


@dataclass(frozen=True)
class JudgePicture:
    """A picture to compare two models on.

    Attributes:
        kind: `val`, `drawn` or `large`.
        content: The bytes of its file.
    """

    kind: str
    content: bytes


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
    own = _own_pictures(run, classes, least)
    chosen = [JudgePicture("val", content) for content in own]
    chosen += [JudgePicture("drawn", content) for content in _draw(least - len(chosen))]
    spread = chosen[:: max(1, len(chosen) // large)][:large] if large else []
    return chosen + [
        JudgePicture("large", _enlarge(picture.content, seed))
        for seed, picture in enumerate(spread)
    ]


def _own_pictures(run: RunDir, classes: Sequence[str], count: int) -> list[bytes]:
    try:
        selection = select_images(run, classes, data=None, split="val", ignore_extra_classes=False)
    except (DataError, UsageError) as error:
        say(f"note      drawn pictures instead of val: {show(error.message)}")
        return []
    sound = [image.path for image in selection.images if image.problem is None]
    indices = np.linspace(0, len(sound) - 1, min(count, len(sound))).round().astype(int)
    return [read_bytes(selection.root / sound[index]) for index in indices]


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
