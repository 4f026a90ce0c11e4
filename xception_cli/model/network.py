"""The network: pretrainedmodels' Xception with a new head, and its cut into two parts."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from xception_cli.model.convolutions import convolve, pass_block
from xception_cli.model.reference import xception
from xception_cli.seeds import seed_everything

FEATURES = 2048  # channels of the last layer, which `last_linear` sees

# The steps of the forward pass, in order; the network can be cut between them.
STEPS = ("conv1", "conv2", *(f"block{n}" for n in range(1, 13)), "conv3", "conv4", "head")

# Names of the modules of a step: a convolution with its batch norm, or a block.
_MODULES = {"head": ("last_linear",)} | {
    step: (step, step.replace("conv", "bn")) if step.startswith("conv") else (step,)
    for step in STEPS[:-1]
}

# The first step that is trained. The cuts are the borders of the paper's flows.
FIRST_TRAINED = {"all": "conv1", "middle": "block4", "exit": "block12", "head": "head"}


def last_frozen(unfreeze: str) -> str:
    """Return the step before the first one that is trained.

    Args:
        unfreeze: `head`, `exit` or `middle`.
    """
    return STEPS[STEPS.index(FIRST_TRAINED[unfreeze]) - 1]


def build_network(class_count: int) -> nn.Module:
    """Build pretrainedmodels' Xception, unmodified, with a head for this many classes.

    The weights are random; 299 x 299 is the published input size, 71 x 71 the smallest.

    Args:
        class_count: Outputs of the new `last_linear`.
    """
    network: nn.Module = xception(num_classes=1000, pretrained=None)
    network.last_linear = nn.Linear(FEATURES, class_count)
    return network


def build_seeded_network(class_count: int, seed: int) -> nn.Module:
    """Build the network with weights that depend on the seed alone."""
    seed_everything(seed, "init")
    return build_network(class_count)


class Segment(nn.Module):
    """Consecutive steps of an Xception, sharing its modules under their own names.

    So a segment's state dict is a subset of the network's. Dropout acts before the head, in
    training mode only.

    Args:
        network: The network to share modules with.
        first: Name of the first step.
        last: Name of the last step, included.
        dropout: Probability of dropping a feature before the head.
    """

    def __init__(self, network: nn.Module, first: str, last: str, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.steps = STEPS[STEPS.index(first) : STEPS.index(last) + 1]
        self.dropout = dropout
        for step in self.steps:
            for name in _MODULES[step]:
                self.add_module(name, network.get_submodule(name))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Run the steps.

        Args:
            activations: `(batch, channels, height, width)`, the output of the step before. A
                segment of the head alone also takes `(batch, 2048)`.

        Returns:
            The last step's output: `(batch, classes)` logits after `head`.
        """
        for step in self.steps:
            activations = self.step(step, activations)
        return activations

    def step(self, step: str, activations: torch.Tensor) -> torch.Tensor:
        """Run one step of the segment; see `forward`."""
        if step == "head":
            return self._head(activations)
        if step.startswith("conv"):
            convolution, norm = (self.get_submodule(name) for name in _MODULES[step])
            return convolve(convolution, norm, activations, relu=True)
        return pass_block(self.get_submodule(step), activations)

    def _head(self, activations: torch.Tensor) -> torch.Tensor:
        pooled = pool(activations) if activations.dim() == 4 else activations
        dropped = functional.dropout(pooled, self.dropout, self.training)
        # In float32 under autocast too: the 8 bits of bf16 are too few for probabilities.
        with torch.autocast(dropped.device.type, enabled=False):
            logits: torch.Tensor = self.get_submodule("last_linear")(dropped.float())
        return logits


def backbone_of(network: nn.Module, first: str = STEPS[0]) -> Segment:
    """Return the steps from this one to the last before the head, in eval mode."""
    return Segment(network, first, STEPS[-2]).eval()


def pool(activations: torch.Tensor) -> torch.Tensor:
    """Average over the positions: `(batch, 2048, h, w)` to the `(batch, 2048)` features."""
    return activations.float().mean((2, 3))


def cut(
    network: nn.Module, unfreeze: str, *, dropout: float = 0.0
) -> tuple[Segment | None, Segment]:
    """Cut a network into the frozen prefix and the part that is trained.

    Args:
        network: Its modules are shared by both parts.
        unfreeze: `head`, `exit`, `middle` or `all`; the prefix of `all` is None.
        dropout: See `Segment`.
    """
    first = FIRST_TRAINED[unfreeze]
    trained = Segment(network, first, "head", dropout=dropout)
    if first == STEPS[0]:
        return None, trained
    prefix = Segment(network, STEPS[0], last_frozen(unfreeze))
    for parameter in prefix.parameters():
        parameter.requires_grad = False
    return prefix.eval(), trained


def train_mode(module: nn.Module, *, batch_norm: bool) -> None:
    """Set training mode, with batch norm in inference mode unless it is trained.

    Pretrained statistics are better than those of a few small batches.
    """
    module.train()
    if not batch_norm:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()


def parameter_groups(
    trained: Segment, *, lr: float, head_lr: float, layer_decay: float, weight_decay: float
) -> list[dict[str, object]]:
    """Group the trained parameters for the optimizer.

    The head learns at `head_lr`; block 12, conv3 and conv4 at `lr`; each earlier block at
    `layer_decay` times the rate of the next one. Biases and batch norm have no weight decay.

    Returns:
        Groups with `params`, `lr`, `weight_decay`, `name` and `peak_lr`, the head's last.
    """
    groups: dict[tuple[str, bool], dict[str, object]] = {}
    for step in trained.steps:
        depth = max(0, STEPS.index("block12") - STEPS.index(step))
        peak = head_lr if step == "head" else lr * layer_decay**depth
        for parameter, decays in _parameters(trained, _MODULES[step]):
            group = groups.setdefault(
                (step, decays),
                {
                    "params": [],
                    "name": step,
                    "peak_lr": peak,
                    "lr": peak,
                    "weight_decay": weight_decay if decays else 0.0,
                },
            )
            group["params"].append(parameter)  # type: ignore[attr-defined]
    return list(groups.values())


def _parameters(segment: Segment, modules: tuple[str, ...]) -> Iterator[tuple[nn.Parameter, bool]]:
    for module in modules:
        for parameter in segment.get_submodule(module).parameters():
            yield parameter, parameter.dim() > 1
