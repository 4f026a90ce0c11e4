"""Where settings come from: defaults, an earlier run, TOML files, flags."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from xception_cli.config import (
    Augment,
    Balance,
    Device,
    Monitor,
    Optimizer,
    Precision,
    Schedule,
    TrainConfig,
    Tta,
    Unfreeze,
    flag,
)
from xception_cli.console import listing, quoted, say, show
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.rundir import RunDir
from xception_cli.toml_files import note_missing, read_toml
from xception_cli.values import checked_path

StrPath = str | os.PathLike[str]

_NAMES = {setting.name: setting for setting in dataclasses.fields(TrainConfig)}
# A resume compares the images and classes themselves: the folder may have moved.
_CHECKED_BY_CONTENT = {"data", "classes"}
_RESUMABLE = {name for name, setting in _NAMES.items() if setting.metadata["resumable"]}
_LAST = next(reversed(_NAMES))  # of every version
_MISSING = "missing"  # the value of a setting that config.toml lacks
_LISTED = 10  # changed settings named in an error


class Settings(TypedDict, total=False):
    """The settings as keyword arguments of `xception_cli.train`; `data` is positional there.

    `TrainConfig` describes each of them. Paths may be `Path` objects.
    """

    classes: int | None
    val_fraction: float
    test_fraction: float
    split_file: StrPath | None
    from_: StrPath | None
    root: StrPath | None
    group_by: str | None
    fixes: StrPath | None
    strict: bool
    skip_bad: bool
    max_pixels: int
    image_size: int
    augment: Augment
    flip: bool
    views: int
    tta: Tta
    cache_gb: float
    weights: StrPath
    unfreeze: Unfreeze
    epochs: int
    batch_size: int
    accumulate: int
    optimizer: Optimizer
    lr: float
    head_lr: float
    layer_decay: float
    weight_decay: float
    schedule: Schedule
    warmup: float
    label_smoothing: float
    dropout: float
    clip: float
    ema: float
    patience: int
    ceiling: float
    refit: bool
    balance: Balance
    monitor: Monitor
    target_precision: float
    share_features: bool
    budget: str | None
    seed: int
    device: Device
    precision: Precision
    deterministic: bool
    workers: int | None
    compile: bool
    save_every_minutes: float
    log_every: int


@dataclass(frozen=True)
class ResolvedConfig:
    """A config, and the origin of each setting that is not a default."""

    config: TrainConfig
    origins: Mapping[str, str]


# What the recipes of --effort decide
EFFORT = ("unfreeze", "views", "epochs")


def resolve(
    flags: Mapping[str, Any], config_file: Path | None, *, effort: str | None = None
) -> ResolvedConfig:
    """Merge defaults < an earlier run < config file < flags; a flag that is `None` was not given.

    Args:
        flags: Values by setting.
        config_file: A TOML file.
        effort: Name of the effort whose recipe the file is; it overrides that of an earlier run.

    Raises:
        UsageError: See `read_toml` and `TrainConfig`.
        ArtifactError: The earlier run is damaged.
    """
    from_file = {}
    if config_file is not None:
        from_file = read_toml(config_file)
        note_missing(config_file, from_file)
    given = {name: value for name, value in flags.items() if value is not None}
    origin = f"--effort {effort}" if effort or config_file is None else config_file.name
    origins = dict.fromkeys(from_file, origin)
    origins |= {name: flag(name) for name in given}
    earlier = (from_file | given).get("from_")
    begun = {} if earlier is None else _settings_to_begin_with(checked_path("from_", earlier))
    if earlier is not None and "fixes" not in from_file | given:
        RunDir(Path(earlier)).check_fixes()
    if effort is not None:
        begun = {name: value for name, value in begun.items() if name not in EFFORT}
    origins = dict.fromkeys(begun, f"as in {earlier}") | origins
    try:
        return ResolvedConfig(TrainConfig(**(begun | from_file | given)), origins)
    except UsageError as error:
        origin = origins.get(error.message.partition(" is ")[0], "--")
        if not origin.startswith("--"):
            error.message = f"{error.message} ({show(origin)})"
        raise


def _settings_to_begin_with(path: Path) -> dict[str, Any]:
    """Return the settings of an earlier run that were chosen by its user and can be reused."""
    run = RunDir(path)
    if run.fault is not None:
        raise UsageError(run.fault, hint="xception runs lists runs")
    settings = read_settings(run)
    _note_edits(run, settings)
    if run.fixes.is_file():
        settings["fixes"] = str(run.fixes)  # the file that it was given may be gone
    own = {"classes", "split_file", "from_"}
    chosen = chosen_settings(settings, run.read_info().undecided)
    return {name: value for name, value in chosen.items() if name not in own}


def chosen_settings(
    settings: Mapping[str, Any], undecided: Collection[str] | None
) -> dict[str, Any]:
    """Return the settings of a run that its user chose: they are not the default.

    Args:
        settings: All of them.
        undecided: See `RunInfo`; None: those whose default is `auto`.
    """
    defaults = vars(TrainConfig())
    if undecided is None:
        undecided = [name for name, value in defaults.items() if value == "auto"]
    return {
        name: value
        for name, value in settings.items()
        if value != defaults[name] and name not in undecided
    }


def _note_edits(run: RunDir, settings: Mapping[str, Any]) -> None:
    """Print a note if config.toml was edited since the run began: its edits have no effect."""
    try:
        found = read_toml(run.config)
        changes = _edits(settings, found, TrainConfig(**found), _CHECKED_BY_CONTENT)
    except UsageError as error:
        changes = [error.message]
    if changes:
        sentence = f"note      {show(run.config)} has changed since the run began:"
        say(listing(sentence, changes, _LISTED))
        say(f"          --from takes the settings that the run began with, from {show(run.info)}")


def resolve_resumed(saved: TrainConfig, flags: Mapping[str, Any]) -> TrainConfig:
    """Merge a run's settings with the flags given to resume it; `None` means not given.

    Raises:
        UsageError: A flag changes a setting that is fixed for the run; the message lists them.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    merged = saved.replace(**given)
    differences = [
        f"{setting.name}: the run has {show(getattr(saved, setting.name))}, now "
        f"{show(getattr(merged, setting.name))}"
        for setting in dataclasses.fields(TrainConfig)
        if not setting.metadata["resumable"]
        and getattr(saved, setting.name) != getattr(merged, setting.name)
    ]
    if differences:
        raise UsageError(
            "a run can be resumed only with the settings it was started with:\n  "
            + "\n  ".join(differences),
            hint="leave these flags out, or start a new run without --resume",
        )
    return merged


