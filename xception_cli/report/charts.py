"""Charts of the report as inline SVG, in the page's own colours; hovering tells the figures."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from xception_cli.console import show

_INK = "#010203"  # becomes the page's own text colour
_BLUE, _ORANGE = "#3b82c4", "#d9773a"
_CELL = 14  # of the confusion matrix, in SVG units
_LONGEST = 18  # characters of a name beside the matrix
_NAMED = 60  # classes up to which all names are written
STRONG = 0.91  # opacity of a cell from which its number is white on light paper

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xception",
    "font.family": "sans-serif",
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), _INK
    ),
}


def draw_curves(rows: Sequence[Mapping[str, Any]], best: int) -> str:
    """Draw loss, accuracy and learning rate by epoch.

    Args:
        rows: Of metrics.jsonl.
        best: The epoch that was kept; 0 or less for none.
    """
    epochs = [row["epoch"] for row in rows]
    with rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        loss, accuracy, rate = figure.subplots(1, 3)
        loss.plot(epochs, [row["train_loss"] for row in rows], color=_ORANGE, label="train")
        loss.plot(epochs, [row["val_loss"] for row in rows], color=_BLUE, label="val")
        loss.legend(frameon=False)
        accuracy.plot(epochs, [row["accuracy"] for row in rows], color=_BLUE)
        accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        rate.plot(epochs, [row["lr"] for row in rows], color=_BLUE)
        titles = ("loss", "accuracy on val", "learning rate")
        for axes, title in zip((loss, accuracy, rate), titles, strict=True):
            _finish(axes, title, best)
        return _svg(figure, f"Loss, accuracy and learning rate over {len(rows)} epochs")


def _finish(axes: Axes, title: str, best: int) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.patch.set_alpha(0)
    if best > 0:
        axes.axvline(best, color=_INK, linewidth=0.8, linestyle=":")


def _svg(figure: Figure, description: str) -> str:
    figure.patch.set_alpha(0)
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    return text.replace(
        "<svg", f'<svg role="img" aria-label="{escape(description)}" class=chart', 1
    )


def confusion_order(confusion: NDArray[np.int64]) -> list[int]:
    """Order classes so that those that are taken for each other stand together.

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


def draw_matrix(
    confusion: NDArray[np.int64], names: Sequence[str], order: Sequence[int], title: str
) -> str:
    """Draw a confusion matrix whose cells tell their count when they are hovered.

    Args:
        confusion: Counts by true class (row) and predicted class (column).
        names: Of the classes.
        order: Of the classes in the picture.
        title: Describes it to those who cannot see it.
    """
    side, named = _CELL * len(order), len(order) <= _NAMED
    # About 5.4 units a letter at most at the size that the page gives them.
    margin = 10 + 5.6 * max(len(_cut(name)) for name in names) if named else 4
    totals = np.maximum(confusion.sum(axis=1), 1)
    parts = [
        f'<rect x="{margin:.1f}" y="{margin:.1f}" width="{side}" height="{side}" class=ground />'
    ]
    for row, true in enumerate(order):
        for column, predicted in enumerate(order):
            n = int(confusion[true, predicted])
            if n:
                parts.append(
                    _cell((margin, row, column), n, n / totals[true], names[true], names[predicted])
                )
    if named:
        for place, label in enumerate(order):
            at, name = margin + _CELL * (place + 0.72), escape(_cut(names[label]))
            parts.append(f'<text x="{margin - 5:.1f}" y="{at:.1f}" text-anchor="end">{name}</text>')
            parts.append(
                f'<text transform="translate({at:.1f} {margin - 5:.1f}) rotate(-90)">{name}</text>'
            )
    size = margin + side + 4
    return (
        f'<svg role="img" aria-label="{escape(title)}" class=matrix '
        f'viewBox="0 0 {size:.1f} {size:.1f}" style="max-width:{min(66.0, size / 9):.0f}rem">'
        f"{''.join(parts)}</svg>\n"
    )


def opacity(part: float) -> float:
    """Return how deep a cell's colour is; the root makes a few among many visible."""
    return 0.2 + 0.8 * math.sqrt(part)


def _cell(place: tuple[float, int, int], n: int, part: float, true: str, predicted: str) -> str:
    margin, row, column = place
    kind, what = "right", f"{show(true)}: {n} recognised"
    if row != column:
        kind, what = "wrong", f"{show(true)}: {n} taken for {show(predicted)}"
    x, y = margin + _CELL * column, margin + _CELL * row
    depth = opacity(part)
    strong = " strong" if row == column and depth >= STRONG else ""
    number = (
        f'<text x="{x + _CELL / 2:.1f}" y="{y + 10:.1f}" text-anchor="middle" '
        f'class="count{strong}">{n}</text>'
        if n < 1000
        else ""
    )
    return (
        f'<g><rect x="{x:.1f}" y="{y:.1f}" width="{_CELL}" height="{_CELL}" class={kind} '
        f'fill-opacity="{depth:.2f}"><title>{escape(what)} ({part:.1%})</title>'
        f"</rect>{number}</g>"
    )


def _cut(name: str) -> str:
    shown = show(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def read_rows(text: str) -> list[dict[str, Any]]:
    """Read the rows of metrics.jsonl."""
    return [json.loads(line) for line in text.splitlines()]
