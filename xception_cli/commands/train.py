"""train: an option for each setting, in addition to the command's own."""

import dataclasses
import inspect
import os
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from xception_cli.commands import complete
from xception_cli.commands.plan import print_plans
from xception_cli.config import TrainConfig, flag, setting_type
from xception_cli.console import emit, quoted, say, show
from xception_cli.errors import UsageError
from xception_cli.numerals import span, without_separators
from xception_cli.processes import end_at_once, is_leader, started_by_torchrun
from xception_cli.recipes import EFFORTS, find_config, find_effort
from xception_cli.rundir import RunDir
from xception_cli.settings import ResolvedConfig, resolve

LATEST = "latest"  # what a bare --resume means

# The panels of the help, the most used options first: settings, and the command's own options.
_PANELS = {
    "Data": "folder classes val_fraction test_fraction fixes group_by split_file skip_bad strict "
    "data root max_pixels",
    "Time and effort": "effort budget plan as_json epochs unfreeze views config",
    "Output": "output resume from_ tensorboard",
    "Training": "weights image_size batch_size accumulate optimizer lr head_lr layer_decay "
    "schedule warmup balance monitor patience ceiling seed",
    "Regularisation": "augment flip weight_decay label_smoothing dropout clip ema",
    "Final model": "refit tta target_precision share_features",
    "Machine": "device precision workers cache_gb compile deterministic save_every_minutes "
    "log_every",
}
_OTHERS = "Training"  # the panel of any other setting
_METAVARS = {
    "data": "DIR|TABLE",
    "root": "DIR",
    "fixes": "FILE",
    "group_by": "REGEX",
    "split_file": "FILE",
    "from_": "RUN",
    "weights": "imagenet|none|FILE",
    "budget": "TIME",
    "cache_gb": "GB",
    "save_every_minutes": "MINUTES",
}
_COMPLETIONS = {"weights": complete.choices(("imagenet", "none")), "from_": complete.run_folders}


