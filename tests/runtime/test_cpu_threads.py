"""Work split over threads: the same results, in order, and torch's settings as they were."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from steering.runtime import cpu_threads
from steering.runtime.cpu_environment import configure_cpu
from steering.runtime.cpu_threads import (
    ThreadTimeoutError,
    balanced,
    in_threads,
    workers,
)


@pytest.fixture
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_run_at_once_one_core_each(two_cores):
    both = threading.Barrier(2, timeout=20)

    def part(number):
        both.wait()  # neither goes on before the other runs
        return number, torch.get_num_threads(), workers(), torch.is_grad_enabled()

    with torch.no_grad():
        assert in_threads(part, [1, 2]) == [(1, 1, 1, False), (2, 1, 1, False)]
    assert torch.get_num_threads() == workers() == 2
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append((torch.ones(2) @ torch.ones(2), torch.get_num_threads())))
    thread.start()
    thread.join()
    assert fresh[0][1] == 2  # threads that come later have all cores


def test_an_error_in_a_part_is_raised_after_all_have_ended(two_cores):
    ended = []

    def part(number):
        if number == 1:
            raise ValueError("first")
        ended.append(number)

    with pytest.raises(ValueError, match="first"):
        in_threads(part, [1, 2])
    assert ended == [2]


def test_balanced():
    assert balanced([], 2) == []
    assert balanced([5], 2) == [[0]]
    assert balanced([1, 9, 5, 5], 2) == [[0, 1], [2, 3]]
    assert balanced([3, 3, 3], 8) == [[0], [1], [2]]


def test_who_never_ends_is_not_waited_for_for_ever(two_cores, monkeypatch):
    monkeypatch.setattr(cpu_threads, "LONGEST_WAIT_SECONDS", 0.2)
    go_on = threading.Event()
    try:
        with pytest.raises(ThreadTimeoutError, match="did not end within"):
            in_threads(lambda _: go_on.wait(), [1, 2])
    finally:
        go_on.set()
    assert torch.get_num_threads() == 2


def test_what_makes_a_cpu_fast_is_set_unless_the_user_has(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    configure_cpu()
    assert os.environ["GOMP_SPINCOUNT"] == "7" and os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"


def test_the_command_sets_it_before_torch_is_loaded():
    code = """if True:
        import contextlib, os, sys
        from steering.cli.main import main
        with contextlib.suppress(SystemExit):
            main(["--version"])
        print("torch" in sys.modules, os.environ["GOMP_SPINCOUNT"])
    """
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["False", "2000"]
