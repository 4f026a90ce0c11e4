"""TrainResult: what a finished training returns, or what is read from its run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xception_cli.evaluation.eval_report import EvalReport, read_report
from xception_cli.records import Scores
from xception_cli.rundir import RunDir


@dataclass(frozen=True)
class TrainResult:
    """The result of a finished training.

    Attributes:
        run: The run folder.
        kept: `the linear probe`, or `fine-tuned, epoch N`.
        probe: Validation scores of the linear probe; None without one.
        reports: Evaluation of the kept model, by split.
        seconds: Spent per phase, by this process.
    """

    run: RunDir
    kept: str
    probe: Scores | None
    reports: Mapping[str, EvalReport]
    seconds: Mapping[str, float]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one for each epoch of fine-tuning; empty without any."""
        return [dict(row) for row in self.run.read_metrics()]


def read_result(run: RunDir) -> TrainResult:
    """Read the result of a finished training.

    Raises:
        ArtifactError: A file of the run is missing or damaged.
    """
    result = run.read_result()
    reports = {name: read_report(run, name) for name in result.evaluation}
    return TrainResult(run, result.kept, result.probe, reports, result.seconds)
