"""The content and layout of the confusion matrix; templates/charts.html.j2 makes SVG of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from xception_cli.console import show
from xception_cli.numerals import percentage

_CELL, _TITLE = 14, 12  # SVG units: least side of a cell, and height of the titles of the sides
_LEAST = 84  # SVG units of a side: as long as its title
_FEW = 8  # classes, whose names may be longer
_LONGEST, _LONGEST_OF_FEW = 24, 28  # characters of a name
_NAMED = 100  # most classes whose names and counts are all written
_READABLE = 1.25  # pixels per unit at which names are readable
STRONG = 0.91  # least opacity of a cell with a white number on light paper


def confusion_order(confusion: NDArray[np.int64]) -> list[int]:
    """Order classes so that those confused with each other are adjacent.

    Args:
        confusion: Counts by true and predicted class.
    """
    if len(confusion) < 3:
        return list(range(len(confusion)))
    parts = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    distance = 1 - (parts + parts.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance), method="average", optimal_ordering=True)
    return [int(leaf) for leaf in leaves_list(tree)]


class Cell(NamedTuple):
    """A cell of a confusion matrix that has images."""

    x: str
    y: str
    style: str
    opacity: str
    number: str
    figures: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix in SVG units.

    Attributes:
        order: Name of the order of the classes.
        names: Positions and names, along both sides; empty if there are too many.
        cells: The cells with images.
        margin: Space for the title and the names of a side.
        side: Length of a side.
        size: Length of a side, including the names.
        width: Width in rem, if the page is wide enough.
        least: Width in pixels at which names are readable; 0 without names.
        cell: Side of a cell.
    """

    order: str
    names: tuple[tuple[str, str], ...]
    cells: tuple[Cell, ...]
    margin: int
    side: int
    size: int
    width: int
    least: int
    cell: int


def draw_matrix(
    confusion: NDArray[np.int64], names: Sequence[str], order: Sequence[int], title: str
) -> Matrix:
    """Draw a confusion matrix.

    Args:
        confusion: Counts by true class (row) and predicted class (column).
        names: Class names.
        order: Class indices in the order of drawing.
        title: Name of this order.
    """
    longest = _LONGEST_OF_FEW if len(order) <= _FEW else _LONGEST
    short = [show(name, longest) for name in names]
    cell = max(_CELL, math.ceil(_LEAST / len(order)))
    side, named = cell * len(order), len(order) <= _NAMED
    # A letter takes at most about 5.4 units at the font size of the page.
    margin = _TITLE + (10 + math.ceil(5.6 * max(map(len, short))) if named else 4)
    size = margin + side + 4
    return Matrix(
        order=title,
        names=tuple(
            (f"{margin + cell * (at + 0.5) + 3:g}", short[label]) for at, label in enumerate(order)
        )
        if named
        else (),
        cells=tuple(_cells(confusion, names, order, cell, margin, numbered=named)),
        margin=margin,
        side=side,
        size=size,
        width=min(66, round(size / 9)),
        least=round(_READABLE * size) if named else 0,
        cell=cell,
    )


def _cells(
    confusion: NDArray[np.int64],
    names: Sequence[str],
    order: Sequence[int],
    side: int,
    margin: int,
    *,
    numbered: bool,
) -> Iterator[Cell]:
    totals = np.maximum(confusion.sum(axis=1), 1)
    ordered = confusion[np.ix_(order, order)]
    for row, column in np.argwhere(ordered):
        true, predicted, n = order[row], order[column], int(ordered[row, column])
        what = f"classified as {show(names[predicted])}"
        style = "wrong"
        depth = opacity(n / totals[true])
        if row == column:
            what = "classified correctly"
            style = "right strong" if depth >= STRONG else "right"
        yield Cell(
            x=str(margin + side * int(column)),
            y=str(margin + side * int(row)),
            style=style,
            opacity=f"{depth:.2f}",
            number=str(n) if n < 1000 and numbered else "",
            figures=f"{show(names[true])}: {n:,} {what} ({percentage(n / totals[true])})",
        )


def opacity(part: float) -> float:
    """Return the opacity of a cell; the square root makes small shares visible."""
    return 0.2 + 0.8 * math.sqrt(part)
