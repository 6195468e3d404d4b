"""Work split over this machine's cores by the pair, one thread each, instead of inside every operation.

Two cores that share one matrix product wait for each other after each of thousands of small operations; when another
program holds one of the cores for a moment, both stand still. Two halves of a batch meet at the end of a step only.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

LONGEST_WAIT_SECONDS = 3600.0
"""How long a thread waits for another before it gives up. Not measured: a step of a 7-billion-parameter model on two
cores takes minutes, so what has taken an hour hangs."""

TRIAL_STEPS = 32
"""Steps after which `StepCores` tries the other number of cores: a step that takes twice as long costs 3 % then."""

SLOWER_WEIGHT = 0.1
"""Weight of a step that was slower than those before: one that was held up for once does not decide, and one that
takes ten times as long does."""

_thread = threading.local()


class ThreadTimeoutError(RuntimeError):
    """Work on another thread did not end within `LONGEST_WAIT_SECONDS`."""


def workers() -> int:
    """Return how many parts this thread may split work into: the number of cores, or 1 on a thread made here."""
    return 1 if getattr(_thread, "is_worker", False) else torch.get_num_threads()


def in_threads(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Call `function` on each part, all at the same time on one core each; return the results in order.

    The calling thread's gradient mode holds in the parts, too. With one part, or inside of a part, everything runs on
    the calling thread.

    Raises the first part's exception once all parts have ended, ThreadTimeoutError if they do not.
    """
    if len(parts) < 2 or workers() < 2:
        return [function(part) for part in parts]
    cores, grads = torch.get_num_threads(), torch.is_grad_enabled()

    def run(part: Part) -> Result:
        _become_worker(max(1, cores // len(parts)))
        with torch.set_grad_enabled(grads):
            return function(part)

    futures = [_part_pool(cores).submit(run, part) for part in parts]
    try:
        return _results(futures)
    finally:
        torch.set_num_threads(cores)  # torch also takes the last number set anywhere for threads that are new


def on_one_core(function: Callable[[], Result]) -> Result:
    """Call `function` on a thread whose operations use one core each.

    The calling thread's number of cores is left alone: setting it there and back would, in between, also set it for
    threads that are new. Where the calling thread has one core, `function` runs on it.
    """
    cores = torch.get_num_threads()
    if cores == 1:
        return function()
    try:
        return _results([_step_pool().submit(_on_this_core, function)])[0]
    finally:
        torch.set_num_threads(cores)


class StepCores:
    """Runs short steps, one after another, on one core or on all: on what was faster of late for steps of their size.

    On an idle machine a decode step is 1.2 to 1.4 times as fast on both of two cores (bundled model, float16). Where
    another program keeps one of them busy, each of the step's hundreds of operations waits for the thread that has lost
    its core, and both cores take up to ten times as long as one. Now and then the other number is tried for a step, the
    more rarely the slower it was.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, dict[bool, float]] = {}  # size -> of a step on one core (True), and on all (False)
        self._steps_to_trial: dict[int, int] = {}

    def run(self, step: Callable[[], Result], size: int) -> Result:
        """Call `step` and take its time; `size` is anything on which the time depends, such as a number of rows."""
        seconds = self._seconds.setdefault(size, {})
        left = self._steps_to_trial[size] = self._steps_to_trial.get(size, TRIAL_STEPS) - 1
        one_core = seconds.get(True, 0.0) < seconds.get(False, 0.0)
        if left <= 0:
            one_core = not one_core
        began = time.perf_counter()
        try:
            return on_one_core(step) if one_core else step()
        finally:
            now = time.perf_counter() - began
            before = seconds.get(one_core, now)
            seconds[one_core] = min(now, before + SLOWER_WEIGHT * (now - before))
            if left <= 0:
                ratio = max(now, 1e-9) / max(seconds[not one_core], 1e-9)
                self._steps_to_trial[size] = round(TRIAL_STEPS * max(1.0, ratio))


def balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Split the indices 0..n-1 into at most `count` groups of about equal total size, none empty; deterministic.

    Example: `balanced([1, 9, 5, 5], 2)` is `[[0, 1], [2, 3]]`.
    """
    groups: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    totals = [0] * len(groups)
    for place in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        lightest = min(range(len(groups)), key=totals.__getitem__)
        groups[lightest].append(place)
        totals[lightest] += sizes[place]
    return [sorted(group) for group in groups]


def _results(futures: Sequence[Future[Result]]) -> list[Result]:
    _, running = wait(futures, timeout=LONGEST_WAIT_SECONDS)
    if running:
        raise ThreadTimeoutError(
            f"{len(running)} of {len(futures)} threads did not end within {LONGEST_WAIT_SECONDS:.0f} seconds."
        )
    return [future.result() for future in futures]


@cache
def _part_pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="steering-part")


@cache
def _step_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="steering-step")


def _forget_pools() -> None:
    """Forget the pools in a forked process: it inherits them without their threads, and would wait for ever."""
    _part_pool.cache_clear()
    _step_pool.cache_clear()


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(after_in_child=_forget_pools)


def _on_this_core(function: Callable[[], Result]) -> Result:
    _become_worker(1)
    return function()


def _become_worker(cores: int) -> None:
    _thread.is_worker = True
    if torch.get_num_threads() != cores:
        torch.set_num_threads(cores)
