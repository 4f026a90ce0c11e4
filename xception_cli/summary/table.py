"""Two tables of a counted network: its layers, and the costs of its flows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from xception_cli.console import new_table
from xception_cli.summary.count import Layer, NetworkSummary, step_of


@dataclass(frozen=True)
class Step:
    """A step of the network, or several equal steps in a row.

    Attributes:
        name: For example `block3`, or `block4-11` for eight blocks.
        count: Number of steps.
        layers: Layers of each step; they are named `block4-11.rep.1`.
    """

    name: str
    count: int
    layers: tuple[Layer, ...]


def fold_steps(layers: Sequence[Layer]) -> list[Step]:
    """Join equal steps, as the paper does with the eight blocks of the middle flow."""
    steps = [(name, list(group)) for name, group in groupby(layers, lambda x: step_of(x.name))]
    folded = []
    for _, alike in groupby(steps, lambda step: [replace(x, name="") for x in step[1]]):
        (name, group), *others = alike
        if others:
            name += "-" + others[-1][0].removeprefix("block")
            group = [replace(x, name=f"{name}.{x.name.partition('.')[2]}") for x in group]
        folded.append(Step(name, 1 + len(others), tuple(group)))
    return folded


def describe_layer(layer: Layer) -> str:
    """Describe a layer: `separable 3×3`, `max pooling 3×3 /2` (every second position)."""
    if layer.kind == "linear":
        return "linear"
    kind = {"pooling": "max pooling"}.get(layer.kind, layer.kind)
    stride = f" /{layer.stride}" if layer.stride > 1 else ""
    return f"{kind} {layer.kernel}×{layer.kernel}{stride}"


def millions(count: int) -> str:
    """Format a count in millions, with as many decimals as are useful."""
    decimals = 3 if count < 100_000 else 1 if count < 999_950_000 else 0
    return f"{count / 1e6:,.{decimals}f}"


# Explains the figures on the commands and pages that show them.
COUNTED = (
    "multiplications of the convolutions and the last layer, for one image: half of PyTorch's "
    "FLOPs; batch norm, ReLU, pooling and sums are not counted. A layer's parameters include those "
    "of the batch norm after it, 2 per channel"
)

_ROOMY = 100  # columns needed to describe each layer
_STATES = {None: "", True: "trained", False: "frozen"}


class LayerTable:
    """The layers by flow, and the cost and savings of each separable convolution."""

    def __init__(self, summary: NetworkSummary) -> None:
        self._title = (
            f"Xception, {summary.size} × {summary.size} pixels, {summary.classes} classes; "
            "multiplications in millions"
        )
        self._steps = fold_steps(summary.layers)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table that fits the width of the screen."""
        yield self._table(roomy=options.max_width >= _ROOMY)

    def _table(self, *, roomy: bool) -> Table:
        what = ("what",) if roomy else ()
        numbers = (">parameters", ">depth-\nwise", ">point-\nwise", ">sum", ">regular")
        table = new_table(
            "layer", *what, ">output", *numbers, ">1/N +\n1/K²", title=f"{self._title}\n"
        )
        flow = None
        for step in self._steps:
            if step.layers[0].flow != flow:
                if flow is not None:
                    table.add_row()
                flow, trained = step.layers[0].flow, step.layers[0].trained
                table.add_row(flow, *[""] * len(what), _STATES[trained], style="bold")
            for layer in step.layers:
                pooling = not roomy and layer.kind == "pooling"
                name = f"{step.name} pooling" if pooling else layer.name
                what = (describe_layer(layer),) if roomy else ()
                table.add_row(name, *what, *_figures(layer))
        return table


def _figures(layer: Layer) -> list[str]:
    parts = layer.separable
    return [
        "×".join(map(str, layer.output)),
        f"{layer.parameters:,}" if layer.parameters else "",
        millions(parts.depthwise) if parts else "",
        millions(parts.pointwise) if parts else "",
        millions(layer.multiplications) if layer.multiplications else "",
        millions(parts.regular) if parts else "",
        f"{parts.reduction:.4f}" if parts else "",
    ]


def total_table(summary: NetworkSummary) -> Table:
    """Return the table of the flows: their cost, and that of regular convolutions."""
    state = ("",) if summary.unfreeze else ()
    numbers = (">parameters", ">multiplications", ">of all", ">if regular", ">times\nas many")
    table = new_table("flow", *state, *numbers)
    for total in (*summary.flows, summary.total):
        state = (_STATES[total.trained],) if summary.unfreeze else ()
        table.add_row(
            total.name,
            *state,
            f"{total.parameters:,}",
            f"{millions(total.multiplications)} M",
            f"{total.multiplications / summary.total.multiplications:.1%}",
            f"{millions(total.regular)} M",
            f"{total.regular / total.multiplications:.2f}",
        )
    return table
