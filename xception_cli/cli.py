"""The command line: its commands, and how it ends. No torch at import."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated, Any

import typer

from xception_cli import __version__
from xception_cli.commands import embed, measure, predict, prepare, rank, serve, train
from xception_cli.commands.train import LATEST
from xception_cli.console import emit, fail, screen, show
from xception_cli.errors import (
    DivergedError,
    MachineError,
    StoppedError,
    UsageError,
    XceptionError,
    is_out_of_memory,
)
from xception_cli.files import cache_folder
from xception_cli.processes import end_at_once, is_leader, is_left_to_nohup, started_by_torchrun

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
app.command()(rank.rank)
app.command()(embed.embed)
app.command()(measure.compare)
app.command()(measure.report)
app.command("runs")(measure.list_runs)
app.command()(prepare.check)
app.command()(prepare.sample)
app.command()(prepare.summary)
app.command()(predict.export)
app.command()(serve.serve)
app.command()(prepare.env)

weights = typer.Typer(
    help="The pretrained weights: where they come from, and whether they are the right ones.",
    no_args_is_help=True,
)
weights.command("list")(prepare.weights_list)
weights.command("fetch")(prepare.weights_fetch)
weights.command("verify")(prepare.weights_verify)
app.add_typer(weights, name="weights")

cache = typer.Typer(
    help="What is kept for later: pretrained weights, scans of data folders, features of images.",
    no_args_is_help=True,
)
cache.command("ls")(prepare.cache_ls)
cache.command("clear")(prepare.cache_clear)
app.add_typer(cache, name="cache")

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
    screen.log_to(None)
    if isinstance(sys.stdout, io.TextIOWrapper):  # whose encoding may lack a letter, as cp1252 does
        sys.stdout.reconfigure(errors="backslashreplace")
    with suppress(MachineError):  # HOME is not set
        # Else matplotlib keeps its list of fonts, and torch compiled code, in places of their own;
        # torch's is a folder of /tmp that anyone can make first.
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torch"))
    with _signals_raised():
        _run(given, debug="--debug" in given)


def _run(given: Sequence[str], *, debug: bool) -> None:
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
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if debug:
            traceback.print_exc()
        less = "--batch-size with a smaller number, --accumulate 2, --unfreeze exit, --workers 0"
        fail(
            f"the memory is too small{f': {show(error)}' if str(error) else ''}",
            f"end other programs; or {less if 'train' in given else '--workers 0'}",
        )
        sys.exit(MachineError.exit_code)
    except (_Signalled, KeyboardInterrupt) as error:
        number = error.number if isinstance(error, _Signalled) else signal.SIGINT
        fail(f"stopped by {signal.Signals(number).name}", None)
        sys.exit(128 + number)


class _Signalled(BaseException):
    """A signal came: what is open is closed, helpers are ended, and the command with them."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise the signals that end a command, from its first line on; training has its own way."""
    process = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(128 + number)  # a worker that has just been forked
        raise _Signalled(number)

    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows lacks some
        number = getattr(signal, name, None)
        ours = {signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler}  # else a caller's
        if number and signal.getsignal(number) in ours and not is_left_to_nohup(number):
            with suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
