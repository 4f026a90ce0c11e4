"""Split: the images of a run by split; and split.csv, its file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from xception_cli.console import show
from xception_cli.data.folder import DataFolder
from xception_cli.data.images import Inspection
from xception_cli.data.photo import Photo, count_labels
from xception_cli.errors import ArtifactError
from xception_cli.files import from_csv, to_csv, utf8, write_durably

_OLD_HEADER = ("path", "label", "split", "reason", "digest")  # of earlier versions
_HEADER = (*_OLD_HEADER, "unit")


@dataclass(frozen=True)
class Split:
    """The images of a run by split.

    Attributes:
        classes: Class names; a label is an index into them.
        images: Every image of the data folder.
        warnings: What the user should know, a sentence each.
    """

    classes: tuple[str, ...]
    images: tuple[Photo, ...]
    warnings: tuple[str, ...] = ()

    def of(self, split: str) -> list[Photo]:
        """Return the images of one split, in the folder's order."""
        return [image for image in self.images if image.split == split]

    def counts(self, split: str) -> list[int]:
        """Count the images of each class in one split."""
        return count_labels(self.of(split), len(self.classes))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over (path, class, content digest) of every image: names the data."""
        rows = sorted((utf8(i.path), self.classes[i.label], i.digest) for i in self.images)
        return sha256(repr(rows).encode()).hexdigest()


def write_split(split: Split, path: Path) -> None:
    """Write split.csv.

    Raises:
        MachineError: The disk is full or read-only.
    """
    rows = (
        (i.path, split.classes[i.label], i.split, i.reason, i.digest, i.unit) for i in split.images
    )
    write_durably(path, to_csv(_HEADER, rows))


def read_split(path: Path, classes: Sequence[str]) -> Split:
    r"""Read split.csv; paths that are not UTF-8 come back in their written form (`\xNN`).

    In a file of an earlier version, each image is a unit, together with those identical to it.

    Raises:
        ArtifactError: The file is damaged, or names a class that the run does not have.
    """
    index = {utf8(name): label for label, name in enumerate(classes)}
    images = []
    for file, label, split, reason, digest, *unit in from_csv(path, _HEADER, _OLD_HEADER):
        if label not in index:
            raise ArtifactError(f"{show(path)} has an unknown class {show(label)}")
        images.append(Photo(file, index[label], split, digest, unit[0] if unit else digest, reason))
    return Split(tuple(classes), tuple(images))


def match_split(saved: Split, folder: DataFolder, inspections: Sequence[Inspection]) -> Split:
    """Return a run's split with the folder's real paths, if the data is still the same.

    Args:
        saved: From split.csv.
        folder: The data folder now.
        inspections: Of its images; digests are enough.

    Raises:
        ArtifactError: Images or classes were added, removed or changed; lists them.
    """
    before = {utf8(i.path): (i.digest, saved.classes[i.label]) for i in saved.images}
    after = {
        utf8(file.path): (found.digest, folder.classes[file.label])
        for file, found in zip(folder.images, inspections, strict=True)
    }
    changes = [f"removed: {show(path)}" for path in sorted(before.keys() - after.keys())]
    changes += [f"added: {show(path)}" for path in sorted(after.keys() - before.keys())]
    common = sorted(before.keys() & after.keys())
    changes += [f"changed: {show(path)}" for path in common if before[path] != after[path]]
    if changes:
        shown = changes if len(changes) <= 10 else [*changes[:9], f"and {len(changes) - 9} more"]
        raise ArtifactError(
            f"{show(folder.root)} is not what the run was started with:\n  " + "\n  ".join(shown),
            hint="put the images back, or start a new run without --resume",
        )
    real = {utf8(file.path): file.path for file in folder.images}
    return replace(saved, images=tuple(replace(i, path=real[utf8(i.path)]) for i in saved.images))
