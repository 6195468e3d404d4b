"""A float16 way that is wrong or fails is noticed, logged once, and the answers are those of the full weights."""

import pytest
import torch

from steering.generation.engine.llama import decode_step
from steering.generation.next_token import Preview
from steering.generation.precision import precision_report
from steering.generation.server import DecodeServer
from steering.generation.stream import generate, stream
from tests.generation.test_server import shots_of, texts
from tests.generation.test_stream import NO_REPEATS, PROMPT, vector
from tests.tiny_models import tiny_model

SETTINGS = [{}, {vector(1, seed=1): 2.0}, {vector(2, seed=3, token_scope="answer"): 1.5}]
OPTIONS = {"max_new_tokens": 10, "repetition_penalty": NO_REPEATS}
WAYS = ("llama", "gpt2", "qwen3_next")  # the Llama step; transformers' forward, in a padded batch or one after another


def broken(*args):
    raise RuntimeError("no FBGEMM today")


def fails_from(call, monkeypatch):
    """Let FBGEMM's product raise from this call on."""
    product, calls = torch.ops.quantized.linear_dynamic_fp16, []

    def counted(*args):
        calls.append(1)
        return broken() if len(calls) >= call else product(*args)

    monkeypatch.setattr(torch.ops.quantized, "linear_dynamic_fp16", counted)
    return calls


def calls_of(model, monkeypatch, tokens):
    """How many products an answer of so many tokens takes."""
    precision_report(model)
    with monkeypatch.context() as patch:
        calls = fails_from(10**9, patch)
        generate(model, PROMPT, SETTINGS, weights="float16", **OPTIONS | {"max_new_tokens": tokens})
    return len(calls)


@pytest.mark.parametrize("architecture", WAYS)
def test_products_that_fail_at_the_start(architecture, monkeypatch, caplog):
    monkeypatch.setattr(torch.ops.quantized, "linear_dynamic_fp16", broken)
    model = tiny_model(architecture)
    report = precision_report(model)
    assert report.way == "transformers' forward" and "PyTorch" in report.why_full and report.kl == 0
    assert "no FBGEMM today" in caplog.text
    assert texts(generate(model, PROMPT, SETTINGS, weights="float16", **OPTIONS)) == texts(
        generate(model, PROMPT, SETTINGS, **OPTIONS)
    )


def test_packing_that_is_not_there(monkeypatch, caplog):
    monkeypatch.setattr(torch.ops.quantized, "linear_prepack_fp16", broken)
    report = precision_report(tiny_model())
    assert report.way == "transformers' forward" and report.why_full and "no FBGEMM today" in caplog.text


@pytest.mark.parametrize("architecture", WAYS)
@pytest.mark.parametrize("tokens", [1, 5])
def test_products_that_fail_in_the_middle_of_an_answer(architecture, tokens, monkeypatch, caplog, no_hooks):
    """In the prefill of another request (after 0 tokens), or after some tokens."""
    model = tiny_model(architecture)
    full = generate(model, PROMPT, SETTINGS, **OPTIONS)
    before = calls_of(model, monkeypatch, tokens)
    fails_from(before + 2, monkeypatch)
    with caplog.at_level("WARNING"):
        shots = list(stream(model, PROMPT, SETTINGS, weights="float16", **OPTIONS))
        again = generate(model, PROMPT, SETTINGS, weights="float16", **OPTIONS)
    assert texts(shots[-1]) == texts(again) == texts(full)
    assert [shot[0].tokens for shot in shots] == list(range(1, len(shots) + 1))
    assert caplog.text.count("decoding goes on by transformers' forward") == 1
    report = precision_report(model)
    assert report.way == "transformers' forward" and "RuntimeError" in report.why_full
    assert no_hooks(model)


@pytest.mark.parametrize("architecture", WAYS)
def test_products_that_fail_in_the_server(architecture, monkeypatch, caplog):
    model = tiny_model(architecture)
    full = generate(model, PROMPT, SETTINGS, **OPTIONS)
    server = DecodeServer(model, weights="float16")
    before = calls_of(model, monkeypatch, 4)
    fails_from(before + 2, monkeypatch)
    first, second = (shots_of(server, prompt, SETTINGS, **OPTIONS) for prompt in (PROMPT, f"{PROMPT} you"))
    shots, others = [next(first)], [next(second)] if server.decodes_together else []
    shots += first
    others += second
    assert texts(shots[-1]) == texts(full)
    assert texts(others[-1]) == texts(generate(model, f"{PROMPT} you", SETTINGS, **OPTIONS))
    assert caplog.text.count("decoding goes on by transformers' forward") == 1


def test_products_that_fail_in_a_preview(monkeypatch, caplog):
    model = tiny_model()
    preview, wanted = Preview(model, "float16"), Preview(model).next_token(PROMPT, SETTINGS[1])
    preview.next_token(PROMPT, SETTINGS[1])
    monkeypatch.setattr(torch.ops.quantized, "linear_dynamic_fp16", broken)
    found = preview.next_token(PROMPT, SETTINGS[1])
    assert (found.baseline, found.steered, found.kl) == (wanted.baseline, wanted.steered, wanted.kl)
    assert "goes on by transformers' forward" in caplog.text


@pytest.mark.parametrize("architecture", WAYS)
@pytest.mark.parametrize("change", [lambda logits: 1.01 * logits, lambda logits: logits + 0.01 * logits.std()])
def test_a_head_that_is_wrong_by_a_hundredth(architecture, change, monkeypatch, caplog):
    model, product = tiny_model(architecture), torch.ops.quantized.linear_dynamic_fp16
    vocabulary = model.network.get_input_embeddings().weight.shape[0]

    def wrong(states, packed):
        result = product(states, packed)
        return change(result) if result.shape[-1] == vocabulary else result

    monkeypatch.setattr(torch.ops.quantized, "linear_dynamic_fp16", wrong)
    report = precision_report(model)
    assert report.way == "transformers' forward" and "other logits" in report.why_full
    assert "logits are wrong" in caplog.text
    assert texts(generate(model, PROMPT, SETTINGS, weights="float16", **OPTIONS)) == texts(
        generate(model, PROMPT, SETTINGS, **OPTIONS)
    )


def test_a_wrong_mask_is_noticed(monkeypatch, caplog):
    """Rows that see the padding before shorter ones."""
    monkeypatch.setattr(decode_step, "_mask", lambda *args: torch.zeros(1, 1, 1))
    assert precision_report(tiny_model()).way == "transformers' forward, float16 weights"
    assert "written-out Llama step, float16: refused" in caplog.text
