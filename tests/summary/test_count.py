"""The summary: every figure equals PyTorch's own count or a calculation by hand."""

import json
import re
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from documented import check_documented
from images import SMALL
from networks import lively_network, noise
from pretrainedmodels.models.xception import SeparableConv2d as PublishedSeparableConv2d
from rich.console import Console
from runs import write_info
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from xception_cli.cli import main
from xception_cli.config import TrainConfig
from xception_cli.model.layers import POOLED, add_layers_head
from xception_cli.model.network import FIRST_TRAINED, STEPS, Segment, build_network, cut
from xception_cli.rundir import RunDir
from xception_cli.summary.count import (
    FLOWS,
    NetworkSummary,
    step_of,
    summarize_network,
    summarize_run,
)
from xception_cli.summary.diagram import draw_diagram
from xception_cli.summary.explanation import compare, explain, group
from xception_cli.summary.table import LayerTable, fold_steps, millions, total_table
from xception_cli.summary.trace import trace
from xception_cli.toml_files import to_toml


@pytest.fixture(scope="module")
def published() -> NetworkSummary:
    """The ImageNet network at its published size."""
    return summarize_network()


def empty_network(classes: int = 1000) -> nn.Module:
    with torch.device("meta"):
        return build_network(classes).eval()


def flops(network: nn.Module, size: int) -> dict[str, int]:
    """Count with PyTorch's own counter, by module; `Global` for the total."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, size, size, device="meta"))
    return {str(name): sum(by.values()) for name, by in counter.get_flop_counts().items()}


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["summary", *arguments])
    return int(ended.value.code or 0)


# Compared with PyTorch


@pytest.mark.parametrize(("classes", "size"), [(1000, 299), (12, 299), (3, SMALL), (5, 331)])
def test_the_multiplications_are_half_of_pytorchs_flops(classes, size):
    expected = flops(empty_network(classes), size)
    found = summarize_network(classes, size=size)
    assert 2 * found.total.multiplications == expected["Global"]
    for layer in found.layers:
        assert 2 * layer.multiplications == expected.get(f"Xception.{layer.name}", 0), layer.name
        if layer.separable:
            parts = f"Xception.{layer.name}.conv1", f"Xception.{layer.name}.pointwise"
            counted = layer.separable.depthwise, layer.separable.pointwise
            assert tuple(2 * count for count in counted) == tuple(expected[p] for p in parts)


def test_the_published_network_has_the_published_figures(published):
    assert published.total.parameters == 22_855_952  # 22.9 M in Keras's documentation
    assert 2 * published.total.multiplications == 16_714_806_992
    assert sum(layer.separable is not None for layer in published.layers) == 34
    convolutions = [x for x in published.layers if x.kind in {"convolution", "separable"}]
    skips = [x for x in convolutions if x.name.endswith(".skip")]
    assert len(convolutions) - len(skips) == 36  # "36 convolutional layers", section 3 of the paper


def test_the_cost_with_regular_convolutions_is_that_of_such_a_network(published):
    network, layers = empty_network(), []
    for name, part in list(network.named_modules()):
        if isinstance(part, PublishedSeparableConv2d):
            layers.append(name)
            with torch.device("meta"):
                regular = nn.Conv2d(
                    part.conv1.in_channels, part.pointwise.out_channels, 3, padding=1, bias=False
                )
            if len(layers) == 34:  # the control: one is still separable
                assert 2 * published.total.regular != flops(network, 299)["Global"]
            network.set_submodule(name, regular)
    expected = flops(network, 299)
    assert 2 * published.total.regular == expected["Global"]
    for layer in published.layers:
        assert 2 * layer.regular == expected.get(f"Xception.{layer.name}", 0), layer.name


@pytest.mark.parametrize("classes", [3, 1000])
def test_every_parameter_of_the_network_is_counted_once(classes):
    network = empty_network(classes)
    summary = summarize_network(classes, size=SMALL)
    assert summary.total.parameters == sum(p.numel() for p in network.parameters())
    for step in STEPS:
        names = {"head": ("last_linear",)}.get(step, (step, step.replace("conv", "bn")))
        expected = sum(
            p.numel() for name, p in network.named_parameters() if name.split(".")[0] in names
        )
        found = sum(x.parameters for x in summary.layers if step_of(x.name) == step)
        assert found == expected, step


@torch.no_grad()
def test_the_shapes_are_those_of_a_real_pass():
    activations, network = noise(1, seed=1), lively_network()
    summary = summarize_network(3, size=SMALL)
    for step in STEPS:
        activations = Segment(network, step, step).eval()(activations)
        layers = [x for x in summary.layers if step_of(x.name) == step]
        last = [x for x in layers if x.kind == "pooling"] or layers[-1:]
        assert last[0].output == tuple(activations.shape[1:]), step


@pytest.mark.parametrize("unfreeze", FIRST_TRAINED)
def test_the_frozen_layers_are_those_that_training_freezes(unfreeze):
    network = empty_network(3)
    cut(network, unfreeze)
    summary = summarize_network(3, size=SMALL, unfreeze=unfreeze)
    for layer in summary.layers:
        if layer.parameters:
            trained = {p.requires_grad for p in network.get_submodule(layer.name).parameters()}
            assert trained == {layer.trained}, layer.name
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert sum(flow.parameters for flow in summary.flows if flow.trained) == trained


def test_tracing_leaves_no_hook_behind():
    network = empty_network(3)
    before = {name: len(part._forward_hooks) for name, part in network.named_modules()}
    assert len(trace(network, (3, SMALL, SMALL), (nn.Conv2d,))) == 2 + 2 * 34 + 4
    assert {name: len(p._forward_hooks) for name, p in network.named_modules()} == before


# Calculations by hand


def test_the_cost_of_a_layer_of_the_middle_flow_equals_a_calculation_by_hand(published):
    layer = next(x for x in published.layers if x.name == "block4.rep.1")
    assert layer.output == (728, 19, 19)
    parts = layer.separable
    assert (parts.channels, parts.kernels, parts.kernel, parts.side) == (728, 728, 3, 19)
    assert parts.depthwise == 728 * 9 * 361 == 2_365_272
    assert parts.pointwise == 728 * 728 * 361 == 191_324_224
    assert parts.regular == 9 * 728 * 361 * 728 == 1_721_918_016
    assert layer.multiplications == 193_689_496
    assert layer.parameters == 728 * 9 + 728 * 728 + 2 * 728 == 537_992
    assert parts.reduction == pytest.approx(1 / 728 + 1 / 9, rel=1e-12)


def test_every_separable_convolution_follows_the_formulas(published):
    shapes = {x.name: x.output for x in published.layers}
    before = {"block1.rep.0": "conv2", "block12.rep.4": "block12.rep.1", "conv3": "block12.rep.6"}
    for name, previous in before.items():
        layer = next(x for x in published.layers if x.name == name)
        assert layer.separable.channels == shapes[previous][0]
    for layer in filter(lambda x: x.separable, published.layers):
        s = layer.separable
        c, n, k, g = s.channels, s.kernels, s.kernel, s.side
        assert (n, g, g) == layer.output
        assert s.depthwise == c * k**2 * g**2
        assert s.pointwise == n * c * g**2
        assert s.regular == k**2 * c * g**2 * n
        assert s.reduction == pytest.approx(1 / n + 1 / k**2, rel=1e-12)
        assert s.reduction != pytest.approx(1 / c + 1 / k**2, rel=1e-12) or c == n


def test_the_flows_add_up_to_the_network_and_begin_as_in_the_paper(published):
    first = {}
    for layer in published.layers:
        first.setdefault(layer.flow, layer.name)
    assert first == {
        "entry flow": "conv1",
        "middle flow": "block4.rep.1",
        "exit flow": "block12.rep.1",
        "head": "last_linear",
    }
    for what in ("parameters", "multiplications", "regular"):
        found = sum(getattr(flow, what) for flow in published.flows)
        assert found == getattr(published.total, what)
    assert [flow.name for flow in published.flows] == list(FLOWS)


def test_the_eight_middle_blocks_are_drawn_as_one(published):
    steps = {step.name: step.count for step in fold_steps(published.layers)}
    assert steps == {
        "conv1": 1,
        "conv2": 1,
        "block1": 1,
        "block2": 1,
        "block3": 1,
        "block4-11": 8,
        "block12": 1,
        "conv3": 1,
        "conv4": 1,
        "head": 1,
    }


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.000"),
        (24_576, "0.025"),
        (99_999, "0.100"),
        (100_000, "0.1"),
        (19_181_664, "19.2"),
        (999_949_999, "999.9"),
        (999_950_000, "1,000"),
        (68_818_023_936, "68,818"),
    ],
)
def test_millions_have_as_many_decimals_as_are_useful(count, text):
    assert millions(count) == text


# The explanation

TIMES = [
    "7.02",
    "7.35",
    "7.58",
    "7.75",
    "7.89",
    "8.00",
    "8.09",
    "8.16",
    "8.23",
    "8.28",
    "8.41",
    "8.69",
    "8.89",
]


def test_the_notebooks_table_is_computed_from_real_modules():
    costs = explain().costs
    assert [cost.kernels for cost in costs] == [*range(32, 112, 8), 128, 256, 728]
    assert [f"{cost.times:.2f}" for cost in costs] == TIMES
    for cost in costs:
        assert cost.times == pytest.approx(1 / (1 / cost.kernels + 1 / 9), rel=1e-12)
    # By hand, for N = 32, C = 25, G = 28
    assert costs[0].separable == 25 * 28**2 * (9 + 32) == 803_600
    assert costs[0].regular == 9 * 25 * 28**2 * 32 == 5_644_800


def test_the_ratio_depends_only_on_the_number_of_kernels():
    reference = compare(40).times
    assert {compare(40, channels=c, side=g).times for c, g in ((1, 28), (64, 5))} == {reference}
    assert compare(41).times != reference


def test_groups_change_the_weight_and_not_the_output_shape():
    groupings = explain().groupings
    assert [(g.groups, g.weight, g.output, g.multiplications) for g in groupings] == [
        (1, (50, 25, 3, 3), (1, 50, 28, 28), 8_820_000),  # 50 * 25 * 9 * 784
        (5, (50, 5, 3, 3), (1, 50, 28, 28), 1_764_000),
        (25, (50, 1, 3, 3), (1, 50, 28, 28), 352_800),
    ]
    with pytest.raises(ValueError, match="divisible by groups"):
        group(4)


EXPLANATION = """\
A convolution looks for patterns in space and across channels at once. N kernels
of K × K over C channels, at G × G positions, multiply this many times:

    regular      K² · C · G² · N

