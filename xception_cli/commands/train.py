"""train: a run folder with a model, from a folder of images; with --plan, what it would take."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xception_cli.commands import complete
from xception_cli.commands.flags import read_flag, settings_as_options
from xception_cli.commands.plan import print_plans
from xception_cli.config import TrainConfig, check_frozen
from xception_cli.console import emit, quoted, say, screen, show
from xception_cli.errors import UsageError
from xception_cli.imports import importing
from xception_cli.processes import end_at_once, is_leader, started_by_torchrun
from xception_cli.recipes import EFFORTS, find_config, find_effort
from xception_cli.rundir import RunDir
from xception_cli.runs import choose_run_path, find_run, find_unfinished
from xception_cli.settings import ResolvedConfig, resolve

if TYPE_CHECKING:
    from xception_cli.check.survey import Survey

LATEST = "latest"  # what a bare --resume means


@settings_as_options
def train(
    *,
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR",
            help="Folder of images: one folder per class, or train/ and val/; or a table (.csv, "
            ".tsv or .parquet) with the columns path and label.",
            rich_help_panel="Data",
        ),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(EFFORTS),
            help="Training effort: quick trains only the linear probe (a classifier on the frozen "
            "network), standard also fine-tunes, best fine-tunes for twice the epochs on twice the "
            "views. With --plan, print the expected time of each.",
            show_default="default standard",
            rich_help_panel="Time and effort",
            autocompletion=complete.choices(EFFORTS),
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Print the phases of the training and their expected times, and stop.",
            rich_help_panel="Time and effort",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="With --plan, print one line of JSON; docs/json.md lists its keys.",
            rich_help_panel="Time and effort",
        ),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Read settings from a TOML file or a recipe (see xception configs ls); flags "
            "override them.",
            rich_help_panel="Time and effort",
            autocompletion=complete.recipes,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="RUN",
            help="New run folder. Default: in runs/, named after the data folder.",
            rich_help_panel="Output",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Resume a run; without RUN, the latest.",
            rich_help_panel="Output",
            autocompletion=complete.run_folders,
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Also log the epochs for TensorBoard.", rich_help_panel="Output"
        ),
    ] = False,
    **flags: Any,
) -> None:
    """Fine-tune an ImageNet-pretrained Xception on a folder of images.

    Computes the frozen layers once, fits a linear probe (the baseline), fine-tunes, keeps the
    better of the two on validation images (held back from training), and writes a run folder with
    the model, its evaluation and report.html.
    """
    began = time.monotonic()
    if not is_leader():
        if not plan:
            _follow()
        return
    if as_json and not plan:
        raise UsageError(
            "--json is for --plan: a training prints its run folder, whose result.json has the "
            "figures",
            hint="leave --json out, or add --plan",
        )
    run = survey = None
    if resume is not None:
        own = {"--output": output, "--config": config, "--effort": effort, "--plan": plan or None}
        run = _find_run(resume, own)
    given = {name: read_flag(name, value) for name, value in flags.items() if value is not None}
    if folder is not None:
        _take_folder(folder, given)
    settings = _resolve(given, config, effort)
    if run is None:
        survey = _check_new_run(settings.config, output, tensorboard=tensorboard)

    if plan:
        plans = {effort: settings}
        if effort is not None and settings.config.budget is None:
            plans = _every_effort(given)
        spent = time.monotonic() - began  # imports, and the scan
        print_plans(plans, effort, survey=survey, output=output, spent=spent, as_json=as_json)
        return

    with importing():
        from xception_cli.training.run import run_training

    result = run_training(
        settings,
        survey=survey,
        output=output,
        resume=run,
        flags=given,
        tensorboard=tensorboard,
        began=began,
    )
    if result is not None:
        emit(str(result.run.path))
        earlier = settings.config.from_  # to compare the run with
        then = "eval" if earlier is None else f"compare {quoted(earlier)}"
        say(f"next: xception {then} {quoted(result.run.path)}")
    if started_by_torchrun():
        end_at_once()


def _follow() -> None:
    """Train as one of torchrun's other processes, with what the leader shares."""
    with importing():
        from xception_cli.training.run import run_training

    run_training(resolve({}, None))
    end_at_once()


def _find_run(resume: str, own: Mapping[str, object]) -> RunDir:
    """Return the run to resume, which keeps its own value of some options; None: not given."""
    for name, value in own.items():
        if value is not None:
            raise UsageError(
                f"{name} cannot be combined with --resume: a run keeps its own",
                hint=f"leave {name} or --resume out",
            )
    return find_run(None if resume == LATEST else Path(resume), finished=False)


def _check_new_run(
    config: TrainConfig, output: Path | None, *, tensorboard: bool
) -> "Survey | None":
    """Report common mistakes before torch is loaded, where possible, and scan the images.

    Returns:
        The scan; None under torchrun, where the other processes would wait for it before they join.
    """
    if not config.data:
        raise UsageError(
            "the folder with your images is missing",
            hint="xception train DIR; xception sample DIR draws one to try",
        )
    check_frozen(config)
    # An unwritable place is reported before the images are read.
    choose_run_path(Path(config.data), output)
    if output is None and (unfinished := find_unfinished(Path(config.data))):
        say(f"note      {show(unfinished.path)} is unfinished; this starts a new run")
        say(f"          to resume it instead: xception train --resume {quoted(unfinished.path)}")
    if tensorboard:  # a missing package is reported early, too
        from xception_cli.training.tensorboard import require_tensorboard

        require_tensorboard()
    if started_by_torchrun():
        return None
    special = {config.device, config.precision} - {"auto", "cpu", "fp32"} or config.compile
    if special and os.path.lexists(config.data):
        # A machine that lacks it is reported before the images are read; this loads torch.
        from xception_cli.runtime import decide_runtime

        decide_runtime(device=config.device, precision=config.precision, compiled=config.compile)
    with importing():
        from xception_cli.check.survey import survey_data

    return survey_data(config)


def _take_folder(folder: str, given: dict[str, Any]) -> None:
    """Set `data` to the DIR argument."""
    data = given.get("data", folder)
    if Path(data) != Path(folder):
        raise UsageError(
            f"two data folders are given: {show(folder)} and {show(data)}",
            hint="leave --data out; to train on both, put their images into one folder",
        )
    given["data"] = folder


def _resolve(given: dict[str, Any], config: str | None, effort: str | None) -> ResolvedConfig:
    """Merge the settings; an effort is a recipe."""
    if effort is None:
        return resolve(given, None if config is None else find_config(config))
    if config is not None:
        raise UsageError(
            f"--effort {show(effort)} cannot be combined with --config {show(config)}: an effort "
            "is a recipe, too",
            hint=f"leave one out; xception configs show {show(effort)} prints its settings",
        )
    return resolve(given, find_effort(effort), effort=effort)


def _every_effort(given: dict[str, Any]) -> dict[str | None, ResolvedConfig]:
    with screen.silence():  # notes on the settings are printed already
        return {name: _resolve(given, None, name) for name in EFFORTS}
