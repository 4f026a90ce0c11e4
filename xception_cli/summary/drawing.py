"""Drawing: shapes and text as one SVG document, in light and dark colours."""

from xml.sax.saxutils import escape

# Fill and stroke of each class of shapes; `ink` and `muted` are text. Light, then dark.
COLOURS = {
    "paper": (("#ffffff", "#d5dae1"), ("#14171c", "#30363f")),
    "panel": (("#f5f6f8", "#dde1e7"), ("#1c2027", "#323944")),
    "convolution": (("#ffe9cf", "#d9822b"), ("#4a3317", "#dc964a")),
    "separable": (("#dcebfd", "#3f7fd1"), ("#18324f", "#659fe6")),
    "pooling": (("#e6e9ee", "#98a1ad"), ("#2a2f38", "#7c8694")),
    "relu": (("#f6e3f1", "#b3619d"), ("#43203a", "#cf86bb")),
    "linear": (("#e0f2e1", "#4d9a55"), ("#1d3a22", "#6cb874")),
    "line": (("none", "#7a8391"), ("none", "#8b95a3")),
    "tip": (("#7a8391", "none"), ("#8b95a3", "none")),
    "ink": (("#1d232c", "none"), ("#e9ecf0", "none")),
    "muted": (("#5d6673", "none"), ("#a4adb9", "none")),
}

_FORMS = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}"
    ".title{font-size:30px;font-weight:600}.flow{font-size:17px;font-weight:600}"
    ".strong{font-weight:600}.small{font-size:11px}"
    ".line{stroke-width:1.3}.frozen{stroke-dasharray:4 3;fill-opacity:0.5}"
)


class Drawing:
    """SVG elements, in the order in which they are drawn; sizes are in pixels."""

    def __init__(self) -> None:
        self._elements: list[str] = []

    def text(self, x: float, y: float, text: str, style: str, anchor: str = "start") -> None:
        """Write text; `anchor` is the part of it at x: start, middle or end."""
        place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
        self._elements.append(f'<text {place} class="{style}">{escape(text)}</text>')

    def box(
        self, x: float, y: float, width: float, height: float, style: str, corner: float = 5
    ) -> None:
        """Draw a box with round corners of radius `corner`."""
        self._elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner:g}" '
            f'class="{style}"/>'
        )

    def line(self, *points: tuple[float, float]) -> None:
        """Draw a line through points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._elements.append(f'<polyline points="{path}" class="line"/>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw a line with an arrowhead at its last point, pointing down or to the right."""
        (_, before), (x, y) = points[-2:]
        tip = f"{x - 4:g},{y - 7:g} {x + 4:g},{y - 7:g}"
        if y == before:
            tip = f"{x - 7:g},{y - 4:g} {x - 7:g},{y + 4:g}"
        self.line(*points)
        self._elements.append(f'<polygon points="{x:g},{y:g} {tip}" class="tip"/>')

    def plus(self, x: float, y: float, radius: float) -> None:
        """Draw a plus sign, for the sum of two branches."""
        self._elements.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="paper"/>')
        self._elements.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="line"/>')
        self.line((x - 5, y), (x + 5, y))
        self.line((x, y - 5), (x, y + 5))

    def document(self, width: float, height: float, title: str) -> str:
        """Return the SVG: all elements on a background."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
                f'width="{width:g}" height="{height:g}" class="xception" role="img">',
                f"<title>{escape(title)}</title>",
                f"<style>{_svg_style()}</style>",
                f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="12" '
                'class="paper"/>',
                *self._elements,
                "</svg>\n",
            ]
        )


def _svg_style() -> str:
    # Plain rules, because cairosvg and older viewers do not support variables.
    light, dark = (
        "".join(
            f".{name}{{fill:{colours[at][0]};stroke:{colours[at][1]}}}"
            for name, colours in COLOURS.items()
        )
        for at in (0, 1)
    )
    rules = _scoped(_FORMS + light)
    return f"{rules}@media(prefers-color-scheme:dark){{{_scoped(dark)}}}"


def _scoped(rules: str) -> str:
    """Limit rules to the drawing, which may be embedded in an HTML page."""
    return "".join(f".xception {rule}}}" for rule in rules.split("}") if rule)