A depthwise separable convolution does this in two steps: K × K within each
channel, then 1 × 1 across the channels.

    depthwise    K² · C · G²
    pointwise    C · G² · N
    together     C · G² · (K² + N)

The fraction of the regular convolution's multiplications that remains:

    C · G² · (K² + N)     1     1
    ─────────────────  =  ─  +  ──
     K² · C · G² · N      N     K²

With more kernels, it approaches 1/K², a ninth for 3 × 3.

An Inception block taken to the extreme differs in two things: 1 × 1 comes
first, and a ReLU follows each step. Between depthwise and pointwise there is
none: Xception trains better without it (Chollet 2017, section 4.7).

Xception's block4.rep.1, where C is 728, N 728, K 3 and G 19:

    depthwise      2,365,272
    pointwise    191,324,224
    together     193,689,496
    regular    1,721,918,016
    left            0.112485  = 1/728 + 1/9

The regular convolution takes 8.89 times as many.

How many times as many multiplications a regular convolution takes, with N
kernels of 3 × 3 (counted on 25 channels of 28 × 28; C and G cancel out):

  N   separable      regular  times
 32     803,600    5,644,800   7.02
 40     960,400    7,056,000   7.35
 48   1,117,200    8,467,200   7.58
 56   1,274,000    9,878,400   7.75
 64   1,430,800   11,289,600   7.89
 72   1,587,600   12,700,800   8.00
 80   1,744,400   14,112,000   8.09
 88   1,901,200   15,523,200   8.16
 96   2,058,000   16,934,400   8.23
