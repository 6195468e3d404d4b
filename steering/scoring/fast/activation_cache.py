"""Hidden states kept from one pass to the next: in memory up to a budget, then in a file, then nowhere."""

import shutil
import tempfile
import threading

import torch
from torch import Tensor

MEMORY_BUDGET = 256 * 1024**2
"""Bytes of hidden states kept in memory."""
DISK_RESERVE = 1024**3
"""Bytes of the disk that are left to others."""


class ActivationCache:
    """Hidden states [tokens, hidden_size] by pair, each as it was kept, bit for bit.

    The file lies in the temporary folder and has no name (or loses it when the program ends, on Windows): a killed
    program leaves nothing behind. A disk that is full or refuses costs time, not the run: `problem` says so, and states
    that are nowhere are computed again.

    Several threads may use it at once.

    Args:
        memory: bytes to keep in memory. Whatever comes after goes to the file.
    """

    def __init__(self, memory: int | None = None) -> None:
        self.memory_left = MEMORY_BUDGET if memory is None else memory
        self.problem = ""
        self._kept: dict[int, Tensor] = {}
        self._places: dict[int, tuple[int, torch.Size, torch.dtype, torch.device]] = {}
        self._file = None
        self._end = 0
        self._lock = threading.Lock()

    def __contains__(self, index: int) -> bool:
        return index in self._kept or index in self._places

    def __getitem__(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        start, shape, dtype, device = self._places[index]
        buffer = bytearray(shape.numel() * dtype.itemsize)
        with self._lock:
            self._file.seek(start)
            self._file.readinto(buffer)
        return torch.frombuffer(buffer, dtype=dtype).view(shape).to(device)

    def keep(self, index: int, states: Tensor) -> None:
        size = states.numel() * states.element_size()
        with self._lock:
            if size <= self.memory_left:
                self.memory_left -= size
                self._kept[index] = states.clone()
            elif not self.problem:
                self._write(index, states)

    def _write(self, index: int, states: Tensor) -> None:
        data = states.cpu().contiguous().view(torch.uint8).numpy()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="steering-states-")  # noqa: SIM115 - lives as long as the cache
            if shutil.disk_usage(tempfile.gettempdir()).free < DISK_RESERVE + data.nbytes:
                raise OSError("little room is left on the disk")
            self._file.seek(self._end)
            self._file.write(data)
            self._file.flush()  # a full disk is noticed now
        except OSError as error:
            self.problem = (
                f"Hidden states of {len(self._kept) + len(self._places)} pairs are kept, the others are computed again "
                f"each time, which is slower ({error.strerror or error}); room in {tempfile.gettempdir()} would help."
            )
            return
        self._places[index] = (self._end, states.shape, states.dtype, states.device)
        self._end += data.nbytes
