"""Parts that share the run of the prefix: the same numbers as without, and nobody waits for ever."""

import threading
import time

import pytest
import torch

from steering.pairs.tokenization import EncodedPair, encode_pairs
from steering.runtime.cpu_threads import give, in_threads, shared, taken
from steering.scoring.fast.packed_forward import PackedModel
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.step import summed_gradient
from tests.tiny_models import ARCHITECTURES, PLAIN, tiny_model

OWN_ATTENTION = {"falcon", "gemma2", "gpt_oss", *PLAIN}
"""Those that attend in a way of their own, to the whole batch: each part runs the prefix."""


@pytest.fixture(params=[2, 3])
def cores(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def gradient(scorer, signs=(1.0, -1.0), layers=(1,)):
    pushes = {k: torch.randn(scorer.model.hidden_size, generator=torch.Generator().manual_seed(k)) for k in layers}
    return summed_gradient(scorer, range(7), pushes, signs, beta=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_is_the_same_where_the_prefix_is_lent(architecture, pairs, cores, no_hooks):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, pairs)
    lending, alone = PairScorer(model, encoded, 1), PairScorer(model, encoded, 1)
    assert lending._lends == (architecture not in OWN_ATTENTION)
    alone._lends = False
    torch.testing.assert_close(gradient(lending), gradient(alone), rtol=1e-4, atol=1e-4)
    assert no_hooks(model)


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("layers", [(1, 2), (2, 3), (3,)])
def test_whatever_is_steered(layers, scope, tiny, pairs, cores):
    _, encoded = encode_pairs(tiny, pairs)
    lending, plain = (PairScorer(tiny, encoded, 1, scope=scope, fast=fast) for fast in (True, False))
    assert lending._lends and not plain._lends
    torch.testing.assert_close(gradient(lending, layers=layers), gradient(plain, layers=layers), rtol=1e-4, atol=1e-4)


def test_the_prefix_is_run_once(tiny, pairs, cores, monkeypatch):
    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    scorer.reference(range(7))
    run, tokens = PackedModel.from_states, []
    monkeypatch.setattr(PackedModel, "from_states", lambda *args: tokens.append(args[2].tokens.numel()) or run(*args))
    gradient(scorer, signs=(1.0,))
    scorer.scores(range(7), {1: torch.ones(tiny.hidden_size)})
    own = sum(scorer._own_tokens(pair) - 2 for pair in encoded[:7])  # the last token of an answer is not run
    assert len(tokens) == 2 * cores and sum(tokens) == 2 * (own + len(scorer.prefix))


@pytest.mark.parametrize("length", [0, 7, 8])
def test_a_short_prefix_is_not_worth_the_waiting(length, tiny, cores):
    head = tuple(range(3, 3 + length))
    scorer = PairScorer(tiny, [EncodedPair((*head, 30 + i, 9), (5, 6), (7,)) for i in range(2)], 1)
    assert len(scorer.prefix) == length and scorer.fast and scorer._lends == (length == 8)
    assert [part.loan is not None for part in scorer.parts([0, 1])] == [length == 8] * 2
    assert [part.loan for part in scorer.parts([0])] == [None]  # no other part to share with


@pytest.mark.parametrize("broken", [0, 1])
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_an_error_in_one_part_ends_the_others(when, broken, tiny, pairs, cores, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    class Failing(torch.autograd.Function):
        forward = staticmethod(lambda ctx, states: states.clone())
        backward = staticmethod(fail)

    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    scorer.reference(range(7))
    run, first = PackedModel.from_states, threading.Lock()

    def breaking(self, states, batch, loan):
        if loan.lends == (broken == 0) and first.acquire(blocking=False):
            return fail() if when == "forward" else Failing.apply(run(self, states, batch, loan))
        return run(self, states, batch, loan)

    monkeypatch.setattr(PackedModel, "from_states", breaking)
    with pytest.raises(MemoryError, match="no room"):
        gradient(scorer)


def test_many_batches_at_once(tiny, pairs, cores):
    """Parts of different batches queue for the same threads."""
    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    wanted, found = gradient(scorer), []
    visitors = [threading.Thread(target=lambda: found.extend(gradient(scorer) for _ in range(5))) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(timeout=60)
    assert len(found) == 30 and all(torch.equal(each, wanted) for each in found)


def test_what_was_promised_and_never_given_is_an_error(cores):
    def part(number):
        return taken(0, 0) if number else None

    with pytest.raises(RuntimeError, match="ended without"):
        in_threads(part, range(cores))


def test_who_waits_does_the_shared_tasks_of_others(cores):
    """The last part shares tasks, and gives only when all of them are done: by those that wait for it."""
    done_by = []

    def part(number):
        if number < cores - 1:
            return taken(0, cores - 1)

        def task(which):
            time.sleep(0.01)
            done_by.append(threading.get_ident())

        for _ in shared(task, 20):
            pass
        give(0, "all done")

    assert in_threads(part, range(cores)) == ["all done"] * (cores - 1) + [None]
    assert len(done_by) == 20 and len(set(done_by)) == cores
