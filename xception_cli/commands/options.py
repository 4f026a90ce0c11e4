"""--max-pixels: the option that check, eval and predict share with train."""

from typing import Annotated

import typer

from xception_cli.config import TrainConfig
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings

_SETTING = TrainConfig.__dataclass_fields__["max_pixels"].metadata

MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=_SETTING["at_least"],
        max=_SETTING["at_most"],
        help="Largest image to decode, in pixels (default: as the run was trained, "
        f"{TrainConfig.max_pixels:,} without one); see train.",
        show_default=False,
    ),
]


def allow_pixels(given: int | None, run: RunDir | None = None) -> None:
    """Set the largest image that is decoded.

    Args:
        given: With the option.
        run: Whose setting holds without it.

    Raises:
        ArtifactError: The run's settings are damaged.
    """
    from xception_cli.data.pixels import turns

    if given is None and run is not None:
        given = read_settings(run).get("max_pixels")
    turns.max_pixels = given or TrainConfig.max_pixels
