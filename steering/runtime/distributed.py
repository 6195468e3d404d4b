"""One program on several processes and machines: started by `accelerate launch`, joined by torch.distributed.

Every process runs the same program and comes to each of the calls below in the same order. What fails on one of them
ends all of them with the same sentence, so none is left waiting for another.
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
"""For the slowest process, when each trains vectors of its own. A process that died is noticed at once all the same."""


class SharedError(SteeringError):
    """A SteeringError that every process raises with the same words: one of them may tell it for all."""


class Processes:
    """The processes of this run; without a `state` this one alone, and then every call costs nothing.

    Attributes:
        index, count: this process's number, from 0, and how many there are.
        device: where `load_model` should put the model; None leaves it the choice.
    """

    def __init__(self, state: "PartialState | None" = None) -> None:
        self._state = state
        self.index, self.count = (state.process_index, state.num_processes) if state else (0, 1)
        self.device = state.device.type if state else None

    @property
    def is_main(self) -> bool:
        """Whether this is the one that prints and writes files."""
        return self.index == 0

    def share(self, items: Sequence[int]) -> list[int]:
        """This process's part of a batch: what is its own (i modulo count), as far as nobody gets more than is even.

        A pair so mostly meets the process that keeps its hidden states, with no word exchanged.
        """
        parts: list[list[int]] = [[] for _ in range(self.count)]
        most = -(-len(items) // self.count)
        left = []
        for item in items:
            own = parts[item % self.count]
            (own if len(own) < most else left).append(item)
        for item in left:
            min(parts, key=len).append(item)
        return parts[self.index]

    def total(self, work: Callable[[], Tensor], size: int) -> Tensor:
        """The sum over all processes of what `work` gives on each, a float32 tensor [size].

        Raises what `work` raises when alone; a SharedError with the words of the first that failed otherwise.
        """
        if self._state is None:
            return work()
        error, mine = None, torch.zeros(size + 1, device=self._state.device)
        try:
            mine[:size] = work()
        except Exception as problem:
            error, mine[size] = problem, 1.0
        self._exchange(lambda: torch.distributed.all_reduce(mine))
        if mine[size]:
            problems = self.gathered(error and _in_words(error))
            index, words = next((i, words) for i, words in enumerate(problems) if words)
            where = "" if all(problems) else f"Process {index} of {self.count}: "  # the same everywhere: bad input
            raise SharedError(f"{where}{words}") from error
        return mine[:size]

    def together(self, work: Callable[[], Any]) -> Any:
        """What `work` gives here, once it succeeded everywhere; fails everywhere if it fails anywhere."""
        found: list[Any] = []

        def run() -> Tensor:
            found.append(work())
            return torch.zeros(0)

        self.total(run, 0)
        return found[0]

    def agreed(self, value: Any) -> Any:
        """The main process's value, on every process."""
        if self._state is None:
            return value
        values = [value]
        self._exchange(lambda: torch.distributed.broadcast_object_list(values, src=0))
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """Every process's value, by index, on every process."""
        if self._state is None:
            return [value]
        values = [None] * self.count
        self._exchange(lambda: torch.distributed.all_gather_object(values, value))
        return values

    def leave(self) -> None:
        """Part in good order, at the very end."""
        if self._state is not None:
            self._state.destroy_process_group()

    def _exchange(self, exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:  # torch.distributed's word for a connection that broke
            raise SteeringError(
                f"Another of the {self.count} processes ended or cannot be reached; see what it said and start anew: "
                "the same command goes on from the last checkpoint."
            ) from error


ALONE = Processes()


def launched() -> Processes:
    """The processes `accelerate launch` (or torchrun) started this one with; `ALONE` if nothing did."""
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
        raise SteeringError(f"The processes cannot be joined ({reason}); check what accelerate was told.") from error


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, SteeringError) else f"{type(error).__name__}: {error}"