def _settings_as_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting of `TrainConfig` to a command.

    Typer reads options from the signature, so the signature is built from the settings. The command
    gets them as keyword arguments, None if not given.
    """
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    fields = {setting.name: setting for setting in dataclasses.fields(TrainConfig)}
    parameters |= {name: _option(setting) for name, setting in fields.items()}
    named = [name for names in _PANELS.values() for name in names.split()]
    ordered = [parameters[name] for name in dict.fromkeys([*named, *parameters])]
    command.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in ordered}
    return command


def _panel(name: str) -> str:
    return next((title for title, names in _PANELS.items() if name in names.split()), _OTHERS)


def _option(setting: "dataclasses.Field[Any]") -> inspect.Parameter:
    kind = setting_type(setting)
    choices = [name for name in typing.get_args(kind) if name != "gpu"]  # which means cuda
    notes = [span(setting.metadata["at_least"], setting.metadata["at_most"])]
    if kind is bool:
        notes = ["default on"] if setting.default else ["off"]
    elif setting.default not in {None, ""}:
        notes.append(f"default {_shown(setting.default)}")
    names = [flag(setting.name)]
    if kind is bool:
        names = [f"{flag(setting.name)}/{flag('no_' + setting.name)}"]
    usual = "|".join(choices) or {int: "N", float: "X", str: "TEXT"}.get(kind)
    option = typer.Option(
        *names,
        help=setting.metadata["help"],
        metavar=_METAVARS.get(setting.name, usual),
        show_default="; ".join(filter(None, notes)),
        rich_help_panel=_panel(setting.name),
        autocompletion=complete.choices(choices) if choices else _COMPLETIONS.get(setting.name),
    )
    # Values stay text here: TrainConfig checks them, with the same words for TOML and flags.
    annotated: Any = bool if kind is bool else str
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotated | None, option],
    )


def _shown(default: Any) -> str:
    return f"{default:,}" if isinstance(default, int) else str(default)


def _read(name: str, text: Any) -> Any:
    """Read the value of a flag; invalid numbers stay text, which `TrainConfig` refuses."""
    kind = setting_type(next(s for s in dataclasses.fields(TrainConfig) if s.name == name))
    if kind not in {int, float} or not isinstance(text, str):
        return text
    plain = without_separators(text) if kind is int else text
    try:
        number = float(plain)
        if kind is int and not number.is_integer():
            return text
        if kind is float:
            return number
        return int(plain) if plain.strip().lstrip("+-").isdigit() else int(number)
    except (ValueError, OverflowError):
        return text


@_settings_as_options
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

    from xception_cli.runs import choose_run_path, find_run, find_unfinished

    if not is_leader():
        if not plan:
            from xception_cli.training.run import run_training

            run_training(resolve({}, None))  # the leader shares everything
            end_at_once()
        return
    if as_json and not plan:
        raise UsageError(
            "--json is for --plan: a training prints its run folder, whose result.json has the "
            "figures",
            hint="leave --json out, or add --plan",
        )
    run = survey = None
    if resume is not None:
        own = {
            "--output": output is not None,
            "--config": config is not None,
            "--effort": effort is not None,
            "--plan": plan,
        }
        for name, was_given in own.items():
            if was_given:
                raise UsageError(
                    f"{name} cannot be combined with --resume: a run keeps its own",
                    hint=f"leave {name} or --resume out",
                )
        run = find_run(None if resume == LATEST else Path(resume), finished=False)
    flags = {name: _read(name, value) for name, value in flags.items() if value is not None}
    if folder is not None:
        _take_folder(folder, flags)
    settings = _resolve(flags, config, effort)
    if run is None:
        if not settings.config.data:
            raise UsageError(
                "the folder with your images is missing",
                hint="xception train DIR; xception sample DIR draws one to try",
            )
        # Before torch is loaded, so that common mistakes are reported at once.
        from xception_cli.check.survey import survey_data

        # An unwritable place is reported before the images are read.
        choose_run_path(Path(settings.config.data), output)
        if output is None and (unfinished := find_unfinished(Path(settings.config.data))):
            say(f"note      {show(unfinished.path)} is unfinished; this starts a new run")
            say(
                f"          to resume it instead: xception train --resume {quoted(unfinished.path)}"
            )
        if tensorboard:  # a missing package is reported early, too
            from xception_cli.training.tensorboard import require_tensorboard

            require_tensorboard()
        if not started_by_torchrun():  # else the other processes wait before they join
            given = settings.config
            special = {given.device, given.precision} - {"auto", "cpu", "fp32"} or given.compile
            if special and os.path.lexists(given.data):
                # A machine that lacks it is reported before the images are read; this loads torch.
                from xception_cli.runtime import decide_runtime

                decide_runtime(
                    device=given.device, precision=given.precision, compiled=given.compile
                )
            survey = survey_data(
                given.data,
                root=given.root,
                classes=given.classes,
                fixes=given.fixes,
                split_file=given.split_file,
                group_by=given.group_by,
                skip_bad=given.skip_bad,
                max_pixels=given.max_pixels,
            )

    if plan:
        efforts = EFFORTS if effort and settings.config.budget is None else (effort,)
        others = {n: settings if n == effort else _resolve(flags, config, n) for n in efforts}
        spent = time.monotonic() - began  # imports, and the scan
        print_plans(others, effort, survey=survey, output=output, spent=spent, as_json=as_json)
        return

    from xception_cli.training.run import run_training

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


def _take_folder(folder: str, flags: dict[str, Any]) -> None:
    """Set `data` to the DIR argument."""
    given = flags.get("data", folder)
    if Path(given) != Path(folder):
        raise UsageError(
            f"two data folders are given: {show(folder)} and {show(given)}",
            hint="leave --data out; to train on both, put their images into one folder",
        )
    flags["data"] = folder


def _resolve(flags: dict[str, Any], config: str | None, effort: str | None) -> ResolvedConfig:
    """Merge the settings; an effort is a recipe."""
    if effort is None:
        return resolve(flags, None if config is None else find_config(config))
    if config is not None:
        raise UsageError(
            f"--effort {show(effort)} cannot be combined with --config {show(config)}: an effort "
            "is a recipe, too",
            hint=f"leave one out; xception configs show {show(effort)} prints its settings",
        )
    return resolve(flags, find_effort(effort), effort=effort)


def _then(earlier: str | None, run: RunDir) -> str:
    """Return the next command for a run: compare it with the run it started from, if any."""
    return "eval" if earlier is None else f"compare {quoted(earlier)}"
