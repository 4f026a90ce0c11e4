"""The command line: its commands and exit codes. No torch at import."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated, Any

import typer

from xception_cli import __version__
from xception_cli.commands import (
    embed,
    export,
    machine,
    measure,
    predict,
    prepare,
    rank,
    serve,
    train,
)
from xception_cli.commands.command import Command, Group
from xception_cli.commands.train import LATEST
from xception_cli.console import emit, fail, screen, show, stop
from xception_cli.errors import (
    MORE_MEMORY,
    MORE_THREADS,
    NO_THREADS,
    DivergedError,
    MachineError,
    StoppedError,
    UsageError,
    XceptionError,
    is_out_of_memory,
    is_out_of_threads,
    signal_name,
)
from xception_cli.files import cache_folder, why_and_where
from xception_cli.processes import end_at_once, is_leader, is_left_to_nohup, started_by_torchrun
from xception_cli.streams import open_closed_streams

_TRAIN, _USE, _UNDERSTAND, _MACHINE = (
    "Data and training",
    "Using a model",
    "Comparing and understanding",
    "This machine",
)

app = typer.Typer(
    name="xception",
    cls=Group,
    help="Fine-tune an ImageNet-pretrained Xception on a folder of photos, one folder per class.",
    epilog="xception sample ./food, then xception train ./food",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts are plain; commands.help puts them into panels
)


def _group(name: str, summary: str) -> typer.Typer:
    group = typer.Typer(cls=Group, help=summary)
    app.add_typer(group, name=name, rich_help_panel=_MACHINE)
    return group


def _add(
    to: typer.Typer, command: Callable[..., None], name: str, panel: str | None, example: str
) -> None:
    to.command(name, cls=Command, epilog=f"xception {example}", rich_help_panel=panel)(command)


_add(app, prepare.sample, "sample", _TRAIN, "sample ./food")
_add(app, prepare.check, "check", _TRAIN, "check ./food --output findings")
_add(app, train.train, "train", _TRAIN, "train ./food --classes 12")
_add(app, measure.evaluate, "eval", _TRAIN, "eval runs/food --data ./others")
_add(app, predict.predict, "predict", _USE, "predict runs/food photo.jpg --explain heatmaps")
_add(app, export.export, "export", _USE, "export runs/food --output food.onnx")
_add(app, rank.rank, "rank", _USE, "rank runs/food ./unlabelled --output rank.csv")
_add(app, serve.serve, "serve", _USE, "serve runs/food")
_add(app, embed.embed, "embed", _USE, "embed runs/food ./food --output features.npz")
_add(app, measure.list_runs, "runs", _UNDERSTAND, "runs")
_add(app, measure.compare, "compare", _UNDERSTAND, "compare runs/food runs/food-2")
_add(app, measure.report, "report", _UNDERSTAND, "report runs/food")
_add(app, prepare.summary, "summary", _UNDERSTAND, "summary runs/food")
_add(app, machine.env, "env", _MACHINE, "env")
weights = _group("weights", "List, download or verify the pretrained weights.")
_add(weights, machine.weights_list, "list", None, "weights list")
_add(weights, machine.weights_fetch, "fetch", None, "weights fetch")
_add(weights, machine.weights_verify, "verify", None, "weights verify")
cache = _group(
    "cache", "List or clear the cache: weights, scans of data folders, features of images."
)
_add(cache, machine.cache_ls, "ls", None, "cache ls")
_add(cache, machine.cache_clear, "clear", None, "cache clear features")
configs = _group("configs", "List, show or copy the shipped recipes (settings for train).")
_add(configs, machine.configs_ls, "ls", None, "configs ls")
_add(configs, machine.configs_show, "show", None, "configs show best")
_add(configs, machine.configs_cp, "cp", None, "configs cp best mine.toml")


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"xception {__version__}")
        raise typer.Exit


def _silence(wanted: bool) -> None:
    screen.quiet |= wanted


# Every command has --quiet and --debug (`commands.command`). `_silence` and `main` handle them; no
# command gets their value.
@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", callback=_silence, expose_value=False, help="Print errors only."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", expose_value=False, help="Also print the traceback of an error."),
    ] = False,
) -> None:
    if not _has_current_folder():  # torch cannot even be loaded there
        raise MachineError("the current folder no longer exists", hint="cd to another folder")
    if started_by_torchrun() and context.invoked_subcommand != "train":
        raise UsageError(
            f"torchrun is for training; it cannot start {context.invoked_subcommand}",
            hint=f"xception {context.invoked_subcommand}, without torchrun",
        )


def _expand_bare_resume(arguments: Sequence[str]) -> list[str]:
    """Allow `--resume` without a value, which Typer's options do not support."""
    expanded = []
    for position, argument in enumerate(arguments):
        following = arguments[position + 1 : position + 2]
        bare = argument == "--resume" and (not following or following[0].startswith("-"))
        expanded.append(f"--resume={LATEST}" if bare else argument)
    return expanded


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    screen.log_to(None)
    open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # cp1252, for example, lacks letters
        sys.stdout.reconfigure(errors="backslashreplace")
    # A notebook sets its own for `!xception train`, which this environment may lack: without it,
    # matplotlib cannot even be imported. Nothing here opens a window.
    os.environ["MPLBACKEND"] = "agg"
    with suppress(MachineError):  # HOME is not set
        # Keep matplotlib's list of fonts and torch's compiled code in our cache. Torch's default is
        # a folder in /tmp, which another user could create first.
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "torch"))
    screen.quiet = not is_leader()
    with _signals_raised():
        try:
            _run(given, debug="--debug" in given)
        except (_Signalled, KeyboardInterrupt) as error:  # also while an error is reported
            signalled = error if isinstance(error, _Signalled) else _Signalled(signal.SIGINT)
            stop(f"stopped by {signal_name(signalled.number)}", None)
            sys.exit(signalled.exit_code)


