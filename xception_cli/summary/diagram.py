"""draw_diagram: the block diagram of a counted network, as in the paper, with its figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from xception_cli.model.layers import LAYERS, LAYERS_HEAD
from xception_cli.summary.count import FLOWS, Layer, NetworkSummary, Total
from xception_cli.summary.drawing import Drawing
from xception_cli.summary.table import Step, describe_layer, fold_steps, millions

# In pixels. A flow is a column: skip connections in the gutter, layers in boxes to the right.
_MARGIN, _GUTTER, _BOX, _PAD = 28, 92, 232, 12
_COLUMN = _GUTTER + _BOX + _PAD
_PITCH = _COLUMN + 20
_WIDTH = 2 * _MARGIN + 2 * _PITCH + _COLUMN
_TOP = 128
_TALL, _LOW = 44, 26  # boxes with figures, and without
_ARROW, _SHAPE_ARROW, _RADIUS = 12, 30, 9
_STUB, _RELU = 6, 15  # the line to the mark of a ReLU, and the mark


def draw_diagram(summary: NetworkSummary) -> str:
    """Draw the three flows side by side, with the eight blocks of the middle flow as one.

    Returns:
        An SVG document, which can be embedded in an HTML page.
    """
    drawing, total = Drawing(), summary.total
    drawing.text(_MARGIN, 54, "Xception", "ink title")
    subtitle = (
        f"{summary.size} × {summary.size} pixels, {summary.classes} classes: {total.parameters:,} "
        f"parameters, {millions(total.multiplications)} M multiplications; with regular "
        f"convolutions {millions(total.regular)} M, {total.regular / total.multiplications:.1f} "
        "times as many"
    )
    drawing.text(_MARGIN, 80, subtitle, "muted")
    entry, middle, last, head = (
        [step for step in fold_steps(summary.layers) if step.layers[0].flow == flow]
        for flow in FLOWS
    )
    head = head[-1:]  # the head on several layers, if there is one, is the classifier
    columns = []
    shape: tuple[int, ...] = (3, summary.size, summary.size)
    for at, steps in enumerate((entry, middle, [*last, *head])):
        column = _Column(drawing, _MARGIN + at * _PITCH, _TOP)
        column.heading(summary.flows[at])
        shape = column.flow(steps, shape)
        columns.append(column)
    _draw_costs(columns[1], summary)
    _draw_formulas(columns[1])
    _draw_legend(columns[2], summary)
    bottom = max(column.y for column in columns) + _MARGIN
    return drawing.document(_WIDTH, bottom, f"Xception, {subtitle}")


@dataclass
class _Column:
    """A pen that moves down a column; `y` is its position."""

    drawing: Drawing
    x: float
    y: float

    @property
    def _centre(self) -> float:
        return self.x + _GUTTER + _BOX / 2

    def heading(self, flow: Total) -> None:
        """Write a flow's name and figures."""
        state = {None: "", True: ", trained", False: ", frozen"}[flow.trained]
        times = flow.regular / flow.multiplications
        figures = f"{millions(flow.multiplications)} M multiplications (if regular: × {times:.1f})"
        self.drawing.text(self.x, self.y, f"{flow.name.capitalize()}{state}", "ink flow")
        self.drawing.text(self.x, self.y + 20, f"{flow.parameters:,} parameters", "muted")
        self.drawing.text(self.x, self.y + 38, figures, "muted")
        self.y += 66

    def flow(self, steps: Sequence[Step], shape: tuple[int, ...]) -> tuple[int, ...]:
        """Draw steps and the shapes between them; return the last shape."""
        self.drawing.text(self._centre, self.y, _shape(shape), "muted", "middle")
        self.y += 6
        self._arrow()
        for step in steps:
            if step.layers[0].kind == "linear":  # global pooling is a function, not a module
                self._low_box("average pooling")
                self._arrow()
            if len(step.layers) > 1:
                self._block(step)
            else:
                self._layer(step.layers[0])
            shape = next(x.output for x in reversed(step.layers) if not _is_skip(x))
            if step is not steps[-1]:
                self._arrow(_shape(shape))
        self._arrow()
        self.y += 16
        self.drawing.text(self._centre, self.y, _shape(shape), "muted", "middle")
        return shape

    def _arrow(self, label: str = "") -> None:
        length = _SHAPE_ARROW if label else _ARROW
        self.drawing.arrow((self._centre, self.y), (self._centre, self.y + length))
        self.drawing.text(self._centre + 10, self.y + 19, label, "muted small")
        self.y += length

    def _block(self, step: Step) -> None:
        drawing, top = self.drawing, self.y
        chain = [layer for layer in step.layers if not _is_skip(layer)]
        heights = [_LOW if layer.kind == "pooling" else _TALL for layer in chain]
        relus = sum(layer.relu is not None for layer in chain)
        inner = sum(heights) + len(chain) * _ARROW + relus * (_STUB + _RELU) + 2 * _RADIUS
        height = 28 + inner + 10
        for sheet in reversed(range(min(step.count, 3))):  # a stack for repeated blocks
            drawing.box(self.x + 5 * sheet, top + 5 * sheet, _COLUMN, height, "panel")
        name = step.name + (f", {step.count} times" if step.count > 1 else "")
        drawing.text(self.x + _COLUMN - _PAD, top + 18, name, "muted small", "end")

        fork, end, skip = top + 10, top + 28 + inner - _RADIUS, self.x + _GUTTER / 2
        out, back = (self._centre, fork), (self._centre - _RADIUS, end)
        if _is_skip(step.layers[-1]):
            middle = (fork + end) / 2
            self._skip(step.layers[-1], middle)
            drawing.line(out, (skip, fork), (skip, middle - _TALL / 2))
            drawing.arrow((skip, middle + _TALL / 2), (skip, end), back)
        else:
            drawing.arrow(out, (skip, fork), (skip, end), back)
            drawing.text(skip + 8, fork + 14, "identity", "muted small")
        drawing.line((self._centre, top), (self._centre, top + 16))
        self.y = top + 16
        for layer in chain:
            if layer.relu == "before":
                self._relu()
            self._arrow()
            self._layer(layer)
        self._arrow()
        drawing.plus(self._centre, end, _RADIUS)
        drawing.line((self._centre, end + _RADIUS), (self._centre, top + height))
        self.y = top + height

    def _skip(self, layer: Layer, middle: float) -> None:
        x, centre = self.x + 8, self.x + _GUTTER / 2
        self.drawing.box(x, middle - _TALL / 2, _GUTTER - 16, _TALL, _style(layer))
        label = describe_layer(layer).removeprefix("convolution ")
        self.drawing.text(centre, middle - 4, label, "ink", "middle")
        figure = f"{millions(layer.multiplications)} M"
        self.drawing.text(centre, middle + 14, figure, "ink strong", "middle")

    def _layer(self, layer: Layer) -> None:
        self._box(layer)
        if layer.relu == "after":
            self._relu()

    def _relu(self) -> None:
        self.drawing.line((self._centre, self.y), (self._centre, self.y + _STUB))
        self.y += _STUB
        self.drawing.box(self._centre - 22, self.y, 44, _RELU, "relu")
        self.drawing.text(self._centre, self.y + 11.5, "ReLU", "ink small", "middle")
        self.y += _RELU

    def _box(self, layer: Layer) -> None:
        if layer.kind == "pooling":
            self._low_box(describe_layer(layer))
            return
        left, right = self.x + _GUTTER, self.x + _GUTTER + _BOX
        self.drawing.box(left, self.y, _BOX, _TALL, _style(layer))
        label = f"{describe_layer(layer)}, {layer.output[0]}"
        self.drawing.text(left + 10, self.y + 18, label, "ink")
        figure = f"{millions(layer.multiplications)} M"
        self.drawing.text(right - 10, self.y + 18, figure, "ink strong", "end")
        parameters = f"{layer.parameters:,} parameters"
        self.drawing.text(left + 10, self.y + 35, parameters, "muted small")
        if layer.separable:
            regular = f"of {millions(layer.separable.regular)} M"
            self.drawing.text(right - 10, self.y + 35, regular, "muted small", "end")
        self.y += _TALL

    def _low_box(self, label: str) -> None:
        self.drawing.box(self.x + _GUTTER, self.y, _BOX, _LOW, "pooling")
        self.drawing.text(self._centre, self.y + 17, label, "ink", "middle")
        self.y += _LOW


