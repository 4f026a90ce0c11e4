"""Models with another test-time augmentation than was decided in training."""

from dataclasses import replace

from xception_cli.model.bundle import ModelBundle
from xception_cli.suggestions import expect_choice


def with_tta(bundle: ModelBundle, tta: str | None) -> ModelBundle:
    """Return a model with the given test-time augmentation.

    Args:
        bundle: The model.
        tta: `mirror` or `none`; None: as decided in training.

    Raises:
        UsageError: `tta` is something else.
    """
    if tta is None:
        return bundle
    expect_choice("tta", tta, ("mirror", "none"))
    preprocessing = replace(bundle.preprocessing, mirror=tta == "mirror")
    return replace(bundle, about=replace(bundle.about, preprocessing=preprocessing))
