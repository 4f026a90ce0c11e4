"""Processes: the processes of one training, as torchrun starts them; one without torchrun.

The first one leads: it scans the folder, decides, prints and writes. The others receive its
decisions, and each computes its share of every batch.

The command line uses this module to find out which process it is in, so torch is imported only
where processes are joined or communicate.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from xception_cli.console import show
from xception_cli.errors import MachineError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def is_left_to_nohup(number: int) -> bool:
    """Return whether a signal must stay ignored: SIGHUP if the program was started by nohup."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process, even as the only one."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_leader() -> bool:
    """Return whether this process prints; with torchrun, only the first one does."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def end_at_once() -> None:
    """End a process that was joined with others, with exit code 0 and flushed output.

    A normal exit may abort after torch.distributed: its threads (2.14) are not always joined.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


# A dead process is noticed at once, by its closed connection; these are for one that hangs.
_PATIENCE = timedelta(minutes=5)  # for collective operations
_LONG_PATIENCE = timedelta(hours=12)  # while one process may be scanning 200,000 files


@dataclass(frozen=True)
class Processes:
    """The processes that train together, and this one's place among them.

    Attributes:
        rank: Number of this process, from 0, over all machines.
        count: Number of processes.
        local_rank: Number of this process on its machine.
        local_count: Number of processes on this machine.
        nccl: Process group of GPUs; None on CPUs, which use gloo.
        waiting: Process group for long waits; None for a single process.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    nccl: Any = None
    waiting: Any = None

    @property
    def are_joined(self) -> bool:
        """Whether torchrun started them, even a single one, so that collective operations work."""
        return self.count > 1 or self.waiting is not None

    @property
    def leads(self) -> bool:
        """Whether this process decides, prints and writes."""
        return self.rank == 0

    def once(self, make: Callable[[], T]) -> T:
        """Compute a value in the leader, and return it in all processes.

        Args:
            make: Called in the leader only; its result must be picklable.
        """
        if not self.are_joined:
            return make()
        from torch import distributed

        box = [make() if self.leads else None]
        distributed.broadcast_object_list(box, src=0, group=self.waiting)
        return box[0]  # type: ignore[return-value]

    def gather(self, part: T) -> list[T]:
        """Gather a value of each process in the leader, by rank; the others get an empty list.

        Args:
            part: Picklable.
        """
        if not self.are_joined:
            return [part]
        from torch import distributed

        parts: list[Any] = [None] * self.count
        into = parts if self.leads else None
        distributed.gather_object(part, into, dst=0, group=self.waiting)
        return parts if self.leads else []

    def wait(self) -> None:
        """Wait until all processes are here, even if one takes long."""
        if self.are_joined:
            from torch import distributed

            distributed.barrier(group=self.waiting)

    def total(self, values: "torch.Tensor") -> "torch.Tensor":
        """Return the sum of a tensor over all processes; the tensor itself may be changed."""
        if self.are_joined:
            from torch import distributed

            distributed.all_reduce(values, group=self.nccl if values.is_cuda else None)
        return values

    def largest(self, number: int) -> int:
        """Return the largest of a number over all processes."""
        if not self.are_joined:
            return number
        import torch
        from torch import distributed

        value = torch.tensor(int(number))
        distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
        return int(value)

    def separate(self) -> None:
        """Leave the process group, all processes at once."""
        if self.are_joined:
            from torch import distributed

            distributed.destroy_process_group()


ALONE = Processes()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started; without it, yield a single process.

    Raises:
        MachineError: This build of torch does not support it, or another process ended.
    """
    if not started_by_torchrun():
        yield ALONE
        return
    from torch import distributed

    if not distributed.is_available() or not distributed.is_gloo_available():
        raise MachineError("this build of torch cannot join processes", hint="leave torchrun out")
    # Ignite (0.5.5) requires it in a SLURM job.
    os.environ.setdefault("SLURM_LOCALID", os.environ["LOCAL_RANK"])
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes(
            rank=distributed.get_rank(),
            count=distributed.get_world_size(),
            local_rank=int(os.environ["LOCAL_RANK"]),
            local_count=int(os.environ["LOCAL_WORLD_SIZE"]),
            waiting=distributed.new_group(backend="gloo", timeout=_LONG_PATIENCE),
        )
    except BaseException as error:
        lost = _lost_connection(error)
        if lost is None:
            raise
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's; the reason is reported
        raise MachineError(
            f"another process of this training has ended or hangs: {show(lost)}",
            hint="torchrun's output names it; fix the cause, then continue with --resume",
        ) from lost


def _lost_connection(error: BaseException) -> BaseException | None:
    """Return the error of a connection to a process that has ended or hangs; None for others.

    When one process has ended, torchrun sends SIGTERM to the others, and that may arrive while the
    lost connection is being handled.
    """
    from torch import distributed

    lost: BaseException | None = error
    if getattr(error, "exit_code", None) == 128 + signal.SIGTERM:
        while lost is not None and not isinstance(lost, RuntimeError):
            lost = lost.__context__
    gloo = ("closed by peer", "reset by peer", "Broken pipe", "Timed out waiting")
    if isinstance(lost, distributed.DistError):
        return lost
    return lost if isinstance(lost, RuntimeError) and any(s in str(lost) for s in gloo) else None
