"""EvalReport: the results of an evaluation, as values and as metrics.json."""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

from xception_cli.console import show
from xception_cli.entries import read_entries
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.intervals import Estimate, evidence
from xception_cli.evaluation.scored import how_to_repeat, read_metrics
from xception_cli.files import utf8
from xception_cli.numerals import count_of
from xception_cli.rundir import METRICS, RunDir

_OF_A_CLASS = ("precision", "recall", "f1", "average_precision")
_MEANS = ("macro_recall", "macro_f1", "weighted_f1", "cohen_kappa", "matthews")
_SCORES = (  # over all classes, in the order of metrics.json
    "top_k_accuracy",
    *_MEANS,
    "mean_average_precision",
    "log_loss",
    "calibration_error",
)
_RESAMPLED = ("top_k_accuracy", "mean_average_precision", *_MEANS, "log_loss")


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class; None if undefined.

    Attributes:
        name: The class.
        n: Number of its images (the support).
        precision: Share of the images predicted as this class that belong to it.
        recall: Share of its images that were classified correctly.
        f1: Harmonic mean of precision and recall.
        average_precision: Area under the precision-recall curve of this class's probability.
    """

    name: str
    n: int
    precision: Estimate | None = None
    recall: Estimate | None = None
    f1: Estimate | None = None
    average_precision: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: each value, with its interval as `_low` and `_high`."""
        data: dict[str, Any] = {"name": utf8(self.name), "n": self.n}
        for name in _OF_A_CLASS:
            data |= _flat(name, getattr(self, name))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClassMetrics":
        """Read what `to_dict` returned."""
        return cls(data["name"], data["n"], **{name: _read(data, name) for name in _OF_A_CLASS})


@dataclass(frozen=True)
class Confusion:
    """One class confused with another.

    Attributes:
        true: The class of the images.
        predicted: The class that was predicted.
        n: Number of images.
        part: Their share of the images of the true class.
    """

    true: str
    predicted: str
    n: int
    part: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self) | {"true": utf8(self.true), "predicted": utf8(self.predicted)}


@dataclass(frozen=True)
class Uncounted:
    """An image that does not count: it could not be scored, or it is not for this model.

    Attributes:
        path: Relative to the data folder.
        reason: Why; if it was left out, `TRAINED_ON`, `NEAR_COPY` or `OTHER_CLASS`.
    """

    path: str
    reason: str


TRAINED_ON, NEAR_COPY = "the model was trained on it", "near-copy of a training image"
OTHER_CLASS = "of a class that the model does not know"


@dataclass(frozen=True)
class Contaminated:
    """The accuracy including images that the model was trained on.

    Attributes:
        trained_on: Number of images it was trained on, or of near-copies; they count nowhere else.
        images: Number of all images, including these.
        groups: Number of their units.
        correct: Number of images that were classified correctly.
        accuracy: Their share.
    """

    trained_on: int
    images: int
    groups: int
    correct: int
    accuracy: Estimate


@dataclass(frozen=True)
class Corrected:
    """Validation accuracy, corrected for having selected the model by it.

    Attributes:
        candidates: Number of models that were selected from.
        accuracy: Expected accuracy of the selected model on new images.
    """

    candidates: int
    accuracy: Estimate


