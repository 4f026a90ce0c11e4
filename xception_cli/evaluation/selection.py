"""Which images an evaluation scores: a split of the run, or the new images of another folder."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from xception_cli.console import enumerated, say, show
from xception_cli.data.folder import DataFolder
from xception_cli.data.inspection import inspect_all
from xception_cli.data.photo import Photo
from xception_cli.data.recorded import read_recorded
from xception_cli.data.source import read_data
from xception_cli.data.split import Split
from xception_cli.data.table import is_table
from xception_cli.errors import DataError, UsageError
from xception_cli.evaluation.notes import OTHER_SPLIT_NOTE, join_notes
from xception_cli.evaluation.places import find_place, is_copied_to, recorded_places
from xception_cli.files import listed_name, utf8
from xception_cli.numerals import count_of
from xception_cli.rundir import RunDir
from xception_cli.runs import name_after
from xception_cli.suggestions import nearest

HELD_OUT = ("test", "val")  # that a model can be evaluated on, the better one first


@dataclass(frozen=True)
class Selection:
    """The images of one evaluation.

    Attributes:
        name: The split, or a name made from the folder; fit for a folder of its own.
        root: Folder that image paths are relative to.
        data: The folder, as it is shown.
        images: With their labels.
        note: Caveats for the reader.
        trained_on: Further images, which the model was trained on; they do not count.
        copies: Further images, near-copies of training images; they do not count either.
        others: Paths of further images, of classes that the model does not know.
        folder: The folder of the images, if it is not the run's own data.
        trained_splits: Splits of the run that the model was trained on, or may have been.
        choosers: Digests of the images that selected the model, if others are evaluated.
    """

    name: str
    root: Path
    data: str
    images: Sequence[Photo]
    note: str | None = None
    trained_on: Sequence[Photo] = ()
    copies: Sequence[Photo] = ()
    others: Sequence[str] = ()
    folder: DataFolder | None = None
    trained_splits: AbstractSet[str] = frozenset({"train"})
    choosers: AbstractSet[str] = frozenset()


def select_images(
    run: RunDir,
    classes: Sequence[str],
    *,
    data: Path | None,
    root: Path | None = None,
    split: str | None,
    ignore_extra_classes: bool,
    trained_splits: AbstractSet[str] = frozenset({"train"}),
) -> Selection:
    """Select the images to evaluate a run's model on.

    Args:
        run: The run.
        classes: Of its model, in the order of the outputs.
        data: Another folder or table; None for the run's own data.
        root: Folder that paths in a table are relative to; None for the table's own.
        split: `test` or `val`; None for test if there is one, else val. If `data` has no such split
            but the run's images, which may have moved, it is the run's own.
        ignore_extra_classes: Leave out images of classes that the model does not know.
        trained_splits: Splits of the run that the model was trained on, or may have been.

    Raises:
        UsageError: There is no such folder or split.
        DataError: Unknown classes, or no image that the model was not trained on.
        ArtifactError: A file of the run is damaged.
    """
    if split is not None and split not in HELD_OUT:
        raise UsageError(f"there is no split {show(split)} to evaluate", hint="--split val or test")
    recorded, places = read_recorded(run, classes), recorded_places(run)
    if data is None:
        return _select_own(recorded, find_place(places), places[-1], choose_own(recorded, split))
    given = Path(run.read_info().data or places[0])
    own = {place.resolve() for place in [*places, given]}
    if split and data.resolve() in own:
        place = places[0] if is_table(data) else data
        return _select_own(recorded, place, data, choose_own(recorded, split))
    folder = read_data(data, root)
    lacks_split = split is not None and split not in folder.given_splits
    may_be_own = folder.table is None or folder.table.name == given.name  # not another table
    if lacks_split and may_be_own and is_copied_to(folder.root, recorded):
        return _select_own(recorded, folder.root, data, choose_own(recorded, split))
    recorded = as_trained(recorded, trained_splits)
    for line in folder.notes():
        say(f"note      {line}")
    chosen = _select_new(recorded, folder, split, ignore_extra_classes)
    other_split = "test" in trained_splits
    if not chosen.images:
        raise DataError(
            f"the model {'may have been' if other_split else 'was'} trained on every image in "
            f"{show(folder.place)}: there is nothing left to evaluate it on",
            hint=other_images_hint(trained_splits),
        )
    note = OTHER_SPLIT_NOTE if other_split else None
    return replace(chosen, note=note, trained_splits=trained_splits)


def other_images_hint(trained_splits: AbstractSet[str]) -> str:
    """Return the hint if a model was trained on every image of a folder, or on a near-copy."""
    if "test" in trained_splits:
        return "give its own run, or other images"
    return "leave --data out to evaluate on the images that the run held out"


def keep_listed(selection: Selection, listed: Iterable[Path]) -> Selection:
    """Return a selection with only the images that a list names.

    Raises:
        DataError: The list names none of them.
    """
    wanted = {os.path.abspath(path) for path in listed}  # noqa: PTH100 - as below

    def among(images: Sequence[Photo]) -> list[Photo]:
        return [i for i in images if os.path.abspath(selection.root / i.path) in wanted]  # noqa: PTH100

    kept, trained_on = among(selection.images), among(selection.trained_on)
    copies = among(selection.copies)
    if not kept:
        raise DataError(
            f"the list names none of the {count_of(len(selection.images), 'image')} of "
            f"{show(selection.name)}, for example "
            f"{show(selection.root / selection.images[0].path)}",
            hint="paths in the list are relative to the current folder",
        )
    others = [p for p in selection.others if os.path.abspath(selection.root / p) in wanted]  # noqa: PTH100
    missing = len(wanted) - len(kept) - len(trained_on) - len(copies) - len(others)
    note = (
        f"{missing:,} of {count_of(len(wanted), 'listed image')} left out: not in {selection.name}"
    )
    return replace(
        selection,
        name=f"{selection.name}-listed",
        images=kept,
        trained_on=trained_on,
        copies=copies,
        others=others,
        note=join_notes(selection.note, note if missing else None),
    )


def as_trained(recorded: Split, splits: AbstractSet[str]) -> Split:
    """Return a run's split with the images of all these splits in train."""
    images = [replace(i, split="train") if i.split in splits else i for i in recorded.images]
    return replace(recorded, images=tuple(images))


