"""An evaluation described: lines and tables, with the names of the metrics."""

from rich.table import Table

from xception_cli.console import new_table, say, show
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.evaluation.intervals import evidence, texts
from xception_cli.evaluation.uneven import uneven_line, unmeasured_line
from xception_cli.numerals import count_of, percentage

# Metrics over all classes, with their names on the screen.
_SCORES = {
    "accuracy": "accuracy",
    "top_k_accuracy": "top-{k} accuracy",
    "macro_recall": "macro recall (balanced accuracy)",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "cohen_kappa": "Cohen's kappa",
    "matthews": "Matthews correlation",
    "mean_average_precision": "mean average precision",
    "log_loss": "log loss",
    "calibration_error": "expected calibration error",
}
_MANY = 10  # classes; with fewer, top-5 accuracy is close to 1 for any model
_IN_PERCENT = {"accuracy", "top_k_accuracy", "macro_recall"}
_CONFUSED = 3  # most confused pairs that are printed


def headline(report: EvalReport) -> str:
    """Describe the result in one line, with its uncertainty."""
    counts = [] if uncorrected_line(report) else [report.evidence]
    corrected = "" if report.corrected is None else ", corrected for selection"
    return f"{show(report.name)}: accuracy {report.expected.in_percent(*counts)}{corrected}"


def uncorrected_line(report: EvalReport) -> str | None:
    """Describe the accuracy without the correction for selection; None if it prints the same."""
    accuracy = percentage(report.accuracy.value)
    if report.corrected is None or accuracy == percentage(report.expected.value):
        return None
    models = f"the best of {report.corrected.candidates} models"
    return f"uncorrected: {accuracy} ({report.evidence}), {models}"


def say_result(report: EvalReport) -> None:
    """Print the accuracy, and below it what it hides."""
    say(f"result    {headline(report)}", style="bold")
    for line in (
        uncorrected_line(report),
        unmeasured_line(report),
        uneven_line(report),
        contaminated_line(report),
    ):
        if line:
            say(f"          {line}")


def contaminated_line(report: EvalReport) -> str | None:
    """Describe the accuracy including images that the model was trained on; None without any."""
    found = report.contaminated
    if found is None:
        return None
    counts = evidence(found.correct, found.images, found.groups, grouped=report.grouped)
    return (
        f"with the {count_of(found.trained_on, 'image')} that it was trained on, or near-copies of "
        f"them: accuracy {found.accuracy.in_percent(counts)}; that shows nothing about new images"
    )


def report_table(report: EvalReport) -> Table:
    """Make the table of the classes: support, precision, recall with its interval, f1."""
    table = new_table("class", ">n", ">precision", ">recall", ">95% CI", ">f1")
    for row in report.per_class:
        precision, f1 = texts(row.precision, percent=True)[0], texts(row.f1, percent=False)[0]
        recall = texts(row.recall, percent=True)
        table.add_row(show(row.name), f"{row.n:,}", precision, *recall, f1)
    return table


def scores_table(report: EvalReport) -> Table:
    """Make the table of metrics over all classes, with intervals."""
    title = "over all classes" if report.corrected is None else "uncorrected, over all classes"
    table = new_table(title, ">value", ">95% CI")
    for name, *figures in scores(report):
        table.add_row(name, *figures)
    return table


def scores(report: EvalReport) -> list[tuple[str, str, str]]:
    """Return the metrics over all classes that are shown: name, value and 95% interval."""
    return [
        (title.format(k=report.top_k), *texts(getattr(report, name), percent=name in _IN_PERCENT))
        for name, title in _SCORES.items()
        if name != "top_k_accuracy" or len(report.per_class) >= _MANY
    ]


def answered_line(report: EvalReport) -> str | None:
    """Describe what `predict --unknown auto` would do; None if the model has no rule for it."""
    if report.answered is None:
        return None
    get = "gets" if report.images == 1 else "get"
    images = f"{report.answered:,} of {count_of(report.images, 'image')}"
    first = f"with --unknown auto, {images} {get} an answer"
    if report.answer_precision is None:
        return first
    is_ = "is" if report.answered_correct == 1 else "are"
    second = f"{report.answered_correct:,} of these {is_} correct"
    if report.name == "val":  # no interval: val chose the thresholds
        share = percentage(report.answer_precision.value)
        return f"{first}; {second}, {share}, on the images that calibrated it"
    return f"{first}; {second}, {report.answer_precision.in_percent()}"


def confused_line(report: EvalReport) -> str | None:
    """Name the classes that are confused most often; None if none are."""
    pairs = [
        f"{show(pair.true)} predicted as {show(pair.predicted)} ({pair.n:,})"
        for pair in report.confused[:_CONFUSED]
    ]
    return ", ".join(pairs) or None