104   2,214,800   18,345,600   8.28
128   2,685,200   22,579,200   8.41
256   5,194,000   45,158,400   8.69
728  14,445,200  128,419,200   8.89

`groups` = g splits the channels, and each group is convolved by itself, with
its share of the kernels: weights and multiplications shrink to 1/g. C and N
must be divisible by g. 25 channels in, 50 out, 3 × 3, on 28 × 28:

groups           weight            output  multiplications
     1  50 × 25 × 3 × 3  1 × 50 × 28 × 28        8,820,000
     5   50 × 5 × 3 × 3  1 × 50 × 28 × 28        1,764,000
    25   50 × 1 × 3 × 3  1 × 50 × 28 × 28          352,800

With as many groups as channels, this is the depthwise part, here with two
kernels per channel.

L. Sifre, Rigid-Motion Scattering for Image Classification, PhD thesis, 2014
F. Chollet, Xception: Deep Learning with Depthwise Separable Convolutions,
arxiv.org/abs/1610.02357, 2016; CVPR 2017
"""


def test_the_explanation_is_this_text(capsys):
    assert call("--explain") == 0
    shown = capsys.readouterr()
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert lines == EXPLANATION.splitlines()
    assert max(map(len, lines)) <= 80
    assert shown.err == "next: xception summary --svg xception.svg\n"


def test_the_figures_of_the_explanation_are_available_as_json(capsys):
    assert call("--explain", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = json.loads(line)
    check_documented("summary --explain", figures)
    assert [f"{cost['times']:.2f}" for cost in figures["costs"]] == TIMES
    assert figures["groupings"][1]["weight"] == [50, 5, 3, 3]


# The tables

LAYERS = """\
Xception, 299 × 299 pixels, 12 classes; multiplications in millions

                                          depth-  point-                   1/N +
