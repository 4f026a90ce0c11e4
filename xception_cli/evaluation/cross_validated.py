"""The linear probe's cross-validation on train, as recorded in result.json and as described."""

from collections.abc import Sequence

from xception_cli.console import enumerated
from xception_cli.data.units import have_groups
from xception_cli.evaluation.intervals import Estimate, count_units, evidence, proportion_interval
from xception_cli.model.probe import Probe
from xception_cli.records import CrossValidation


def cross_validation(probe: Probe | None, classes: Sequence[str]) -> CrossValidation:
    """Measure the share of held-out training images that the probe classified correctly.

    Args:
        probe: None without one.
        classes: Class names.
    """
    if probe is None or not probe.folds:
        return CrossValidation(0)
    hits, units = probe.hits, probe.units[probe.tested]
    low, high = proportion_interval(hits, units)
    missing = sorted(set(probe.labels.tolist()) - set(probe.labels[probe.tested].tolist()))
    return CrossValidation(
        folds=probe.folds,
        accuracy=float(hits.mean()),
        low=low,
        high=high,
        correct=int(hits.sum()),
        images=len(hits),
        groups=count_units(units),
        grouped=have_groups(units),
        untested=[classes[label] for label in missing],
    )


def describe_cross_validation(found: CrossValidation) -> str:
    """Describe a cross-validation with folds, for the terminal."""
    names = enumerated(found.untested)
    untested = (
        f"; not tested, because not two images are independent: {names}" if found.untested else ""
    )
    return f"by {found.folds}-fold cross-validation: accuracy {figures(found)}{untested}"


def figures(found: CrossValidation) -> str:
    """Format the accuracy: `92.2% (95% CI 86.2-95.7%, 118 of 128 images)`; empty without folds."""
    if found.accuracy is None:
        return ""
    accuracy = Estimate(found.accuracy, found.low, found.high)
    counted = evidence(found.correct, found.images, found.groups, grouped=found.grouped)
    return accuracy.in_percent(counted)
