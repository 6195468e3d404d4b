"""Prompts read together the lean way give what the network gives each of them alone."""

import threading
import time

import pytest
import torch

from steering.generation.engine.decoder import Batch, decoder_of, read_prompts
from steering.generation.engine.llama import prefill
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.server import DecodeServer
from steering.generation.stream import generate, prompt_ids
from steering.intervention.additions import additions_for
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT
from steering.vectors.vector import TOKEN_SCOPES
from tests.generation.engine.llama.test_decode_step import LEAN, SETTINGS, lively
from tests.generation.test_server import shots_of, texts
from tests.generation.test_stream import NO_REPEATS, PROMPT, vector

PROMPTS = [
    (range(30, 47), [{}]),
    (range(25, 60), [*SETTINGS, SETTINGS[1]]),  # two rows alike
    (range(30, 33), [SETTINGS[3]]),
    (range(30, 50), [SETTINGS[2], {vector(3, seed=5): 0.5}]),
    ([7], [{}, SETTINGS[1]]),
]


def batches(model, prefixes=None):
    return [
        Batch(
            decoder_of(model, "float16"),
            list(ids),
            {scope: additions_for(model, settings, [scope]) for scope in TOKEN_SCOPES},
            range(len(settings)),
            prefixes,
        )
        for ids, settings in PROMPTS
    ]


@pytest.mark.parametrize("architecture", LEAN)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("masked", [4, 512])
def test_prompts_read_together_are_read_as_by_the_network(architecture, known, masked, monkeypatch):
    monkeypatch.setattr(prefill, "MASKED", masked)
    model, prefixes = lively(architecture), PrefixCache()
    wanted, read = batches(model), batches(model, prefixes)
    if known:  # of the others' beginnings, too
        read_prompts(batches(model, prefixes)[:2])
    for got, ours, theirs in zip(read_prompts(read), read, wanted, strict=True):
        with torch.inference_mode():
            want = theirs._read_prompt()
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.std()))
        for mine, other in zip(ours.cache.layers, theirs.cache.layers, strict=True):
            torch.testing.assert_close(mine.keys, other.keys, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(mine.values, other.values, rtol=1e-4, atol=1e-4)


def test_what_fails_for_one_visitor_fails_for_nobody_else(monkeypatch):
    model, reading, passes = lively("llama"), Batch.reading, []
    server = DecodeServer(model, weights="float16")
    options = {"max_new_tokens": 8, "repetition_penalty": NO_REPEATS}
    prompts = [f"{PROMPT} {number}" for number in (0, 1, 2, 3, 4, 4)]
    doomed = list(prompt_ids(model, prompts[3], system=DEFAULT_SYSTEM_PROMPT))

    def failing(self):
        if self.tokens[0].tolist() == doomed:
            raise ZeroDivisionError("no such luck")
        return reading(self)

    def counted(batches):
        passes.append(len(batches))
        return read_prompts(batches)

    def visit(number):
        try:
            found[number] = list(shots_of(server, prompts[number], SETTINGS[:2], **options))[-1]
        except ZeroDivisionError as error:
            found[number] = error

    monkeypatch.setattr(server, "READ_TOKENS", 10_000)
    monkeypatch.setattr(Batch, "reading", failing)
    monkeypatch.setattr(server, "read_prompts", counted)
    found = {}
    threads = [threading.Thread(target=visit, args=(number,)) for number in range(len(prompts))]
    server._thread = threading.Thread(target=server._serve)  # begins when all wait
    for thread in threads:
        thread.start()
    while len(server._waiting) < len(threads):
        time.sleep(0.01)
    server._thread.start()
    for thread in threads:
        thread.join(timeout=60)
    monkeypatch.undo()
    assert passes == [5, 1, 1, 1, 1, 1]  # together, then each alone because one failed; the sixth need not be read
    assert isinstance(found.pop(3), ZeroDivisionError)
    for number, columns in found.items():
        alone = generate(model, prompts[number], SETTINGS[:2], weights="float16", **options)
        assert texts(columns) == texts(alone)
    assert len(found) == 5