layer                 output  parameters    wise    wise    sum  regular    1/K²
entry flow            frozen
conv1             32×149×149         928                   19.2
conv2             64×147×147      18,560                  398.3
block1.rep.0     128×147×147       9,024    12.4   177.0  189.5    1,593  0.1189
block1.rep.3     128×147×147      17,792    24.9   354.0  378.9    3,186  0.1189
block1 pooling     128×74×74
block1.skip        128×74×74       8,448                   44.9
block2.rep.1       256×74×74      34,432     6.3   179.4  185.7    1,615  0.1150
block2.rep.4       256×74×74      68,352    12.6   358.9  371.5    3,230  0.1150
block2 pooling     256×37×37
block2.skip        256×37×37      33,280                   44.9
block3.rep.1       728×37×37     190,128     3.2   255.1  258.3    2,296  0.1125
block3.rep.4       728×37×37     537,992     9.0   725.5  734.5    6,530  0.1125
block3 pooling     728×19×19
block3.skip        728×19×19     187,824                   67.3

middle flow           frozen
block4-11.rep.1    728×19×19     537,992     2.4   191.3  193.7    1,722  0.1125
block4-11.rep.4    728×19×19     537,992     2.4   191.3  193.7    1,722  0.1125
block4-11.rep.7    728×19×19     537,992     2.4   191.3  193.7    1,722  0.1125

exit flow            trained
block12.rep.1      728×19×19     537,992     2.4   191.3  193.7    1,722  0.1125
block12.rep.4     1024×19×19     754,072     2.4   269.1  271.5    2,422  0.1121
block12 pooling   1024×10×10
block12.skip      1024×10×10     747,520                   74.5
conv3             1536×10×10   1,585,152     0.9   157.3  158.2    1,416  0.1118
conv4             2048×10×10   3,163,648     1.4   314.6  316.0    2,831  0.1116

head                 trained
last_linear               12      24,588                  0.025
"""

TOTALS = """\
                                                                         times
