"""HeatMaps: a heat map of each predicted image, in a new folder."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xception_cli.console import show
from xception_cli.errors import UsageError
from xception_cli.files import LONGEST_NAME, cut_name

if TYPE_CHECKING:  # no torch: a folder that cannot be used is reported before it loads
    from xception_cli.inference import Prediction
    from xception_cli.model.bundle import ModelBundle


class HeatMaps:
    """A folder with the heat map of each image that was classified.

    Args:
        path: The folder; is created.
        images: The images, in order.
        model: The model file.

    Raises:
        UsageError: It is an exported file.
    """

    def __init__(self, path: Path, images: Sequence[Path], model: Path) -> None:
        if model.suffix.lower() == ".onnx":
            raise UsageError(
                f"{show(model)} is an exported file, which returns no activations for heat maps",
                hint="use --explain with the run, or with the model.safetensors that was exported",
            )
        self.path = path
        self._targets = [path / name for name in name_explanations(images)]

    def check(self) -> None:
        """Check that the folder is new or empty, before anything is predicted.

        Raises:
            UsageError: It is not.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(
                f"{show(self.path)} already exists and is not empty",
                hint="choose another --explain",
            )

    def add(self, bundle: "ModelBundle", prediction: "Prediction", at: int) -> None:
        """Write the heat map of the most probable class of an image.

        Args:
            bundle: The model.
            prediction: Its answer, for an image file that could be read.
            at: Index of the image.

        Raises:
            MachineError: The disk is full or read-only.
        """
        from xception_cli.report.pictures import write_explanation

        if prediction.path is not None:
            label = bundle.classes.index(prediction.classes[0])
            write_explanation(bundle, prediction.path, label, self._targets[at])


def name_explanations(images: Sequence[Path]) -> list[str]:
    """Name the explanation file of each image; images with the same name get `-2`, `-3`."""
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    names = []
    for stem in (image.stem for image in images):
        while True:
            counts[stem] += 1
            end = f"-{counts[stem]}.jpg" if counts[stem] > 1 else ".jpg"
            name = cut_name(stem, LONGEST_NAME - len(end)) + end
            if name.casefold() not in taken:  # some file systems ignore case
                break
        taken.add(name.casefold())
        names.append(name)
    return names
