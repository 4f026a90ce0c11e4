"""A comparison as text and tables; and the one at the end of a training with `--from`."""

from dataclasses import replace

from rich.table import Table

from xception_cli.console import enumerated, new_table, show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.evaluation.common_evaluation import choose_evaluation
from xception_cli.evaluation.comparison import Comparison, compare_runs
from xception_cli.evaluation.intervals import texts
from xception_cli.numerals import count_of
from xception_cli.rundir import RunDir

_SHOWN = 20  # changed images that are listed on the screen


def compare_with_earlier(earlier: RunDir, run: RunDir) -> list[str]:
    """Compare a run with the one that it continued from, on the images that both held out.

    Returns:
        Sentences; if they cannot be compared, a single one with the reason.
    """
    first, second = earlier.path.name, run.path.name  # a report holds no paths of this machine
    try:
        name = choose_evaluation([earlier, run], None)
        found = replace(compare_runs(earlier, run, name), first=first, second=second)
    except (UsageError, ArtifactError) as error:
        reason = error.message.replace(show(earlier.path), show(first))
        return [f"not compared with {show(first)}: {reason}"]
    common = count_of(len(found.classes), "class")
    of_classes = f", of the {common} in common" if class_note(found) else ""
    before, after = (accuracy.in_percent() for accuracy in found.accuracies)
    sentences = [
        f"compared with {show(found.first)} on the {count_of(found.images, f'{name} image')} that "
        f"both held out{of_classes}: accuracy {before}, now {after}",
        verdict(found),
    ]
    return sentences + [note for note in (class_note(found), selection_note(found)) if note]


def class_note(comparison: Comparison) -> str:
    """Describe what is compared if the runs have different classes; else return an empty text."""
    only = (
        (comparison.first, comparison.only_first),
        (comparison.second, comparison.only_second),
    )
    known = [f"{enumerated(names)} only in {show(run)}" for run, names in only if names]
    if not known:
        return ""
    return (
        f"the runs have different classes ({'; '.join(known)}): only images of classes in common "
        "count, and each run answers among all of its own classes"
    )


def selection_note(comparison: Comparison) -> str:
    """Return the caveat of a comparison on validation images; empty for other images."""
    if comparison.name != "val":
        return ""
    return "validation also selected these models: compare them on a test set to be sure"


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Make the tables of the runs, of the changed classes, and of the changed images."""
    runs = new_table("run", ">correct", ">accuracy", ">95% CI")
    rows = (
        (comparison.first, comparison.first_correct),
        (comparison.second, comparison.second_correct),
    )
    for (run, correct), accuracy in zip(rows, comparison.accuracies, strict=True):
        counted = f"{correct:,} of {comparison.images:,}"
        runs.add_row(show(run), counted, *texts(accuracy, percent=True))
    tables = [runs]
    different = [row for row in comparison.classes if row.first != row.second]
    if different:
        classes = new_table("class", ">n", ">correct, first", ">second", ">change")
        for row in sorted(different, key=lambda row: row.second - row.first):
            change = f"{row.second - row.first:+,}"
            counts = (f"{n:,}" for n in (row.n, row.first, row.second))
            classes.add_row(show(row.name), *counts, change)
        tables.append(classes)
    if comparison.changed:
        order = ("lost", "gained", "other")
        images = new_table("image", "true", "first", "second", "change")
        ranked = sorted(comparison.changed, key=lambda image: order.index(image.change))
        for image in ranked[:_SHOWN]:
            said = (image.path, image.true, image.first, image.second)
            images.add_row(*(show(text) for text in said), image.change)
        tables.append(images)
    return tables


def verdict(comparison: Comparison) -> str:
    """Describe the difference in one line, and whether it could be chance."""
    low, high = 100 * comparison.difference_low, 100 * comparison.difference_high
    chance = "unlikely to be chance" if comparison.p_corrected < 0.05 else "could be chance"
    grouped = comparison.groups < comparison.images
    test = f"sign flips over {count_of(comparison.groups, 'unit')}," if grouped else "McNemar"
    # The smallest probabilities are 0 in float64.
    value = f"= {comparison.p_corrected:.2g}" if comparison.p_corrected else "< 1e-300"
    p = f"{test} p {value}"
    if comparison.p_corrected != comparison.p_value:
        p += " (corrected for the number of comparisons)"
    return (
        f"{100 * comparison.difference:+.1f} points (95% CI {low:+.1f} to {high:+.1f}), "
        f"{comparison.gained:,} gained, {comparison.lost:,} lost; {p}: {chance}"
    )