def _is_skip(layer: Layer) -> bool:
    return layer.name.endswith(".skip")


def _style(layer: Layer) -> str:
    return layer.kind + (" frozen" if layer.trained is False else "")


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) if len(shape) > 1 else f"{shape[0]} logits"


def _draw_costs(column: _Column, summary: NetworkSummary) -> None:
    """Draw bars of each flow's multiplications, inside those of regular convolutions."""
    drawing, x, total = column.drawing, column.x, summary.total
    column.y += 84
    drawing.text(x, column.y, "What separable convolutions save", "ink flow")
    column.y += 18
    for cost in (*summary.flows[:3], total):
        column.y += 20
        figures = f"{millions(cost.multiplications)} of {millions(cost.regular)} M"
        drawing.text(x, column.y, cost.name, "ink")
        drawing.text(x + _COLUMN, column.y, figures, "muted", "end")
        column.y += 8
        drawing.box(x, column.y, _COLUMN * cost.regular / total.regular, 14, "convolution")
        part = _COLUMN * cost.multiplications / total.regular
        drawing.box(x, column.y, part, 14, "separable")
        column.y += 20


def _draw_formulas(column: _Column) -> None:
    drawing, x = column.drawing, column.x
    column.y += 44
    drawing.text(x, column.y, "Why", "ink flow")
    column.y += 6
    for part, formula in (
        ("depthwise: K × K within each channel", "K² · C · G²"),
        ("pointwise: 1 × 1 across channels", "C · G² · N"),
        ("regular: both at once", "K² · C · G² · N"),
        ("fraction of multiplications that remains", "1/N + 1/K²"),
    ):
        column.y += 21
        drawing.text(x, column.y, part, "ink")
        drawing.text(x + _COLUMN, column.y, formula, "ink", "end")
    column.y += 23
    meaning = "C channels in, N kernels of K × K, G × G positions out"
    drawing.text(x, column.y, meaning, "muted")


