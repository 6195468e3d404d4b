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
    TRIAL_STEPS,
    StepCores,
    ThreadTimeoutError,
    balanced,
    in_threads,
    on_one_core,
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
    assert done.stdout.split()[-2:] == ["False", "20000"]


class Steps:
    """Steps that take so many seconds by a clock of their own, by the cores that they run on."""

    def __init__(self, monkeypatch, **seconds):
        self.now, self.seconds, self.used = 0.0, seconds, []
        monkeypatch.setattr(cpu_threads.time, "perf_counter", lambda: self.now)

    def __call__(self):
        self.used.append("one" if torch.get_num_threads() == 1 else "all")
        self.now += self.seconds[self.used[-1]]
        return len(self.used)


@pytest.mark.parametrize("slow, fast", [("one", "all"), ("all", "one")])
def test_steps_take_the_number_of_cores_that_is_faster(slow, fast, two_cores, monkeypatch):
    """The other number is tried only now and then, and more rarely the slower it is."""
    cores, steps = StepCores(), Steps(monkeypatch, **{slow: 10.0, fast: 1.0})
    assert [cores.run(steps, 1) for _ in range(10 * TRIAL_STEPS)] == list(range(1, 10 * TRIAL_STEPS + 1))
    assert set(steps.used[:2]) == {"one", "all"}
    assert steps.used.count(slow) == 2  # at first, and after TRIAL_STEPS; next after ten times as many
    assert torch.get_num_threads() == 2


def test_a_change_of_what_is_faster_is_noticed(two_cores, monkeypatch):
    cores, steps = StepCores(), Steps(monkeypatch, one=2.0, all=1.0)
    for _ in range(TRIAL_STEPS // 2):
        cores.run(steps, 1)
    assert steps.used[-1] == "all"
    steps.seconds["all"] = 3.0  # held up for once
    cores.run(steps, 1)
    steps.seconds["all"] = 1.0
    cores.run(steps, 1)
    assert steps.used[-2:] == ["all", "all"]
    steps.seconds = {"one": 2.0, "all": 20.0}  # another program has taken a core
    for _ in range(TRIAL_STEPS):
        cores.run(steps, 1)
    assert steps.used[-TRIAL_STEPS:].count("all") <= 2
    steps.seconds["all"] = 1.0
    for _ in range(20 * TRIAL_STEPS):
        cores.run(steps, 1)
    assert steps.used[-1] == "all"


def test_an_error_of_a_step_is_raised(two_cores):
    def step():
        raise ValueError(torch.get_num_threads())

    cores, seen = StepCores(), set()
    for _ in range(3):
        with pytest.raises(ValueError, match="[12]") as error:
            cores.run(step, 1)
        seen.add(error.value.args[0])
    assert seen == {1, 2} and on_one_core(torch.get_num_threads) == 1
