"""Which pictures are nearly the same: re-encoded, resized or slightly cropped copies.

Two steps, so that 200,000 pictures need neither all pairs in Python nor their pixels in memory.

1. Candidates: the mean colours of 4 x 4 cells are a coarse perceptual hash. Pictures whose cells
   correlate are looked up with matrix products, block by block.
2. Proof: the two small grey pictures are laid over each other (scale and shift of each axis, by
   inverse compositional Lucas-Kanade, Baker and Matthews 2004), and what is left without its
   smooth part must correlate. One must hold the other, as a picture holds its crop: of photos
   taken one after the other from the hand, neither does.

The network's features prove nothing here: they are made to be alike for different pictures of a
class (of blood cells, different ones have cosines up to 0.89, copies from 0.58 on).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.measure import SIDE
from xception_cli.console import Bar, screen

Floats = NDArray[np.float32]

VERSION = 1  # of the pairs that are found

_CANDIDATE = 0.85  # correlation of coarse colours
_MOST = 8  # candidates among the pictures behind each one
_COARSE = 0.8  # correlation of 16 x 16 pixels, after which it is worth to look closer
_PROOF = 0.9  # correlation of 32 x 32 pixels without their smooth part
_REACH = 2  # pixels around one whose mean is its smooth part
_FRAME = np.pad(np.zeros((SIDE - 2 * _REACH,) * 2, bool), _REACH, constant_values=True)
_CROP = 0.3  # the largest change of scale, and of place in half sides
_SLACK = 0.04  # by which a crop may seem to stand over
_BLOCK = 16_000_000  # correlations at a time: 64 MB
_PAIRS = 512  # pairs laid over each other at a time


def near_pairs(
    colours: NDArray[np.uint8], thumbnails: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
) -> list[tuple[int, int]]:
    """Find the pairs of nearly equal pictures.

    Args:
        colours: `(pictures, cells)`, mean colours of the cells.
        thumbnails: Gives the grey pictures `(n, side, side)` of n indices.

    Returns:
        Pairs of indices, the smaller first, in ascending order.
    """
    with screen.bar("looking for copies", len(colours)) as bar:
        candidates = _candidates(colours, bar)
    found = []
    with screen.bar("comparing copies", len(candidates), "pairs") as bar:
        for start in range(0, len(candidates), _PAIRS):
            pairs = candidates[start : start + _PAIRS]
            wanted, at = np.unique(pairs, return_inverse=True)
            pixels = thumbnails(wanted)[at.reshape(pairs.shape)].astype(np.float32)
            first, second = pixels[:, 0], pixels[:, 1]
            same = _holds(first, second) | _holds(second, first)  # each finds some more
            found += [(i, j) for i, j in pairs[same].tolist()]
            bar.advance(len(pairs))
    return sorted(found)


def _candidates(colours: NDArray[np.uint8], bar: Bar) -> NDArray[np.int64]:
    """Pair each picture with those behind it that are most like it in coarse colours."""
    hashes = colours.astype(np.float32)
    hashes -= hashes.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(hashes, axis=1, keepdims=True)
    hashes /= np.where(norms > 10, norms, np.inf)  # a uniform picture is like no other
    count = len(hashes)
    rows = max(1, _BLOCK // max(1, count))
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, count, rows):
        block = hashes[start : start + rows]
        likeness = block @ hashes[start:].T
        likeness[:, : len(block)][np.tril_indices(len(block))] = -1  # each pair once
        some = np.flatnonzero(likeness.max(axis=1) > _CANDIDATE)
        likeness = likeness[some]
        most = min(_MOST, likeness.shape[1])
        best = np.argpartition(likeness, -most, axis=1)[:, -most:]
        row, rank = np.nonzero(np.take_along_axis(likeness, best, axis=1) > _CANDIDATE)
        found.append(np.stack([some[row] + start, best[row, rank] + start], axis=1))
        bar.advance(len(block))
    return np.concatenate(found)


def _holds(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """Tell for pairs of grey pictures whether each two show the same, but for a slight crop.

    Args:
        first: `(pairs, side, side)`.
        second: The others.
    """
    place = np.tile(np.array([1, 0, 1, 0], np.float32), (len(first), 1))
    coarse, template = _half(first), _half(second)
    place = _lay_over(coarse, template, place, 8)
    likely = np.flatnonzero(_correlation(*_move(coarse, place), template) > _COARSE)
    first, second = first[likely], second[likely]
    place = _lay_over(first, second, place[likely], 6)
    moved, inside = _move(first, place)
    inside[:, _FRAME] = 0
    likeness = _correlation(_without_smooth(moved), inside, _without_smooth(second))
    scale, shift = place[:, ::2], place[:, 1::2]
    held = (np.abs(shift) <= np.abs(1 - scale) + _SLACK).all(axis=1)
    same = np.zeros(len(coarse), bool)
    same[likely] = (likeness > _PROOF) & held
    return same


def _half(image: Floats) -> Floats:
    pixels = image.reshape(-1, SIDE // 2, 2, SIDE // 2, 2)
    return np.asarray(pixels.mean(axis=(2, 4)), np.float32)


def _lay_over(image: Floats, template: Floats, place: Floats, steps: int) -> Floats:
    """Find where the template lies in the image: `(pairs, 4)`, scale and shift of x and of y.

    In units in which a picture reaches from -1 to 1. Gain and offset of the grey are free.
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
        # A picture without detail in one direction does not say where it lies.
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
    """Read the image where the place says, and tell which pixels are inside it."""
    side = image.shape[-1]
    across, inside_x = _sampling(side, place[:, 0:1], place[:, 1:2])
    down, inside_y = _sampling(side, place[:, 2:3], place[:, 3:4])
    moved = np.asarray(down @ image @ across.swapaxes(1, 2), np.float32)
    return moved, np.asarray(inside_y[:, :, None] * inside_x[:, None, :], np.float32)


def _sampling(side: int, scale: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Make the matrices that read a row of pixels at scale * x + shift, by cubic convolution."""
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
    """Take away the mean of 5 x 5 pixels: light and shade that many pictures share.

    Where these are not all in the picture, in its frame, some of it is left.
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
    # What varies by less than one grey level is like nothing.
    return np.asarray(together / np.sqrt(np.maximum(both[0] * both[1], 1)), np.float32)
