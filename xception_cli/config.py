"""TrainConfig: the name, default, help and range of every setting, defined only here."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from xception_cli.errors import UsageError
from xception_cli.notation import check_pattern, parse_duration
from xception_cli.values import checked

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
    """Every setting of `xception train`, validated on construction.

    Raises:
        UsageError: A value has the wrong type or is out of range; the message names the setting.
    """

    # Data
    data: str = _setting(
        "",
        "Folder of images, the same as DIR; or a .csv, .tsv or .parquet table with path and label.",
    )
    classes: int | None = _setting(
        None, "Expected number of classes; any other number is an error.", at_least=2
    )
    root: str | None = _setting(
        None, "Folder that the paths in a table are relative to. Default: the table's own."
    )
    val_fraction: float = _setting(
        0.2,
        "Fraction of the images held out for validation, unless the folder has a val split.",
        at_least=0.01,
        at_most=0.9,
    )
    test_fraction: float = _setting(
        0.0, "Fraction of the images held out for a final test.", at_least=0.0, at_most=0.9
    )
    split_file: str | None = _setting(
        None, "Use the split in this split.csv, for example of an earlier run."
    )
    from_: str | None = _setting(
        None,
        "Start from the settings of an earlier run, and keep its split for the images that it had.",
    )
    group_by: str | None = _setting(
        None,
        "Keep images in one split if the first group of this regular expression matches the same "
        "text in their paths, for example 'patient(\\d+)'.",
    )
    fixes: str | None = _setting(
        None,
        "Apply an edited issues.csv of xception check: leave images out (exclude) or change "
        "their class (relabel). No image file is changed.",
    )
    strict: bool = _setting(False, "Stop if images of a given val or test split are also in train.")
    skip_bad: bool = _setting(
        False, "Leave out images that cannot be decoded, instead of stopping."
    )
    max_pixels: int = _setting(
        89_478_485,
        "Largest image to decode, in pixels; decoding takes up to 12 bytes per pixel. A large JPEG "
        "is decoded at a reduced size, down to 1/8 of its sides, and that size counts.",
        at_least=1_000_000,
        at_most=2_000_000_000,
        resumable=True,
    )
    image_size: int = _setting(
        299, "Side of the network's square input, in pixels.", at_least=71, at_most=2048
    )
    augment: Augment = _setting(
        "light",
        "Augmentation of training images. light: small changes of colour and geometry; "
        "rotate90: also rotations by multiples of 90 degrees, for cells or aerial images; "
        "none: only random crops and --flip.",
    )
    flip: bool = _setting(
        True,
        "Mirror training images at random; use --no-flip for text, or if left and right "
        "distinguish classes.",
    )
    views: int = _setting(
        3,
        "Views of each image to compute the features of frozen layers for: the centre crop, its "
        "mirror image (with --augment rotate90, a rotation instead; left out by --no-flip), then "
        "random crops.",
        at_least=1,
        at_most=100,
    )
    tta: Tta = _setting(
        "auto",
        "Test-time augmentation: mirror averages the answers for the image and its mirror "
        "image, in twice the time. auto: mirror if it lowers the cross-validated log loss by more "
        "than its standard error.",
    )
    cache_gb: float = _setting(
        20.0,
        "Limit on the disk space for features of frozen layers or decoded images, in GB. Over the "
        "limit, training uses fewer views, or only the head is trained.",
        at_least=0.0,
    )
    # Model
    weights: str = _setting("imagenet", "Initial weights: imagenet, none (random) or a file.")
    unfreeze: Unfreeze = _setting(
        "auto",
        "Layers to train: head (the linear probe only), exit flow, middle and exit flow, or "
        "all. auto: all on a GPU; on a CPU exit, or head with fewer than 15 training images "
        "per class on average.",
    )
    # Training
    epochs: int = _setting(12, "Passes over the training images.", at_least=1, resumable=True)
    batch_size: int = _setting(32, "Images per optimizer step.", at_least=1)
    accumulate: int = _setting(
        1, "Accumulate gradients over this many parts of a batch, to use less memory.", at_least=1
    )
    optimizer: Optimizer = _setting(
        "adamw", "Optimizer: AdamW, or SGD with momentum 0.9 as in the paper."
    )
    lr: float = _setting(8e-4, "Peak learning rate of the backbone.", at_least=0.0)
    head_lr: float = _setting(1e-3, "Peak learning rate of the head.", at_least=0.0)
    layer_decay: float = _setting(
        0.8,
        "Layer-wise learning-rate decay: factor per block, from the exit flow towards the input.",
        at_least=0.01,
        at_most=1.0,
    )
    weight_decay: float = _setting(
        0.05, "Weight decay; not applied to biases and batch norm.", at_least=0.0
    )
    schedule: Schedule = _setting(
        "cosine",
        "Learning-rate schedule: cosine decay to 0, or step decay by 6% every 2 epochs as in "
        "the paper.",
    )
    warmup: float = _setting(
        0.05,
        "Warmup, as a fraction of the iterations.",
        at_least=0.0,
        at_most=0.9,
    )
    label_smoothing: float = _setting(
        0.1, "Label smoothing of the training loss.", at_least=0.0, at_most=0.9
    )
    dropout: float = _setting(0.2, "Dropout before the last layer.", at_least=0.0, at_most=0.9)
    clip: float = _setting(1.0, "Gradient-norm clipping; 0 disables it.", at_least=0.0)
    ema: float = _setting(
        0.999,
        "Decay of the exponential moving average of the weights, ramped up from 0.1; 0 "
        "disables it.",
        at_least=0.0,
        at_most=0.99999,
    )
    patience: int = _setting(
        6,
        "Early-stopping patience in epochs; 0 disables it. With --monitor last, training "
        "always runs to the end.",
        at_least=0,
    )
    ceiling: float = _setting(
        0.99,
        "Skip fine-tuning if the linear probe's cross-validated macro recall is above this; 1"
        " never skips it.",
        at_least=0.0,
        at_most=1.0,
    )
    refit: bool = _setting(
        True,
        "After evaluation, refit the head to the training and validation images; --no-refit keeps "
        "the model that was evaluated.",
    )
    balance: Balance = _setting(
        "auto",
        "Class balancing, by the inverse square root of the class size: class weights in the "
        "loss, or oversampling (sampler). auto: sampler if the largest class has over 3 times"
        " the images of the smallest, else none.",
    )
    monitor: Monitor = _setting(
        "auto",
        "Validation metric that selects the best epoch; last takes the last epoch. auto: last"
        " from pretrained weights; else macro_recall for imbalanced classes, else accuracy.",
    )
    target_precision: float = _setting(
        0.98,
        "Target precision of the answers that `predict --unknown auto` gives, reached on new "
        "images with 90% confidence if there are enough validation images to show it.",
        at_least=0.01,
        at_most=1.0,
        resumable=True,
    )
    share_features: bool = _setting(
        True,
        "Keep features of up to 500 training images in the model file, so that `predict "
        "--unknown auto` recognises images unlike them.",
        resumable=True,
    )
    budget: str | None = _setting(
        None,
        "Time for the whole run, for example 90s, 10m or 2h; settings that you do not give are "
        "chosen to fit. The result depends on the machine's speed: it cannot be repeated exactly.",
    )
    # Machine
    seed: int = _setting(
        0,
        "Random seed of the split, the order of images and the initial weights. Other seeds hold "
        "out other validation images, unless --split-file is given.",
        at_least=0,
    )
    device: Device = _setting(
        "auto", "Device to compute on; auto takes a GPU if there is one.", resumable=True
    )
    precision: Precision = _setting(
        "auto",
        "Arithmetic precision. auto: bf16 if the hardware supports it, fp16 on older GPUs, "
        "else fp32.",
    )
    deterministic: bool = _setting(
        False, "Use only deterministic algorithms on a GPU, too (slower)."
    )
    workers: int | None = _setting(
        None,
        "Image-loading processes; results do not depend on it. Default: by machine.",
        at_least=0,
        at_most=256,
        resumable=True,
    )
    compile: bool = _setting(
        False,
        "Compile the training step with torch.compile; needs a C++ compiler, and takes a "
        "minute or more at the start.",
    )
    save_every_minutes: float = _setting(
        10.0, "Minutes between saved training states within an epoch.", at_least=0.0, resumable=True
    )
    log_every: int = _setting(
        10, "Iterations between two readings of the loss on a GPU.", at_least=1, resumable=True
    )

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            if value is not None or setting.default is not None:
                low, high = setting.metadata["at_least"], setting.metadata["at_most"]
                value = checked(setting.name, value, setting_type(setting), low, high)
                object.__setattr__(self, setting.name, value)
        if self.val_fraction + self.test_fraction > 0.95:
            raise UsageError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave "
                "under 5% of the images for training"
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


def check_frozen(config: TrainConfig) -> None:
    """Refuse a training that would freeze random weights.

    Not a check of `TrainConfig` itself: an effort may freeze layers that other efforts train.

    Raises:
        UsageError: It would.
    """
    if config.weights == "none" and config.unfreeze not in {"auto", "all"}:
        raise UsageError(
            f"--weights none starts from random numbers, and --unfreeze {config.unfreeze} would "
            "freeze some of them",
            hint="--unfreeze all, or pretrained --weights",
        )


def setting_type(setting: "dataclasses.Field[Any]") -> Any:
    """Return a setting's type without `None`: bool, int, float, str or a Literal."""
    hint = typing.get_type_hints(TrainConfig)[setting.name]
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def flag(name: str) -> str:
    """Return a setting's flag: `batch_size` gives `--batch-size`, and `from_` gives `--from`."""
    return f"--{name.strip('_').replace('_', '-')}"
