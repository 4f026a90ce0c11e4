"""The live view of a training: its epochs, logged for TensorBoard."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ignite.engine import Engine, Events
from ignite.handlers.tensorboard_logger import TensorboardLogger

from xception_cli.errors import MachineError
from xception_cli.training.handlers import epoch_row


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

    logger = TensorboardLogger(log_dir=str(folder))
    logger.attach(trainer, _log, Events.EPOCH_COMPLETED)
    return logger
