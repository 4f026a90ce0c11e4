"""HeatMaps: a heat map of each predicted image, in a folder of their own."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xception_cli.classifiers import is_exported
from xception_cli.console import show
from xception_cli.errors import UsageError
from xception_cli.files import LONGEST_NAME, cut_name, make_folder, write_durably

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
        UsageError: The model is an exported file; or the folder has other files, or is no folder.
            The same command may have written some heat maps before it was stopped.
    """

    def __init__(self, path: Path, images: Sequence[Path], model: Path) -> None:
        if is_exported(model):
            raise UsageError(
                f"{show(model)} is an exported file, which returns no activations for heat maps",
                hint="use --explain with the run, or with the model.safetensors that was exported",
            )
        self.path = path
        self._targets = [path / name for name in name_explanations(images)]
        names = {target.name for target in self._targets}
        partial = {*path.glob("*.jpg.????????.partial")}  # of a command that was killed
        others = {other for other in path.glob("[!.]*") if other.name not in names}
        if path.exists() and (not path.is_dir() or others - partial):
            raise UsageError(
                f"{show(path)} already exists and is not empty",
                hint="choose another --explain",
            )
        for file in partial:
            file.unlink(missing_ok=True)

    def add(self, bundle: "ModelBundle", prediction: "Prediction", at: int) -> None:
        """Write the heat map of the most probable class of an image, unless it is there already.

        Raises:
            UsageError: Another file is there.
            MachineError: The disk is full or read-only.
        """
        from xception_cli.report.activation_maps import explain_image

        if prediction.path is None:
            return
        label = bundle.classes.index(prediction.classes[0])
        content, target = explain_image(bundle, prediction.path, label), self._targets[at]
        if os.path.lexists(target):
            if target.is_file() and target.read_bytes() == content:
                return
            raise UsageError(
                f"{show(target)} already exists, and is not this heat map",
                hint="choose another --explain",
            )
        make_folder(self.path)
        write_durably(target, content)


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
