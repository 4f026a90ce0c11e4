"""Recorded: the split of a run in its split.csv, verified by checksums in run.json."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zlib import crc32

from xception_cli.console import listing, quoted, show
from xception_cli.csv_files import from_csv, to_csv
from xception_cli.data.fixes import was_relabelled
from xception_cli.data.folder import DataFolder
from xception_cli.data.images import leads_out
from xception_cli.data.photo import Photo
from xception_cli.data.sides import RECORDED
from xception_cli.data.split import Split
from xception_cli.errors import ArtifactError
from xception_cli.files import utf8, write_durably
from xception_cli.numerals import count_of
from xception_cli.rundir import RunDir

_OLD_HEADER = ("path", "label", "split", "reason", "digest")  # written by earlier versions
_HEADER = (*_OLD_HEADER, "unit")
_DIGITS = 8  # of the checksum of a row
_LISTED = 10  # changed rows or images named in an error


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
    r"""Read split.csv; paths that are not UTF-8 are kept as written (`\xNN`).

    In a file of an earlier version, each image is a unit together with identical ones.

    Raises:
        ArtifactError: The file is damaged, or names an unknown class or split.
    """
    index = {utf8(name): label for label, name in enumerate(classes)}
    images = []
    rows = from_csv(path, _HEADER, _OLD_HEADER)
    for number, (file, label, split, reason, digest, *unit) in enumerate(rows, start=1):
        named = f"{show(path)}, row {number}: {show(file)}"
        if label not in index:
            raise ArtifactError(f"{named} has an unknown class {show(label)}")
        if split not in RECORDED:
            raise ArtifactError(f"{named} has an unknown split {show(repr(split))}")
        if leads_out(file):  # a run may be untrusted
            raise ArtifactError(f"{show(path)} names a file outside of the data: {show(file)}")
        images.append(Photo(file, index[label], split, digest, unit[0] if unit else digest, reason))
    return Split(tuple(classes), tuple(images))


def row_checks(split: Split) -> str:
    """Return the CRC-32 of each row, 8 hexadecimal digits each; the reason is not included."""
    return "".join(_check(image, split.classes[image.label]) for image in split.images)


def _check(image: Photo, label: str) -> str:
    row = (utf8(image.path), utf8(label), image.split, image.digest, utf8(image.unit))
    return f"{crc32(repr(row).encode()):0{_DIGITS}x}"


def read_recorded(run: RunDir, classes: Sequence[str]) -> Split:
    """Read split.csv of a run; changes since the run began are refused.

    Runs of earlier versions have no checksums in run.json and are not verified.

    Raises:
        ArtifactError: The file is damaged or was edited; names the rows.
    """
    try:
        split = read_split(run.split, classes)
    except ArtifactError as error:
        error.hint = error.hint or "restore the file from a copy, or start a new run"
        raise
    recorded = run.read_info().split_checks
    if recorded is None or row_checks(split) == recorded:
        return split
    before = [recorded[at : at + _DIGITS] for at in range(0, len(recorded), _DIGITS)]
    changes = []
    if len(before) != len(split.images):
        changes.append(f"{count_of(len(split.images), 'row')} instead of {len(before):,}")
    changes += [
        f"row {number}: {show(image.path)}, {show(classes[image.label])}, {image.split}"
        for number, (image, check) in enumerate(zip(split.images, before, strict=False), start=1)
        if _check(image, classes[image.label]) != check
    ]
    sentence = f"{show(run.split)} has changed since the run began:"
    raise ArtifactError(
        listing(sentence, changes, _LISTED),
        hint="restore the file from a copy; for another split, start a new run: xception train DIR "
        f"--split-file {quoted(run.split)}",
    )


def match_split(saved: Split, folder: DataFolder) -> Split:
    """Return a run's split with the folder's real paths, if the data has not changed.

    Args:
        saved: From split.csv.
        folder: The data folder now, with the digests of its images.

    Raises:
        ArtifactError: Images or classes were added, removed or changed; lists them.
    """
    before = {utf8(image.path): image for image in saved.images}
    after = {
        utf8(image.path): (image.digest, folder.classes[image.label]) for image in folder.images
    }
    changes = [f"removed: {show(path)}" for path in sorted(before.keys() - after.keys())]
    changes += [f"added: {show(path)}" for path in sorted(after.keys() - before.keys())]
    common = sorted(before.keys() & after.keys())
    changes += [
        f"changed: {show(path)}"
        for path in common
        if not _is_unchanged(before[path], saved.classes, *after[path])
    ]
    if changes:
        most = _LISTED if len(changes) <= _LISTED else _LISTED - 1  # lines in total
        raise ArtifactError(
            listing(f"{show(folder.place)} has changed since the run was started:", changes, most),
            hint="restore the images, or start a new run without --resume",
        )
    real = {utf8(file.path): file.path for file in folder.images}
    return replace(saved, images=tuple(replace(i, path=real[utf8(i.path)]) for i in saved.images))


def _is_unchanged(image: Photo, classes: Sequence[str], digest: str, name: str) -> bool:
    """Return whether an image still has its content, and the class that its folder or table gave.

    The class in split.csv may be another one, from `--fixes`; of an image that is left out, it does
    not matter.
    """
    has_class = image.split == "out" or classes[image.label] == name
    return image.digest == digest and (has_class or was_relabelled(image, name))
