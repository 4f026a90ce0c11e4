"""Which image is in which split, and why; and split.csv."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from xception_cli.console import show
from xception_cli.data.folder import DataFolder
from xception_cli.data.images import Inspection, inspect_all
from xception_cli.errors import ArtifactError, DataError
from xception_cli.files import from_csv, to_csv, utf8, write_durably
from xception_cli.runtime import key

_HEADER = ("path", "label", "split", "reason", "digest")
_SHOWN = 20  # bad files listed on the screen; the count says how many there are


@dataclass(frozen=True)
class SplitImage:
    """One image and the split it is in.

    Attributes:
        path: Relative to the data folder.
        label: Index of its class.
        split: `train`, `val`, `test`, or `out` when it is left out.
        reason: Why it is there.
        digest: Of its content; images with one digest are the same picture.
    """

    path: str
    label: int
    split: str
    reason: str
    digest: str


@dataclass(frozen=True)
class Split:
    """The images of a run by split.

    Attributes:
        classes: Class names; a label is an index into them.
        images: Every image of the data folder.
        warnings: What the user should know, a sentence each.
    """

    classes: tuple[str, ...]
    images: tuple[SplitImage, ...]
    warnings: tuple[str, ...] = ()

    def of(self, split: str) -> list[SplitImage]:
        """Return the images of one split, in the folder's order."""
        return [image for image in self.images if image.split == split]

    def counts(self, split: str) -> list[int]:
        """Count the images of each class in one split."""
        counted = Counter(image.label for image in self.of(split))
        return [counted[label] for label in range(len(self.classes))]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over (path, class, content digest) of every image: names the data."""
        rows = sorted((utf8(i.path), self.classes[i.label], i.digest) for i in self.images)
        return sha256(repr(rows).encode()).hexdigest()


def inspect_folder(folder: DataFolder, *, skip_bad: bool) -> list[Inspection]:
    """Decode every image of a folder once, before anything dear is started.

    Args:
        folder: The data folder.
        skip_bad: Accept images that cannot be decoded; they are left out later.

    Raises:
        DataError: Images cannot be decoded; lists them.
    """
    inspections = inspect_all([folder.root / image.path for image in folder.images])
    bad = [
        f"{show(image.path)}: {inspection.problem}"
        for image, inspection in zip(folder.images, inspections, strict=True)
        if inspection.problem
    ]
    if bad and not skip_bad:
        more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
        listing = "\n  ".join([*bad[:_SHOWN], *more])
        raise DataError(
            f"{len(bad)} of {len(inspections)} images in {show(folder.root)} cannot be used:\n"
            f"  {listing}",
            hint="mend or remove them, or leave them out of this run with --skip-bad",
        )
    return inspections


def make_split(
    folder: DataFolder,
    inspections: Sequence[Inspection],
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
) -> Split:
    """Put each image in a split, by the folder's own splits or by the hash of its content.

    Drawn splits: an image is in val when the hash of (seed, content) falls under the fraction, so
    identical files are always together and new photos do not move old ones; except that a class
    left without val gives its lowest-hash picture, and one left without train keeps its highest.

    Args:
        folder: The data folder.
        inspections: One for each of its images.
        seed: Of the draw.
        val_fraction: Part of the images for val, where no val folder is given.
        test_fraction: Part of the images for test, where neither val nor test is given.

    Raises:
        DataError: A class has no usable image for training, or val is empty.
    """
    images = []
    for file, found in zip(folder.images, inspections, strict=True):
        split, reason = file.split or "drawn", "given"
        if found.problem:
            split, reason = "out", found.problem
        images.append(SplitImage(file.path, file.label, split, reason, found.digest))
    warnings = _warn_of_given_leaks(images) if folder.given_splits else []
    if "val" not in folder.given_splits:
        if "test" in folder.given_splits:
            test_fraction = 0.0
        drawable = [i for i, image in enumerate(images) if image.split in {"drawn", "train"}]
        drawn = _draw([images[i] for i in drawable], seed, val_fraction, test_fraction)
        for i, image in zip(drawable, drawn, strict=True):
            images[i] = image
    elif test_fraction and "test" not in folder.given_splits:
        warnings.append("test_fraction is not used: the folder has its own val and no test")
    made = Split(folder.classes, tuple(images))
    return replace(made, warnings=(*warnings, *_check(made)))


def _draw(
    images: list[SplitImage], seed: int, val_fraction: float, test_fraction: float
) -> list[SplitImage]:
    position = {image.digest: key(seed, "split", image.digest) / 2**63 for image in images}
    split_of, reason_of = {}, {}
    for digest, at in position.items():
        split = "val" if at < val_fraction else "train"
        if val_fraction <= at < val_fraction + test_fraction:
            split = "test"
        split_of[digest], reason_of[digest] = split, f"hash {at:.4f}"
    of_class: dict[int, set[str]] = defaultdict(set)
    for image in images:
        of_class[image.label].add(image.digest)
    for label in sorted(of_class):
        digests = sorted(of_class[label], key=lambda digest: position[digest])
        if len(digests) > 1 and not any(split_of[d] == "val" for d in digests):
            split_of[digests[0]], reason_of[digests[0]] = "val", "lowest hash of its class"
        if not any(split_of[d] == "train" for d in digests):
            split_of[digests[-1]], reason_of[digests[-1]] = "train", "highest hash of its class"
    return [
        replace(image, split=split_of[image.digest], reason=reason_of[image.digest])
        for image in images
    ]


def _warn_of_given_leaks(images: list[SplitImage]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if image.split != "out":
            splits[image.digest].add(image.split)
    shared = sum("train" in found and len(found) > 1 for found in splits.values())
    if not shared:
        return []
    return [
        f"{shared} picture{'s are' if shared > 1 else ' is'} in train and in val or test alike "
        "(identical files): the numbers will be too good"
    ]


def _check(split: Split) -> list[str]:
    warnings = []
    train, val = split.counts("train"), split.counts("val")
    no_train = [show(n) for n, count in zip(split.classes, train, strict=True) if not count]
    if no_train:
        raise DataError(f"no usable training image for: {', '.join(no_train)}", hint="add images")
    if not any(val):
        raise DataError(
            "no image is left to choose the model with (val is empty)",
            hint="add images: at least one class needs two different ones",
        )
    for name, count in zip(split.classes, val, strict=True):
        if not count:
            warnings.append(f"no validation image for class {show(name)}")
    out = len(split.of("out"))
    if out:
        warnings.append(f"{out} image{'s' * (out > 1)} left out, see split.csv")
    labels: dict[str, set[int]] = defaultdict(set)
    for image in split.images:
        labels[image.digest].add(image.label)
    conflicts = sum(len(found) > 1 for digest, found in labels.items() if digest)
    if conflicts:
        warnings.append(
            f"{conflicts} picture{'s are' if conflicts > 1 else ' is'} in more than one class "
            "(identical files): conflicting labels"
        )
    return warnings


def write_split(split: Split, path: Path) -> None:
    """Write split.csv.

    Raises:
        MachineError: The disk is full or read-only.
    """
    rows = ((i.path, split.classes[i.label], i.split, i.reason, i.digest) for i in split.images)
    write_durably(path, to_csv(_HEADER, rows))


def read_split(path: Path, classes: Sequence[str]) -> Split:
    r"""Read split.csv; paths that are not UTF-8 come back in their written form (`\xNN`).

    Raises:
        ArtifactError: The file is damaged, or names a class that the run does not have.
    """
    index = {utf8(name): label for label, name in enumerate(classes)}
    images = []
    for file, label, split, reason, digest in from_csv(path, _HEADER):
        if label not in index:
            raise ArtifactError(f"{show(path)} has an unknown class {show(label)}")
        images.append(SplitImage(file, index[label], split, reason, digest))
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
