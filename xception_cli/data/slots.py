"""Slots: decoded images in memory that the image-loading processes share."""

import math
import mmap
import multiprocessing
import sys
from collections import deque
from contextlib import suppress
from weakref import finalize

import torch


class Slots:
    """Slots for parts of batches, in memory shared with forked processes.

    Torch passes each tensor of a worker through a socket, a thread and a copy, all in the training
    process. A slot is taken when its part is assigned to a worker, and returned when the batch has
    been used.

    Args:
        count: Number of slots.
        rows: Images per part.
        side: Side of an image, in pixels.
        device: Target of the batches; for CUDA, memory is page-locked and copies are asynchronous.
    """

    def __init__(self, count: int, rows: int, side: int, device: torch.device) -> None:
        self.pixels = torch.empty(0, dtype=torch.uint8)
        self._shape = (count, rows, 3, side, side)
        self._device = device
        self._is_locked = False
        self._free: deque[int] = deque()
        self._copied: deque[tuple[int, torch.cuda.Event]] = deque()

    def allocate(self) -> None:
        """Allocate the memory, before the processes that share it are forked."""
        memory = mmap.mmap(-1, math.prod(self._shape))  # anonymous, so not limited by /dev/shm
        places = torch.frombuffer(memory, dtype=torch.uint8)
        self.pixels = places.view(self._shape)

    def begin(self) -> None:
        """Begin a pass, with all slots free."""
        if self._device.type == "cuda":
            self._lock_pages()
            # The device may still copy the last batch of the previous pass.
            torch.cuda.current_stream(self._device).synchronize()
        self._copied.clear()
        self._free = deque(range(len(self.pixels)))

    def _lock_pages(self) -> None:
        """Page-lock the memory for asynchronous copies; call it after workers are forked."""
        if self._is_locked:
            return
        cuda, address = torch.cuda.cudart(), self.pixels.data_ptr()
        if cuda.cudaHostRegister(address, self.pixels.numel(), 0) == cuda.cudaError.success:
            finalize(self, cuda.cudaHostUnregister, address)
        else:  # copies are synchronous then
            with suppress(RuntimeError):  # the next kernel reports the failure as its own
                torch.ones((), device=self._device)
        self._is_locked = True

    def take(self) -> int:
        """Take a free slot; if there is none, wait until the device has copied the oldest."""
        if not self._free:
            if not self._copied:
                raise LookupError("no slot is free: read the loader with read_parts")
            slot, event = self._copied.popleft()
            event.synchronize()
            self._free.append(slot)
        return self._free.pop()  # the most recent one: its memory is in use already

    def give_back(self, slots: list[int]) -> None:
        """Return the slots of a batch; they are free once the device has copied them."""
        if self._device.type != "cuda":
            self._free.extend(slots)
            return
        event = torch.cuda.Event()
        event.record()
        self._copied.extend((slot, event) for slot in slots)
        while self._copied and self._copied[0][1].query():
            self._free.append(self._copied.popleft()[0])


def can_share() -> bool:
    """Return whether loader processes can be forked, and so inherit shared memory."""
    return sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
