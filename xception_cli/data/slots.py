"""Shared memory that loader processes decode into, so that no image is sent between processes."""

import mmap
import multiprocessing
import sys
from collections import deque
from weakref import finalize

import torch


class Slots:
    """Slots for parts of batches, in memory shared with forked processes.

    Torch hands over each tensor of a worker by a socket, a thread and a copy, all in the process
    that trains. A slot is taken when its part is assigned to a worker, and given back when the
    batch was used.

    Args:
        count: Number of slots.
        rows: Images of a part.
        side: Of an image, in pixels.
        device: Where batches go; for CUDA the memory is page-locked, and copies are asynchronous.
    """

    def __init__(self, count: int, rows: int, side: int, device: torch.device) -> None:
        memory = mmap.mmap(
            -1, count * rows * 3 * side**2
        )  # anonymous, so /dev/shm does not limit it
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
        if self._device.type == "cuda":  # it may still copy the last batch of the previous pass
            torch.cuda.current_stream(self._device).synchronize()
        self._copied.clear()
        self._free = deque(range(len(self.pixels)))
        self._pass += 1
        return self._pass

    def take(self) -> int:
        """Take a free slot; if there is none, wait until the device has copied the oldest."""
        if not self._free:
            slot, event = self._copied.popleft()
            event.synchronize()
            self._free.append(slot)
        return self._free.pop()  # the most recent one: its memory is in use already

    def give_back(self, slots: list[int], number: int) -> None:
        """Give back the slots of a batch of pass `number`; they are free once copied."""
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
    """Tell whether loader processes can be forked, and so inherit shared memory."""
    return sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
