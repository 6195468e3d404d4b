"""Prompts read together the lean way give what the network gives each of them alone."""

import threading
import time

import pytest
import torch
from test_decode_server import shots_of, texts
from test_generation import NO_REPEATS, PROMPT, vector
from test_lean_step import LEAN, SETTINGS, lively

from steering import decode_server, lean_read
from steering.decode_server import DecodeServer
from steering.decoding import Batch, decoder_of, read_prompts
from steering.generation import generate, prompt_ids
from steering.intervention import additions_for
from steering.prefixes import Prefixes
from steering.prompts import DEFAULT_SYSTEM_PROMPT
from steering.vectors import TOKEN_SCOPES

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
    monkeypatch.setattr(lean_read, "MASKED", masked)
    model, prefixes = lively(architecture), Prefixes()
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

    monkeypatch.setattr(decode_server, "READ_TOKENS", 10_000)
    monkeypatch.setattr(Batch, "reading", failing)
    monkeypatch.setattr(decode_server, "read_prompts", counted)
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
