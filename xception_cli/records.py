"""Records: run.json, result.json, rows of metrics.jsonl."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

KEPT_PROBE = "the linear probe"  # `RunResult.kept`, if fine-tuning did not beat it


@dataclass
class Scores:
    """Validation scores.

    Attributes:
        loss: Cross-entropy.
        accuracy: Fraction of the images classified correctly.
        macro_recall: Mean recall of the classes in val.
        recall: Recall of each class; None for a class without validation images.
        top_k: The k of `top_k_accuracy`.
        top_k_accuracy: Fraction of images whose class is among the k most probable; None if k is 1.
    """

    loss: float
    accuracy: float
    macro_recall: float
    recall: list[float | None]
    top_k: int
    top_k_accuracy: float | None


@dataclass(frozen=True)
class CrossValidation:
    """The linear probe's cross-validation on the training images.

    Attributes:
        folds: Their number; 0 if nothing was tested, and there is no accuracy.
        accuracy: Fraction of the held-out images classified correctly.
        low: Lower end of its 95% interval.
        high: Upper end.
        correct: Held-out images classified correctly.
        images: Held-out images.
        groups: Their units.
        grouped: Whether the data names some units; else they are copies.
        untested: Classes that are a single unit, which cannot be held out and fitted to.
    """

    folds: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    correct: int = 0
    images: int = 0
    groups: int = 0
    grouped: bool = False
    untested: list[str] = field(default_factory=list)


class CalibrationFound(TypedDict):
    """Results of calibration that are read again; see `evaluation.calibration`."""

    temperature: float
    fitted_temperature: NotRequired[float]
    target_precision: NotRequired[float]
    confidence: NotRequired[float | None]
    precision_confidence: NotRequired[float]


class Gain(TypedDict):
    """A class that more images are likely to help: its recall with half of them and with all."""

    name: str
    half: float
    whole: float


class Decision(TypedDict):
    """A decision of a time budget, when it was made, and why."""

    after: str
    views: int
    epochs: int
    why: str


class BudgetRecord(TypedDict):
    """The clock of a run with a time budget, in seconds; see `training.budget`."""

    budget: float
    spent: float
    evaluation: float
    epoch: float
    decisions: list[Decision]


class EpochMetrics(TypedDict):
    """The plotted metrics of an epoch; a row of metrics.jsonl has more."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The content of result.json: how a run ended.

    Attributes:
        kept: `the linear probe`, or `fine-tuned, epoch N`.
        epochs: Planned number of epochs, also if fine-tuning was skipped or stopped early.
        trained_epochs: Number of epochs that were trained; None in runs of earlier versions.
        seconds: Seconds by phase.
        stopped_early: Whether early stopping ended the training.
        probe: Validation scores of the linear probe; None for random initial weights.
        cross_validation: Of the linear probe, on train; None in runs of earlier versions.
        evaluation: Expected accuracy on images like those of each split.
        calibration: Results of calibration; None if it was not done.
        gains: Classes that more images are likely to help.
        skipped: Why fine-tuning was skipped; None if it was not, or was never planned.
        refit: Whether the model was refitted to train and val, after its evaluation on val.
        views: Views of each training image that the probe was fitted to; None if not recorded.
        compared: The comparison with the run of `--from`, in sentences.
    """

    kept: str
    epochs: int
    trained_epochs: int | None = None
    stopped_early: bool = False
    probe: Scores | None = None
    cross_validation: CrossValidation | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    calibration: Annotated[dict[str, Any], CalibrationFound] | None = None
    gains: list[Annotated[dict[str, Any], Gain]] = field(default_factory=list)
    skipped: str | None = None
    refit: bool = False
    views: int | None = None
    compared: list[str] = field(default_factory=list)
    seconds: dict[str, float]

    @property
    def has_tuned(self) -> bool:
        """Whether an epoch of fine-tuning was planned, and not skipped."""
        return "fine-tuning" in self.seconds and self.epochs > 0


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The content of run.json: how a run was started. Entries with a default are newer.

    Attributes:
        started: Start time in UTC, ISO 8601, so that later is greater.
        process: Id of the process that writes the run, or wrote it last.
        command: The command line.
        versions: Versions of the packages that compute.
        git_commit: Commit of the user's own repository, if there is one.
        device: Device of the training.
        precision: Precision of the network's arithmetic.
        threads: Number of torch threads.
        processes: Number of processes of the training.
        data: The data folder or table, an absolute path.
        root: Folder that the paths of split.csv are relative to, if `data` is a table.
        data_fingerprint: SHA-256 over the images.
        classes: Names, in the order of the outputs.
        images: Their number by split.
        weights: `source` and `digest` of the initial weights.
        packed_weights: Whether convolutions of the frozen part had packed weights, see `folding`.
        timed: The record of a time budget.
        settings: All resolved settings; config.toml is compared with them.
        undecided: Names of those that were `auto`, or that a budget or a limit of memory chose;
            None if not recorded.
        split_checks: Checksums of the rows of split.csv, see `data.recorded`.
        fixes_digest: SHA-256 of fixes.csv, if there is one.
        grey_bits: Of 16-bit images, see `data.transforms.Preprocessing`; 16 if absent.
    """

    started: str
    process: int
    command: str
    versions: dict[str, str]
    git_commit: str | None
    device: str
    precision: str
    threads: int
    data_fingerprint: str
    classes: list[str]
    images: dict[str, int]
    weights: dict[str, str | None]
    data: str | None = None
    root: str | None = None
    processes: int = 1
    tf32: bool = False
    packed_weights: bool = False
    timed: Annotated[dict[str, Any], BudgetRecord] | None = None
    settings: dict[str, Any] | None = None
    undecided: list[str] | None = None
    split_checks: str | None = None
    fixes_digest: str | None = None
    grey_bits: Literal[10, 12, 14, 16] = 16
