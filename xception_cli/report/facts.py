"""Facts: the provenance of a run, as its report lists it."""

from collections.abc import Mapping
from pathlib import Path

from xception_cli.files import file_digest
from xception_cli.numerals import count_of, duration
from xception_cli.records import RunInfo, RunResult
from xception_cli.rundir import RunDir


def list_facts(
    run: RunDir, info: RunInfo, config: Mapping[str, object], result: RunResult
) -> dict[str, dict[str, str]]:
    """List the command, hashes, versions and settings of a run, by heading.

    Args:
        run: The run.
        info: Its run.json.
        config: Its settings.
        result: Its result.json.
    """
    facts = {
        "command": info.command,
        "started": f"{info.started[:16].replace('T', ' ')} UTC",
        "time": ", ".join(f"{name} {duration(s)}" for name, s in result.seconds.items()),
        "device": f"{info.device}, {info.precision}, {count_of(info.threads, 'thread')}",
        "weights": info.weights["source"],
        "weights, SHA-256": info.weights["digest"],
        "data, SHA-256": info.data_fingerprint,
        "model, SHA-256": file_digest(run.model),
        "git commit": info.git_commit,
    }
    # The absolute paths that settings become are private; `command` has what was typed.
    settings = {
        name: Path(str(value)).name if Path(str(value)).is_absolute() else value
        for name, value in config.items()
        if name != "data"
    }
    return {
        "The run": _written(facts),
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
