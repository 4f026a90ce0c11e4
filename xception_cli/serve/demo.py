"""Demo: the page of `xception serve`, and its answer for each image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from xception_cli.console import show
from xception_cli.data.formats import suffixes
from xception_cli.data.images import ImageError, decode
from xception_cli.inference import Prediction, predict_images
from xception_cli.model.bundle import Classifier, ModelBundle
from xception_cli.numerals import count_of
from xception_cli.report.activation_maps import draw_heat, heat_maps
from xception_cli.report.html import embed, render
from xception_cli.rundir import RunDir
from xception_cli.serve.server import MOST_BYTES

SIDE = 640  # of an image on the page, in pixels
TOP = 3  # classes shown for each image


def name_of(model: Path) -> str:
    """Return the folder name of the run that a model file belongs to, or else the file's name."""
    run = RunDir.of_model(model)
    return model.name if run is None else run.path.resolve().name


@dataclass(frozen=True)
class Demo:
    """A model and its page.

    Attributes:
        bundle: The model. Its thresholds for `unknown` are applied, if it has any.
        name: Its name on the page, from `name_of`.
    """

    bundle: Classifier
    name: str

    def page(self) -> str:
        """Render the page."""
        thresholds = self.bundle.thresholds
        refuses = "nothing" if thresholds is None else "unlike"
        if thresholds is not None and thresholds.confidence is not None:
            refuses = "unsure"
        return render(
            "serve.html.j2",
            title=f"Xception {show(self.name)}: {count_of(len(self.bundle.classes), 'class')}",
            classes=self.bundle.classes,
            has_heat_maps=isinstance(self.bundle, ModelBundle),
            refuses=refuses,
            suffixes=",".join(sorted(suffixes())),
            most_bytes=MOST_BYTES,
        )

    def warm_up(self) -> None:
        """Run the network once, because its first use is slow."""
        self._predict(Image.new("RGB", (SIDE, SIDE)))

    def answer(self, content: bytes) -> dict[str, Any]:
        """Classify an image as `predict --unknown auto` does, and render it for the page.

        Returns:
            What `predict --json` prints, and two `data:` URLs: `photo`, the upright image that the
            network was given, and `heat_map`, None for an exported file. With an `error`, there
            are no URLs.
        """
        try:
            bits = self.bundle.about.preprocessing.grey_bits
            picture = decode(content, least_side=self.bundle.least_side, grey_bits=bits)
        except ImageError as error:
            return Prediction(None, (), (), error.message).to_dict()
        prediction = self._predict(picture)
        photo = picture.copy()
        photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        heat = self._draw_heat_map(picture, photo, prediction.classes[0])
        shown = {"photo": photo, "heat_map": heat}
        return prediction.to_dict() | {
            name: None if image is None else embed(image, name, SIDE).address
            for name, image in shown.items()
        }

    def _predict(self, picture: Image.Image) -> Prediction:
        unknown = self.bundle.thresholds
        return next(predict_images(self.bundle, [picture], top=TOP, unknown=unknown, workers=0))

    def _draw_heat_map(
        self, picture: Image.Image, photo: Image.Image, name: str
    ) -> Image.Image | None:
        if not isinstance(self.bundle, ModelBundle):
            return None
        pixels = self.bundle.transform()(picture)[None]
        label = torch.tensor([self.bundle.classes.index(name)])
        (heat,) = heat_maps(self.bundle, pixels, label)
        return draw_heat(photo, heat, self.bundle.preprocessing)
