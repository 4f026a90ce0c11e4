"""Layout: which folders of a data folder are splits, and which are classes.

Four layouts are accepted: class folders (cat, dog), splits of them (train/cat, val/cat), a split
next to them (cat, dog, test/cat, test/dog) and splits inside them (cat/train, cat/val). Ambiguous
folders are refused: a model of Training against Testing trains well and is useless.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from xception_cli.console import enumerated, quoted, show
from xception_cli.data.listing import Folder, expected
from xception_cli.data.names import (
    FILLERS,
    is_date,
    is_part,
    plain,
    split_of,
    splits_in,
    words_of,
)
from xception_cli.errors import DataError

SPLITS = ("train", "val", "test")
_ALIKE = 0.5  # least intersection over union of names of two folders with the same classes
_NEARLY_ALL = 0.8  # the same if one is a split of the other: it may lack one class in five
_STRAY = 0.1  # images per image in sub-folders, below which a folder is not a class


@dataclass(frozen=True)
class Layout:
    """Which folders of a data folder are its classes.

    Attributes:
        classes: Split, class name and folder; a class has one folder per split. The split is None
            if the data folder has no splits.
        around: The parents of these folders; a file directly inside one has no class.
        unlabelled: Split folders without class folders; their images are for `predict`.
        dates: Names of sub-folders that classes share, which are dates or numbers.
    """

    classes: Sequence[tuple[str | None, str, Folder]]
    around: Sequence[Folder]
    unlabelled: Sequence[Folder] = ()
    dates: Sequence[str] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the data folder defines, train first."""
        found = {split for split, _, _ in self.classes}
        return tuple(split for split in SPLITS if split in found)


def recognise(root: Folder, classes: Sequence[str]) -> Layout:
    """Determine which folders are splits and which are classes.

    Args:
        root: The data folder.
        classes: Names that are known to be classes, whatever else they could mean.

    Raises:
        DataError: A folder cannot be read, or its folders could be both splits and classes.
    """
    top = [folder for folder in root.folders if folder.identity != root.identity]  # not `x -> .`
    found = _splits_of_classes(root, top) or _splits_in_classes(root, top)
    if found is not None:
        return found
    if {folder.name for folder in top} <= {*classes}:
        return Layout([(None, folder.name, folder) for folder in top], [root])
    kinds = {split_of(folder.name) for folder in top}
    if len(top) > 1 and None not in kinds and ("train" in kinds or len(kinds) > 1):
        no_classes = f"{_list(top)} look like splits, but hold no class folders"
        raise DataError(no_classes, hint=expected(root.path))
    dates = _shared_dates(top)
    _refuse_split_in_name(top)
    _refuse_split_of_no_class(root, top)
    return Layout([(None, folder.name, folder) for folder in top], [root], dates=dates)


def _splits_of_classes(root: Folder, top: Sequence[Folder]) -> Layout | None:
    """Recognise train/cat and val/cat; or test/cat next to cat, which then belongs to train."""
    chains = {folder: _split_chain(folder) for folder in top if split_of(folder.name)}
    splits = {
        folder: split
        for folder in chains
        if (split := split_of(folder.name)) in SPLITS and chains[folder][-1].folders
    }
    if not splits:
        return None
    for split, count in Counter(splits.values()).items():
        if count > 1:
            same = _list(folder for folder in splits if splits[folder] == split)
            raise DataError(f"two folders for the {split} split: {same}", hint="keep one of them")
    inside = {split: chains[folder][-1].folders for folder, split in splits.items()}
    names = set().union(*map(_names, inside.values()))
    unlabelled = [
        folder
        for folder, chain in chains.items()
        # A class may be called `train` or `test`, if a split has such a class.
        if not chain[-1].folders and plain(folder.name) not in names
    ]
    others = [
        folder
        for folder in top
        if folder not in splits and folder not in unlabelled and _holds_images(folder)
    ]
    if others:
        shares = [_share(_names(folders), _names(others)) for folders in inside.values()]
        if "train" in inside or min(shares) < _NEARLY_ALL:
            is_split = all(_share(_names(f.folders), names) >= _ALIKE for f in others)
            raise _beside(root, splits, others, is_split=is_split and len(others) == 1)
        inside["train"] = others
    dates = {date for folders in inside.values() for date in _shared_dates(folders)}
    classes = [(split, f.name, f) for split in SPLITS for f in inside.get(split, ())]
    around = [folder for split in splits for folder in chains[split]]
    return Layout(classes, [root, *around], unlabelled, sorted(dates))


def _holds_images(folder: Folder, depth: int = 4) -> bool:
    """Return whether there are images below a folder; docs or annotations have none."""
    if folder.images:
        return True
    return depth > 0 and any(_holds_images(inner, depth - 1) for inner in folder.folders)


def _split_chain(folder: Folder) -> list[Folder]:
    """Return a split folder and nested ones that mean the same: train/train, train/images."""

    def is_same(inner: Folder) -> bool:
        return split_of(inner.name) == split_of(folder.name) or {*words_of(inner.name)} <= FILLERS

    return _chain(folder, is_same)


