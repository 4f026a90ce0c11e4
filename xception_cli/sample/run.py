"""draw_sample: the sample data set, drawn into a folder."""

import math
import shutil
from pathlib import Path

from xception_cli.console import screen, show
from xception_cli.errors import MachineError, UsageError
from xception_cli.sample.foods import FOODS
from xception_cli.sample.scene import Scene, Spot
from xception_cli.sample.table import add_clutter, lay_table, set_plate

_VERSION = 1  # of the drawing; another version draws other images


def _draw(name: str, number: int) -> bytes:
    """Draw one image of a food, as JPEG; the food and the number determine it."""
    scene = Scene(f"{_VERSION} {name} {number}")
    lay_table(scene)
    (height, width), short = scene.frame, min(scene.frame)
    x, y = width * scene.between(0.34, 0.66), height * scene.between(0.34, 0.66)
    lean = scene.between(0.8, 1.0)  # the camera looks down at a slant
    if scene.chance(0.55):
        set_plate(scene, Spot(scene.frame, x, y, short * scene.between(0.42, 0.6), 0, lean))
    if scene.chance(0.5):
        add_clutter(scene, *scene.around(x, y, short * 0.45), short * scene.between(0.15, 0.3))
    count, smaller, apart = scene.pick(
        (1, 1, 0), (1, 1, 0), (1, 1, 0), (2, 0.75, 1), (3, 0.62, 1.2)
    )
    size, angle = short * smaller * scene.between(0.13, 0.34), scene.between(0, 2 * math.pi)
    for _ in range(count):
        at = (x + size * apart * math.cos(angle), y + size * apart * math.sin(angle))
        turn = scene.between(-0.9, 0.9) + scene.pick(0, 0, 3)
        FOODS[name](scene, Spot(scene.frame, *at, size, turn, lean))
        angle += 2 * math.pi / count
    if scene.chance(0.65):
        add_clutter(scene, *scene.around(x, y, size), size * scene.between(0.6, 1.2))
    return scene.photograph()


def draw_sample(folder: Path, *, classes: int = 12, images: int = 40) -> int:
    """Draw a labelled data set, one folder per food: `folder/apple/apple_000.jpg` and so on.

    An image depends only on its food and number, so that more images or classes only add to it.

    Returns:
        The number of images written.

    Raises:
        UsageError: A number is out of range, or the folder is not empty.
        MachineError: The folder cannot be written; nothing is left in it.
    """
    if not 2 <= classes <= len(FOODS):
        raise UsageError(f"the sample has 2 to {len(FOODS)} classes, not {classes}")
    if not 2 <= images <= 1000:
        raise UsageError(f"the sample has 2 to 1000 images per class, not {images}")
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(
                f"{show(folder)} exists and is not an empty folder; nothing is overwritten",
                hint="name a folder that does not exist yet",
            )
        made: list[Path] = []
        try:
            with screen.bar("drawing", classes * images) as bar:
                for name in list(FOODS)[:classes]:
                    (folder / name).mkdir(parents=True)
                    made.append(folder / name)
                    for number in range(images):
                        path = folder / name / f"{name}_{number:03}.jpg"
                        path.write_bytes(_draw(name, number))
                        bar.advance(1)
        except BaseException:  # so that the same command can be typed again
            for place in made:
                shutil.rmtree(place, ignore_errors=True)
            raise
    except OSError as error:
        raise MachineError(
            f"cannot write {show(folder)}: {error.strerror}",
            hint="choose a folder that can be written, on a disk with space",
        ) from error
    return classes * images