flow                  parameters  multiplications  of all  if regular  as many
entry flow   frozen    1,106,760          2,693 M   32.2%    19,025 M     7.06
middle flow  frozen   12,911,808          4,649 M   55.6%    41,326 M     8.89
exit flow    trained   6,788,384          1,014 M   12.1%     8,465 M     8.35
head         trained      24,588          0.025 M    0.0%     0.025 M     1.00
network               20,831,540          8,355 M  100.0%    68,816 M     8.24
"""


def printed(table: object, width: int) -> list[str]:
    buffer = StringIO()
    Console(file=buffer, width=width, highlight=False, markup=False, emoji=False).print(table)
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


def test_the_tables_of_a_run_at_80_columns():
    summary = summarize_network(12, unfreeze="exit")
    assert printed(LayerTable(summary), 80) == LAYERS.splitlines()
    assert printed(total_table(summary), 80) == TOTALS.splitlines()


def test_at_120_columns_each_layer_is_described_with_the_same_figures(published):
    narrow, wide = (printed(LayerTable(published), width) for width in (80, 120))
    assert max(map(len, wide)) == 100
    assert [line[15:] for line in narrow[2:]] == [line[35:] for line in wide[2:]]
    said = [line[17:35].strip() for line in wide[2:]]
    block = ["separable 3×3", "separable 3×3", "max pooling 3×3 /2", "convolution 1×1 /2"]
    assert [kind for kind in said if kind] == [
        "what",
        "convolution 3×3 /2",
        "convolution 3×3",
        *block * 3,
        *["separable 3×3"] * 3,
        *block,
        *["separable 3×3"] * 2,
        "linear",
    ]
    pooled = {line[:15].rstrip(): of[:15].rstrip() for line, of in zip(narrow, wide, strict=True)}
    assert pooled["block2 pooling"] == "block2.rep.6"
    assert pooled["block2.skip"] == "block2.skip"


def test_piped_it_is_one_row_for_each_layer(capsys, published):
    assert call() == 0
    shown = capsys.readouterr()
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert lines == [
        *printed(LayerTable(published), 200),
        "",
        *printed(total_table(published), 200),
    ]
    assert shown.err.splitlines()[0].startswith("counted   multiplications of the convolutions")
    assert shown.err.splitlines()[-1] == "next: xception summary --explain"


# The command


def write_run(path: Path, **settings: object) -> Path:
    """Write a run's own description."""
    path.mkdir()
    (path / "config.toml").write_text(to_toml(TrainConfig(**settings)))
    write_info(RunDir(path), classes=["a", "b", "c"])
    return path


def test_json_is_one_line_with_every_figure(capsys):
    write_run(Path("run"), unfreeze="exit", image_size=SMALL)
    assert call("run", "--json") == 0
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    expected = summarize_run(RunDir(Path("run")))
    assert json.loads(line) == json.loads(json.dumps(expected.to_dict()))
    assert shown.err.splitlines()[0] == "run       run: unfreeze = exit, kept nothing yet"
    found = json.loads(line)
    check_documented("summary", found)
    assert [flow["trained"] for flow in found["flows"]] == [False, False, True, True]
    first = next(layer for layer in found["layers"] if layer["separable"])
    assert first == {
        "name": "block1.rep.0",
        "flow": "entry flow",
        "kind": "separable",
        "kernel": 3,
        "stride": 1,
        "output": [128, 33, 33],
        "parameters": 9024,
        "multiplications": 9_548_352,  # 64 * 33**2 * (9 + 128)
        "relu": None,  # that of conv2 precedes the block
        "separable": {
            "channels": 64,
            "kernels": 128,
            "kernel": 3,
            "side": 33,
            "depthwise": 627_264,
            "pointwise": 8_921_088,
            "regular": 80_289_792,
            "reduction": 9_548_352 / 80_289_792,
        },
        "trained": False,
    }


def test_a_run_can_be_counted_at_another_size_and_the_kept_model_is_named(capsys):
    write_run(Path("run"), unfreeze="all", image_size=SMALL)
    Path("run/result.json").write_text('{"kept": "the linear probe", "epochs": 1, "seconds": {}}')
    assert call("run", "--size", "299", "--json") == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0] == "run       run: unfreeze = all, kept the linear probe"
    found = json.loads(shown.out)
    assert (found["size"], found["classes"]) == (299, 3)
    head = 3 * POOLED
    assert found["total"]["multiplications"] == summarize_network(3).total.multiplications + head


def test_a_run_from_pretrained_weights_has_a_second_head():
    ours = summarize_run(RunDir(write_run(Path("run"), unfreeze="exit")))
    plain = summarize_run(RunDir(write_run(Path("random"), unfreeze="all", weights="none")))
    assert plain == summarize_network(3, unfreeze="all")
    *others, head = ours.layers
    assert tuple(others) == summarize_network(3, unfreeze="exit").layers
    network = build_network(3)
    real = add_layers_head(network, 3)
    assert head.parameters == sum(parameter.numel() for parameter in real.parameters())
    assert (head.name, head.flow, head.output, head.trained) == ("layers_head", "head", (3,), True)
    assert ours.total.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "the run folder nowhere does not exist"),
        (["run", "--classes", "3"], 2, "--classes is given, but a run has its own"),
        (["auto"], 4, "auto does not record what it trains: unfreeze is auto"),
        (["--classes", "1"], 2, "classes is 1, expected at least 2"),
        (["--image-size", "70"], 2, "--image-size is 70, expected from 71 to 2,048"),
        (["--explain", "--image-size", "299"], 2, "--explain can be combined with --json only"),
        (["--svg", "x.png"], 2, "cannot write the diagram to x.png: it must end in .svg"),
        (["--svg", "old.svg"], 2, "old.svg already exists"),
        (["--svg", "no/x.svg"], 2, "the folder no does not exist"),
    ],
)
def test_a_mistake_is_reported_in_a_sentence(arguments, code, message, capsys):
    write_run(Path("run"), unfreeze="exit")
    write_run(Path("auto"), unfreeze="auto")
    Path("old.svg").write_text("mine")
    assert call(*arguments) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
    assert Path("old.svg").read_text() == "mine"