def _chain(folder: Folder, enters: Callable[[Folder], bool]) -> list[Folder]:
    """Return a folder and those nested in it, each the only content of its parent."""
    chain = [folder]
    while len(chain) < 4 and not chain[-1].images and len(chain[-1].folders) == 1:
        (inner,) = chain[-1].folders
        if not enters(inner):
            break
        chain.append(inner)
    return chain


def _beside(
    root: Folder, splits: Mapping[Folder, str], others: Sequence[Folder], *, is_split: bool
) -> DataError:
    names, rest = _list(splits), _list(others)
    left = [split for split in SPLITS if split not in splits.values()]
    advice = f"move {rest} out of {quoted(root.path)}"
    if "train" not in left:
        advice += f", or rename it to {' or '.join(left)}" if is_split and left else ""
    elif is_split:
        advice = f"rename {rest} to train"
    else:
        advice = f"make {quoted(root.path / 'train')} and move {rest} into it"
    return DataError(
        f"{names} next to {rest}: are these splits or classes?",
        hint=f"if these are splits, {advice}; if they are classes, rename {names}, for example to "
        f"class_{next(iter(splits)).name}",
    )


def _splits_in_classes(root: Folder, top: Sequence[Folder]) -> Layout | None:
    """Recognise cat/train, cat/val and dog/train, dog/val."""
    chains = {f: _chain(f, lambda inner: split_of(inner.name) is None) for f in top}
    parts = {f: [g for g in chains[f][-1].folders if split_of(g.name) in SPLITS] for f in top}
    odd = [folder for folder in top if not _is_divided(chains[folder][-1])]
    kinds = [{split_of(part.name) for part in parts[folder]} for folder in top]
    found = Counter(kind for each in kinds for kind in each)
    if not odd and "train" in found:
        classes = [
            (split, f.name, part)
            for split in SPLITS
            for f in top
            for part in parts[f]
            if split_of(part.name) == split
        ]
        return Layout(classes, [root, *(folder for f in top for folder in chains[f])])
    if any(count > 1 for count in found.values()) or any(len(each) > 1 for each in kinds):
        raise _half_divided({f: parts[f] for f in top if parts[f]}, odd)
    return None


def _is_divided(folder: Folder) -> bool:
    """Return whether a class folder holds one folder of images per split, and nothing else."""
    kinds = {split_of(part.name) for part in folder.folders}
    return (
        bool(kinds)
        and kinds <= {*SPLITS}
        and len(kinds) == len(folder.folders)
        and not folder.images
        and not any(map(_may_hold_classes, folder.folders))
    )


def _may_hold_classes(split: Folder) -> bool:
    """Return whether a split has folders and no images, neither directly nor in train/images."""
    end = _split_chain(split)[-1]
    return bool(end.folders) and not end.images


def _half_divided(parts: dict[Folder, list[Folder]], odd: Sequence[Folder]) -> DataError:
    """Return the error for splits in class folders that cannot be used."""
    names = sorted({part.name for held in parts.values() for part in held})
    outer = next(iter(parts))
    own = _own_name(parts[outer][0], outer)
    rename = f"if they are not splits, give each a name of its own, such as {quoted(own)}"
    what = f"{_list(parts)} {'hold' if len(parts) > 1 else 'holds'} {enumerated(names)}"
    for folder, held in parts.items():
        if any(map(_may_hold_classes, held)):
            return DataError(
                f"{what}, splits with class folders: {show(folder.name)} is not a class but a "
                "data folder",
                hint=f"give it instead: {quoted(held[0].path.parent)}",
            )
    if not odd:
        return DataError(
            f"{what}, which look like splits, but there is no train",
            hint=f"add a train folder to each class folder; or, {rename}",
        )
    return DataError(
        f"{what}, which look like splits, but {_list(odd)} cannot be split in this way",
        hint=f"give each class folder a train and a val folder and nothing else; or, {rename}",
    )


def _own_name(inner: Folder, outer: Folder) -> Path:
    """Return a name for a sub-folder that no other class has: cat/test becomes cat/test-cat."""
    path = inner.path.relative_to(outer.path.parent)
    return path.with_name(f"{path.name}-{outer.name}")


