"""The first figures of the report and the model card: the accuracy, and what it compares with."""

from typing import Any

from xception_cli.data.split import Split
from xception_cli.evaluation.cross_validated import figures
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.evaluation.intervals import texts
from xception_cli.evaluation.uneven import uneven_line, unmeasured_line
from xception_cli.numerals import count_of, percentage
from xception_cli.records import KEPT_PROBE, RunResult
from xception_cli.report.advice import SMALL, is_small
from xception_cli.report.facts import Facts


def headline_values(facts: Facts) -> dict[str, Any]:
    """Prepare the first figures: expected accuracy, compared with simple baselines."""
    report, result, network = facts.report, facts.result, facts.network
    accuracy, interval = texts(report.expected, percent=True)
    flows = [flow.name for flow in network.flows if flow.trained]
    return {
        "accuracy": accuracy,
        "interval": interval,
        **_second_opinion(report, result, facts.split),
        "kept": result.kept,
        "kept_probe": result.kept == KEPT_PROBE,
        "pretrained": facts.info.weights["digest"] is not None,
        "leaked": _leaked_line(report, facts.split),
        "unmeasured": unmeasured_line(report),
        "uneven": uneven_line(report),
        "trained": f"{', '.join(flows[:-1])} and {flows[-1]}" if len(flows) > 1 else flows[0],
        "frozen": ", ".join(flow.name for flow in network.flows if not flow.trained),
        "only_probe": network.unfreeze == "head",
        "skipped": result.skipped,
        "refit": result.refit,
        "compared": result.compared,
        "baselines": _baselines(report, result),
    }


def _leaked_line(report: EvalReport, split: Split) -> str | None:
    """Count the images that cannot show how well the model does on new ones; None without any."""
    count = split.leaked(report.name)
    if not count:
        return None
    are = "is" if count == 1 else "are"
    where = f"{are} in train, too, as a copy, a near-copy or an image of the same group"
    return f"{count_of(count, 'image')} of {report.name} {where}: the accuracy is too optimistic"


def _second_opinion(report: EvalReport, result: RunResult, split: Split) -> dict[str, Any]:
    """Prepare what qualifies the accuracy on a small set; runs of earlier versions have nothing."""
    found = result.cross_validation
    if found is None or not is_small(report, split):
        return {"small": False, "only": "", "cross_validated": "", "untested": ""}
    thing = "image"
    if report.groups < report.images:
        thing = "group" if report.grouped else "independent image"
    return {
        "small": True,
        "only": count_of(report.groups, thing) if report.groups < SMALL else "",
        "cross_validated": figures(found),
        "untested": count_of(len(found.untested), "class") if found.untested else "",
    }


def _baselines(report: EvalReport, result: RunResult) -> list[dict[str, Any]]:
    """Compare on the same images; all accuracies are uncorrected."""
    probe = result.probe
    shares = {"model": (report.accuracy.value, texts(report.accuracy, percent=True)[1])}
    if probe and report.name == "val" and result.kept != KEPT_PROBE:
        shares["probe"] = (probe.accuracy, "")
    shares["largest"] = (max(row.n for row in report.per_class) / report.images, "")
    return [
        {"what": what, "share": share, "accuracy": percentage(share), "interval": interval}
        for what, (share, interval) in shares.items()
    ]
