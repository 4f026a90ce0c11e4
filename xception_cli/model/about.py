"""The content of a model file without the weights: classes, pixels, provenance, thresholds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from xception_cli.console import quoted, show
from xception_cli.data.sides import RECORDED
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError
from xception_cli.model.network import FEATURES
from xception_cli.model.unknown import UnknownRule
from xception_cli.rundir import RunDir

SCHEMA, LAYERED = 1, 2  # versions of the format: without and with a head on several layers
REFIT = "refit_images"  # in the provenance: the number of images that the head was refitted to
NO_FEATURES = (
    "the model has no features of training images (--no-share-features), without which --unknown "
    "auto cannot recognize images unlike them"
)
SPLIT = "split"  # in the provenance: its digest
_DATA = "data_fingerprint"
_SHARED = "share_features"  # in the provenance: False if the features were removed
_LONGEST_NAME = 255


@dataclass(frozen=True)
class About:
    """The content of a model file, without the weights.

    Attributes:
        classes: Class names, in the order of the outputs.
        preprocessing: How an image becomes the network's input.
        temperature: Divides the logits before softmax.
        provenance: Versions, weights, data fingerprint, how it was trained.
        unknown: When it answers `unknown`, on request; None if it was never calibrated.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float = 1.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    unknown: UnknownRule | None = None

    @property
    def lacks_features(self) -> bool:
        """Whether the features of training images were removed."""
        return self.provenance.get(_SHARED) is False

    def without_features(self) -> "About":
        """Remove the features of training images, which `unknown` needs, for a file to share."""
        return replace(self, unknown=None, provenance={**self.provenance, _SHARED: False})

    def to_dict(self, schema: int = SCHEMA) -> dict[str, Any]:
        """Return plain data, with the version of the format."""
        return {
            "schema": schema,
            "architecture": "xception",
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
            "temperature": self.temperature,
            "provenance": dict(self.provenance),
        } | ({} if self.unknown is None else {"unknown": self.unknown.to_dict()})

    @classmethod
    def from_dict(cls, about: Mapping[str, Any], path: Path) -> "About":
        """Validate the metadata of a file.

        Args:
            about: From `to_dict`, or hostile.
            path: The file, for the message.

        Raises:
            ArtifactError: It is too new or damaged.
        """
        if about["schema"] not in (SCHEMA, LAYERED):  # a list has no hash
            raise ArtifactError(
                f"{show(path)} has format {show(about['schema'])}, this version reads up to "
                f"{LAYERED}",
                hint="upgrade xception",
            )
        try:
            rule = about.get("unknown")
            made = cls(
                _check_classes(about["classes"]),
                Preprocessing.from_dict(about["preprocessing"]),
                float(about["temperature"]),
                dict(about["provenance"]),
                None if rule is None else UnknownRule.from_dict(rule, FEATURES),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(f"{show(path)} has damaged metadata: {show(error)}") from error
        if not 0.01 <= made.temperature <= 100:
            raise ArtifactError(f"{show(path)} has an impossible temperature: {made.temperature}")
        return made


def _check_classes(classes: Any) -> tuple[str, ...]:
    if not isinstance(classes, list) or len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError("classes must be two or more different names")
    for name in classes:
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME:
            raise ValueError(f"a class name must be 1 to {_LONGEST_NAME} characters of text")
    return tuple(classes)


def check_origin(
    path: Path,
    provenance: Mapping[str, Any],
    used_with: RunDir | None = None,
    *,
    on_others: bool = False,
) -> None:
    """Refuse the model of another run in a run folder, or for the images of a run.

    The validation images of this run may be training images of that model.

    Args:
        path: A model file, in a run folder or not.
        provenance: From its metadata.
        used_with: The run that it is to be evaluated with; None: the one beside it, if any.
        on_others: It is evaluated on images that are not the run's: a run with the same data is
            enough, because its images are all that the model can have seen.

    Raises:
        ArtifactError: The run has other data, another seed or another split.
    """
    run = used_with or RunDir.of_model(path)
    differing = set() if run is None else _differing(provenance, run)
    if run is None or not differing or (on_others and _DATA not in differing):
        return
    if used_with is None:
        where = f"{run.info.name} beside it"
        hint = "move the model file to a folder of its own, or restore this run's model"
    else:
        where, hint = show(run.path), f"xception eval RUN --model {quoted(path)}, with its own run"
    raise ArtifactError(
        f"{show(path)} belongs to another run: its data, seed or split is not that of {where}",
        hint=hint,
    )


def trained_splits(provenance: Mapping[str, Any], run: RunDir) -> frozenset[str]:
    """Return the splits of a run whose images a model was trained on, or may have been.

    Args:
        provenance: Of a model of this run, or of one with the same data.
        run: The run.
    """
    if _differing(provenance, run):
        return frozenset(RECORDED)
    return frozenset({"train", "val"} if REFIT in provenance else {"train"})


def split_digest(checks: str) -> str:
    """Return the digest by which a model file names the split of its run, from its `row_checks`."""
    return sha256(checks.encode()).hexdigest()[:16]


def _differing(provenance: Mapping[str, Any], run: RunDir) -> set[str]:
    """Return the entries in which a model's provenance differs from what a run records."""
    try:
        info = run.read_info()
    except ArtifactError:
        return set()  # commands that need run.json report its damage; others need the model alone
    seed = (info.settings or {}).get("seed")  # not recorded by version 0.1
    fitted = info.images.get("train", 0) + info.images.get("val", 0)
    split = None if info.split_checks is None else split_digest(info.split_checks)
    recorded = {_DATA: info.data_fingerprint, SPLIT: split, "seed": seed, REFIT: fitted}
    return {
        name
        for name, value in recorded.items()
        if name in provenance and value is not None and provenance[name] != value
    }
