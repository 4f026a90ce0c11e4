"""A paragraph for the methods section of a paper, from the files of a run."""

from collections.abc import Mapping
from typing import Any

from xception_cli.config import TrainConfig
from xception_cli.data.layout import SPLITS
from xception_cli.data.split import Split
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.model.layers import LAYERS
from xception_cli.model.weights import PINNED_DIGEST
from xception_cli.numerals import count_of
from xception_cli.records import RunInfo, RunResult
from xception_cli.report.facts import Facts

REFERENCE = (
    "Chollet, F. (2017). Xception: Deep Learning with Depthwise Separable Convolutions. CVPR. "
    "arXiv:1610.02357"
)
_OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD with momentum 0.9"}
_SCHEDULES = {"cosine": "cosine decay", "step": "step decay"}
_AUGMENTATIONS = {
    "light": "random crops with small changes of colour and geometry",
    "rotate90": "random crops with small changes of colour and geometry, and rotations by "
    "multiples of 90 degrees",
    "none": "random crops",
}


def describe_methods(facts: Facts, *, trained: str, grouped: bool) -> str:
    """Describe what was trained and how it was measured, in sentences.

    Args:
        facts: About the run.
        trained: The layers that fine-tuning trained, in words.
        grouped: Whether groups of images were given.
    """
    config, result, kept_epoch = facts.config, facts.result, facts.kept_epoch
    return " ".join(
        [
            *_network(config, facts.info, trained, kept_epoch, result.views),
            _inputs(config, views_of(config, result, tuned=kept_epoch > 0)),
            *_data(config, facts.split, grouped=grouped),
            *_accuracy(facts.report, result),
        ]
    )


def views_of(config: TrainConfig, result: RunResult, *, tuned: bool) -> int | None:
    """Return the views of each image that were trained on; None if unknown, or new in each epoch.

    Args:
        config: The settings of the run.
        result: Its result.json.
        tuned: Whether to return those of fine-tuning, or of the linear probe.
    """
    if not tuned:
        return result.views
    return None if config.unfreeze == "all" else config.views


def has_random_views(config: TrainConfig, views: int | None) -> bool:
    """Return whether some of these views are random crops: the first ones are not."""
    return views is None or views > 1 + bool(_second_view(config))


def _second_view(config: TrainConfig) -> str:
    if config.augment == "rotate90":
        return "a rotation by a multiple of 90 degrees"
    return "mirroring" if config.flip else ""


def _network(
    config: TrainConfig, info: RunInfo, trained: str, kept_epoch: int, views: int | None
) -> list[str]:
    versions = f"xception-cli {info.versions['xception']} (PyTorch {info.versions['torch']})"
    digest = info.weights["digest"]
    origin = "pretrained on ImageNet" if digest == PINNED_DIGEST else "with pretrained weights"
    if digest is None:
        origin = "from random weights"
    first = (
        f"Images were classified by {versions} with the network Xception (Chollet 2017, "
        f"arXiv:1610.02357), {origin}."
    )
    probe = f"multinomial logistic regression on the pooled features of {len(LAYERS)} layers"
    if views is not None:
        probe += f", computed for {count_of(views, 'view')} of each training image"
    if not kept_epoch:
        return [first, f"The network was frozen and a linear probe fitted: {probe}."]
    tuned = (
        f"The {trained} were trained with {_OPTIMIZERS[config.optimizer]} for up to "
        f"{count_of(config.epochs, 'epoch')} (peak learning rate {config.lr:g}, of the head "
        f"{config.head_lr:g}; {_SCHEDULES[config.schedule]}; batch size {config.batch_size}; label "
        f"smoothing {config.label_smoothing:g}; weight decay {config.weight_decay:g}); epoch "
        f"{kept_epoch} was kept."
    )
    if digest is None:
        return [first, tuned]
    return [first, tuned, f"The classifier of the final model is {probe}."]


def _inputs(config: TrainConfig, views: int | None) -> str:
    augmented = "none" if views == 1 else _second_view(config)
    if has_random_views(config, views):
        augmented = f"{_AUGMENTATIONS[config.augment]}{', and mirroring' if config.flip else ''}"
    balanced = {
        "sampler": "images of rare classes were sampled more often",
        "loss": "classes were weighted in the loss",
    }.get(config.balance)
    balance = (
        f"{balanced}, by the inverse square root of the class size"
        if balanced
        else "classes were not balanced"
    )
    side = config.image_size
    return f"Input: {side} x {side} pixels. Augmentation: {augmented}; {balance}."


def _data(config: TrainConfig, split: Split, *, grouped: bool) -> list[str]:
    counts = {name: len(split.of(name)) for name in SPLITS}
    names = {"train": "training", "val": "validation", "test": "the final test"}
    used = ", ".join(f"{n:,} for {names[name]}" for name, n in counts.items() if n)
    left = len(split.of("out"))
    excluded = f"; {left:,} {'was' if left == 1 else 'were'} excluded" if left else ""
    total = f"{sum(counts.values()):,} images in {len(split.classes):,} classes"
    sentences = [f"{total} were used: {used}{excluded}."]
    if config.split_file is not None:
        sentences.append("The split was read from a file.")
    elif all(image.is_given for image in split.images if image.split != "out"):
        sentences.append("The split was given with the images.")
    else:
        held_out = f"validation {config.val_fraction:g}"
        test = split.of("test")
        if config.test_fraction and test and not any(image.is_given for image in test):
            held_out += f", test {config.test_fraction:g}"
        which = "Images" if config.from_ is None else "Images that an earlier run did not have"
        sentences.append(f"{which} were held out at random ({held_out}; seed {config.seed}).")
    together = "Images of one group and near-copies" if grouped else "Near-copies"
    if leaked := split.leaked("val") + split.leaked("test"):
        held_out = f"{leaked:,} of the {counts['val'] + counts['test']:,} held-out images"
        apart = f"{together} were not all kept in one split, which concerns {held_out}."
        return [*sentences, apart]
    return [*sentences, f"{together} were kept in one split."]


def _accuracy(report: EvalReport, result: RunResult) -> list[str]:
    held_out: Mapping[str, Any] = {"val": "validation", "test": "test"}
    independent = f" ({report.groups:,} independent)" if report.groups < report.images else ""
    measured = sum(row.n > 0 for row in report.per_class)
    some = f" of {count_of(measured, 'class')}" if measured < len(report.per_class) else ""
    images = count_of(report.images, f"{held_out[report.name]} image")
    corrected = ""
    if report.corrected is not None:
        corrected = f", corrected for selecting the best of {report.corrected.candidates} models"
    first = (
        f"Accuracy on {images}{independent}{some} was {report.expected.in_percent()}{corrected}."
    )
    macro = f"Macro recall was {report.macro_recall.in_percent()}."
    if result.refit and report.name == "val":
        return [first, macro, "The head was then refitted to training and validation images."]
    return [first, macro]
