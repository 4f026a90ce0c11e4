"""report.html: a run on one page that has no scripts and opens from disk.

This module prepares the numbers; the words are in templates/run.html.j2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from xception_cli.console import quoted, show, typed
from xception_cli.data.fixes import read_issues
from xception_cli.data.layout import SPLITS
from xception_cli.data.recorded import read_recorded
from xception_cli.data.split import Split
from xception_cli.errors import UsageError
from xception_cli.evaluation.described import scores
from xception_cli.evaluation.eval_report import EvalReport, read_report
from xception_cli.evaluation.intervals import (
    Estimate,
    count_units,
    evidence,
    proportion_interval,
    texts,
)
from xception_cli.evaluation.notes import has_no_error
from xception_cli.evaluation.scored import Scored, read_scored
from xception_cli.files import utf8, write_durably
from xception_cli.model.bundle import ModelBundle
from xception_cli.records import RunResult
from xception_cli.report.advice import next_steps
from xception_cli.report.charts import Chart, draw_calibration, draw_curves
from xception_cli.report.facts import Facts, list_provenance
from xception_cli.report.headline import headline_values
from xception_cli.report.html import Card, render
from xception_cli.report.matrix import Matrix, confusion_order, draw_matrix
from xception_cli.report.methods import has_random_views, views_of
from xception_cli.report.model_card import render_card
from xception_cli.report.pictures import draw_cards, draw_inputs, draw_issues, without_settled
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings
from xception_cli.summary.count import summarize_run
from xception_cli.summary.diagram import draw_diagram

_MISTAKES, _UNSURE, _SEEN = 18, 12, 8  # cards per gallery
_RANDOM = 2  # random views of each image
_PAIRS = 5  # pairs of classes to name as most confused
_CONFIDENT = 0.9  # predictions above this confidence are not shown as least confident


def write_report(run: RunDir, bundle: ModelBundle, root: Path, result: RunResult) -> None:
    """Write the report of a run, and the card of its model.

    Args:
        run: The run, after its evaluation.
        bundle: Its model, for the heat maps.
        root: The data folder, for the images; a missing image leaves a gap.
        result: The result of the run.

    Raises:
        ArtifactError: A file of the run is missing or damaged.
        MachineError: The disk is full or read-only.
    """
    facts = read_facts(run, bundle.classes, root, result)
    values = _shared_values(facts)
    write_durably(run.report, _render_page(facts, bundle, values).encode())
    write_durably(run.card, render_card(values, facts, bundle).encode())


def read_facts(run: RunDir, classes: Sequence[str], root: Path, result: RunResult) -> Facts:
    """Read what the report of a run is written from; for the arguments, see `write_report`."""
    name = "test" if run.evaluation("test").is_dir() else "val"
    split = read_recorded(run, classes)
    return Facts(
        run=run,
        info=run.read_info(),
        settings=read_settings(run),
        result=result,
        report=read_report(run, name),
        split=replace(split, classes=tuple(map(utf8, split.classes))),  # as in the report
        scored=read_scored(run, name),
        issues=_read_issues(run, split),
        network=summarize_run(run),
        root=root,
    )


def _shared_values(facts: Facts) -> dict[str, Any]:
    """Prepare the values of both the page and the model card."""
    return {
        "report": facts.report,
        **headline_values(facts),
        "classes": _classes(facts.report),
        "scores": scores(facts.report),
        **_calibration(facts),
        **_images(facts.split),
    }


def _render_page(facts: Facts, bundle: ModelBundle, values: Mapping[str, Any]) -> str:
    mistakes, unsure = _galleries(facts, bundle)
    return render(
        "run.html.j2",
        title=f"Run {show(facts.run.path.name)}",
        **values,
        steps=next_steps(facts, _place(facts)),
        kept_epoch=facts.kept_epoch,
        unshown=has_no_error(facts.config.monitor, facts.split),
        curves=_curves(facts),
        matrices=_matrices(facts.report),
        pairs=facts.report.confused[:_PAIRS],
        mistakes=mistakes,
        unsure=unsure,
        confident=f"{_CONFIDENT:.0%}",
        issues=None if facts.issues is None else draw_issues(facts.issues, facts.root),
        inputs=_inputs(facts, bundle),
        augmented=_augmented(facts),
        recoloured=facts.config.augment != "none",
        diagram=Markup(draw_diagram(facts.network)),  # contains no untrusted text
        repeat=f"xception train --config {quoted(facts.run.config)}",
        facts=list_provenance(facts),
    )


def _read_issues(run: RunDir, split: Split) -> Sequence[Mapping[str, str]] | None:
    """Read issues.csv, which the user may have edited or removed, as far as it is not settled."""
    try:
        return without_settled(read_issues(run.issues), split.images)
    except UsageError:
        return None


def _place(facts: Facts) -> str:
    """Return the data as it is typed in a command."""
    is_table = facts.info.root is not None
    place = quoted(typed(Path(facts.info.data or "") if is_table else facts.root))
    if root := facts.config.root:
        place += f" --root {quoted(typed(Path(root)))}"
    return place


def _curves(facts: Facts) -> list[Chart]:
    rows = facts.run.read_metrics()
    return draw_curves(rows, facts.kept_epoch) if rows else []


def _matrices(report: EvalReport) -> list[Matrix]:
    counts = np.array(report.confusion)
    names = [row.name for row in report.per_class]
    orders = {"by name": list(range(len(names))), "by similarity": confusion_order(counts)}
    if orders["by similarity"] == orders["by name"]:
        del orders["by similarity"]
    return [draw_matrix(counts, names, order, title) for title, order in orders.items()]


def _classes(report: EvalReport) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "n": row.n,
            "recall": row.recall,
            "recall_figures": texts(row.recall, percent=True),
            "figures": (
                *texts(row.precision, percent=True),
                *(
                    texts(estimate, percent=False)[0]
                    for estimate in (row.f1, row.average_precision)
                ),
            ),
        }
        for row in report.per_class
    ]


def _galleries(facts: Facts, bundle: ModelBundle) -> tuple[list[Card], list[Card]]:
    """Show the most confident mistakes, and the least confident correct predictions."""
    scored, best = facts.scored, facts.scored.confidences
    wrong, right = np.flatnonzero(~scored.hits), np.flatnonzero(scored.hits)
    mistakes = wrong[np.argsort(-best[wrong], kind="stable")][:_MISTAKES]
    right = right[best[right] < _CONFIDENT]
    unsure = right[np.argsort(best[right], kind="stable")][:_UNSURE]
    cards = draw_cards(scored, facts.root, bundle, [*mistakes.tolist(), *unsure.tolist()])
    return cards[: len(mistakes)], cards[len(mistakes) :]


def _augmented(facts: Facts) -> bool:
    """Return whether training saw random views, in fine-tuning or in the linear probe."""
    config = facts.config
    return has_random_views(config, views_of(config, facts.result, tuned=facts.result.has_tuned))


def _inputs(facts: Facts, bundle: ModelBundle) -> list[Card]:
    paths, config = [image.path for image in facts.split.of("train")], facts.config
    return draw_inputs(
        facts.root,
        paths[:: max(1, len(paths) // _SEEN)][:_SEEN],
        bundle.preprocessing,
        augment=config.augment,
        flip=config.flip,
        seed=config.seed,
        views=_RANDOM if _augmented(facts) else 0,
    )


def _calibration(facts: Facts) -> dict[str, Any]:
    scored, report = facts.scored, facts.report
    found = facts.result.calibration or {}
    guarantee = None
    shared = facts.config.share_features
    if shared and "precision_confidence" in found:  # missing in runs of earlier versions
        guarantee = {
            "found": found["confidence"] is not None,
            "target": f"{100 * found['target_precision']:g}%",
            "confidence": f"{found['precision_confidence']:.0%}",
        }
    precision = texts(report.answer_precision, percent=True)[0]
    fitted = found.get("fitted_temperature", found.get("temperature"))
    applied = bool(found) and found["temperature"] == fitted
    before = ["the temperature"] * applied
    before += ["the confidence threshold"] * bool(guarantee and guarantee["found"])
    return {
        "calibration": draw_calibration(scored.confidences, scored.hits, scored.units),
        "temperature": f"{fitted:.3g}" if found else "",
        "applied": applied,
        "tested": found.get("error_after", 0.0) is not None,
        "fitted_before": " and ".join(before),
        "confident_correct": _confident_correct(scored, grouped=report.grouped),
        "calibration_error": texts(report.calibration_error, percent=False)[0],
        "answer_precision": precision if report.answer_precision else "",
        "guarantee": guarantee,
    }


def _confident_correct(scored: Scored, *, grouped: bool) -> str:
    """Describe how many of the most confident predictions are correct; empty without any."""
    sure = scored.confidences > _CONFIDENT
    if not sure.any():
        return ""
    hits, units = scored.hits[sure], scored.units[sure]
    share = Estimate(float(hits.mean()), *proportion_interval(hits, units))
    counted = evidence(int(hits.sum()), len(hits), count_units(units), grouped=grouped)
    return share.in_percent(counted)


def _images(split: Split) -> dict[str, Any]:
    """Count the images of each class in each split."""
    counts = {name: split.counts(name) for name in SPLITS}
    counts = {name: column for name, column in counts.items() if any(column)}
    return {
        "splits": list(counts),
        "most": max(max(column) for column in counts.values()),
        "counts": [
            {"name": name, "counts": row}
            for name, *row in zip(split.classes, *counts.values(), strict=True)
        ],
        "left_out": len(split.of("out")),
    }