def _draw_legend(column: _Column, summary: NetworkSummary) -> None:
    drawing, x = column.drawing, column.x
    column.y += 60
    drawing.text(x, column.y, "How to read it", "ink flow")
    column.y += 8
    for kind, meaning in (
        ("convolution", "convolution (in a skip: 1×1)"),
        ("separable", "depthwise, then pointwise convolution"),
        ("pooling", "pooling: nothing to learn"),
        ("relu", "ReLU: negative values become 0"),
        ("linear", "the head, one output for each class"),
    ):
        column.y += 22
        drawing.box(x, column.y - 12, 22, 15, kind)
        drawing.text(x + 32, column.y, meaning, "ink")
    layer = next(layer for layer in summary.layers if layer.separable)
    example = f"{millions(layer.multiplications)} M of {millions(layer.regular)} M"
    c, n, k = (getattr(layer.separable, name) for name in ("channels", "kernels", "kernel"))
    notes = [
        "3×3, 728: kernels of 3×3, 728 of them; /2: stride 2.",
        f"{example}: million multiplications for one",
        "image, and those of a regular convolution instead.",
        "Not drawn: batch norm after each convolution.",
        "Parameters include it, with 2 per channel:",
        f"{c} · {k * k} + {c} · {n} + 2 · {n} = {layer.parameters:,} (block1).",
    ]
    if summary.layers[-1].name == LAYERS_HEAD:
        *others, last = LAYERS
        notes += [f"The head sees {', '.join(others)} and", f"{last}, each pooled."]
    if summary.unfreeze:
        notes.append("A broken outline: frozen in this run.")
    column.y += 10
    for note in notes:
        column.y += 19
        drawing.text(x, column.y, note, "muted")