def _run(given: Sequence[str], *, debug: bool) -> None:
    try:
        app(_expand_bare_resume(given), prog_name="xception")
    except Exception as error:
        known = error if isinstance(error, XceptionError) else _of_machine(error, given)
        if known is None:
            raise
        if debug:
            traceback.print_exc()
        if not is_leader() and isinstance(known, (StoppedError, DivergedError, UsageError)):
            end_at_once()  # every process has this error; the leader reports it, and fails
        (stop if isinstance(known, StoppedError) else fail)(known.message, known.hint)
        sys.exit(known.exit_code)


def _of_machine(error: Exception, given: Sequence[str]) -> MachineError | None:
    """Return what the machine lacks, by an error of Python or a library; None for a bug of ours."""
    if is_out_of_threads(error):
        return MachineError(NO_THREADS, hint=MORE_THREADS)
    if isinstance(error, OSError):
        again = None if "--debug" in given else "run the same command with --debug to see where"
        return MachineError(why_and_where(error), hint=again)
    if isinstance(error, (MemoryError, RuntimeError, ImportError)) and is_out_of_memory(error):
        less = "a smaller --batch-size, --accumulate 2, --unfreeze exit or --workers 0"
        hint = f"close other programs, or try {less}" if "train" in given else MORE_MEMORY
        return MachineError(f"out of memory{f': {show(error)}' if str(error) else ''}", hint=hint)
    if isinstance(error, UnicodeEncodeError) and (
        error.encoding == sys.getfilesystemencoding() != "utf-8"
    ):
        return MachineError(
            f"the file name {show(error.object)} has letters that this locale's encoding, "
            f"{error.encoding}, lacks",
            hint="unset PYTHONUTF8 and set LC_ALL=C.UTF-8; then run the command again",
        )
    return None


def _has_current_folder() -> bool:
    try:
        return bool(os.getcwd())  # noqa: PTH109 - no path is needed
    except OSError as error:  # others, such as a parent that cannot be read, do not matter
        return not isinstance(error, FileNotFoundError)


class _Signalled(BaseException):
    """A signal ends the command: raised, so that files are closed and helper processes ended."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise the signals that end a command as `_Signalled`; training has handlers of its own."""
    process = os.getpid()

    def raise_it(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(128 + number)  # a worker that has just been forked
        raise _Signalled(number)

    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows lacks some
        number = getattr(signal, name, None)
        ours = {signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler}  # else a caller's
        if number and signal.getsignal(number) in ours and not is_left_to_nohup(number):
            with suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, raise_it)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
