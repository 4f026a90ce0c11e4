"""Models without the features of their training images, for files that are shared."""

from dataclasses import replace

from xception_cli.model.about import About

NO_FEATURES = (
    "the model has no features of training images (--no-share-features), without which --unknown "
    "auto cannot recognize images unlike them"
)
_ENTRY = "share_features"  # of the provenance


def without_features(about: About) -> About:
    """Remove the features of training images, which `unknown` needs, and record that."""
    return replace(about, unknown=None, provenance={**about.provenance, _ENTRY: False})


def lacks_features(about: About) -> bool:
    """Return whether the features of training images were removed."""
    return about.provenance.get(_ENTRY) is False
