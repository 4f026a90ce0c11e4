"""Series: images of one group by their file names, such as scene07_a and scene07_b.

Many naming schemes are tried as regular expressions, the same that `--group-by` takes, so that a
suggestion has been applied to these very names. A wrong suggestion is worse than none: only groups
identified by a number count, and a class numbered from end to end is not a series.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from xception_cli.check.report import SERIES, Problem
from xception_cli.check.scan import Look
from xception_cli.console import show
from xception_cli.data.folder import DataFolder
from xception_cli.data.photo import Photo
from xception_cli.numerals import count_of

_SHARE = 0.2  # least share of the images in groups of two or more
_PURE = 0.9  # least share of groups with one class only: a few labels may be wrong
_TYPICAL = 3  # least number of groups in the median class
_NUMBERED = 0.9  # least share of these images whose group is identified by a number
_WHOLE = 0.1  # largest share of them in groups of over half of a class
_REPEATED = 0.02  # largest share of images with a file name that occurs twice
_COMPARABLE = 0.8  # share of the images of the largest series that a finer one needs
_LONGEST = 80  # characters of a suggested pattern

_SEPARATORS = "_ .()-"
_ROBOFLOW = r"([^/]*/?[^/]+)\.rf\."  # with the class: images may be numbered from 1 in each
_LETTER = r"([A-Za-z_-]*\d+)[A-Za-z]\.\w+$"
_DATE = re.compile(r"(?:19|20)\d\d(?:\D?\d\d){0,2}(?:\D+\d\d){0,2}$")  # with hour and minute
_SUBJECT = re.compile(r"(?:patient|subject|person|participant|donor|case)\W?_?\d+$", re.IGNORECASE)

Groups = dict[str, list[int]]


@dataclass(frozen=True)
class Series:
    """A grouping of images by their file names.

    Attributes:
        pattern: Regular expression for `--group-by`, searched for in the path below the data
            folder; its first group names the group.
        groups: Groups of two or more images.
        images: Number of images in these groups.
        example: One group and two of its files that nothing else keeps together.
    """

    pattern: str
    groups: int
    images: int
    example: str


def find_series(folder: DataFolder, units: Sequence[str]) -> Series | None:
    """Find the most plausible series in the file names.

    Args:
        folder: The data folder.
        units: The unit of each of its images; empty for an image that is not in use.

    Returns:
        The finest grouping that is a series and that the units do not already keep together; None
        if there is none.
    """
    used = [(image, unit) for image, unit in zip(folder.images, units, strict=True) if unit]
    sides = [unit for _, unit in used]
    if "val" in folder.given_splits:  # then only the given splits can separate a group
        sides = ["train" if image.split == "train" else "measured" for image, _ in used]
    names = _Names([image for image, _ in used], sides)
    found = _most_plausible(names, _patterns(names, deep=2 if folder.given_splits else 1))
    if found is None:
        return None
    groups = names.groups(found)
    name, *pair = next(names.separated(groups))
    one, two = (show(names.files[index]) for index in pair)
    images = sum(map(len, groups.values()))
    return Series(found, len(groups), images, f"{show(name)} ({one}, {two})")


def series_problem(
    folder: DataFolder, looks: Sequence[Look], groups: Iterable[Sequence[int]]
) -> list[Problem]:
    """Report a series that is not kept together.

    Args:
        folder: The data folder.
        looks: One for each of its images.
        groups: Identical and nearly identical images, as indices into the folder's.
    """
    units = [str(index) if look.original else "" for index, look in enumerate(looks)]
    for group in groups:
        for index in group:
            units[index] = str(group[0])
    series = find_series(folder, units)
    if series is None:
        return []
    what = (
        f"file names suggest series: {count_of(series.images, 'image')} in "
        f"{count_of(series.groups, 'group')}, such as {series.example}"
    )
    advice = f"; keep each group in one split with --group-by '{series.pattern}'"
    if "val" in folder.given_splits:
        count = count_of(straddling(series, folder.images), "group")
        advice = (
            f". Images of {count} are in train and in another split: metrics measured there "
            f"will be too optimistic; train with --group-by '{series.pattern}' to list them"
        )
    return [Problem(SERIES, "warning", what + advice)]


def straddling(series: Series, photos: Iterable[Photo]) -> int:
    """Count the groups with images both in train and in another split."""
    splits: dict[str, set[str | None]] = defaultdict(set)
    for photo in photos:
        if match := re.search(series.pattern, photo.path.replace(os.sep, "/")):
            splits[match[1]].add(photo.split)
    return sum("train" in found and bool(found & {"val", "test"}) for found in splits.values())


class _Names:
    """The file names of the images in use.

    Args:
        images: The images.
        sides: What may separate them: one for each image, such as its unit.
    """

    def __init__(self, images: Sequence[Photo], sides: Sequence[str]) -> None:
        self.sides = sides
        self.labels = [image.label for image in images]
        self.paths = [image.path.replace(os.sep, "/") for image in images]
        self.files = [path.rpartition("/")[2] for path in self.paths]
        self.start = "/" if any("/" in path for path in self.paths) else "^"  # of a file's name
        self.stems = [file.rpartition(".")[0] or file for file in self.files]
        self.sizes = Counter(self.labels)

    def groups(self, pattern: str) -> Groups:
        """Return the groups of two or more images with different names, as indices."""
        search = re.compile(pattern).search
        found: dict[str, list[int]] = defaultdict(list)
        for index, path in enumerate(self.paths):
            match = search(path)
            if match and match[1]:
                found[match[1]].append(index)
        several = {name: members for name, members in found.items() if len(members) > 1}
        return {n: m for n, m in several.items() if len({self.stems[i] for i in m}) > 1}

    def separated(self, groups: Groups) -> Iterator[tuple[str, int, int]]:
        """Yield the groups with images on two sides, and one image of each side."""
        for name, members in groups.items():
            for index in members:
                if self.sides[index] != self.sides[members[0]]:
                    yield name, members[0], index
                    break


def _patterns(names: _Names, deep: int) -> Iterator[tuple[str, Groups]]:
    """Yield possible names of a group (a sub-folder, the start of the file name), and the groups.

    Args:
        names: The file names.
        deep: Number of folders down to the one of the class.
    """
    folder = "^" + "[^/]+/" * deep + "([^/]+)/"
    yield folder, names.groups(folder)
    if len(set(names.files)) < (1 - _REPEATED) * len(names.files):
        return  # numbered from 1 in each folder: equal names mean nothing
    letters = set().union(*names.stems)
    used = "".join(letter for letter in _SEPARATORS if letter in letters)
    for pattern in (_ROBOFLOW, names.start + _LETTER, *_beginnings(used, names.start)):
        groups = names.groups(pattern)
        yield pattern, groups
        if literal := _literal(names, groups):
            yield literal, names.groups(literal)


def _beginnings(used: str, start: str) -> Iterator[str]:
    """Yield patterns of the first words of a file name, and of all but the last words.

    Args:
        used: The characters between words; if there are none, no pattern is yielded.
        start: The start of a file name in a pattern.
    """
    if not used:
        return
    inside = used.replace(" ", r"\s")
    between = used if used in {"_", "-"} else f"[{inside}]"
    word = f"[^/{inside}]+" if "." in used else f"[^/.{inside}]+"
    yield f"{start}({word})[^/]*$"
    yield f"{start}({word}{between}+{word})[^/]*$"
    for count in (2, 3, 4):
        yield f"{start}((?:{word}{between}+){{{count}}}{word})[^/]*$"
    word = f"[^/{inside}]+"
    suffix = r"\.\w+$" if "." in used else "$"
    yield f"{start}([^/]+){between}{word}{suffix}"
    yield f"{start}([^/]+?)(?:{between}+{word}){{2}}{suffix}"


def _literal(names: _Names, groups: Groups) -> str | None:
    r"""Return the pattern that most groups follow, with its literal words: `/(scene\d+)`."""
    forms: Counter[str] = Counter()
    for name, members in groups.items():
        forms[re.sub(r"\d+", "0", name)] += len(members)
    (form, images), *_ = forms.most_common(1) or [("", 0)]
    if images < _SHARE * len(names.paths):
        return None
    escaped = re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", form).replace(" ", r"\s")
    pattern = f"{names.start}(" + escaped.replace("0", r"\d+") + ")"
    printable = pattern.isascii() and pattern.isprintable() and "'" not in pattern
    return pattern if printable and len(pattern) <= _LONGEST else None


def _most_plausible(names: _Names, patterns: Iterable[tuple[str, Groups]]) -> str | None:
    """Return the pattern of the finest series that has nearly the most images."""
    found: list[tuple[int, bool, int, int, str]] = []
    for pattern, groups in patterns:
        if not _is_series(names, groups, numbered=pattern != _ROBOFLOW):
            continue
        if not any(names.separated(groups)):
            continue  # a larger group may, such as a video whose frames have copies
        if pattern == _ROBOFLOW:
            return pattern
        images = sum(map(len, groups.values()))
        subject = sum(bool(_SUBJECT.search(name)) for name in groups) > len(groups) / 2
        found.append((images, subject, len(groups), -len(pattern), pattern))
    most = max((images for images, *_ in found), default=0)
    comparable = [rest for images, *rest in found if images >= _COMPARABLE * most]
    return str(max(comparable)[-1]) if comparable else None


def _is_series(names: _Names, groups: Groups, *, numbered: bool) -> bool:
    """Return whether groups of images are a series, by the limits above."""
    images = sum(map(len, groups.values()))
    if images < max(1, _SHARE * len(names.paths)):
        return False
    labels = [Counter(names.labels[i] for i in members) for members in groups.values()]
    if sum(len(of) == 1 for of in labels) < _PURE * len(groups):
        return False
    if median(Counter(label for of in labels for label in of).values()) < _TYPICAL:
        return False
    whole = sum(n for of in labels for label, n in of.items() if n > names.sizes[label] / 2)
    if whole > _WHOLE * images:
        return False
    return not numbered or _are_numbered(groups, images)


def _are_numbered(groups: Groups, images: int) -> bool:
    """Return whether numbers identify the groups; dates do not count: many subjects share a day."""
    last = re.compile(rf"\d[^{re.escape(_SEPARATORS)}]*$")
    numbered = sum(len(members) for name, members in groups.items() if last.search(name))
    dates = sum(bool(_DATE.search(name)) for name in groups)
    return numbered >= _NUMBERED * images and dates < len(groups) / 2