def read_settings(run: RunDir) -> dict[str, Any]:
    """Read the settings of a run from run.json: config.toml may have been edited since.

    Only config.toml has the settings of a run of an earlier version.

    Raises:
        ArtifactError: The file is damaged.
    """
    recorded = run.read_info().settings
    try:
        if recorded is None:
            settings = _read_whole(run.config)
        else:
            settings = {name: value for name, value in recorded.items() if name in _NAMES}
        TrainConfig(**settings)
    except UsageError as error:
        raise _unusable(run.config if recorded is None else run.info, error) from error
    return settings


def _read_whole(path: Path) -> dict[str, Any]:
    """Read config.toml of an earlier version, which no record of its settings can verify."""
    found = read_toml(path)
    if _LAST not in found:
        raise UsageError(f"it has lost its end, {_LAST}")
    return found


def read_config(run: RunDir) -> TrainConfig:
    """Read config.toml of a run to resume it.

    Settings that a resumed run may change, such as `epochs`, may have been edited.

    Raises:
        ArtifactError: The file is damaged, or other settings were edited; the message lists them.
    """
    try:
        recorded = run.read_info().settings or {}  # nothing in runs of earlier versions
        found = read_toml(run.config) if recorded else _read_whole(run.config)
        config = TrainConfig(**found)
    except UsageError as error:
        raise _unusable(run.config, error) from error
    changes = _edits(recorded, found, config, _CHECKED_BY_CONTENT | _RESUMABLE)
    if changes:
        sentence = f"{show(run.config)} has changed since the run began:"
        others = f"start a new run with the others: xception train --config {quoted(run.config)}"
        hint = f"restore these values, or {others}"
        if any(change.endswith(_MISSING) for change in changes):  # others would be defaults
            hint = f"restore these values; {show(run.info)} has them under settings"
        raise ArtifactError(listing(sentence, changes, _LISTED), hint=hint)
    return config


def _edits(
    recorded: Mapping[str, Any],
    found: Mapping[str, Any],
    config: TrainConfig,
    may_differ: Collection[str],
) -> list[str]:
    """Describe the settings of a config.toml that differ from those in run.json.

    Args:
        recorded: The settings in run.json.
        found: Those in the file; one that is missing may be truncated.
        config: The same, with defaults.
        may_differ: Names of settings that may have another value.
    """
    return [
        f"{name}: was {show(recorded[name])}, is {show(found.get(name, _MISSING))}"
        for name in _NAMES
        if name in recorded
        and (
            (name not in found and recorded[name] is not None)
            or (name not in may_differ and getattr(config, name) != recorded[name])
        )
    ]


def _unusable(path: Path, error: UsageError) -> ArtifactError:
    return ArtifactError(
        f"cannot use {show(path)}: {error.message}",
        hint="restore the file from a copy, or start a new run",
    )
