"""Prompts prefilled by the Llama way give what transformers' forward gives."""

import threading
import time

import pytest
import torch

from steering.generation.engine.decoder import decoder_of
from steering.generation.engine.llama import engine as llama_engine
from steering.generation.engine.llama.prefill import prefill
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.server import DecodeServer
from steering.generation.stream import generate, prompt_ids
from steering.generation.transformers_engine import TransformersEngine
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT
from tests.generation.engine.llama.test_decode_step import LLAMA_LIKE, SETTINGS, lively
from tests.generation.engine.test_decoder import batch_of
from tests.generation.test_server import shots_of, texts
from tests.generation.test_stream import NO_REPEATS, PROMPT, vector

PROMPTS = [
    (range(30, 47), [{}]),
    (range(25, 60), [*SETTINGS, SETTINGS[1]]),  # two rows alike
    (range(30, 33), [SETTINGS[3]]),
    (range(30, 50), [SETTINGS[2], {vector(3, seed=5): 0.5}]),
    ([7], [{}, SETTINGS[1]]),
]


def batches(model, prefix_cache=None):
    return [batch_of(model, settings, ids, prefix_cache) for ids, settings in PROMPTS]


@pytest.mark.parametrize("architecture", LLAMA_LIKE)
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("masked_tokens", [4, 512])
def test_a_prefill_is_what_transformers_gives(architecture, cached, masked_tokens, monkeypatch):
    monkeypatch.setattr(llama_engine, "prefill", lambda *args: prefill(*args, masked_tokens))
    model, prefix_cache = lively(architecture), PrefixCache()
    decoder = decoder_of(model, "float16")
    theirs, ours = batches(model), batches(model, prefix_cache)
    if cached:  # of the others' beginnings, too
        for batch in batches(model, prefix_cache)[:2]:
            decoder.engine.prefill(batch)
    decoder.plain.shares_prompt = False
    for mine, other in zip(ours, theirs, strict=True):
        got, want = decoder.engine.prefill(mine), decoder.plain.prefill(other)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.std()))
        for layer, (keys, values) in zip(other.cache.layers, mine.cache, strict=True):
            torch.testing.assert_close(keys, layer.keys, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(values, layer.values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["full", "float16"])
def test_what_fails_for_one_visitor_fails_for_nobody_else(weights, monkeypatch):
    """Six prompts wait; one of them cannot be prefilled."""
    model = lively("llama")
    server = DecodeServer(model, weights=weights)
    options = {"max_new_tokens": 8, "repetition_penalty": NO_REPEATS}
    prompts = [f"{PROMPT} {number}" for number in (0, 1, 2, 3, 4, 4)]
    doomed = list(prompt_ids(model, prompts[3], system=DEFAULT_SYSTEM_PROMPT))
    found, go = {}, threading.Event()
    ways = {kind: kind.prefill for kind in (TransformersEngine, llama_engine.LlamaEngine)}

    def failing(self, batch):
        go.wait(timeout=60)
        if batch.tokens[0].tolist() == doomed:
            raise ZeroDivisionError("no such luck")
        return ways[type(self)](self, batch)

    def visit(number):
        try:
            found[number] = list(shots_of(server, prompts[number], SETTINGS[:2], **options))[-1]
        except ZeroDivisionError as error:
            found[number] = error

    with monkeypatch.context() as patch:
        for kind in ways:
            patch.setattr(kind, "prefill", failing)
        before = threading.Thread(target=lambda: list(shots_of(server, "first", max_new_tokens=1)))  # all others wait
        threads = [before, *(threading.Thread(target=visit, args=(number,)) for number in range(len(prompts)))]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        while server.waiting < len(prompts):
            time.sleep(0.01)
        go.set()
        for thread in threads:
            thread.join(timeout=60)
    assert isinstance(found.pop(3), ZeroDivisionError)
    for number, columns in found.items():
        assert texts(columns) == texts(generate(model, prompts[number], SETTINGS[:2], **options))
    assert len(found) == 5
