"""MODEL_CARD.md: a model on one page of Markdown, to pass on with its file."""

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from xception_cli.console import quoted, safe, show
from xception_cli.data.units import have_groups
from xception_cli.files import file_digest
from xception_cli.model.bundle import ModelBundle
from xception_cli.model.weights import PINNED_DIGEST, licence_of
from xception_cli.records import RunInfo
from xception_cli.report.advice import FEW_MEASURED, unusable_classes
from xception_cli.report.facts import Facts
from xception_cli.report.html import PAGES, create_environment
from xception_cli.report.methods import REFERENCE, describe_methods

_ROWS = 20  # classes in the table
# What has a meaning in Markdown, or in GitHub's: marks, tables, HTML, formulas, links.
_SPECIAL = re.compile(
    r"[\\`*\[\]<>|&~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE
)


def render_card(values: Mapping[str, Any], facts: Facts, bundle: ModelBundle) -> str:
    """Render the model card of a run."""
    run, info, report, about = facts.run, facts.info, facts.report, bundle.about
    counts = {row["name"]: row["counts"] for row in values["counts"]}
    lowest = sorted(
        values["classes"], key=lambda row: 2 if row["recall"] is None else row["recall"].value
    )
    shown = values["classes"] if len(values["classes"]) <= _ROWS else lowest[:_ROWS]
    units = [image.unit for image in facts.split.images if image.split != "out"]
    weights, grouped = info.weights, facts.config.group_by is not None or have_groups(units)
    methods = describe_methods(facts, trained=values["trained"], grouped=grouped)
    return CARDS.get_template("card.md.j2").render(
        values,
        name=run.path.name,
        run=quoted(run.path),
        held_out={"val": "validation", "test": "held-out test"}[report.name],
        origin=_origin(info),
        started=info.started[:10],
        version=info.versions["xception"],
        fingerprint=info.data_fingerprint,
        sums=[sum(column) for column in zip(*counts.values(), strict=True)],
        rows=[
            {"name": row["name"], "counts": counts[row["name"]], "recall": row["recall_figures"]}
            for row in shown
        ],
        grouped=grouped,
        copies=len(units) - len(set(units)),
        unusable=unusable_classes(report, counts),
        methods=methods,
        reference=REFERENCE,
        few=report.groups < FEW_MEASURED,
        keeps_features=about.unknown is not None,
        pixels=about.preprocessing,
        mean=f"{about.preprocessing.mean:g}",
        std=f"{about.preprocessing.std:g}",
        weights=weights["source"],
        licence=licence_of(weights["source"], weights["digest"]),
        digest=file_digest(run.model),
    )


def _origin(info: RunInfo) -> str:
    digest = info.weights["digest"]
    if digest is None:
        return "It was trained from random weights."
    return f"It was pretrained {'on ImageNet' if digest == PINNED_DIGEST else 'with other data'}."


def _literal(text: str) -> Markup:
    """Escape what has a meaning in Markdown; a sentence of ours is never cut."""
    return Markup(_SPECIAL.sub(r"\\\g<0>", safe(text)))


# Not escaped as HTML: this is Markdown.
CARDS = create_environment(lambda text: _literal(show(text)), autoescape=False)
CARDS.filters |= PAGES.filters | {"code": lambda text: Markup(safe(text)), "literal": _literal}