def select_own(run: RunDir, classes: Sequence[str], split: str) -> Selection:
    """Select the images of any split of a run, including the images it was trained on.

    Args:
        run: The run.
        classes: Of its model.
        split: `train`, `val` or `test`; without images if the run has no such split.

    Raises:
        UsageError: The run's data folder no longer exists.
        DataError: It cannot be read.
        ArtifactError: A file of the run is damaged.
    """
    places = recorded_places(run)
    return _select_own(read_recorded(run, classes), find_place(places), places[-1], split)


def choose_own(recorded: Split, split: str | None) -> str:
    """Return the split of the run to evaluate on: the given one, else the best one there is."""
    available = [name for name in HELD_OUT if recorded.of(name)]
    if split is None and available:
        split = available[0]
    if split is None or split not in available:
        raise UsageError(
            f"the run has no {split or 'val or test'} split",
            hint=f"--split {available[0]}" if available else "give a folder with --data DIR",
        )
    return split


def _select_own(recorded: Split, root: Path, given: Path, split: str) -> Selection:
    """Select a split of the run: the recorded images and no others."""
    wanted = recorded.of(split)
    paths = [listed_name(root, image.path) for image in wanted]
    found = inspect_all([root / path for path in paths])
    images = []
    for path, image, inspection in zip(paths, wanted, found, strict=True):
        problem = inspection.problem
        if problem is None and inspection.digest != image.digest:
            problem = "changed since the run was started"
        images.append(replace(image, path=path, digest=inspection.digest, problem=problem))
    return Selection(split, root, shown_folder(given), images)


