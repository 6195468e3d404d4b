"""Work split over this machine's cores by the pair, one thread each, instead of inside every operation.

Two cores that share one matrix product wait for each other after each of thousands of small operations; when another
program holds one of the cores for a moment, both stand still. Two halves of a batch meet once a step.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_here = threading.local()


def workers() -> int:
    """How many parts this thread may split its work into: as many as it has cores, and 1 inside such a part."""
    return 1 if getattr(_here, "is_worker", False) else torch.get_num_threads()


def in_threads(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`function` of each part, at the same time; results in order. The calling thread's gradient mode holds there too.

    An exception in a part is raised here once all have ended.
    """
    if len(parts) < 2 or workers() < 2:
        return [function(part) for part in parts]
    cores, grads = torch.get_num_threads(), torch.is_grad_enabled()

    def run(part: Part) -> Result:
        _become_worker(max(1, cores // len(parts)))
        with torch.set_grad_enabled(grads):
            return function(part)

    futures = [_pool(cores).submit(run, part) for part in parts]
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
