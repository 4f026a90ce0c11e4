"""Memory that loader processes decode into: what they have decoded is not sent, it is there."""

import mmap
import multiprocessing
import sys
from collections import deque
from weakref import finalize

import torch


class Slots:
    """Places for parts of batches, in memory that this process shares with those it forks.

    Torch sends each tensor of a worker through a socket, a thread and a copy; while a GPU trains,
    that is more work for this process than the training. A slot is taken when its part is given
    to a worker, and free again when the batch that it belongs to was worked on.

    Args:
        count: How many parts there is room for.
        rows: Images of a part.
        side: Of an image, in pixels.
        device: Where batches go; a CUDA device copies from here without waiting.
    """

    def __init__(self, count: int, rows: int, side: int, device: torch.device) -> None:
        memory = mmap.mmap(-1, count * rows * 3 * side**2)  # anonymous: no limit of /dev/shm
        places = torch.frombuffer(memory, dtype=torch.uint8)
        self.pixels = places.view(count, rows, 3, side, side)
        self._device = device
        self._free: deque[int] = deque()
        self._copied: deque[tuple[int, torch.cuda.Event]] = deque()
        self._pass = 0
        if (
            device.type == "cuda"
            and torch.cuda.cudart().cudaHostRegister(places.data_ptr(), places.numel(), 0)
            == torch.cuda.cudart().cudaError.success
        ):
            finalize(self, torch.cuda.cudart().cudaHostUnregister, places.data_ptr())

    def begin(self) -> int:
        """Begin a pass, with all slots free; return its number."""
        if self._device.type == "cuda":  # the last batch of the pass before may be on its way
            torch.cuda.current_stream(self._device).synchronize()
        self._copied.clear()
        self._free = deque(range(len(self.pixels)))
        self._pass += 1
        return self._pass

    def take(self) -> int:
        """Take a free slot; waits for the device, if it has all of them still to copy."""
        if not self._free:
            slot, event = self._copied.popleft()
            event.synchronize()
            self._free.append(slot)
        return self._free.pop()  # the last one freed: memory that was used already

    def give_back(self, slots: list[int], number: int) -> None:
        """Free the slots of a batch of pass `number`, once the device has them copied."""
        if number != self._pass:
            return
        if self._device.type != "cuda":
            self._free.extend(slots)
            return
        event = torch.cuda.Event()
        event.record()
        self._copied.extend((slot, event) for slot in slots)
        while self._copied and self._copied[0][1].query():
            self._free.append(self._copied.popleft()[0])


def can_share() -> bool:
    """Tell whether loader processes are forked, and so share memory that is mapped before."""
    return sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
