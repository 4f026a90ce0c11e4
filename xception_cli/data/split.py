"""Split: which image is in which split, and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from xception_cli.config import TrainConfig
from xception_cli.console import enumerated, listing, show
from xception_cli.data.fixes import NO_FIXES, Fix, class_after, note_relabelled
from xception_cli.data.folder import DataFolder
from xception_cli.data.photo import Photo, count_labels
from xception_cli.data.sides import follow_file, keep_sides
from xception_cli.data.units import Unit, find_units, with_units
from xception_cli.errors import DataError
from xception_cli.files import utf8
from xception_cli.numerals import count_of
from xception_cli.seeds import key

EXCLUDED = "excluded"  # begins the reason of an image that --fixes leaves out
_LISTED = 10  # pairs or files listed in a message
_LOWEST = "lowest hash of its class"  # reason of the only image of a class in val


@dataclass(frozen=True)
class Split:
    """The images of a run by split.

    Attributes:
        classes: Class names; a label is an index into them.
        images: Every image of the data folder.
        warnings: Sentences for the user.
    """

    classes: tuple[str, ...]
    images: tuple[Photo, ...]
    warnings: tuple[str, ...] = ()

    def of(self, split: str) -> list[Photo]:
        """Return the images of one split, in order."""
        return [image for image in self.images if image.split == split]

    def counts(self, split: str) -> list[int]:
        """Count the images of each class in one split."""
        return count_labels(self.of(split), len(self.classes))

    def leaked(self, split: str) -> int:
        """Count the images of a held-out split that share a unit with training images."""
        trained = {image.unit for image in self.of("train")}
        return sum(image.unit in trained for image in self.of(split))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over (path, class, content digest) of every image: identifies the data."""
        rows = sorted((utf8(i.path), self.classes[i.label], i.digest) for i in self.images)
        return sha256(repr(rows).encode()).hexdigest()


def make_split(
    folder: DataFolder,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    alike: Iterable[Sequence[int]] = (),
    split_file: Path | None = None,
    earlier: Sequence[Photo] = (),
    fixes: Mapping[str, Fix] = NO_FIXES,
    strict: bool = False,
) -> Split:
    """Assign each image to a split: as in a file or the folder, or by the hash of its content.

    An image is in val if the hash of (seed, content) is below the fraction, so that new images do
    not move old ones. There are three exceptions: a class without val gives its lowest-hash unit,
    a class without train keeps its highest-hash unit, and a near-copy may move its original.

    Args:
        folder: The data folder, with its images inspected.
        seed: Seed of the hash.
        val_fraction: Fraction of the images for val, if no val folder is given.
        test_fraction: Fraction of the images for test, if neither val nor test is given.
        alike: Groups of nearly identical images, as indices into the folder's.
        split_file: A split.csv to follow instead.
        earlier: Images of an earlier run, which keep their split unless one is given.
        fixes: Images to exclude or to relabel.
        strict: Refuse images of train that are also in a given val or test split.

    Raises:
        UsageError: The split file cannot be read, or no path matches `folder.group_by`.
        DataError: A class has no usable image for training, val is empty, the split file does not
            match the images, or `strict` found a leak.
    """
    images = _start(folder, fixes)
    if split_file is not None:
        images = follow_file(images, folder, split_file)
    units, warnings = find_units(images, alike, folder.group_by)
    images = with_units(images, units)
    if split_file is not None or folder.given_splits:
        warnings += _leaks(images, units, strict=strict)
    if split_file is None and "val" not in folder.given_splits:
        if test_fraction and "test" in folder.given_splits:
            warnings.append("test_fraction is not used: the test split is given")
            test_fraction = 0.0
        drawable = _drawable(images, units)
        _draw(images, keep_sides(images, drawable, earlier), seed, val_fraction, test_fraction)
        drawn = [images[i] for unit in drawable for i in unit.members]  # no given test
        warnings += _far_off(drawn, val_fraction)
        if test_fraction and not any(image.split == "test" for image in drawn):
            none = f"test_fraction {test_fraction:g} gave none of {count_of(len(drawable), 'unit')}"
            warnings.append(f"test has no images: by chance, {none}")
        warnings += _uneven(drawn, folder.classes, val_fraction)
    else:
        fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction}
        warnings += [
            f"{name} is not used: the split is given"
            for name, fraction in fractions.items()
            if fraction != getattr(TrainConfig, name)
        ]
    made = Split(folder.classes, tuple(note_relabelled(images, folder)))
    is_given = split_file is not None or "val" in folder.given_splits
    giver = show(split_file or folder.place) if is_given else None
    return replace(made, warnings=(*warnings, *_check(made, giver)))


def _start(folder: DataFolder, fixes: Mapping[str, Fix]) -> list[Photo]:
    images = []
    for image in folder.images:
        split, reason = image.split or "drawn", "given"
        label, fix = class_after(image.path, image.label, folder.classes, fixes)
        if fix is not None and fix.action == "exclude":
            split, reason = "out", f"{EXCLUDED}: {fix.problem}" if fix.problem else EXCLUDED
        elif image.problem:
            split, reason = "out", image.problem
        images.append(replace(image, label=label, split=split, reason=reason))
    return images


