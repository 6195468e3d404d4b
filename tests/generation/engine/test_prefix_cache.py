"""What was read or written once is not read again, and nobody can tell but by the time."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steering.generation.engine.decoder import decoder_of
from steering.generation.engine.llama import engine as llama_engine
from steering.generation.engine.llama.prefill import prefill
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.prompt_batch import PromptBatch
from steering.generation.server import DecodeServer
from steering.generation.stream import generate
from steering.generation.transformers_engine import TransformersEngine
from tests.generation.engine.llama.test_decode_step import LLAMA_LIKE, lively
from tests.generation.test_server import shots_of, texts
from tests.generation.test_stream import NO_REPEATS, vector

OPTIONS = {"max_new_tokens": 9, "repetition_penalty": NO_REPEATS}
SETTINGS = [{}, {vector(1, seed=1): 2.0}, {vector(0, 3, seed=2): -1.0}]


def states_of(ids):
    """As if each position's keys and values were its token: [2, 1, 1, positions, 1]."""
    return torch.tensor(list(ids), dtype=torch.float32)[None, None, None, :, None].repeat(2, 1, 1, 1, 1)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([b"", b"a"]), st.lists(st.integers(0, 2), min_size=1))),
    st.integers(0, 200),
)
def test_what_is_found_is_a_beginning_and_the_budget_holds(requests, budget):
    prefixes, stored = PrefixCache(budget), []
    for keeps, steering, ids in requests:
        if keeps:
            prefixes.store(steering, ids, states_of(ids))
            stored.append((steering, ids))
        found = prefixes.longest_prefix(steering, ids)
        if found is not None:
            length = found.shape[3]
            assert torch.equal(found, states_of(ids[:length]))
            assert any(other == steering and row[:length] == ids[:length] for other, row in stored)
        if keeps and len(ids) * 8 <= budget:
            assert found is not None and found.shape[3] == len(ids)
        assert prefixes.nbytes <= budget


def test_the_longest_unused_makes_room():
    prefixes = PrefixCache(6 * 8)
    prefixes.store(b"", [1, 2], states_of([1, 2]))
    prefixes.store(b"", [3, 4], states_of([3, 4]))
    prefixes.store(b"x", [1, 2], states_of([1, 2]))
    assert prefixes.longest_prefix(b"", [1]) is not None  # used
    prefixes.store(b"", [5], states_of([5]))
    assert prefixes.longest_prefix(b"", [3, 4]) is None
    assert all(prefixes.longest_prefix(*wanted) is not None for wanted in [(b"", [1]), (b"x", [1]), (b"", [5])])
    prefixes.store(b"", range(10, 17), states_of(range(10, 17)))  # larger than everything
    assert len(prefixes) == 3 and prefixes.longest_prefix(b"", [5]) is not None


def test_a_longer_row_takes_the_place_of_its_beginning():
    prefixes = PrefixCache()
    for ids in ([1, 2], [1, 2, 3], [1]):
        prefixes.store(b"", ids, states_of(ids))
    assert len(prefixes) == 1 and prefixes.longest_prefix(b"", [1, 2, 3, 4]).shape[3] == 3


@pytest.fixture
def read(monkeypatch):
    """How many positions of each prompt were prefilled."""
    counts, plain = [], TransformersEngine.prefill

    def counted(model, ids, *args):
        counts.append(len(ids))
        return prefill(model, ids, *args)

    def counted_plain(self, batch):
        counts.append(batch.tokens.shape[1])
        return plain(self, batch)

    monkeypatch.setattr(llama_engine, "prefill", counted)
    monkeypatch.setattr(TransformersEngine, "prefill", counted_plain)
    return counts


def last_of(server, *arguments, **options):
    return list(shots_of(server, *arguments, **{**OPTIONS, **options}))[-1]


@pytest.mark.parametrize("architecture", LLAMA_LIKE)
def test_a_conversation_is_not_read_again(architecture, read):
    model = lively(architecture)
    server, histories = DecodeServer(model, weights="float16"), [[], [], []]
    for turn in range(3):
        prompt = f"What about number {turn}?"
        read.clear()
        columns = last_of(server, prompt, SETTINGS, histories=histories, trace=True)
        again = sum(read)
        for column, history, setting in zip(columns, histories, SETTINGS, strict=True):
            (alone,) = generate(model, prompt, [setting], before=history, trace=True, weights="float16", **OPTIONS)
            assert texts([column]) == texts([alone])
            chances = [[(token.untouched, token.steered) for token in one.trace] for one in (column, alone)]
            torch.testing.assert_close(*map(torch.tensor, chances), rtol=1e-3, atol=1e-5)
            history += [("user", prompt), ("assistant", column.text)]
    assert again < 0.5 * (sum(read) - again)  # `generate` reads all of it