def _shared_dates(folders: Sequence[Folder]) -> list[str]:
    """Refuse would-be classes whose sub-folders are the classes: fold1/cat and fold2/cat.

    Returns:
        Names that are no reason to refuse, because they are dates: cat/2026-06-12, dog/2026-06-12.

    Raises:
        DataError: Two of them hold folders of nearly the same names, or one of them holds folders
            named like the others.
    """
    inner = {f: _chain(f, lambda _: True)[-1].folders for f in folders if _is_wrapper(f)}
    held = {folder: _names(inside) for folder, inside in inner.items() if len(inside) > 1}
    dates: set[str] = set()
    for one, two in combinations(held, 2):
        if _share(held[one], held[two]) >= _ALIKE:
            alike = [f for f in held if f is one or _share(held[one], held[f]) >= _ALIKE]
            common = [f for f in inner[one] if plain(f.name) in held[one] & held[two]]
            others = [f for f in common if not is_date(f.name)]
            are_parts = any(is_part(f.name) for f in alike)
            if are_parts or len(others) > 1 or all(is_date(f.name) for f in alike):
                raise _repeated(alike, common, are_parts=are_parts)
            dates.update(f.name for f in common if is_date(f.name))
    together = _names(folders)
    for one, names in held.items():
        others = [f for f in folders if f is not one and plain(f.name) in names]
        if _share(names, together - {plain(one.name)}) >= _ALIKE:
            raise DataError(
                f"{show(one.name)} holds folders with the names of its neighbours "
                f"({_list(others)}): it looks like a split, not a class",
                hint=f"rename it to val or test, or move it out of {quoted(one.path.parent)}",
            )
    return sorted(dates)


def _repeated(alike: Sequence[Folder], common: Sequence[Folder], *, are_parts: bool) -> DataError:
    """Return the error for folders that hold folders of the same names."""
    own = _own_name(common[0], alike[0])
    look = "they look like splits, not classes" if are_parts else "are these splits or classes?"
    return DataError(
        f"{_list(alike)} hold folders of the same names ({_list(common)}): {look}",
        hint="if they are splits, rename them to train, val and test, or give one of them: "
        f"{quoted(alike[0].path)}; if they are classes, give each sub-folder a name of its own, "
        f"such as {quoted(own)}, or list the images in a table",
    )


def _is_wrapper(folder: Folder) -> bool:
    """Return whether nearly all images of a folder are in its sub-folders."""
    inside = sum(len(inner.images) for inner in folder.folders)
    return bool(folder.folders) and len(folder.images) <= _STRAY * inside


def _refuse_split_in_name(folders: Sequence[Folder]) -> None:
    """Refuse would-be classes train_cat and test_cat; or cat, cat_test, dog and dog_test.

    Raises:
        DataError: Two names differ only in the split; or most folders are of such pairs, if one of
            each has no split (covid, covid_test), or if the names are one word (`traincat`).
    """
    named: dict[tuple[str, ...], dict[str, Folder]] = defaultdict(dict)
    for folder in folders:
        for split, rest in splits_in(folder.name):
            named[rest].setdefault(split, folder)
    pairs = {r: by for r, by in named.items() if r and by.keys() - {"", "train"} and len(by) > 1}
    whole = [rest for rest, by in pairs.items() if "" in {*by, rest[0]} and {*by} & {"val", "test"}]
    paired = {folder for rest in whole for folder in pairs[rest].values()}
    is_usual = len(whole) > 1 and 2 * len(paired) > len(folders)
    for rest, by_split in pairs.items():
        if ("train" in by_split and rest[0]) or (rest in whole and is_usual):
            split = next(split for split in SPLITS if split in by_split)
            moved = by_split[split].path
            target = moved.parent / split / "_".join(filter(None, rest))
            raise DataError(
                f"{_list(by_split.values())} look like splits of one class",
                hint="if they are, make one folder per split, with its classes inside: move "
                f"{quoted(moved)} to {quoted(target)}; if they are classes, rename "
                f"{show(moved.name)}, for example to {quoted(f'class_{moved.name}')}",
            )


def _refuse_split_of_no_class(root: Folder, folders: Sequence[Folder]) -> None:
    """Refuse the would-be class `test` next to cat and dog: its images may be of any class.

    Raises:
        DataError: A folder is named like a split or unlabelled images; others, or one that holds
            class folders, are not. `train` may be a vehicle, `valid` the opposite of `invalid`.
    """
    kept = {"train", "valid"} if "invalid" in _names(folders) else {"train"}
    apart = [f for f in folders if split_of(f.name) and plain(f.name) not in kept]
    others = [folder for folder in folders if folder not in apart]
    ends = [_chain(folder, lambda _: True)[-1] for folder in others if _is_wrapper(folder)]
    held = [end for end in ends if sum(not is_date(inner.name) for inner in end.folders) > 1]
    if apart and (len(others) > 1 or held):
        do = f"move it out of {quoted(root.path)}" if others[1:] else f"give {quoted(held[0].path)}"
        raise DataError(
            f"{_list(apart)} next to {_list(others)}, but without class folders: is it a split?",
            hint=f"if it is a split, {do}; if it is a class, rename it, for example to "
            f"class_{apart[0].name}",
        )


def _names(folders: Iterable[Folder]) -> set[str]:
    return {plain(folder.name) for folder in folders}


def _share(one: set[str], two: set[str]) -> float:
    """Return intersection over union; 0 if only one name is shared, which may be chance."""
    common = len(one & two)
    return common / len(one | two) if common > 1 else 0.0


def _list(folders: Iterable[Folder]) -> str:
    return enumerated([folder.name for folder in folders])
