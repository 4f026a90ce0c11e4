"""The drawings of docs/network.md: `python tests/drawings.py` writes them.

xception.svg is what `xception summary --svg` draws; groups.svg shows what `groups` connects.
"""

from pathlib import Path

from xception_cli.summary.count import summarize_network
from xception_cli.summary.diagram import draw_diagram
from xception_cli.summary.drawing import Drawing
from xception_cli.summary.explanation import Grouping, explain

DOCS = Path(__file__).parent.parent / "docs"
_SIDE, _PITCH, _MARGIN, _TOP = 124, 148, 22, 68  # of the squares, in pixels


def draw_groups(groupings: tuple[Grouping, ...]) -> str:
    """Draw which channels each kernel sees: a column for each channel, a row for each kernel."""
    drawing = Drawing()
    kernels, channels = groupings[0].weight[:2]
    drawing.text(_MARGIN, _TOP - 11, f"{channels} channels →, {kernels} kernels ↓", "muted small")
    for at, grouping in enumerate(groupings):
        x, seen, side = _MARGIN + at * _PITCH, grouping.weight[1], _SIDE / grouping.groups
        drawing.text(x, 34, f"groups={grouping.groups}", "ink strong")
        drawing.box(x, _TOP, _SIDE, _SIDE, "panel", corner=1)
        for group in range(grouping.groups):
            place = group * side
            drawing.box(x + place, _TOP + place, side, side, "separable", corner=1)
        drawing.text(x, _TOP + _SIDE + 22, f"{kernels * seen * 9:,} weights", "ink")
        sees = f"{seen} channel{'s' if seen > 1 else ''} per kernel"
        drawing.text(x, _TOP + _SIDE + 40, sees, "muted small")
    width = 2 * _MARGIN + (len(groupings) - 1) * _PITCH + _SIDE
    return drawing.document(width, _TOP + _SIDE + 58, "What groups connects")


def drawings() -> dict[Path, str]:
    """Return each drawing by its file."""
    return {
        DOCS / "xception.svg": draw_diagram(summarize_network()),
        DOCS / "groups.svg": draw_groups(explain().groupings),
    }


if __name__ == "__main__":
    for file, drawing in drawings().items():
        file.write_text(drawing, encoding="utf-8")
