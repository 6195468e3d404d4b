"""Work split over threads: the same results, in order, and torch's settings as they were."""

import threading
import time

import pytest
import torch
from tiny_models import tiny_model

from steering.encoding import encode_pairs
from steering.scoring import PairScorer
from steering.threads import balanced, in_threads, on_one_core, side_by_side, workers


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


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "bloom"])
def test_scores_are_the_same_on_two_cores(architecture, pairs, two_cores, no_hooks):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, pairs)
    push = {1: torch.randn(32, generator=torch.Generator().manual_seed(0))}
    found = []
    for cores in (1, 2):
        torch.set_num_threads(cores)
        scorer = PairScorer(model, encoded, 1)
        found.append((scorer.reference(range(8)), scorer.scores([6, 1, 3], push), scorer.parts([6, 1, 3])))
    (reference, scores, whole), (wanted, expected, parts) = found
    torch.testing.assert_close(reference, wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-4)
    assert whole == [[6, 1, 3]] and len(parts) == 2 and sorted(sum(parts, [])) == [1, 3, 6]
    assert no_hooks(model)


def test_steps_side_by_side_run_at_once_one_core_each_from_any_number_of_threads(two_cores):
    def step(number, both):
        both.wait()  # neither goes on before the other runs
        return number, torch.get_num_threads()

    def visit():
        both = threading.Barrier(2, timeout=20)
        found.append(on_one_core(lambda: side_by_side([lambda: step(1, both), lambda: step(2, both)])))

    found, visitors = [], [threading.Thread(target=visit) for _ in range(40)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(timeout=30)
    assert found == [[(1, 1), (2, 1)]] * 40
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_side_by_side_is_raised_after_all_have_ended(two_cores, broken):
    ended = []

    def step(number):
        if number == broken:
            raise ValueError(number)
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match=str(broken)):
        on_one_core(lambda: side_by_side([lambda: step(0), lambda: step(1)]))
    assert ended == [1 - broken]
