"""What the table and the diagram of a counted network share: steps folded, words and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from xception_cli.model.summary import Layer, step_of


@dataclass(frozen=True)
class Step:
    """A step of the network, standing for those behind it that are just like it.

    Attributes:
        name: `block3`; `block4-11` if it stands for eight.
        count: How many it stands for.
        layers: Of each; they are named `block4-11.rep.1`.
    """

    name: str
    count: int
    layers: tuple[Layer, ...]


def fold_steps(layers: Sequence[Layer]) -> list[Step]:
    """Draw what repeats once, as the paper does with the eight blocks of the middle flow."""
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
    """Say what a layer is: `separable 3×3`, `max pooling 3×3 /2` (every second position)."""
    if layer.kind == "linear":
        return "linear"
    kind = {"pooling": "max pooling"}.get(layer.kind, layer.kind)
    stride = f" /{layer.stride}" if layer.stride > 1 else ""
    return f"{kind} {layer.kernel}×{layer.kernel}{stride}"


def millions(count: int) -> str:
    """Write a count in millions, with as many decimals as say something."""
    decimals = 3 if count < 100_000 else 1 if count < 999_950_000 else 0
    return f"{count / 1e6:,.{decimals}f}"
