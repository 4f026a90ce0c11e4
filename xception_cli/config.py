"""TrainConfig: the only home of each setting's name, default, help and range."""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from xception_cli.console import show
from xception_cli.entries import LARGEST
from xception_cli.errors import UsageError
from xception_cli.notation import check_pattern, parse_duration

Unfreeze = Literal["auto", "head", "exit", "middle", "all"]
Monitor = Literal["auto", "last", "accuracy", "macro_recall"]
Device = Literal["auto", "cpu", "cuda", "gpu", "mps"]  # gpu means cuda
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Augment = Literal["light", "rotate90", "none"]
Tta = Literal["auto", "mirror", "none"]
Balance = Literal["auto", "none", "loss", "sampler"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "step"]


def _setting(
    default: Any,
    description: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    resumable: bool = False,
) -> Any:
    """Describe a setting. `resumable`: it may differ when a run is resumed."""
    return field(
        default=default,
        metadata={
            "help": description,
            "at_least": at_least,
            "at_most": at_most,
            "resumable": resumable,
        },
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every setting of `xception train`, checked when it is made.

    Raises:
        UsageError: A value of the wrong type or out of its range; names the setting.
    """

    # Data
    data: str = _setting(
        "",
        "Folder of photos: one folder per class, or train/ and val/; or a .csv table with the "
        "columns path and label.",
    )
    classes: int | None = _setting(
        None, "Number of classes you expect; another number is an error.", at_least=2
    )
    root: str | None = _setting(
        None,
        "Folder that the paths in a table given as --data are relative to. Default: the table's "
        "own.",
    )
    val_fraction: float = _setting(
        0.2,
        "Part of the images held out to choose the model, when there is no val folder.",
        at_least=0.01,
        at_most=0.9,
    )
    test_fraction: float = _setting(
        0.0, "Part of the images held out for the last measurement.", at_least=0.0, at_most=0.9
    )
    split_file: str | None = _setting(
        None, "Follow this split.csv, of an earlier run for instance, instead of drawing a split."
    )
    from_: str | None = _setting(
        None, "Run to begin with: its settings, and its split for the images that it knows."
    )
    group_by: str | None = _setting(
        None,
        "Regular expression: images stay in one split if the first group of it is the same in "
        "their paths, as in 'patient(\\d+)'.",
    )
    fixes: str | None = _setting(
        None,
        "An issues.csv of xception check, edited: the images whose action is exclude or relabel "
        "are left out or change their class. No file is touched.",
    )
    strict: bool = _setting(False, "Stop if pictures of a given val or test are in train, too.")
    skip_bad: bool = _setting(
        False, "Leave out images that cannot be decoded, instead of stopping."
    )
    max_pixels: int = _setting(
        89_478_485,
        "Largest image to decode, in pixels: it takes up to 12 bytes for each. A JPEG counts as it "
        "is decoded, at an eighth of its sides or more.",
        at_least=1_000_000,
        at_most=2_000_000_000,
        resumable=True,
    )
    image_size: int = _setting(
        299, "Side of the square the network sees, in pixels.", at_least=71, at_most=2048
    )
    augment: Augment = _setting(
        "light",
        "Changes of training images. light: small ones of colour and geometry; rotate90: also "
        "rotations by multiples of 90 degrees, for images without an up, such as cells or aerial "
        "images; none: neither.",
    )
    flip: bool = _setting(
        True, "Mirror training images; --no-flip for text, or classes told by left and right."
    )
    views: int = _setting(
        3,
        "Views of each image that are computed once and kept when a part is frozen: the centre "
        "crop, its mirror image (unless --no-flip), then random crops; --augment rotate90 rotates "
        "the centre crop instead of mirroring it.",
        at_least=1,
        at_most=100,
    )
    tta: Tta = _setting(
        "auto",
        "Test-time augmentation: mirror averages the model's answer with that for the mirror "
        "image, in twice the time. auto: where that lowers the log loss of cross-validation by "
        "more than its standard error.",
    )
    cache_gb: float = _setting(
        20.0,
        "Limit on what training keeps on disk, in GB: activations of a frozen part, or decoded "
        "images. Over it there are fewer views, or only the head is trained; keeping fewer decoded "
        "images changes no result.",
        at_least=0.0,
    )
    # Model
    weights: str = _setting("imagenet", "Where training starts: imagenet, none (random) or a file.")
    unfreeze: Unfreeze = _setting(
        "auto",
        "What is trained: head (stop at the linear probe), exit flow, middle and exit flow, or "
        "all. auto: all on a GPU; on a CPU exit, or head with under 15 images of a class on "
        "average.",
    )
    # Training
    epochs: int = _setting(12, "Passes over the training images.", at_least=1, resumable=True)
    batch_size: int = _setting(32, "Images per optimizer step.", at_least=1)
    accumulate: int = _setting(
        1, "Compute each batch in this many pieces, to need less memory.", at_least=1
    )
    optimizer: Optimizer = _setting(
        "adamw", "What steps: AdamW, or SGD with momentum 0.9 as in the paper."
    )
    lr: float = _setting(2e-4, "Learning rate of the network's body, at its peak.", at_least=0.0)
    head_lr: float = _setting(1e-3, "Learning rate of the last layer, at its peak.", at_least=0.0)
    layer_decay: float = _setting(
        0.8,
        "Factor on the learning rate per block, counted down from the exit flow.",
        at_least=0.01,
        at_most=1.0,
    )
    weight_decay: float = _setting(
        0.05, "Weight decay; none on biases and batch norm.", at_least=0.0
    )
    schedule: Schedule = _setting(
        "cosine",
        "How the learning rate falls: along a cosine to nothing, or in steps by 6 % every 2 "
        "epochs, as in the paper.",
    )
    warmup: float = _setting(
        0.05,
        "Part of the iterations in which the learning rate rises, before it falls.",
        at_least=0.0,
        at_most=0.9,
    )
    label_smoothing: float = _setting(
        0.1, "Label smoothing of the training loss.", at_least=0.0, at_most=0.9
    )
    dropout: float = _setting(0.2, "Dropout before the last layer.", at_least=0.0, at_most=0.9)
    clip: float = _setting(1.0, "Largest norm of the gradient; 0 leaves it alone.", at_least=0.0)
    ema: float = _setting(
        0.999,
        "Decay of the moving average of the weights, ramped up from 0.1; 0 is off.",
        at_least=0.0,
        at_most=0.99999,
    )
    patience: int = _setting(
        6,
        "Early-stopping patience: epochs without improvement of the metric that selects the epoch; "
        "0 disables it, and --monitor last runs to the end.",
        at_least=0,
    )
    ceiling: float = _setting(
        0.99,
        "Skip fine-tuning when the cross-validated macro recall of the linear probe is above this; "
        "1 never skips it.",
        at_least=0.0,
        at_most=1.0,
    )
    refit: bool = _setting(
        True,
        "After measuring, fit the model's head again to the training and validation images; "
        "--no-refit ships the model that was measured.",
    )
    balance: Balance = _setting(
        "auto",
        "How rare classes get more weight, by the root of their rarity: in the loss, or by drawing "
        "their images more often (sampler). auto: sampler when the largest class has over 3 times "
        "the images of the smallest, else none.",
    )
    monitor: Monitor = _setting(
        "auto",
        "Validation metric that selects the epoch; last takes the end of the schedule. auto: last "
        "from pretrained weights, else macro_recall when the largest class has over 3 times the "
        "images of the smallest, else accuracy.",
    )
    target_precision: float = _setting(
        0.98,
        "Target precision of the answers that `predict --unknown auto` gives, reached on new "
        "images with 90% confidence where the validation images can show it.",
        at_least=0.01,
        at_most=1.0,
        resumable=True,
    )
    share_features: bool = _setting(
        True,
        "Keep features of up to 500 training images in the model file, with which `predict "
        "--unknown auto` recognises images unlike them; --no-share-features leaves them out.",
        resumable=True,
    )
    budget: str | None = _setting(
        None,
        "Time for the whole run, as 90s, 10m or 2h: what is not given is chosen to fit into it. "
        "Such a run depends on the machine's speed and cannot be repeated exactly.",
    )
    # Machine
    seed: int = _setting(0, "Seed of everything random.", at_least=0)
    device: Device = _setting(
        "auto", "Where to compute. auto takes a GPU if there is one.", resumable=True
    )
    precision: Precision = _setting(
        "auto",
        "Arithmetic of the network. auto: bf16 where the hardware has it, fp16 on older GPUs, "
        "else fp32.",
    )
    deterministic: bool = _setting(
        False, "On a GPU too, use only algorithms that repeat exactly (slower)."
    )
    workers: int | None = _setting(
        None,
        "Processes that decode images; does not change any number. Default: by machine.",
        at_least=0,
        at_most=256,
        resumable=True,
    )
    compile: bool = _setting(
        False,
        "Compile the training step with torch.compile; it needs a C++ compiler, and a minute or "
        "more to begin with.",
    )
    save_every_minutes: float = _setting(
        10.0, "Save the training state this often inside an epoch.", at_least=0.0, resumable=True
    )
    log_every: int = _setting(
        10, "Iterations between two looks at the loss on a GPU.", at_least=1, resumable=True
    )

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = _coerce(setting, getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)
        if self.val_fraction + self.test_fraction > 0.95:
            raise UsageError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave "
                "under 5 % of the images for training"
            )
        if self.budget is not None:
            parse_duration(self.budget)
        if self.group_by is not None:
            check_pattern(self.group_by)
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate {self.accumulate} is more than batch_size {self.batch_size}"
            )
        if self.tta == "mirror" and not self.flip:
            raise UsageError(
                "tta is mirror, but without flip the mirror image may be of another class",
                hint="leave out --tta mirror or --no-flip",
            )

    def replace(self, **changes: Any) -> "TrainConfig":
        """Return a copy with some settings changed and checked."""
        return dataclasses.replace(self, **changes)


def setting_type(setting: "dataclasses.Field[Any]") -> Any:
    """Return a setting's type without `None`: bool, int, float, str or a Literal."""
    hint = typing.get_type_hints(TrainConfig)[setting.name]
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def flag(name: str) -> str:
    """Return a setting's flag: `batch_size` gives `--batch-size`, and `from_` gives `--from`."""
    return f"--{name.strip('_').replace('_', '-')}"


_PLAIN = (bool, int, float, str)


def _coerce(setting: "dataclasses.Field[Any]", value: Any) -> Any:
    kind = setting_type(setting)
    if value is None and setting.default is None:
        return None
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(f"{setting.name} is a number of {value.bit_length()} bits, too large")
    shown = show(repr(value)) if isinstance(value, _PLAIN) else f"a {type(value).__name__}"
    choices = typing.get_args(kind)
    if choices:
        if value not in choices:
            near = difflib.get_close_matches(shown.strip("'"), choices, n=1)
            raise UsageError(
                f"{setting.name} is {shown}, expected one of {', '.join(choices)}",
                hint=f"did you mean {near[0]}?" if near else None,
            )
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise UsageError(f"{setting.name} is {shown}, expected {kind.__name__}")
    if kind is str and "\0" in value:
        raise UsageError(f"{setting.name} is {shown}: no name has a zero byte")
    if kind is str and any("\ud800" <= char <= "\udfff" for char in value):
        raise UsageError(
            f"{setting.name} is {show(value)}, which is not UTF-8: config.toml cannot hold it",
            hint="rename it, or make a link to it under another name",
        )
    low, high = setting.metadata["at_least"], setting.metadata["at_most"]
    if kind in {int, float}:
        # `not >=` rather than `<`, so that nan is refused too
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            span = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
            raise UsageError(f"{setting.name} is {value}, expected {span}")
        if value == math.inf:
            raise UsageError(f"{setting.name} is {value}, expected a finite number")
    return value
