"""Several processes in one training: what they cannot do together, and how they share gradients."""

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xception_cli.config import TrainConfig
from xception_cli.data.split import Split
from xception_cli.errors import UsageError
from xception_cli.model.network import Segment
from xception_cli.runtime import Runtime


def check_processes(config: TrainConfig, runtime: Runtime, split: Split) -> None:
    """See that the processes which train together can do so with these settings.

    Args:
        config: With everything decided.
        runtime: Of the leader.
        split: The images.

    Raises:
        UsageError: They cannot.
    """
    processes = runtime.processes
    if processes.count == 1:
        return
    hint = "leave torchrun out"
    if config.budget is not None:
        raise UsageError(
            f"--budget needs one process with one clock, and there are {processes.count}", hint=hint
        )
    if config.weights == "none" and runtime.device.type == "cpu":
        raise UsageError(
            "--weights none trains batch norm, whose statistics CPUs cannot share between "
            f"{processes.count} processes",
            hint=hint,
        )
    if config.weights == "none" and config.accumulate > 1:
        raise UsageError(
            f"--weights none trains batch norm, which --accumulate {config.accumulate} pieces "
            f"cannot share between {processes.count} processes",
            hint="--accumulate 1, and a smaller --batch-size if memory is short",
        )
    if config.unfreeze in {"exit", "middle"} and processes.local_count < processes.count:
        raise UsageError(
            f"--unfreeze {config.unfreeze} keeps activations in a file, which processes of several "
            "machines cannot share",
            hint="--unfreeze all or head, or all processes on one machine",
        )
    sizes = {"--batch-size": config.batch_size}
    sizes |= {name: len(split.of(name)) for name in ("train", "val") if split.of(name)}
    for name, size in sizes.items():
        if size < processes.count:
            raise UsageError(
                f"{name} has {size} images, too few for {processes.count} processes", hint=hint
            )


def distribute(trained: Segment, runtime: Runtime, *, batch_norm: bool) -> nn.Module:
    """Return the network whose gradients are those of all processes; alone, the same one.

    Args:
        trained: The same in each process; it holds the gradients.
        runtime: Where to compute.
        batch_norm: Whether its statistics are to be those of the whole batch.
    """
    if not runtime.processes.are_joined:
        return trained
    on_gpu = runtime.device.type == "cuda"
    if batch_norm and on_gpu:
        nn.SyncBatchNorm.convert_sync_batchnorm(trained, runtime.processes.nccl)
    return DistributedDataParallel(
        trained,
        device_ids=[runtime.device] if on_gpu else None,
        process_group=runtime.processes.nccl,
    )


def gradients_exchanged(network: object, *, now: bool) -> AbstractContextManager[None]:
    """Return the context of a backward pass; of several pieces the last exchanges their sum."""
    if isinstance(network, DistributedDataParallel) and not now:
        return network.no_sync()
    return nullcontext()
