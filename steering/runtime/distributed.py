"""One program on several processes and machines: started by `accelerate launch`, joined by torch.distributed.

Every process runs the same program and makes the calls below in the same order. An error on one of them is raised on
all of them with the same sentence, so none is left waiting for another.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steering.errors import SteeringError

if TYPE_CHECKING:
    from accelerate import PartialState

LONGEST_WAIT = timedelta(days=2)
"""Time limit of an exchange. Long, because each process may train vectors of its own between two exchanges; a process
that died is noticed at once all the same."""


class SharedError(SteeringError):
    """A SteeringError that every process raises with the same words, so that the main one may print it for all."""


class Processes:
    """The processes of a run. Without a `state` it is this process alone, and every call costs nothing.

    Attributes:
        index: this process's number, from 0 (torch.distributed's rank).
        count: the number of processes (torch.distributed's world size).
        device: where `load_model` should put the model; None leaves it the choice.
    """

    def __init__(self, state: "PartialState | None" = None) -> None:
        self._state = state
        self.index: int = state.process_index if state else 0
        self.count: int = state.num_processes if state else 1
        self.device = state.device.type if state else None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.index == 0

    def share(self, items: Sequence[int]) -> list[int]:
        """Return this process's part of a batch: even parts, without an exchange.

        Item i goes to process i modulo count while that has less than its even part; the rest goes to those that have
        fewest. So a pair mostly comes to the process that has its hidden states cached.
        """
        parts: list[list[int]] = [[] for _ in range(self.count)]
        even = -(-len(items) // self.count)
        remaining: list[int] = []
        for item in items:
            part = parts[item % self.count]
            (part if len(part) < even else remaining).append(item)
        for item in remaining:
            min(parts, key=len).append(item)
        return parts[self.index]

    def total(self, work: Callable[[], Tensor], size: int) -> Tensor:
        """Call `work` on each process and sum its results, float32 [size], over all of them (an all-reduce).

        Raises what `work` raises where this process is alone; otherwise a SharedError with the words of the first
        process that failed.
        """
        if self._state is None:
            return work()
        error, sums = None, torch.zeros(size + 1, device=self._state.device)  # the last one counts failures
        try:
            sums[:size] = work()
        except Exception as problem:  # noqa: BLE001 - whatever it is, all processes raise it below
            error, sums[size] = problem, 1.0
        self._exchange(lambda: torch.distributed.all_reduce(sums))
        if sums[size]:
            messages = self.gathered(error and _in_words(error))
            index, words = next((i, words) for i, words in enumerate(messages) if words)
            where = "" if all(messages) else f"Process {index} of {self.count}: "  # bad input fails on all
            raise SharedError(f"{where}{words}") from error
        return sums[:size]

    def together(self, work: Callable[[], Any]) -> Any:
        """Call `work` on each process and return this one's result, once all have succeeded; errors as in `total`."""
        results: list[Any] = []

        def run() -> Tensor:
            results.append(work())
            return torch.zeros(0)

        self.total(run, 0)
        return results[0]

    def agreed(self, value: Any) -> Any:
        """Return the main process's value on every process (a broadcast)."""
        if self._state is None:
            return value
        values = [value]
        self._exchange(lambda: torch.distributed.broadcast_object_list(values, src=0))
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return every process's value, by index, on every process (an all-gather)."""
        if self._state is None:
            return [value]
        values = [None] * self.count
        self._exchange(lambda: torch.distributed.all_gather_object(values, value))
        return values

    def leave(self) -> None:
        """Close the connection, at the very end of the program."""
        if self._state is not None:
            self._state.destroy_process_group()

    def _exchange(self, exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:  # what torch.distributed raises for a broken connection
            raise SteeringError(
                f"Another of the {self.count} processes ended or cannot be reached; see what it said and start anew: "
                "the same command goes on from the last checkpoint."
            ) from error


ALONE = Processes()


def launched() -> Processes:
    """Join the processes that `accelerate launch` (or torchrun) started with this one; `ALONE` if nothing did.

    Raises SteeringError where they cannot be joined.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2 or "RANK" not in os.environ:
        return ALONE
    # Imported later, as transformers does, its functions would keep the group as a default argument: it would outlive
    # `leave`, and a thread of gloo's that frees a tensor while Python shuts down aborts the process.
    import torch.distributed.nn
    from accelerate import PartialState  # seconds to import, and only needed here

    on_cpu = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    try:
        return Processes(PartialState(cpu=on_cpu, timeout=LONGEST_WAIT))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SteeringError(f"The processes cannot be joined ({reason}); check the settings of accelerate.") from error


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, SteeringError) else f"{type(error).__name__}: {error}"
