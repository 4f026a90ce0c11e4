"""Near-copies: re-encoded, resized, slightly cropped, mirrored, rotated, or black and white.

Three steps, because comparing all pairs or holding all pixels is not feasible for 200,000 images.

1. Candidates: the mean colours of 4 x 4 cells are a coarse perceptual hash. Images whose cells
   correlate in any orientation are found with matrix products, block by block. Black and white
   images are compared with colour images by the brightness of the cells.
2. Proof: the two thumbnails are aligned (scale and shift of each axis, by inverse compositional
   Lucas-Kanade, Baker and Matthews 2004), and after removing their smooth part they must correlate.
   One must contain the other, as an image contains its crop; two photos of a burst do not.
3. Orientation: a coin on a table correlates with any other coin in any orientation. A copy fits in
   one orientation only, unless it is upright and fits nearly perfectly.

Images of different classes are compared upright only: a mirrored arrow is another traffic sign, and
a rotated 6 is a 9.

The network's features are no proof: they are trained to be similar for different images of a class
(different blood cells have cosines up to 0.89, copies from 0.58 on).

The search is ours because the libraries for it (imagehash, imagededup) compare hashes or such
features, without a proof. A perceptual hash within 10 of 64 bits finds 10% to 34% of 300 photos of
coins, leaves and foods when 5% is cropped from each side, and none of them mirrored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.measures import CELLS, SIDE
from xception_cli.console import Bar, screen

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

PAIRS_VERSION = 3  # version of the search; cached pairs of another version are dropped

_CANDIDATE = 0.85  # correlation of coarse colours
_MOST = 8  # candidates of each image upright, and as many of it rotated or mirrored
_COARSE = 0.8  # correlation of 16 x 16 pixels, after which a closer comparison pays off
_PROOF = 0.9  # correlation of 32 x 32 pixels without their smooth part
_PERFECT = 0.99  # the same for upright images, which may be symmetric
_RIVAL = 0.4  # largest ratio to the unexplained share of any other orientation
_REACH = 2  # radius of the mean that is the smooth part, in pixels
_FRAME = np.pad(np.zeros((SIDE - 2 * _REACH,) * 2, bool), _REACH, constant_values=True)
_CROP = 0.3  # the largest change of scale, and of place in half sides
_SLACK = 0.04  # by which a crop may seem to extend beyond the image
_BLOCK = 16_000_000  # correlations at a time: 64 MB
_PAIRS = 512  # pairs aligned at a time
_GREY = 4  # largest difference of the channels in a black and white image
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
_UPRIGHT = (0,)
_TURNED = (1, 2, 3, 4, 5, 6, 7)  # quarter turns; from 4 on mirrored, too


@dataclass(frozen=True)
class Images:
    """Fingerprints of images, for finding near-copies.

    Attributes:
        colours: `(images, cells)`, mean colours of the cells.
        thumbnails: Function that returns the grey thumbnails `(n, side, side)` of n indices.
        labels: `(images,)`, class indices.
    """

    colours: NDArray[np.uint8]
    thumbnails: Callable[[Indices], NDArray[np.uint8]]
    labels: Indices


def near_pairs(images: Images) -> list[tuple[int, int]]:
    """Find the pairs of nearly identical images.

    Returns:
        Pairs of indices, the smaller first, in ascending order.
    """
    found = _pairs(images, images)[:, :2]
    return sorted({(min(pair), max(pair)) for pair in found.tolist()})


def near_copies(images: Images, others: Images) -> NDArray[np.bool_]:
    """Return which images are nearly identical to one of some other images.

    Args:
        images: The images to check, such as those to evaluate.
        others: The possible originals. Equal labels mean the same class in both.

    Returns:
        `(images,)`, whether each image is a copy.
    """
    found = np.zeros(len(images.colours), bool)
    found[_pairs(images, others)[:, 0]] = True
    return found


def _pairs(images: Images, others: Images) -> Indices:
    """Find rows of (index, index of the other, orientation of the first) that are copies."""
    searches = _searches(images, others)
    with screen.bar("searching for copies", sum(2 * len(s.images.labels) for s in searches)) as bar:
        candidates = np.concatenate([_candidates(search, bar) for search in searches])
    found = [candidates[:0]]
    with screen.bar("comparing copies", len(candidates), "pairs") as bar:
        for start in range(0, len(candidates), _PAIRS):
            pairs = candidates[start : start + _PAIRS]
            first, second = _pixels(images, pairs[:, 0]), _pixels(others, pairs[:, 1])
            for way in _TURNED:
                of_way = pairs[:, 2] == way
                first[of_way] = _turn(first[of_way], way)
            found.append(pairs[_are_copies(first, second, pairs[:, 2] > 0)])
            bar.advance(len(pairs))
    return np.concatenate(found)


def _pixels(images: Images, indices: Indices) -> Floats:
    wanted, at = np.unique(indices, return_inverse=True)
    return images.thumbnails(wanted)[at].astype(np.float32)


class _Search(NamedTuple):
    """What is compared with what, each by its colours.

    Attributes:
        images: The images, with what represents their colours.
        others: The possible originals, the same.
        here: `(images,)`, indices of the images in the whole set.
        there: The same of the originals.
        once: Whether both are the same set, of which each pair is needed once.
    """

    images: Images
    others: Images
    here: Indices
    there: Indices
    once: bool


def _searches(images: Images, others: Images) -> list[_Search]:
    """Search by colour; and by brightness for black and white copies of colour images."""
    once = images is others
    grey, other_grey = _are_grey(images.colours), _are_grey(others.colours)
    sides = [(grey, ~other_grey)] if once else [(grey, ~other_grey), (~grey, other_grey)]
    every, every_other = np.arange(len(images.labels)), np.arange(len(others.labels))
    searches = [_Search(images, others, every, every_other, once)]
    for one, two in sides:
        here, there = np.flatnonzero(one), np.flatnonzero(two)
        if len(here) and len(there):
            pair = _in_grey(images, here), _in_grey(others, there)
            searches.append(_Search(*pair, here, there, once=False))
    return searches


def _are_grey(colours: NDArray[np.uint8]) -> NDArray[np.bool_]:
    cells = colours.reshape(len(colours), CELLS**2, len(_BRIGHTNESS))
    return np.asarray(np.ptp(cells, axis=2).max(axis=1, initial=0) <= _GREY)


def _in_grey(images: Images, indices: Indices) -> Images:
    cells = images.colours[indices].reshape(len(indices), CELLS**2, len(_BRIGHTNESS))
    brightness = np.rint(cells @ _BRIGHTNESS).astype(np.uint8)
    return replace(images, colours=brightness, labels=images.labels[indices])


def _candidates(search: _Search, bar: Bar) -> Indices:
    """Pair each image with those of the most similar coarse colours, see `_pairs`."""
    images, others, here, there, once = search
    hashes, other_hashes = _hashes(images.colours), _hashes(others.colours)
    found = [_alike(hashes, other_hashes, _UPRIGHT, bar, once=once)]
    for label in np.unique(images.labels):
        own = np.flatnonzero(images.labels == label)
        same = np.flatnonzero(others.labels == label)
        rows = _alike(hashes[own], other_hashes[same], _TURNED, bar, once=once)
        found.append(np.stack([own[rows[:, 0]], same[rows[:, 1]], rows[:, 2]], axis=1))
    rows = np.concatenate(found)
    return np.stack([here[rows[:, 0]], there[rows[:, 1]], rows[:, 2]], axis=1)


def _hashes(colours: NDArray[np.uint8]) -> Floats:
    hashes = colours.astype(np.float32)
    hashes -= hashes.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(hashes, axis=1, keepdims=True)
    hashes /= np.where(norms > 10, norms, np.inf)  # a uniform image matches no other
    return hashes


def _alike(hashes: Floats, others: Floats, ways: Sequence[int], bar: Bar, *, once: bool) -> Indices:
    """Find the best candidates of each hash in the given orientations; each pair `once`."""
    count = len(others)
    size = max(1, _BLOCK // max(1, count * len(ways)))
    found = [np.empty((0, 3), np.int64)]
    for start in range(0, len(hashes), size):
        block = hashes[start : start + size]
        cells = block.reshape(-1, CELLS, CELLS, block.shape[1] // CELLS**2)
        turned = np.stack([_turn(cells, way) for way in ways], axis=1)
        behind = others[start:] if once else others
        likeness = turned.reshape(-1, others.shape[1]) @ behind.T
        likeness = likeness.reshape(len(block), len(ways), -1)
        if once:
            row, column = np.tril_indices(len(block))
            likeness[row, :, column] = -1
        likeness = likeness.reshape(len(block), -1)
        some = np.flatnonzero(likeness.max(axis=1, initial=-1) > _CANDIDATE)
        likeness = likeness[some]
        most = min(_MOST, likeness.shape[1])
        best = np.argpartition(likeness, -most, axis=1)[:, -most:]
        row, rank = np.nonzero(np.take_along_axis(likeness, best, axis=1) > _CANDIDATE)
        way, other = np.divmod(best[row, rank], len(behind))
        other += start if once else 0
        found.append(np.stack([some[row] + start, other, np.asarray(ways)[way]], axis=1))
        bar.advance(len(block))
    return np.concatenate(found)


def _turn(images: Floats, way: int) -> Floats:
    """Rotate or mirror images `(n, side, side, ...)` to one of the eight orientations."""
    turned = np.rot90(images, way % 4, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if way >= 4 else turned)


def _are_copies(first: Floats, second: Floats, turned: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for pairs of thumbnails `(pairs, side, side)` whether they show the same image.

    Args:
        first: `(pairs, side, side)`, in the orientation to compare.
        second: `(pairs, side, side)`.
        turned: `(pairs,)`, whether the first is in another orientation than in its file.
    """
    proven, likeness = np.zeros(len(first), bool), np.zeros(len(first), np.float32)
    for one, other in ((first, second), (second, first)):  # either may be the crop
        found, held = _likeness(one, other)
        proven |= held & (found > _PROOF)
        likeness = np.maximum(likeness, np.where(held, found, 0))
    unsure = np.flatnonzero(proven & (turned | (likeness <= _PERFECT)))
    for way in _TURNED:
        rival, _ = _likeness(_turn(first[unsure], way), second[unsure])
        proven[unsure] &= 1 - likeness[unsure] < _RIVAL * (1 - rival)
    return proven


