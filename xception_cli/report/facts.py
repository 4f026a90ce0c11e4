"""Facts: what the report of a run and the card of its model are written from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xception_cli.config import TrainConfig
from xception_cli.data.split import Split
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.evaluation.scored import Scored
from xception_cli.files import file_digest
from xception_cli.numerals import count_of, duration
from xception_cli.records import RunInfo, RunResult
from xception_cli.rundir import RunDir
from xception_cli.summary.count import NetworkSummary


@dataclass(frozen=True)
class Facts:
    """A run, as it was recorded.

    Attributes:
        run: Its folder.
        info: Its run.json.
        settings: Those that its version had.
        result: Its result.json.
        report: Its evaluation on test, or else on val.
        split: Its images.
        scored: The images of the evaluation.
        issues: The rows of issues.csv that are not settled; None without the file.
        network: What was trained of it.
        root: The data folder.
    """

    run: RunDir
    info: RunInfo
    settings: Mapping[str, Any]
    result: RunResult
    report: EvalReport
    split: Split
    scored: Scored
    issues: Sequence[Mapping[str, str]] | None
    network: NetworkSummary
    root: Path

    @cached_property
    def config(self) -> TrainConfig:
        """All settings."""
        return TrainConfig(**self.settings)

    @property
    def kept_epoch(self) -> int:
        """The epoch of the kept model; 0 is the linear probe."""
        epoch = re.search(r"epoch (\d{1,9})$", self.result.kept)
        return int(epoch[1]) if epoch else 0


def list_provenance(facts: Facts) -> dict[str, dict[str, str]]:
    """List the command, hashes, versions and settings of a run, by heading."""
    info = facts.info
    # Of the report itself, only a later page could show the time: all show the same.
    seconds = {name: s for name, s in facts.result.seconds.items() if name != "report"}
    of_run = {
        "command": info.command,
        "started": f"{info.started[:16].replace('T', ' ')} UTC",
        "time": ", ".join(f"{name} {duration(s)}" for name, s in seconds.items()),
        "device": f"{info.device}, {info.precision}, {count_of(info.threads, 'thread')}",
        "weights": info.weights["source"],
        "weights, SHA-256": info.weights["digest"],
        "data, SHA-256": info.data_fingerprint,
        "model, SHA-256": file_digest(facts.run.model),
        "git commit": info.git_commit,
    }
    # The absolute paths that settings become are private; `command` has what was typed.
    settings = {
        name: Path(str(value)).name if Path(str(value)).is_absolute() else value
        for name, value in facts.settings.items()
        if name != "data"
    }
    return {
        "The run": _written(of_run),
        "Versions": _written(info.versions),
        "Settings": _written(settings),
    }


def _written(values: Mapping[str, object]) -> dict[str, str]:
    """Format values as in config.toml, but without quotes."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
        if value is not None
    }
