"""Flags: the options of `train`, one for each setting, made from `TrainConfig`."""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from xception_cli.commands import complete
from xception_cli.config import TrainConfig, flag, setting_type
from xception_cli.numerals import span, without_separators

# The panels of the help, the most used options first: settings, and the command's own options.
PANELS = {
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


def settings_as_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting of `TrainConfig` to a command.

    Typer reads options from the signature, so the signature is built from the settings. The command
    gets them as keyword arguments, None if not given; `read_flag` reads their text.
    """
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    fields = {setting.name: setting for setting in dataclasses.fields(TrainConfig)}
    parameters |= {name: _option(setting) for name, setting in fields.items()}
    named = [name for names in PANELS.values() for name in names.split()]
    ordered = [parameters[name] for name in dict.fromkeys([*named, *parameters])]
    command.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in ordered}
    return command


def _panel(name: str) -> str:
    return next((title for title, names in PANELS.items() if name in names.split()), _OTHERS)


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


def read_flag(name: str, text: Any) -> Any:
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
