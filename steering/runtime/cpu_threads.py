"""Work split over this machine's cores by the pair, one thread each, instead of inside every operation.

Two cores that share one matrix product wait for each other after each of thousands of small operations; when another
program holds one of the cores for a moment, both stand still. Two halves of a batch need each other at the end of a
step, and before only where one `give`s what the other would have to work out again (see `loans`). Halves are never
quite equal, so a part that has less to do takes over some of another's `shared` tasks.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_here = threading.local()
_submitting = threading.Lock()


def workers() -> int:
    """How many parts this thread may split its work into: as many as it has cores, and 1 inside such a part."""
    return 1 if getattr(_here, "is_worker", False) else torch.get_num_threads()


def in_threads(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`function` of each part, at the same time; results in order. The calling thread's gradient mode holds there too.

    An exception in a part is raised here once all have ended.
    """
    if len(parts) < 2 or workers() < 2:
        return [function(part) for part in parts]
    cores, grads, board = torch.get_num_threads(), torch.is_grad_enabled(), _Board()

    def run(number: int) -> Result:
        _become_worker(max(1, cores // len(parts)))
        _here.board, _here.part, error = board, number, None
        try:
            with torch.set_grad_enabled(grads):
                return function(parts[number])
        except BaseException as problem:
            error = problem
            raise
        finally:
            _here.board = None
            board.leave(number, error)

    with _submitting:  # parts may wait for each other: those of one batch must not queue behind some of another that do
        futures = [_pool(cores).submit(run, number) for number in range(len(parts))]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    torch.set_num_threads(cores)  # torch also takes the last number set anywhere for threads that are new
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def on_one_core(function: Callable[[], Result]) -> Result:
    """`function()` on a thread whose operations use one core, as is best for many small ones; 1 core: right here.

    The calling thread's number of cores is left alone: setting it there and back would, in between, also set it for
    threads that are new.
    """
    cores = torch.get_num_threads()
    if cores == 1:
        return function()

    try:
        return _single().submit(_on_this_core, function).result()
    finally:
        torch.set_num_threads(cores)


def side_by_side(functions: Sequence[Callable[[], Result]]) -> list[Result]:
    """What each function gives, all at the same time on one core each; the first here, the others on threads.

    The calling thread is expected to run on one core already (see `on_one_core`). An exception is raised once all
    have ended.
    """
    futures = [_beside().submit(_on_this_core, function) for function in functions[1:]]
    try:
        first = [function() for function in functions[:1]]
    finally:
        wait(futures)
    return first + [future.result() for future in futures]


def balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Places 0..n-1 in at most `count` groups of about equal total size, none empty; deterministic."""
    groups: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    totals = [0] * len(groups)
    for place in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        lightest = min(range(len(groups)), key=totals.__getitem__)
        groups[lightest].append(place)
        totals[lightest] += sizes[place]
    return [sorted(group) for group in groups]


def shared(task: Callable[[int], Result], count: int, cost: float = 1, after: float = 0) -> Iterator[Result]:
    """`task(0)`, `task(1)`, ... `task(count - 1)`, in order; parts that run at the same time may do some of them.

    Who does a task changes neither its result nor the order, so sums over them are always the same.

    Args:
        cost: of a task, in any unit that all parts use.
        after: what this part still has to do when all are done, in that unit.
    """
    board = getattr(_here, "board", None)
    if board is None:
        yield from map(task, range(count))
        return
    own = _Tasks(task, count, cost, after)
    board.put_up(own)
    try:
        for number in range(count):
            while number not in own.done:
                board.work(own, lambda number=number: number in own.done)
            result, error = own.done.pop(number)
            if error is not None:
                raise error
            yield result
    finally:
        own.begun = count  # nobody begins what nobody will take
    while board.work(own):
        pass


def give(number: int, what: object) -> None:
    """Lay something down for the other parts that run at the same time; see `taken`."""
    _here.board.give((_here.part, number), what)


def taken(number: int, part: int) -> object:
    """What that part gives under this number. Until it has, its shared tasks and those of others are done here.

    Raises what the part ended with if it ended before.
    """
    return _here.board.taken((part, number))


class _Tasks:
    """Those of one part: how many have begun, and number -> (result, error) of those done and not yet taken."""

    def __init__(self, task: Callable[[int], object], count: int, cost: float, after: float) -> None:
        self.task, self.count, self.cost, self.after = task, count, cost, after
        self.begun = 0
        self.done: dict[int, tuple[object, Exception | None]] = {}

    @property
    def left(self) -> float:
        return (self.count - self.begun) * self.cost + self.after


class _Board:
    """Where the parts of one `in_threads` put up their shared tasks, and what they give each other."""

    def __init__(self) -> None:
        self._open: list[_Tasks] = []
        self._given: dict[tuple[int, int], object] = {}
        self._left: dict[int, BaseException | None] = {}
        self._changed = threading.Condition()

    def put_up(self, tasks: _Tasks) -> None:
        with self._changed:
            self._open.append(tasks)
            self._changed.notify_all()

    def give(self, key: tuple[int, int], what: object) -> None:
        with self._changed:
            self._given[key] = what
            self._changed.notify_all()

    def taken(self, key: tuple[int, int]) -> object:
        def decided() -> bool:
            return key in self._given or key[0] in self._left

        nothing = _Tasks(lambda _: None, 0, 0, 0)
        while not decided():
            self.work(nothing, decided)
        if key not in self._given:
            raise self._left[key[0]] or RuntimeError("A part of the batch ended without giving what another waits for.")
        return self._given[key]

    def leave(self, part: int, error: BaseException | None) -> None:
        with self._changed:
            self._left[part] = error
            self._changed.notify_all()

    def work(self, own: _Tasks, wanted: Callable[[], bool] | None = None) -> bool:
        """Do the next task of the part that has most left, if that is sooner done so, or else the next of one's own.

        Where there is neither: False, after a wait for a change, if what is wanted is not yet so.
        """
        with self._changed:
            self._open = [each for each in self._open if each.begun < each.count]
            gains = [each for each in self._open if each is own or own.left + each.cost < each.left]
            if not gains:
                if wanted is not None and not wanted():
                    self._changed.wait()
                return False
            chosen = max(gains, key=lambda each: each.left)
            number = chosen.begun
            chosen.begun += 1
        result, error = None, None
        try:
            result = chosen.task(number)
        except Exception as problem:  # raised where the task comes from
            error = problem
        with self._changed:
            chosen.done[number] = (result, error)
            self._changed.notify_all()
        return True


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="steering-part")


@cache
def _single() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="steering-step")


@cache
def _beside() -> ThreadPoolExecutor:
    """Not the threads that wait for these: they could all be waiting."""
    return ThreadPoolExecutor(thread_name_prefix="steering-lane")


def _on_this_core(function: Callable[[], Result]) -> Result:
    _become_worker(1)
    return function()


def _become_worker(cores: int) -> None:
    _here.is_worker = True
    if torch.get_num_threads() != cores:
        torch.set_num_threads(cores)
