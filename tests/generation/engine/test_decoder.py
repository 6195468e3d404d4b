"""The prompt prefilled once for all rows, float16 weights, steps on one core: the same answers, or the plain way."""

import gc
import weakref

import pytest
import torch
from transformers import TopPLogitsWarper

from steering.errors import SteeringError
from steering.generation.engine.batching import ActiveRows
from steering.generation.engine.decoder import decoder_of
from steering.generation.precision import precision_report
from steering.generation.prompt_batch import PromptBatch
from steering.generation.sampling import NucleusWarper
from steering.generation.stream import generate
from steering.intervention.additions import additions_for
from tests.generation.test_stream import NO_REPEATS, PROMPT, by_transformers, prompt_ids, vector
from tests.tiny_models import ARCHITECTURES, tiny_model


def batch_of(model, settings, ids=None, prefix_cache=None):
    additions = {scope: additions_for(model, settings, [scope]) for scope in ("all", "answer")}
    ids = prompt_ids(model)[0].tolist() if ids is None else list(ids)
    return PromptBatch(ids, additions, range(len(settings)), model.device, prefix_cache)


def logits_of(model, settings, *, shares=None, weights="full", steps=4):
    """[steps, rows, vocabulary], each row continued with the same ids."""
    decoder, batch = decoder_of(model, weights), batch_of(model, settings)
    before = decoder.plain.shares_prompt
    decoder.plain.shares_prompt = before if shares is None else shares
    try:
        found = [decoder.engine.prefill(batch)]
    finally:
        decoder.plain.shares_prompt = before
    rows, every = ActiveRows(decoder), list(range(len(settings)))
    for token in range(40, 39 + steps):
        chosen = torch.full((len(settings),), token)
        rows.append([chosen], [every]) if rows.members else rows.add_prefilled(batch, chosen, every)
        found += rows.logits()
    return torch.stack(found)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shared_prompt_gives_what_a_prompt_a_row_gives(architecture):
    model = tiny_model(architecture)
    answer = vector(0, seed=3, token_scope="answer")
    settings = [{}, {vector(2, seed=1): 1.0}, {vector(1, 3, seed=2): -1.5}, {vector(2, seed=1): 0.5, answer: 1.0}]
    for chosen in (settings, settings[:2], [{}] * 3, [*settings, {}, settings[1]], [settings[1]] * 2):
        got, want = logits_of(model, chosen), logits_of(model, chosen, shares=False)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4 * float(want.std()))


def test_which_models_share_their_prompt():
    """Most do; a test that passed because all went the plain way would show nothing."""
    plain = {name for name in ARCHITECTURES if not decoder_of(tiny_model(name)).plain.shares_prompt}
    assert plain == {"bloom"}  # its ALiBi table is made for as many rows as go in


def test_a_model_that_cannot_share_is_noticed(monkeypatch, caplog):
    model = tiny_model()
    block = model.blocks[0]
    forward = block.forward
    monkeypatch.setattr(block, "forward", lambda states, **options: len(states) * forward(states, **options))
    with caplog.at_level("INFO"):
        assert not decoder_of(model).plain.shares_prompt
    assert "one prefill for all rows" in caplog.text


def test_multiplier_zero_is_the_untouched_model_bit_for_bit(tiny):
    ids = prompt_ids(tiny)
    with torch.inference_mode():
        output = tiny.network(input_ids=ids, use_cache=True, logits_to_keep=1)
        want = [output.logits[:, -1]]
        for token in range(40, 43):
            step = tiny.network(input_ids=torch.tensor([[token]]), cache=output.cache)
            want.append(step.logits[:, -1])
    assert torch.equal(logits_of(tiny, [{vector(1): 0.0}]), torch.stack(want))
    together = logits_of(tiny, [{}, {vector(1): 0.0}, {vector(1): 1.0}])
    assert torch.equal(together[:, 0], together[:, 1])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "qwen3_next", "mamba"])
def test_float16_weights_write_the_same(architecture):
    model = tiny_model(architecture)
    report = precision_report(model)
    assert report.why_full == "" and "float16" in report.way
    assert 0 <= report.kl < 1e-5
    settings = [{}, {vector(1, seed=1): 2.0}]
    got, want = (logits_of(model, settings, weights=weights) for weights in ("float16", "full"))
    torch.testing.assert_close(got, want, rtol=0, atol=2e-2 * float(want.std()))
    assert not torch.equal(got, want)


def test_float16_weights_where_they_cannot_be_had():
    model = tiny_model()
    model.network.to(torch.bfloat16)
    report = precision_report(model)
    assert report.way == "transformers' forward" and "float32" in report.why_full


def test_unknown_weights(tiny):
    with pytest.raises(SteeringError, match="'int3'.*full, float16"):
        generate(tiny, PROMPT, weights="int3")


@pytest.mark.parametrize("weights", ["full", "float16"])
def test_several_cores_write_the_same(tiny, weights):
    options = {"max_new_tokens": 8, "repetition_penalty": NO_REPEATS}
    for count in (2, 4):  # few rows run on one core, more on all
        settings = [{vector(1, seed=number): 2.0} for number in range(count)]
        torch.set_num_threads(2)
        try:
            columns = generate(tiny, PROMPT, settings, weights=weights, **options)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)
        assert [column.text for column in columns] == [by_transformers(tiny, s, **options)[1] for s in settings]


def test_a_decoder_goes_with_its_model():
    model = tiny_model()
    decoder_of(model, "float16")
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
def test_top_p_without_sorting_the_vocabulary(top_p, spread):
    scores = spread * torch.randn(4, 5000, generator=torch.Generator().manual_seed(0))
    scores[:, 4000:] = -torch.inf  # as top-k leaves them
    got, want = (warper(top_p)(None, scores) for warper in (NucleusWarper, TopPLogitsWarper))
    differ = got != want  # at the border, by rounding of the sum
    assert float(scores.softmax(-1)[differ].sum()) < 1e-5
    assert torch.equal(got[~differ], want[~differ])