@dataclass(frozen=True, repr=False)
class EvalReport:
    """The results on one set of images; shares are in 0..1.

    Attributes:
        name: The split, or the name of the folder.
        data: The data folder as given; never an absolute path.
        images: Number of scored images.
        groups: Number of their units; equal to `images` if each is a unit.
        grouped: Whether the data names some units; False if they are only copies.
        correct: Number of images that were classified correctly.
        accuracy: Their share (top-1).
        top_k: k of `top_k_accuracy`: 5, or the number of classes if that is less.
        top_k_accuracy: Share whose class is among the k most probable; None if every class is.
        macro_recall: Mean recall of the classes that have images (balanced accuracy).
        macro_f1: Mean F1 of the classes that have images.
        weighted_f1: The same, each class weighted by its images.
        cohen_kappa: Agreement beyond chance: 0 is chance, 1 is perfect; None if undefined.
        matthews: Matthews correlation of true and predicted classes; None if either is constant.
        mean_average_precision: Mean of the classes' average precision.
        log_loss: Mean negative logarithm of the true class's probability, in nats.
        calibration_error: Expected calibration error (ECE): mean gap between the highest
            probability and accuracy; without an interval.
        answered: Images that `predict --unknown auto` would answer; None if the model has no rule.
        answered_correct: Number of correct answers among these.
        coverage: `answered` as a share of the images.
        answer_precision: `answered_correct` as a share of the answers.
        per_class: One for each class of the model, in its order.
        confusion: Counts by true class (row) and predicted class (column).
        confused: The most confused pairs of classes, the most frequent first.
        failures: Images that could not be scored.
        left_out: Images that do not count: the model knows them, or does not know their class.
        note: Caveats for the reader.
        contaminated: Accuracy including images that the model was trained on; None if there are
            none.
        corrected: Accuracy corrected for selection, if these images selected the model; else None.
    """

    name: str
    data: str
    images: int
    groups: int
    correct: int
    accuracy: Estimate
    top_k: int
    top_k_accuracy: Estimate | None
    macro_recall: Estimate
    macro_f1: Estimate
    weighted_f1: Estimate
    cohen_kappa: Estimate | None
    matthews: Estimate | None
    mean_average_precision: Estimate
    log_loss: Estimate
    calibration_error: Estimate
    answered: int | None
    answered_correct: int | None
    coverage: Estimate | None
    answer_precision: Estimate | None
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    confused: tuple[Confusion, ...] = ()
    failures: tuple[Uncounted, ...] = ()
    left_out: tuple[Uncounted, ...] = ()
    note: str | None = None
    contaminated: Contaminated | None = None
    corrected: Corrected | None = None
    grouped: bool = True

    def __repr__(self) -> str:
        images = count_of(self.images, "image")
        return f"<EvalReport {show(self.name)}: accuracy {self.expected.in_percent()}, {images}>"

    @property
    def evidence(self) -> str:
        """The counts of the accuracy, see `intervals.evidence`."""
        return evidence(self.correct, self.images, self.groups, grouped=self.grouped)

    @property
    def expected(self) -> Estimate:
        """Accuracy to expect on new images like these."""
        return self.accuracy if self.corrected is None else self.corrected.accuracy

    def to_dict(self) -> dict[str, Any]:
        r"""Return JSON data; bytes of names that are not UTF-8 are written as `\xNN`."""
        scores = {name: getattr(self, name) for name in _SCORES}
        intervals = {name: scores[name] and scores[name].ends for name in _RESAMPLED}
        if self.answered is not None:
            intervals["answered"] = self.coverage and self.coverage.ends
            intervals["answered_correct"] = self.answer_precision and self.answer_precision.ends
        return {
            "name": utf8(self.name),
            "data": utf8(self.data),
            "images": self.images,
            "groups": self.groups,
            "grouped": self.grouped,
            "correct": self.correct,
            **_flat("accuracy", self.accuracy),
            "top_k": self.top_k,
            **{name: estimate and estimate.value for name, estimate in scores.items()},
            "answered": self.answered,
            "answered_correct": self.answered_correct,
            "intervals": intervals,
            "per_class": [row.to_dict() for row in self.per_class],
            "confusion": [list(row) for row in self.confusion],
            "confused": [pair.to_dict() for pair in self.confused],
            "failures": [{name: utf8(v) for name, v in asdict(f).items()} for f in self.failures],
            "left_out": [{name: utf8(v) for name, v in asdict(f).items()} for f in self.left_out],
            "note": self.note,
            "contaminated": _with_accuracy(self.contaminated),
            "corrected": _with_accuracy(self.corrected),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EvalReport":
        """Read what `to_dict` returned, in this version or an earlier one.

        Raises:
            ValueError: It is damaged; also KeyError and TypeError.
        """
        intervals = data.get("intervals", {})

        def score(name: str, value: float | None) -> Any:
            return None if value is None else Estimate(float(value), *(intervals.get(name) or ()))

        images, answered = int(data["images"]), data["answered"]
        rate = None if answered is None else answered / images
        precision = data["answered_correct"] / answered if answered else None
        plain = ("name", "data", "correct", "top_k", "answered", "answered_correct", "note")
        found, added = data.get("corrected"), data.get("contaminated")
        report = cls(
            **{name: data[name] for name in plain},
            **{name: score(name, data[name]) for name in _SCORES},
            images=images,
            groups=int(data.get("groups", images)),
            grouped=data.get("grouped", True),
            accuracy=_read(data, "accuracy"),
            coverage=score("answered", rate),
            answer_precision=score("answered_correct", precision),
            per_class=tuple(ClassMetrics.from_dict(row) for row in data["per_class"]),
            confusion=tuple(tuple(int(n) for n in row) for row in data["confusion"]),
            confused=tuple(read_entries(Confusion, pair) for pair in data["confused"]),
            failures=tuple(read_entries(Uncounted, failure) for failure in data["failures"]),
            left_out=tuple(read_entries(Uncounted, found) for found in data.get("left_out", ())),
            contaminated=added and read_entries(Contaminated, _whole(added)),
            corrected=found and read_entries(Corrected, _whole(found)),
        )
        classes = len(report.per_class)
        if images < 1 or classes < 2 or any(pair.part <= 0 for pair in report.confused):
            raise ValueError("there are no images, or no classes")
        if [len(row) for row in report.confusion] != [classes] * classes:
            raise ValueError("the confusion matrix does not fit the classes")
        return read_entries(cls, asdict(report))


def read_report(run: RunDir, name: str) -> EvalReport:
    """Read metrics.json of an evaluation.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    path = run.evaluation(name) / METRICS
    try:
        return EvalReport.from_dict(read_metrics(run, name))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"it lacks {show(error)}" if isinstance(error, LookupError) else show(error)
        raise ArtifactError(
            f"{show(path)} is damaged: {what}",
            hint=how_to_repeat(run, name),
        ) from error


def _flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    value, low, high = (None, None, None) if estimate is None else astuple(estimate)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _read(data: Mapping[str, Any], name: str) -> Any:
    value, *ends = (data[f"{name}{end}"] for end in ("", "_low", "_high"))
    return None if value is None else Estimate(float(value), *ends)


def _with_accuracy(part: Contaminated | Corrected | None) -> dict[str, Any] | None:
    return None if part is None else asdict(part) | _flat("accuracy", part.accuracy)


def _whole(data: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: value for name, value in data.items() if not name.startswith("accuracy")}
    return counts | {"accuracy": asdict(_read(data, "accuracy"))}
