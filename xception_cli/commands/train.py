"""train: one option for each setting, beside the command's own."""

import dataclasses
import inspect
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from xception_cli.commands.options import allow_pixels
from xception_cli.config import TrainConfig, flag, setting_type
from xception_cli.console import emit, quoted, say, show
from xception_cli.errors import UsageError
from xception_cli.processes import end_at_once, is_leader, started_by_torchrun
from xception_cli.recipes import find_config
from xception_cli.rundir import RunDir
from xception_cli.settings import resolve

LATEST = "latest"  # what a bare --resume means


def _settings_as_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting of `TrainConfig`, beside its own.

    Typer reads options from a signature, so the signature is written from the settings; the
    command gets them as keyword arguments, None where they were not given.
    """
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [_option(setting) for setting in dataclasses.fields(TrainConfig)]
    parameters = [*options, *own]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _option(setting: "dataclasses.Field[Any]") -> inspect.Parameter:
    kind = setting_type(setting)
    choices = typing.get_args(kind)
    default = "" if setting.default in {None, ""} else f" (default: {_shown(setting.default)})"
    names = [flag(setting.name)]
    if kind is bool:
        names = [f"{flag(setting.name)}/{flag('no_' + setting.name)}"]
    option = typer.Option(
        *names,
        help=f"{setting.metadata['help']}{default}",
        metavar="|".join(choices) if choices else None,
        show_default=False,
    )
    # Choices stay text here: TrainConfig checks them, with the same words for TOML and flags.
    annotated: Any = str if choices else kind
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotated | None, option],
    )


def _shown(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


@_settings_as_options
def train(
    *,
    output: Annotated[
        Path | None, typer.Option(help="Run folder (default: runs/ and the data folder's name).")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="TOML file, or a recipe of xception configs ls."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="[RUN]", help="Go on with a run; without RUN the latest."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done and what it takes, and stop.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log the epochs for TensorBoard too.")
    ] = False,
    **flags: Any,
) -> None:
    """Train a classifier on a folder of photos."""
    began = time.monotonic()

    from xception_cli.runs import choose_run_path, find_run, find_unfinished

    if not is_leader():
        if not plan:
            from xception_cli.training.run import run_training

            run_training(resolve({}, None))  # the leader tells it everything
            end_at_once()
        return
    run = survey = None
    if resume is not None:
        own = {"--output": output is not None, "--config": config is not None, "--plan": plan}
        for name, was_given in own.items():
            if was_given:
                raise UsageError(f"{name} and --resume exclude each other: a run has its own")
        run = find_run(None if resume == LATEST else Path(resume), finished=False)
    settings = resolve(flags, None if config is None else find_config(config))
    if run is None:
        if not settings.config.data:
            raise UsageError("which photos?", hint="xception train --data DIR")
        # Before torch is loaded: the commonest mistakes cost a tenth of a second.
        from xception_cli.check.survey import survey_data

        # An unwritable place is told before the images are read.
        choose_run_path(Path(settings.config.data), output)
        if output is None and (unfinished := find_unfinished(Path(settings.config.data))):
            say(f"note      {show(unfinished.path)} is unfinished; this starts a new run")
            say(f"          to resume that one: xception train --resume {quoted(unfinished.path)}")
        if tensorboard:  # so is a package that is missing
            from xception_cli.training.tensorboard import require_tensorboard

            require_tensorboard()
        if not started_by_torchrun():  # else the others would wait for it before they are joined
            given = settings.config
            allow_pixels(given.max_pixels)
            survey = survey_data(
                given.data,
                root=given.root,
                classes=given.classes,
                fixes=given.fixes,
                skip_bad=given.skip_bad,
            )

    from xception_cli.training.run import plan_training, run_training

    if plan:
        planned = plan_training(settings, survey=survey, output=output, began=began)
        for name, value in planned.items():
            emit(f"{name:12} {value:>14}")
        say("expected on this machine; fine-tuning may stop earlier. Without --plan it is done")
        return
    result = run_training(
        settings,
        survey=survey,
        output=output,
        resume=run,
        flags=flags,
        tensorboard=tensorboard,
        began=began,
    )
    if result is not None:
        emit(str(result.run.path))
        say(f"next: xception {_then(settings.config.from_, result.run)} {quoted(result.run.path)}")
    if started_by_torchrun():
        end_at_once()


def _then(earlier: str | None, run: RunDir) -> str:
    """Return what to do with a run: compare it with the one that it began with, if there is one."""
    return "eval" if earlier is None else f"compare {quoted(earlier)}"