def test_what_is_known_to_its_end_needs_no_pass(read):
    """The prompt's last token is read in the step in which others write."""
    model, answers = lively("llama"), [[("user", "Hello"), ("assistant", answer)] for answer in ("Yes", "No", "Yes")]
    for options in ({}, {"histories": answers}):
        server = DecodeServer(model, weights="float16")
        first = texts(last_of(server, "Hello there", SETTINGS, trace=True, **options))
        read.clear()
        assert texts(last_of(server, "Hello there", SETTINGS, trace=True, **options)) == first and not read
        read.clear()
        two = {"histories": answers[:2]} if options else {}
        assert texts(last_of(server, "Hello there", [{}, {vector(1, seed=1): 1.0}], **two))[0] == first[0]
        assert read  # one of them was never steered so


def test_only_what_was_steered_so_is_taken_up(read):
    model = lively("llama")
    server = DecodeServer(model, weights="float16")
    prompts = "A prompt that is long enough", "A prompt that is long enough to go on"
    for setting, prompt, reads_all in [
        (SETTINGS[1], prompts[0], True),
        (SETTINGS[2], prompts[0], True),
        (SETTINGS[1], prompts[1], False),
        ({vector(1, seed=1): 1.0}, prompts[1], True),
        ({}, prompts[1], True),
        ({}, prompts[1], False),
    ]:
        read.clear()
        got = last_of(server, prompt, [setting])
        whole = read[:]
        assert texts(got) == texts(generate(model, prompt, [setting], weights="float16", **OPTIONS))
        assert (whole == read[-1:]) == reads_all


def test_an_answer_steered_from_its_first_token_on_is_read_again(read):
    """Its positions are the prompt's of the next turn, and those are not steered."""
    model, setting = lively("llama"), {vector(2, seed=3, token_scope="answer"): 1.5}
    server = DecodeServer(model, weights="float16")
    read.clear()
    for _ in range(2):
        last_of(server, "Hello there", [setting])
    assert read[0] == read[1] and not server.prefix_cache


def test_the_full_weights_read_everything(read):
    """They are promised bit for bit."""
    server = DecodeServer(lively("llama"))
    read.clear()
    for _ in range(2):
        last_of(server, "Hello there", SETTINGS)
    assert read[0] == read[1] and not server.prefix_cache


def test_a_stopped_answer_is_kept(read):
    model = lively("llama")
    server = DecodeServer(model, weights="float16")
    shots = shots_of(server, "Hello there", [SETTINGS[1]], **OPTIONS | {"max_new_tokens": 500})
    next(shots)
    ((_, prompt),) = server.prefix_cache.entries()
    text = [next(shots) for _ in range(5)][-1][0].text
    shots.close()
    deadline = time.monotonic() + 10
    while prompt in [ids for _, ids in server.prefix_cache.entries()] and time.monotonic() < deadline:
        time.sleep(0.01)  # until the server's thread has heard of it
    history = [("user", "Hello there"), ("assistant", text)]
    read.clear()
    (column,) = last_of(server, "And then?", [SETTINGS[1]], histories=[history])
    (alone,) = generate(model, "And then?", [SETTINGS[1]], before=history, weights="float16", **OPTIONS)
    assert texts([column]) == texts([alone]) and read[0] < 0.7 * read[1]


def test_a_batch_takes_up_the_shortest_of_its_rows():
    model = lively("qwen3")
    decoder, prefixes = decoder_of(model, "float16"), PrefixCache()
    ids, push = list(range(30, 60)), torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    push[0] = 0

    def batch(ids, rows, prefixes=prefixes):
        additions = {"all": {1: push[rows]}, "answer": {}}
        return PromptBatch(ids, additions, range(len(rows)), decoder.device, prefixes)

    decoder.engine.prefill(batch(ids[:20], [0, 2]))
    decoder.engine.prefill(batch(ids[:25], [1]))
    rows = [0, 1, 0, 2, 1]
    assert [prefix.shape[3] for prefix in batch(ids, rows).cached_prefixes(range(5))] == [20] * 5
    wanted, taken = batch(ids, rows, None), batch(ids, rows)
    torch.testing.assert_close(decoder.engine.prefill(taken), decoder.engine.prefill(wanted))
    for ours, theirs in zip(taken.cache, wanted.cache, strict=True):
        assert ours.shape[3] == 30
        torch.testing.assert_close(ours, theirs)
