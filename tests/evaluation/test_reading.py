"""Texts read again by the untouched model."""

import numpy as np
import pytest
import torch

from steering.evaluation.reading import NEUTRAL_PROMPT, TextReader, middle_layer, read_texts
from steering.models.chat_template import conversation
from tests.tiny_models import tiny_model

TEXTS = ["Yes, at once.", "No. Not at all, and never again in this life!", "", "Perhaps"]
KINDS = ("llama", "gpt2", "qwen2", "mamba")


def by_hand(model, text, max_tokens):
    """Mean hidden state and mean log-probability by transformers' own forward, one text at a time."""
    prompt = model.prompts.prompt_ids(conversation(NEUTRAL_PROMPT))
    answer = model.prompts.pair_ids(conversation(NEUTRAL_PROMPT), text)[1]
    answer = answer[:-1] if answer[-1] == model.prompts.end_of_turn else answer
    answer = answer[:max_tokens]
    seen = []
    handle = model.blocks[middle_layer(model)].register_forward_hook(lambda block, args, out: seen.append(out))
    with torch.no_grad():
        output = model.network(input_ids=torch.tensor([prompt + answer]), use_cache=False)
    handle.remove()
    state = seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0]
    chances = output.logits[0].float().log_softmax(-1)
    places = range(len(prompt), len(prompt) + len(answer))
    likely = [float(chances[place - 1, token]) for place, token in zip(places, answer, strict=True)]
    hidden = state[0, len(prompt) :].float().mean(dim=0)
    return hidden.numpy(), float(np.mean(likely))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_tokens", [4, 40])
def test_states_and_log_probabilities_are_those_of_the_model_itself(kind, max_tokens):
    model = tiny_model(kind)
    found = read_texts(model, TEXTS, max_tokens=max_tokens, with_logps=True)
    assert found is not None
    for place, text in enumerate(TEXTS):
        if not text:
            assert not found.features[place].any() and np.isnan(found.logps[place])
            continue
        hidden, likely = by_hand(model, text, max_tokens)
        np.testing.assert_allclose(found.features[place], hidden, rtol=1e-3, atol=1e-4)
        assert found.logps[place] == pytest.approx(likely, abs=1e-3)


def test_without_log_probabilities_the_last_blocks_do_not_run(tiny, no_hooks):
    whole, part = (read_texts(tiny, TEXTS, max_tokens=40, with_logps=logps) for logps in (True, False))
    assert whole is not None and part is not None
    np.testing.assert_allclose(whole.features, part.features, rtol=1e-3, atol=1e-4)
    assert np.isnan(part.logps).all() and no_hooks(tiny)


def test_it_stops_between_batches(tiny):
    assert TextReader(tiny).read(TEXTS, 40, lambda: True) is None