def _likeness(first: Floats, second: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Correlate pairs of thumbnails after aligning them.

    Args:
        first: `(pairs, side, side)`.
        second: `(pairs, side, side)`.

    Returns:
        The correlation, 0 where it is low at half the size, and whether the first image contains
        the second: they are the same except for a slight crop.
    """
    place = np.tile(np.array([1, 0, 1, 0], np.float32), (len(first), 1))
    coarse, template = _half(first), _half(second)
    place = _lay_over(coarse, template, place, 8)
    likely = np.flatnonzero(_correlation(*_move(coarse, place), template) > _COARSE)
    first, second = first[likely], second[likely]
    place = _lay_over(first, second, place[likely], 6)
    moved, inside = _move(first, place)
    inside[:, _FRAME] = 0
    likeness, held = np.zeros(len(coarse), np.float32), np.zeros(len(coarse), bool)
    likeness[likely] = _correlation(_without_smooth(moved), inside, _without_smooth(second))
    scale, shift = place[:, ::2], place[:, 1::2]
    held[likely] = (np.abs(shift) <= np.abs(1 - scale) + _SLACK).all(axis=1)
    return likeness, held


def _half(image: Floats) -> Floats:
    pixels = image.reshape(-1, SIDE // 2, 2, SIDE // 2, 2)
    return np.asarray(pixels.mean(axis=(2, 4)), np.float32)


def _lay_over(image: Floats, template: Floats, place: Floats, steps: int) -> Floats:
    """Find where the template lies in the image: `(pairs, 4)`, scale and shift of x and of y.

    In units in which an image reaches from -1 to 1. Gain and offset of the grey are free.
    """
    side = template.shape[-1]
    at = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    along_y, along_x = np.gradient(template, 2 / side, axis=(1, 2))
    columns = [along_x * at, along_x, along_y * at[:, None], along_y, template]
    pixels, parameters = (len(template), side * side), len(columns) + 1
    jacobian = np.stack([*columns, np.ones_like(template)], -1).reshape(*pixels, parameters)
    for _ in range(steps):
        moved, inside = _move(image, place)
        weighted = (jacobian * inside.reshape(*pixels, 1)).swapaxes(1, 2)
        normal = weighted @ jacobian
        # An image without detail in one direction cannot be located in it.
        damping = 1e-5 * np.trace(normal, axis1=1, axis2=2)
        normal += damping[:, None, None] * np.eye(parameters, dtype=np.float32)
        solved = np.linalg.solve(normal, weighted @ moved.reshape(*pixels, 1))[..., 0]
        gain = np.where(np.abs(solved[:, 4:5]) < 0.3, np.inf, solved[:, 4:5])
        step = np.clip(solved[:, :4] / gain, -0.1, 0.1)
        scale, shift = place[:, ::2], place[:, 1::2]
        shift = np.clip(shift - scale * step[:, 1::2] / (1 + step[:, ::2]), -_CROP, _CROP)
        scale = np.clip(scale / (1 + step[:, ::2]), 1 - _CROP, 1 + _CROP)
        place = np.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], axis=1)
    return place


def _move(image: Floats, place: Floats) -> tuple[Floats, Floats]:
    """Sample the image at the place, and return which pixels are inside it."""
    side = image.shape[-1]
    across, inside_x = _sampling(side, place[:, 0:1], place[:, 1:2])
    down, inside_y = _sampling(side, place[:, 2:3], place[:, 3:4])
    moved = np.asarray(down @ image @ across.swapaxes(1, 2), np.float32)
    return moved, np.asarray(inside_y[:, :, None] * inside_x[:, None, :], np.float32)


def _sampling(side: int, scale: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Return matrices that sample a row of pixels at scale * x + shift, by cubic convolution."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    at = (scale * centres + shift + 1) * side / 2 - 0.5
    inside = ((at >= -0.5) & (at <= side - 0.5)).astype(np.float32)
    far = np.abs(np.clip(at, 0, side - 1)[:, :, None] - np.arange(side, dtype=np.float32))
    near = (1.5 * far - 2.5) * far**2 + 1  # Keys 1981, a = -1/2
    wide = ((-0.5 * far + 2.5) * far - 4) * far + 2
    weights = np.where(far < 1, near, np.where(far < 2, wide, 0))
    weights /= weights.sum(axis=2, keepdims=True)
    return weights.astype(np.float32), inside


def _without_smooth(image: Floats) -> Floats:
    """Subtract the mean of 5 x 5 pixels: light and shade that many images share.

    At the border, where the window is cut off, some of it remains.
    """
    side = image.shape[-1]
    near = np.abs(np.arange(side)[:, None] - np.arange(side)) <= _REACH
    mean = (near / near.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.asarray(image - mean @ image @ mean.T, np.float32)


def _correlation(first: Floats, weight: Floats, second: Floats) -> Floats:
    weight = weight / np.maximum(weight.sum((1, 2), keepdims=True), 1)
    first = first - (weight * first).sum((1, 2), keepdims=True)
    second = second - (weight * second).sum((1, 2), keepdims=True)
    both = [(weight * a * b).sum((1, 2)) for a, b in ((first, first), (second, second))]
    together = (weight * first * second).sum((1, 2))
    # A variation of less than one grey level correlates with nothing.
    return np.asarray(together / np.sqrt(np.maximum(both[0] * both[1], 1)), np.float32)
