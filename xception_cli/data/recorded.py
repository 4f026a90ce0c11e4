"""The split of a run as it was when the run began: split.csv, verified by checksums in run.json."""

from collections.abc import Sequence
from zlib import crc32

from xception_cli.console import listing, quoted, show
from xception_cli.data.photo import Photo
from xception_cli.data.split import Split, read_split
from xception_cli.errors import ArtifactError
from xception_cli.files import utf8
from xception_cli.numerals import count_of
from xception_cli.rundir import RunDir

_DIGITS = 8  # of the checksum of a row
_LISTED = 10  # changed rows named in an error


def row_checks(split: Split) -> str:
    """Return the CRC-32 of each row, 8 hexadecimal digits each; the reason is not included."""
    return "".join(_check(image, split.classes[image.label]) for image in split.images)


def _check(image: Photo, label: str) -> str:
    row = (utf8(image.path), utf8(label), image.split, image.digest, utf8(image.unit))
    return f"{crc32(repr(row).encode()):0{_DIGITS}x}"


def read_recorded(run: RunDir, classes: Sequence[str]) -> Split:
    """Read split.csv of a run; changes since the run began are refused.

    Runs of earlier versions have no checksums in run.json and are not verified.

    Args:
        run: The run.
        classes: Classes of its model.

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
