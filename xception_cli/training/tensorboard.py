"""The live view of a training: its epochs, logged for TensorBoard."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ignite.engine import Engine, Events
from ignite.handlers.tensorboard_logger import TensorboardLogger

from xception_cli.console import quoted, say, show
from xception_cli.errors import MachineError
from xception_cli.files import make_folder, why
from xception_cli.regular import open_regular, write_all
from xception_cli.training.handlers import epoch_row

_PREFIX = "xception"


def require_tensorboard() -> None:
    """Check that Ignite's logger has a package to write with, before anything slow is done.

    Raises:
        MachineError: There is none.
    """
    # The two that it accepts (0.5.5); torch has its own writer, based on the second one.
    if not any(map(find_spec, ("tensorboardX", "tensorboard"))):
        raise MachineError(
            "--tensorboard needs a package that is not installed: tensorboardX",
            hint="pip install 'xception-cli[tensorboard]'",
        )


def begin_tensorboard(folder: Path) -> None:
    """Make the folder of the log; a resumed run that has one continues to log.

    Raises:
        MachineError: It cannot be made.
    """
    make_folder(folder)
    say(f"live view tensorboard --logdir {quoted(folder)}")


class _EventFile:
    """A file of events that ends at the first error of its disk: it is only a copy of figures.

    In tensorboardX (2.6) the error would end the thread that writes, and the next epochs would wait
    for it forever.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        with self._errors():
            self._descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, content: bytes) -> None:
        """Write all bytes."""
        if self._descriptor is not None:
            with self._errors():
                write_all(self._descriptor, content)

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            reason = f"cannot write {show(self._path)}: {why(error)}"
            say(f"warning   TensorBoard shows no further epochs: {reason}")


class _EventFiles:
    """What tensorboardX opens files with whose paths begin with `_PREFIX`."""

    def directory_check(self, path: str) -> None:
        """The folder exists."""

    def open(self, path: str) -> _EventFile:
        """Open a file."""
        return _EventFile(Path(path.removeprefix(f"{_PREFIX}:")))


def _guarded(folder: Path) -> str:
    """Return the name of a folder for the logger, so that it writes guarded files there."""
    try:
        from tensorboardX.record_writer import register_writer_factory
    except ImportError:  # it writes with TensorBoard itself
        return str(folder)
    register_writer_factory(_PREFIX, _EventFiles())
    return f"{_PREFIX}:{folder}"


def attach_tensorboard(
    trainer: Engine, folder: Path, rate: Callable[[], float]
) -> TensorboardLogger:
    """Log each epoch's figures for TensorBoard, under their names in metrics.jsonl.

    A resumed run adds a file to the folder, which TensorBoard reads as the same log.

    Returns:
        The logger, to be closed after training.
    """

    def _log(engine: Engine, logger: TensorboardLogger, _: Events) -> None:
        figures = epoch_row(engine, rate())
        epoch = figures.pop("epoch")
        for name, value in figures.items():
            if isinstance(value, float):  # not the list of recalls by class: too many curves
                logger.writer.add_scalar(name, value, epoch)
        logger.writer.flush()

    logger = TensorboardLogger(log_dir=_guarded(folder))
    logger.attach(trainer, _log, Events.EPOCH_COMPLETED)
    return logger