def _select_new(
    recorded: Split, folder: DataFolder, split: str | None, ignore_extra: bool
) -> Selection:
    """Select the images of a folder that the model was not trained on, compared by content."""
    whole, part = folder, _choose_part(folder, split)
    if part:
        folder = replace(folder, images=tuple(i for i in folder.images if i.split == part))
    images = map_classes(folder, recorded.classes, ignore_extra=ignore_extra)
    mapped = {image.path for image in images}
    others = [image.path for image in folder.images if image.path not in mapped]
    if not images:
        raise DataError(f"there is no image to evaluate in {show(folder.place)}")
    found = inspect_all([folder.root / image.path for image in images])
    # The digest of an unreadable file is empty: it matches no image.
    trained_on = {image.digest for image in recorded.of("train")} - {""}
    images = [
        replace(i, digest=f.digest, unit=f.digest) for i, f in zip(images, found, strict=True)
    ]
    kept = [image for image in images if image.digest not in trained_on]
    return Selection(
        _name(folder.place, part),
        folder.root,
        shown_folder(folder.place),
        kept,
        trained_on=[image for image in images if image.digest in trained_on],
        others=others,
        folder=whole,
        choosers={image.digest for image in recorded.of("val")} - {""},
    )


def _choose_part(folder: DataFolder, split: str | None) -> str | None:
    """Return the split of a folder to evaluate on, None for all of it."""
    if split is None:
        return next((name for name in HELD_OUT if name in folder.given_splits), None)
    if split not in folder.given_splits:
        raise UsageError(
            f"{show(folder.place)} has no {split}{' folder' * (folder.table is None)}",
            hint="leave --split out to evaluate on all of it",
        )
    return split


def _name(root: Path, part: str | None) -> str:
    """Name a folder's evaluation: never like one of the run's own splits, never a path."""
    name = name_after(root)
    if part:
        name = f"{name}-{part}"
    for longer in (name, f"{root.resolve().parent.name}-{name}"):
        found = folder_name(Path(longer))
        if found.casefold() not in {"train", *HELD_OUT}:  # some file systems ignore case
            return found
    return f"data-{found}"  # of /val, which has no named parent


def folder_name(path: Path) -> str:
    """Make the name of a folder in a run from a user's file or folder: never a path."""
    return re.sub(r"[^\w.-]+", "-", utf8(path.name)).strip("-.")[:60] or "data"


def shown_folder(folder: Path) -> str:
    """Return a folder as given; of an absolute path only the name, as the rest is private."""
    return folder.name if folder.is_absolute() else str(folder)


def map_classes(folder: DataFolder, classes: Sequence[str], *, ignore_extra: bool) -> list[Photo]:
    """Give a folder's images the labels of a model, by the names of their classes.

    Args:
        folder: The folder; it may lack classes of the model.
        classes: Names, in the order of the model's outputs.
        ignore_extra: Leave out images of classes that the model does not know.

    Raises:
        DataError: The folder has a class that the model does not know, or only such classes.
    """
    # A folder that went through a Mac may have the same letters in the other Unicode form.
    index = {unicodedata.normalize("NFC", name): label for label, name in enumerate(classes)}
    labels = [index.get(unicodedata.normalize("NFC", name)) for name in folder.classes]
    extra = sorted({image.label for image in folder.images if labels[image.label] is None})
    if extra and not ignore_extra:
        names = [folder.classes[label] for label in extra]
        near = ((name, meant) for name in names if (meant := nearest(name, classes)))
        renames = (f"rename {show(name)} if it is {show(meant)}; " for name, meant in near)
        raise DataError(
            f"the model does not know {len(extra)} of the classes in {show(folder.place)}: "
            + enumerated(names),
            hint=f"{next(renames, '')}--ignore-extra-classes leaves their images out",
        )
    images = [(image.path, labels[image.label]) for image in folder.images]
    mapped = [Photo(path, label) for path, label in images if label is not None]
    if extra and not mapped:
        raise DataError(
            f"{show(folder.place)} has images of none of the model's classes: "
            + enumerated(classes)
        )
    return mapped
