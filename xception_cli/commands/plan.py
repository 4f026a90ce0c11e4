"""Plan: what `train --plan` prints, for one effort or to compare all."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xception_cli.console import emit, new_table, say, screen
from xception_cli.errors import UsageError
from xception_cli.imports import importing
from xception_cli.settings import ResolvedConfig

if TYPE_CHECKING:
    from xception_cli.check.survey import Survey
    from xception_cli.training.costs import Forecast

_REFUSED = {"in all": "not possible"}


def print_plans(
    settings: Mapping[str | None, ResolvedConfig],
    effort: str | None,
    *,
    survey: "Survey | None",
    output: Path | None,
    spent: float,
    as_json: bool,
) -> None:
    """Print what trainings would do and take; train nothing.

    Args:
        settings: By effort, ascending; None names the settings of a command without one.
        effort: The requested one, whose decisions are reported.
        survey: Of the data folder.
        output: The run folder that would be created.
        spent: Seconds since the command began, common to all.
        as_json: Whether to print JSON.

    Raises:
        XceptionError: The requested training is not possible.
    """
    with importing():
        from xception_cli.training.run import plan_training

    def plan(name: str | None) -> "Forecast":
        began = time.monotonic() - spent
        return plan_training(settings[name], survey=survey, output=output, began=began)

    plans: dict[str | None, Forecast] = {}
    refused: dict[str | None, str] = {}
    with screen.silence():
        for name in (other for other in settings if other != effort):
            try:
                plans[name] = plan(name)
            except UsageError as error:  # over --cache-gb, for instance
                refused[name] = error.message
    plans[effort] = plan(effort)
    if as_json:
        unknown = dict.fromkeys(plans[effort].to_dict())
        listed = [
            {"effort": name, "error": refused.get(name)}
            | (unknown if name in refused else plans[name].to_dict())
            for name in settings
        ]
        emit(json.dumps({"effort": effort, "plans": listed}))
    else:
        _print_rows(
            {str(name): _REFUSED if name in refused else plans[name].rows() for name in settings}
        )
    say(f"next: the same command without --plan{_shortened(plans[effort])}")


def _shortened(plan: "Forecast") -> str:
    """Return how fine-tuning may end before its expected time, if it can."""
    config = plan.config
    ways = ["be skipped (--ceiling)"] * (config.weights != "none" and config.ceiling < 1)
    ways += ["stop early"] * (config.monitor != "last" and config.patience > 0)
    tunes = "fine-tuning" in plan.seconds
    return f"; fine-tuning may {' or '.join(ways)}" if tunes and ways else ""


def _print_rows(plans: dict[str, dict[str, str]]) -> None:
    """Print the expected time of each phase: as lines, or as a table for several efforts."""
    if len(plans) == 1:
        (only,) = plans.values()
        for name, value in only.items():
            emit(f"{name:12} {value:>14}")
        return
    table = new_table("effort", *(f">{name}" for name in plans))
    longest = max(plans.values(), key=len)
    for name in longest:
        style = "bold" if name == "in all" else None
        table.add_row(name, *(plan.get(name, "") for plan in plans.values()), style=style)
    emit(table)
