"""Places: where the images of a run are, or have moved to."""

from collections.abc import Sequence
from pathlib import Path

from xception_cli.console import say, show
from xception_cli.data.inspection import inspect
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import read_recorded
from xception_cli.data.source import read_data
from xception_cli.data.split import Split
from xception_cli.data.table import is_table
from xception_cli.errors import UsageError
from xception_cli.files import listed_name
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings

_LOOKED_FOR = 50  # images of a run that are searched for in a folder


def recorded_places(run: RunDir) -> list[Path]:
    """Return the paths of the run's data folder: absolute, then as given.

    Raises:
        UsageError: The run does not record them.
    """
    info = run.read_info()  # if it has the settings, its path is the right one
    given = None if info.settings else read_settings(run).get("data")
    found = [Path(place) for place in (info.root or info.data, given) if place]
    if not found:
        raise UsageError(
            f"{show(run.path)} does not record where its data is", hint="give --data DIR"
        )
    return found


def find_images(run: RunDir, classes: Sequence[str], data: Path | None) -> Path:
    """Return the folder that holds a run's images, for a report that shows them.

    Args:
        run: The run.
        classes: Of its model.
        data: Their current folder; None for the recorded one.

    Raises:
        UsageError: None of them is there, so the report would lose its images.
        ArtifactError: A file of the run is damaged.
    """
    if data is None and not run.report.is_file():
        return recorded_places(run)[0]  # a page with gaps is better than none
    root = find_place(recorded_places(run)) if data is None else data
    if is_table(root):
        root = read_data(root).root
    spread = _spread(read_recorded(run, classes))
    found = _count_found(root, spread)
    if not found:
        raise UsageError(
            f"{show(root)} holds none of the run's images, for example {show(spread[0].path)}; "
            "the report is unchanged",
            hint="give their current folder with --data DIR",
        )
    if found < len(spread):
        say(f"note      {show(root)} lacks some of the run's images: they leave gaps")
    return root


def is_copied_to(root: Path, recorded: Split) -> bool:
    """Return whether a folder holds most images of a run, by their paths and contents."""
    spread = _spread(recorded)
    return 2 * _count_found(root, spread) > len(spread)


def _spread(recorded: Split) -> list[Photo]:
    images = [image for image in recorded.images if image.split != "out"]
    return images[:: max(1, len(images) // _LOOKED_FOR)][:_LOOKED_FOR]


def _count_found(root: Path, images: Sequence[Photo]) -> int:
    return sum(
        inspect(root / listed_name(root, image.path)).digest == image.digest for image in images
    )


def find_place(places: Sequence[Path]) -> Path:
    """Return the first of the recorded paths that is a folder.

    Raises:
        UsageError: None of them is.
    """
    for place in places:
        if place.is_dir():
            return place
    raise UsageError(
        f"the data folder of the run, {show(places[0])}, no longer exists",
        hint="give its current path with --data DIR",
    )