# The diagram

SVG = "{http://www.w3.org/2000/svg}"


def test_the_command_writes_only_the_diagram(capsys, published):
    assert call("--svg", "x.svg") == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[0] == "written   x.svg: open it in a browser"
    assert Path("x.svg").read_text(encoding="utf-8") == draw_diagram(published)
    assert [path.name for path in Path().iterdir()] == ["x.svg"]


def test_a_relu_is_drawn_where_the_network_has_one(published):
    """As in figure 5 of the paper: before the separable convolutions of a block."""
    assert {x.name for x in published.layers if x.relu == "after"} == {
        "conv1", "conv2", "conv3", "conv4",
    }  # fmt: skip
    without = [x.name for x in published.layers if x.separable and x.relu is None]
    assert without == ["block1.rep.0"]  # after the ReLU of conv2
    chain = [x for step in fold_steps(published.layers) for x in step.layers if x.relu]
    boxes = [node.get("class") for node in ElementTree.fromstring(draw_diagram(published)).iter()]
    assert boxes.count("relu") == len(chain) + 1  # and the legend


def test_the_diagram_is_self_contained_with_light_and_dark_colours(published):
    image = draw_diagram(published)
    root = ElementTree.fromstring(image)  # well-formed
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    assert image.count("http") == 1  # the name space
    assert "prefers-color-scheme:dark" in image
    assert not re.search(r"<(script|image|use|foreignObject)|href|url\(|@import| id=", image)
    rules = re.findall(r"([^{}]+)\{[^{}]*\}", root.find(f"{SVG}style").text)
    assert all(
        rule.startswith(".xception ") for rule in rules
    )  # the rest of a page is not affected
    styles = {name for node in root.iter() for name in node.get("class", "").split()}
    known = set(re.findall(r"\.xception \.(\w+)", image)) | {"xception"}
    assert styles <= known


@pytest.mark.parametrize(("size", "unfreeze"), [(299, None), (SMALL, "exit")])
def test_the_diagram_has_every_layer_with_its_figures(size, unfreeze):
    summary = summarize_network(7, size=size, unfreeze=unfreeze)
    root = ElementTree.fromstring(draw_diagram(summary))
    texts = [node.text for node in root.iter(f"{SVG}text")]
    layers = [layer for step in fold_steps(summary.layers) for layer in step.layers]
    for layer in layers:
        if layer.multiplications:
            assert f"{millions(layer.multiplications)} M" in texts
        if layer.separable:
            assert f"of {millions(layer.separable.regular)} M" in texts
    for flow in summary.flows[:3]:
        assert f"{flow.parameters:,} parameters" in texts
    boxes = [node.get("class") for node in root.iter(f"{SVG}rect")]
    frozen = sum(layer.trained is False and bool(layer.parameters) for layer in layers)
    assert sum("frozen" in style for style in boxes) == frozen
    kinds = [layer.kind for layer in layers]
    # and one of each in the legend; bars for three flows and the network; average pooling
    for kind, more in {"convolution": 5, "separable": 5, "pooling": 2, "linear": 1}.items():
        assert sum(kind in style.split() for style in boxes) == kinds.count(kind) + more
    assert sum("panel" in style for style in boxes) == 4 + 1 + 2  # the middle block is a stack
    assert len(list(root.iter(f"{SVG}circle"))) == 2 * 5  # fill and line of each plus sign


def test_nothing_is_drawn_outside_the_sheet(published):
    root = ElementTree.fromstring(draw_diagram(published))
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for node in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(node.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
    for node in root.iter(f"{SVG}text"):
        assert 0 < float(node.attrib["y"]) < height
