"""Work split over threads: the same results, in order, and torch's settings as they were."""

import threading
import time

import pytest
import torch

from steering.pairs.tokenization import encode_pairs
from steering.runtime.cpu_threads import balanced, in_threads, on_one_core, shared, side_by_side, workers
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.step import summed_gradient
from tests.tiny_models import tiny_model


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
    assert [part.indices for part in whole] == [[6, 1, 3]] and len(parts) == 2
    assert sorted(sum((part.indices for part in parts), [])) == [1, 3, 6]
    assert all([[6, 1, 3][place] for place in part.places] == part.indices for part in parts)
    assert no_hooks(model)


def test_a_part_with_less_to_do_takes_over_shared_tasks(two_cores):
    light_began = threading.Event()
    helped = {}

    def part(load):
        done_by = helped[load] = []

        def task(number):
            light_began.wait(timeout=20)
            time.sleep(0.01)
            done_by.append((number, threading.get_ident()))
            return load, number

        if load == 1:
            light_began.set()
        results = list(shared(task, 10, after=20 * load))
        return results, threading.get_ident()

    (light, _), (heavy, owner) = in_threads(part, [1, 5])
    assert light == [(1, number) for number in range(10)]
    assert heavy == [(5, number) for number in range(10)]
    assert sorted(number for number, _ in helped[5]) == list(range(10))
    assert any(who != owner for _, who in helped[5])  # those left when the light part came
    assert list(shared(lambda number: number, 3)) == [0, 1, 2]  # outside of parts


def test_an_error_in_a_shared_task_is_raised_where_the_task_comes_from(two_cores):
    both = threading.Barrier(2, timeout=20)

    def part(load):
        def task(number):
            if load == 5:
                raise ValueError(f"task {number}")
            return number

        both.wait()
        try:
            return list(shared(task, 10, after=20 * load))
        except ValueError as error:
            return str(error)

    assert in_threads(part, [1, 5]) == [list(range(10)), "task 0"]


def test_who_does_the_shared_tasks_changes_no_number(pairs, two_cores):
    model = tiny_model()
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, 1)
    vectors = {1: torch.randn(32, generator=torch.Generator().manual_seed(0))}
    first, *others = (summed_gradient(scorer, range(7), vectors, (1.0, -1.0), beta=0.1) for _ in range(10))
    assert all(torch.equal(first, other) for other in others)


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
