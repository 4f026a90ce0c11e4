"""Models without what they remember of their training images, for files that are shared."""

from dataclasses import replace

from xception_cli.model.bundle import About

NO_FEATURES = (
    "the features of training images were left out (--no-share-features), without which --unknown "
    "auto cannot recognise images unlike them"
)
_ENTRY = "share_features"  # of the provenance


def without_features(about: About) -> About:
    """Leave the features of training images out, and record that: `unknown` is measured by them."""
    return replace(about, unknown=None, provenance={**about.provenance, _ENTRY: False})


def lacks_features(about: About) -> bool:
    """Tell whether the features of training images were left out."""
    return about.provenance.get(_ENTRY) is False
