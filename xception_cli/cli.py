"""The command line: its commands, and how it ends. No torch at import."""

import io
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from xception_cli import __version__
from xception_cli.commands import measure, predict, prepare, train
from xception_cli.commands.train import LATEST
from xception_cli.console import emit, fail, screen, show
from xception_cli.errors import DivergedError, MachineError, StoppedError, UsageError, XceptionError
from xception_cli.processes import end_at_once, is_leader, started_by_torchrun

app = typer.Typer(
    name="xception",
    help="Fine-tune an ImageNet-pretrained Xception on a folder of photos.",
    epilog="Start with: xception sample ./food, then xception train --data ./food",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(train.train)
app.command("eval")(measure.evaluate)
app.command()(predict.predict)
app.command()(measure.compare)
app.command()(measure.report)
app.command("runs")(measure.list_runs)
app.command()(prepare.check)
app.command()(prepare.sample)
app.command()(prepare.summary)
app.command()(predict.export)
app.command()(prepare.env)

weights = typer.Typer(
    help="The pretrained weights: where they come from, and whether they are the right ones.",
    no_args_is_help=True,
)
weights.command("list")(prepare.weights_list)
weights.command("fetch")(prepare.weights_fetch)
weights.command("verify")(prepare.weights_verify)
app.add_typer(weights, name="weights")

configs = typer.Typer(
    help="The shipped recipes: complete settings, each with what it gave.", no_args_is_help=True
)
configs.command("ls")(prepare.configs_ls)
configs.command("show")(prepare.configs_show)
configs.command("cp")(prepare.configs_cp)
app.add_typer(configs, name="configs")


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"xception {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    if started_by_torchrun() and context.invoked_subcommand != "train":
        raise UsageError(
            f"torchrun is for training; it cannot start {context.invoked_subcommand}",
            hint=f"xception {context.invoked_subcommand}, without torchrun",
        )
    screen.quiet = quiet or not is_leader()


def _expand_bare_resume(arguments: Sequence[str]) -> list[str]:
    """Let `--resume` stand without a value, which Typer's options cannot."""
    expanded = []
    for position, argument in enumerate(arguments):
        following = arguments[position + 1 : position + 2]
        bare = argument == "--resume" and (not following or following[0].startswith("-"))
        expanded.append(f"--resume={LATEST}" if bare else argument)
    return expanded


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    screen.log_to(None)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whose encoding may lack a letter, as cp1252 does
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(_expand_bare_resume(given), prog_name="xception")
    except XceptionError as error:
        if debug:
            traceback.print_exc()
        if not is_leader() and isinstance(error, (StoppedError, DivergedError, UsageError)):
            end_at_once()  # all processes of a training end so; the first one tells, and fails
        fail(error.message, error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        fail(f"{show(error)}", "xception --debug shows where")
        sys.exit(MachineError.exit_code)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which need not be loaded here
            raise
        fail(
            f"the device's memory is too small: {show(error)}",
            "--accumulate 2, a smaller --batch-size, or --unfreeze exit; or --device cpu",
        )
        sys.exit(MachineError.exit_code)
    except KeyboardInterrupt:
        fail("stopped", None)
        sys.exit(130)
