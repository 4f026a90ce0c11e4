"""A counted network as two tables: its layers, and what its flows cost."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from xception_cli.console import new_table
from xception_cli.model.showing import describe_layer, fold_steps, millions
from xception_cli.model.summary import Layer, NetworkSummary

# What the figures are, for whoever shows them.
COUNTED = (
    "multiplications of the convolutions and the last layer, for one picture: half of PyTorch's "
    "FLOPs; batch norm, ReLU, pooling and sums are not in them. A layer's parameters include those "
    "of the batch norm behind it"
)

_ROOMY = 100  # columns from which there is room to say what each layer is
_STATES = {None: "", True: "trained", False: "frozen"}


class LayerTable:
    """The layers by flow, with what each separable convolution costs and saves."""

    def __init__(self, summary: NetworkSummary) -> None:
        self._title = (
            f"Xception, {summary.size} × {summary.size} pixels, {summary.classes} classes; "
            "multiplications in millions"
        )
        self._steps = fold_steps(summary.layers)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table that fits the screen."""
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
    """Make the table of the flows: their cost, and that of regular convolutions instead."""
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