def _drawable(images: Sequence[Photo], units: Iterable[Unit]) -> list[Unit]:
    """Return the units without their images in a given test split."""
    kept = []
    for unit in units:
        members = tuple(i for i in unit.members if images[i].split in {"drawn", "train"})
        if members:
            kept.append(replace(unit, members=members))
    return kept


def _draw(
    images: list[Photo],
    units: Sequence[Unit],
    seed: int,
    val_fraction: float,
    test_fraction: float,
) -> None:
    """Set the split and the reason of the units' images."""
    position = [key(seed, "split", unit.name) / 2**63 for unit in units]
    split_of, reason_of = [], []
    for at in position:
        split = "val" if at < val_fraction else "train"
        if val_fraction <= at < val_fraction + test_fraction:
            split = "test"
        split_of.append(split)
        reason_of.append(f"hash {at:.4f}")
    of_class: dict[int, set[int]] = defaultdict(set)
    for number, unit in enumerate(units):
        for i in unit.members:
            of_class[images[i].label].add(number)
    drawn = {i for unit in units for i in unit.members}
    kept = {(image.label, image.split) for i, image in enumerate(images) if i not in drawn}
    for label in sorted(of_class):
        order = sorted(of_class[label], key=lambda number: position[number])
        has_val = (label, "val") in kept or any(split_of[n] == "val" for n in order)
        if len(order) > 1 and not has_val:
            split_of[order[0]], reason_of[order[0]] = "val", _LOWEST
        if (label, "train") not in kept and not any(split_of[n] == "train" for n in order):
            split_of[order[-1]], reason_of[order[-1]] = "train", "highest hash of its class"
    for unit, split, reason in zip(units, split_of, reason_of, strict=True):
        for i in unit.members:
            why = f"{reason}, {unit.about}" if unit.about else reason
            images[i] = replace(images[i], split=split, reason=why)


def _far_off(images: Sequence[Photo], val_fraction: float) -> list[str]:
    """Warn if large units or small classes have made val much smaller or larger than requested."""
    used = [image for image in images if image.split != "out"]
    held = [image for image in used if image.split == "val"]
    found = len(held) / max(1, len(used))
    if len(used) < 50 or val_fraction / 2 <= found <= 2 * val_fraction:
        return []
    alone = sum(image.reason == _LOWEST for image in held)
    by_classes = 2 * alone > len(held)
    why = "it has an image of each class" if by_classes else "images of one group stay together"
    return [f"val has {found:.0%} of the images instead of {val_fraction:.0%}: {why}"]


def _uneven(images: Sequence[Photo], classes: Sequence[str], val_fraction: float) -> list[str]:
    """Warn of classes of which val has less than half of its share, by chance."""
    used = [image for image in images if image.split != "out"]
    counts = count_labels(used, len(classes))
    measured = count_labels([image for image in used if image.split == "val"], len(classes))
    few = [
        f"{show(name)} {found} of {count}"
        for name, found, count in zip(classes, measured, counts, strict=True)
        if 0 < found < val_fraction * count / 2
    ]
    if not few:
        return []
    return [
        f"val has few images of some classes, by chance: {enumerated(few)}; their recall is "
        "uncertain (--split-file sets the split)"
    ]


def _leaks(images: Sequence[Photo], units: Sequence[Unit], *, strict: bool) -> list[str]:
    """Warn of images that are both in train and in another split."""
    lines, count = [], 0
    for unit in units:
        trained = [images[i] for i in unit.members if images[i].split == "train"]
        measured = [images[i] for i in unit.members if images[i].split in {"val", "test"}]
        if not trained or not measured:
            continue
        count += len({image.digest for image in measured})
        for image in measured:
            same = [other for other in trained if other.digest == image.digest]
            words = "identical to" if same else f"of {unit.about}, as is"
            other = (same or trained)[0]
            lines.append(f"{image.split}: {show(image.path)}, {words} {show(other.path)}")
    if not count:
        return []
    are = "are" if count > 1 else "is"
    sentence = f"{count_of(count, 'image')} of val or test {are} in train, too"
    warning = listing(f"{sentence}: metrics will be too optimistic", lines, _LISTED)
    if strict:
        raise DataError(
            warning,
            hint="xception check lists them; exclude them with --fixes, or leave --strict out",
        )
    return [warning]


def _check(split: Split, giver: str | None) -> list[str]:
    """Check that there is an image to train each class, and one in val.

    Args:
        split: The split.
        giver: What gives it, for the hint; None if it was sampled.
    """
    gives = f"{giver} gives the split: add images to"
    train, val = split.counts("train"), split.counts("val")
    no_train = [n for n, count in zip(split.classes, train, strict=True) if not count]
    if no_train:
        raise DataError(
            f"no usable training image for: {enumerated(no_train)}",
            hint=f"{gives} train" if giver else "add images",
        )
    if not any(val):
        needs = "add images: at least one class needs two different ones that are not of one group"
        raise DataError(
            "no image is left for validation (val is empty)",
            hint=f"{gives} val" if giver else needs,
        )
    no_val = [n for n, count in zip(split.classes, val, strict=True) if not count]
    warnings = []
    if no_val:
        classes = "class" if len(no_val) == 1 else f"{count_of(len(no_val), 'class')}:"
        warnings.append(f"no validation image for {classes} {enumerated(no_val)}")
    if out := len(split.of("out")):
        warnings.append(f"{count_of(out, 'image')} left out, see split.csv")
    return warnings
