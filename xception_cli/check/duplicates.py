"""The same image more than once: inside a class, across splits, across classes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from xception_cli.check.measures import CELLS, SIDE
from xception_cli.check.near import PAIRS_VERSION, Images, near_pairs
from xception_cli.check.report import (
    CONFLICTING,
    DUPLICATE,
    LEAK,
    NEAR,
    Finding,
    Problem,
)
from xception_cli.check.scan import Look
from xception_cli.check.store import Store
from xception_cli.data.folder import DataFolder
from xception_cli.data.layout import SPLITS
from xception_cli.data.photo import Photo
from xception_cli.numerals import count_of

Group = tuple[int, ...]

_SPLITS = (None, *SPLITS)


def find_groups(folder: DataFolder, looks: Sequence[Look], store: Store) -> list[Group]:
    """Group images that are identical or near-copies, in any orientation.

    Args:
        folder: The data folder.
        looks: One for each of its images.
        store: Provides their thumbnails; caches the pairs, which are slow to find.

    Returns:
        Groups of two or more, each an ascending tuple of indices into the folder's images.
    """
    of_digest: dict[str, list[int]] = defaultdict(list)
    for index, look in enumerate(looks):
        if look.original:
            of_digest[look.digest].append(index)
    different = [images[0] for images in of_digest.values()]
    together = DisjointSet(range(len(different)))
    for pair in _near_pairs(folder, looks, store, different):
        together.merge(*pair)
    groups = (
        tuple(sorted(i for at in same for i in of_digest[looks[different[at]].digest]))
        for same in together.subsets()
    )
    return sorted(group for group in groups if len(group) > 1)


def near_images(
    folder: DataFolder, looks: Sequence[Look], store: Store, which: Sequence[int]
) -> Images:
    """Return fingerprints of images, for finding near-copies.

    Args:
        folder: The data folder.
        looks: One for each of its images.
        store: Provides their thumbnails, which are read on demand; must stay open.
        which: Indices into the folder's images, all of them decodable.
    """

    def thumbnails(wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        blank = bytes(SIDE * SIDE)
        greys = store.greys(folder.images[which[index]].path for index in wanted)
        pixels = np.frombuffer(b"".join(grey or blank for grey in greys), np.uint8)
        return pixels.reshape(-1, SIDE, SIDE)

    cells = np.frombuffer(b"".join(looks[index].cells for index in which), np.uint8)
    labels = np.array([folder.images[index].label for index in which], np.int64)
    return Images(cells.reshape(len(which), 3 * CELLS**2), thumbnails, labels)


def _near_pairs(
    folder: DataFolder, looks: Sequence[Look], store: Store, different: list[int]
) -> list[tuple[int, int]]:
    known = "".join(f"{looks[i].digest} {folder.images[i].label}\n" for i in different)
    # A folder has one scale of 16-bit images, and another where it is compared with a run's.
    originals = [original for i in different if (original := looks[i].original)]
    known += "".join({f"{o.grey_bits} bits" for o in originals if o.highest is not None})
    asked = f"{PAIRS_VERSION} {blake2b(known.encode(), digest_size=16).hexdigest()}"
    answered, _, pairs = (store.recall("near pairs") or "").partition(": ")
    if answered == asked:
        return [(first, second) for first, second in json.loads(pairs)]
    found = near_pairs(near_images(folder, looks, store, different))
    store.remember("near pairs", f"{asked}: {json.dumps(found)}")
    return found


def find_duplicates(
    folder: DataFolder, looks: Sequence[Look], groups: Iterable[Group]
) -> list[Problem]:
    """Report images that occur more than once."""
    copies = [[_Copy(folder.images[i], looks[i].digest) for i in group] for group in groups]
    conflicting = [group for group in copies if len({copy.image.label for copy in group}) > 1]
    leaking = [group for group in copies if len({copy.image.split for copy in group}) > 1]
    conflicts = [finding for group in conflicting for finding in _conflicts(group)]
    leaks = [finding for group in leaking for finding in _leaks(group)]
    identical, near = [], []
    for group in copies:
        first: dict[int, _Copy] = {}
        for copy in _kept(group):
            original = first.setdefault(copy.image.label, copy)
            if copy.digest == original.digest and copy is not original:
                identical.append(copy.finding([original], "exclude"))
            elif copy is not original:
                near.append(copy.finding([original]))
    of_class = "of images in the same class"
    return [
        *_problem(CONFLICTING, "warning", conflicts, f"{_images(conflicting)} class"),
        *_problem(LEAK, "warning", leaks, f"{_images(leaking)} split: metrics measured "
                  "there will be too optimistic"),
        *_problem(DUPLICATE, "note", identical,
                  f"{count_of(len(identical), 'identical copy')} {of_class}"),
        *_problem(NEAR, "note", near,
                  f"{count_of(len(near), 'near-copy')} {of_class}, possibly "
                  "mirrored or rotated"),
    ]  # fmt: skip


@dataclass(frozen=True)
class _Copy:
    image: Photo
    digest: str

    def finding(self, others: Sequence["_Copy"], action: str = "") -> Finding:
        paths = tuple(other.image.path for other in others)
        words = "identical" if self.digest == others[0].digest else "nearly identical"
        return Finding(self.image.path, f"{words} to {paths[0]}", action, others=paths)


def _images(groups: Sequence[object]) -> str:
    are = "is" if len(groups) == 1 else "are"
    return f"{count_of(len(groups), 'image')} {are} in more than one"


def _problem(name: str, severity: str, findings: list[Finding], summary: str) -> list[Problem]:
    return [Problem(name, severity, summary, tuple(findings))] if findings else []


def _conflicts(group: list[_Copy]) -> Iterator[Finding]:
    """Yield images in two classes; nothing is suggested, because a person has to decide."""
    for copy in group:
        others = [other for other in group if other.image.label != copy.image.label]
        others.sort(key=lambda other: other.digest != copy.digest)
        yield copy.finding(others)


def _leaks(group: list[_Copy]) -> Iterator[Finding]:
    kept = _kept(group)
    for copy in group:
        if copy not in kept:
            yield copy.finding(
                sorted(kept, key=lambda other: other.digest != copy.digest), "exclude"
            )


def _kept(group: list[_Copy]) -> list[_Copy]:
    """Return the copies in the split that is measured last: training does not need the others."""
    last = max(_SPLITS.index(copy.image.split) for copy in group)
    return [copy for copy in group if _SPLITS.index(copy.image.split) == last]
