"""Near-copies of training images among images that are meant to be new."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xception_cli.check.duplicates import near_images
from xception_cli.check.near import Images, near_copies
from xception_cli.check.scan import scan_folder
from xception_cli.check.store import Store, use_store
from xception_cli.check.survey import Survey, survey_with
from xception_cli.console import show
from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import read_recorded
from xception_cli.data.split import Split
from xception_cli.data.units import is_group
from xception_cli.errors import DataError, UsageError, XceptionError
from xception_cli.evaluation.notes import join_notes
from xception_cli.evaluation.places import recorded_places
from xception_cli.evaluation.selection import Selection, as_trained, other_images_hint
from xception_cli.numerals import count_of
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings


def set_copies_aside(run: RunDir, selection: Selection) -> Selection:
    """Leave out near-copies of training images, and group the images that remain.

    Args:
        run: The run.
        selection: The images to evaluate; those of a split of the run are returned unchanged.

    Returns:
        The remaining images, and the others; their units are their groups or their near-copies.

    Raises:
        DataError: Every image is a near-copy of a training image.
        ArtifactError: A file of the run is damaged.
        MachineError: A helper process of the scan was killed.
    """
    if selection.folder is None:
        return selection
    info = run.read_info()
    split = as_trained(read_recorded(run, info.classes), selection.trained_splits)
    root, is_table = recorded_places(run)[0], info.root is not None
    bits = info.grey_bits
    recorded, note = _recorded_images(root, split, is_table=is_table, grey_bits=bits)
    group_by = read_settings(run).get("group_by")
    every, (is_copy, is_chooser) = _compare(
        selection.folder,
        [*selection.images, *selection.trained_on],
        recorded,
        group_by,
        grey_bits=bits,
    )
    count = len(selection.images)
    photos, trained_on = every[:count], every[count:]
    is_copy, is_chooser = is_copy[:count], is_chooser[:count]
    kept = [photo for photo, copy in zip(photos, is_copy, strict=True) if not copy]
    copies = [photo for photo, copy in zip(photos, is_copy, strict=True) if copy]
    if not kept:
        raise DataError(
            f"every image in {show(selection.folder.place)} is a near-copy of a training image: "
            "there is nothing left to evaluate the model on",
            hint=other_images_hint(selection.trained_splits),
        )
    identical = {image.digest for image in split.of("val")}  # reported already
    choosers = sum(
        also and not copy and photo.digest not in identical
        for photo, copy, also in zip(photos, is_copy, is_chooser, strict=True)
    )
    are = "are near-copies of images that selected the model"
    chosen = f"{choosers:,} of {count_of(len(kept), 'image')} {are}"
    return replace(
        selection,
        images=kept,
        trained_on=trained_on,
        copies=copies,
        note=join_notes(
            selection.note, note, chosen if choosers else None, _known_groups(kept, split)
        ),
    )


def _known_groups(images: Sequence[Photo], split: Split) -> str | None:
    """Return a note on new images of a patient or video that the model was trained on."""
    trained = {image.unit for image in split.of("train") if is_group(image.unit)}
    known = [image.unit for image in images if image.unit in trained]
    if not known:
        return None
    are = "is" if len(known) == 1 else "are"
    return (
        f"{len(known):,} of {count_of(len(images), 'image')} {are} of groups that the model was "
        f"trained on, such as {show(known[0])}: expect less on other groups"
    )


def _recorded_images(
    root: Path, split: Split, *, is_table: bool, grey_bits: int
) -> tuple[list[Images], str | None]:
    """Return fingerprints of a run's train and val images, or why they are not available."""
    unknown = "not checked for near-copies of training images"
    if not root.is_dir():
        return [], f"{unknown}: {show(root.name)} not found"
    # The images of a table are those of split.csv: the table may have changed since.
    folder = DataFolder(root, split.classes, split.images, table=root)
    try:
        folder = folder if is_table else read_folder(root)
    except XceptionError as error:
        return [], f"{unknown}: {error.message}"

    def scan(store: Store) -> list[Images]:
        found = []
        looks = scan_folder(folder, store, grey_bits=grey_bits)
        for name in ("train", "val"):
            label_of = {image.digest: image.label for image in split.of(name)}
            which = [i for i, look in enumerate(looks) if look.original and look.digest in label_of]
            images = near_images(folder, looks, store, which)
            # Kept in memory: the store is opened again next, perhaps for the same folder.
            pixels = images.thumbnails(np.arange(len(which)))
            labels = np.array([label_of[looks[i].digest] for i in which], np.int64)
            found.append(Images(images.colours, pixels.__getitem__, labels))
        return found

    return use_store(root, scan), None


def _compare(
    folder: DataFolder,
    photos: Sequence[Photo],
    recorded: Sequence[Images],
    group_by: str | None,
    *,
    grey_bits: int,
) -> tuple[list[Photo], list[list[bool]]]:
    """Return the photos with their units, and which of them are near-copies of train and of val."""
    label_of = {photo.path: photo.label for photo in photos}
    # Use the model's labels: a mirrored image is a copy only within its class.
    images = tuple(replace(i, label=label_of.get(i.path, -1)) for i in folder.images)
    folder = replace(folder, images=images, group_by=group_by)

    def scan(store: Store) -> tuple[Survey, list[set[str]]]:
        survey = survey_with(folder, store, grey_bits)
        which = [
            at
            for at, (image, look) in enumerate(zip(images, survey.looks, strict=True))
            if look.original and image.path in label_of
        ]
        own = near_images(folder, survey.looks, store, which)
        copies = [near_copies(own, other) if which else np.zeros(0, bool) for other in recorded]
        paths = [{images[which[at]].path for at in np.flatnonzero(found)} for found in copies]
        return survey, paths or [set(), set()]

    survey, paths = use_store(folder.root, scan)
    unit_of = {photo.path: photo.unit for photo in _in_units(survey)}
    named = [replace(photo, unit=unit_of.get(photo.path, photo.unit)) for photo in photos]
    return named, [[photo.path in found for photo in named] for found in paths]


def _in_units(survey: Survey) -> list[Photo]:
    try:
        return survey.in_units()[0]
    except UsageError:  # the run's pattern does not fit this folder's names
        return replace(survey, folder=replace(survey.folder, group_by=None)).in_units()[0]
