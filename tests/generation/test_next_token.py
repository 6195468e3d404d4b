"""The preview gives what one plain pass of the steered model gives, whatever was asked before."""

import threading

import pytest
import torch

from steering.errors import SteeringError
from steering.generation import next_token as module
from steering.generation.engine.llama.model import LlamaModel
from steering.generation.next_token import PART_OF_A_CHARACTER, Preview
from steering.intervention.hooks import steered
from steering.models.chat_template import PromptFormat
from tests.generation.test_stream import prompt_ids, vector
from tests.tiny_models import ARCHITECTURES, tiny_model

PROMPT = "Would you take the throne?"


def plain(model, additions, prompt=PROMPT):
    with torch.no_grad(), steered(model.blocks, additions):
        return model.network(input_ids=prompt_ids(model, prompt)).logits[0, -1].float().softmax(-1)


def assert_chances(model, found, additions, prompt=PROMPT):
    untouched, moved = plain(model, {}, prompt), plain(model, additions, prompt)
    for chances, by in ((found.baseline, untouched), (found.steered, moved)):
        best = by.topk(len(chances)).indices.tolist()
        texts = [model.tokenizer.decode([i]) for i in best]
        assert [chance.text for chance in chances] == [PART_OF_A_CHARACTER if "\ufffd" in t else t for t in texts]
        for chance, i in zip(chances, best, strict=True):
            assert chance.untouched == pytest.approx(float(untouched[i]), rel=1e-3, abs=1e-6)
            assert chance.steered == pytest.approx(float(moved[i]), rel=1e-3, abs=1e-6)
    kl = float((moved * (moved.log() - untouched.log())).sum())
    assert found.kl == pytest.approx(kl, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_the_plain_pass(architecture):
    model = tiny_model(architecture)
    preview = Preview(model)
    late, early = vector(2, seed=1), vector(0, 3, seed=2)
    late_2, early_0 = late.directions[2], early.directions[0]
    for _ in range(2):  # the second time from the cache
        assert_chances(model, preview.next_token(PROMPT, {late: 2.0}), {2: 2 * late_2})
        both = {0: -early_0, 2: 0.5 * late_2, 3: -early.directions[3]}
        assert_chances(model, preview.next_token(PROMPT, {late: 0.5, early: -1.0}), both)


def test_at_zero_nothing_is_moved(tiny):
    preview = Preview(tiny)
    for setting in ({}, {vector(1): 0.0}):
        found = preview.next_token(PROMPT, setting)
        assert found.baseline == found.steered and found.kl == 0
        assert all(chance.untouched == chance.steered for chance in found.baseline)
    assert len(found.baseline) == 10 and found.seconds > 0


def test_a_vector_for_the_answer_acts_on_the_last_position(tiny):
    one = vector(1, seed=4, token_scope="answer")
    length = prompt_ids(tiny, PROMPT).shape[1]
    additions = {1: (torch.arange(length) == length - 1)[None, :, None] * (3 * one.directions[1])}
    assert_chances(tiny, Preview(tiny).next_token(PROMPT, {one: 3.0}, top=5), additions)


def test_moving_the_slider_renders_the_prompt_once(tiny, monkeypatch):
    rendered, own = [], PromptFormat.prompt_ids
    monkeypatch.setattr(PromptFormat, "prompt_ids", lambda self, turns: rendered.append(turns) or own(self, turns))
    preview, one = Preview(tiny), vector(2)
    for multiplier in (0.5, 1.0, 1.5):
        preview.next_token(PROMPT, {one: multiplier})
    assert len(rendered) == 1
    for options in ({"system": "Be brief."}, {"before": [("user", "Hello"), ("assistant", "Hi")]}):
        assert (
            preview.next_token(PROMPT, {}, **options).steered == Preview(tiny).next_token(PROMPT, {}, **options).steered
        )
    assert len(rendered) == 1 + 2 * 2 and rendered[1] != rendered[3]


def test_moving_the_slider_runs_the_later_blocks_only(tiny, monkeypatch):
    """That is how the Llama step resumes; a prompt that was seen is not run untouched again by any model."""
    blocks, passes, one = [], [], vector(2)
    previews = {weights: Preview(tiny, weights=weights) for weights in ("float16", "full")}
    for preview in previews.values():
        preview.next_token(PROMPT, {one: 1.0})
    run, forward = LlamaModel.block_output, tiny.network.forward
    monkeypatch.setattr(LlamaModel, "block_output", lambda *arguments: blocks.append(1) or run(*arguments))
    monkeypatch.setattr(tiny.network, "forward", lambda **inputs: passes.append(1) or forward(**inputs))
    previews["float16"].next_token(PROMPT, {one: 1.5})
    assert len(blocks) == 1
    previews["float16"].next_token("Another prompt", {one: 1.5})
    assert len(blocks) == 1 + 4 + 1 and not passes
    previews["full"].next_token(PROMPT, {one: 1.5})
    assert len(passes) == 1
    previews["full"].next_token("Another prompt", {one: 1.5})
    assert len(passes) == 1 + 2


def test_few_prompts_are_kept(tiny):
    preview = Preview(tiny)
    for number in range(3 * module.CACHED_PROMPTS):
        preview.next_token(f"Prompt {number}", {vector(1): 1.0})
    assert preview.cached_prompts == module.CACHED_PROMPTS


def test_float16_weights(tiny):
    one = vector(1)
    preview = Preview(tiny, weights="float16")
    found, wanted = (p.next_token(PROMPT, {one: 2.0}) for p in (preview, Preview(tiny)))
    assert found.steered[0].text == wanted.steered[0].text
    assert found.steered[0].steered == pytest.approx(wanted.steered[0].steered, rel=1e-2)


def test_several_threads_at_once(tiny, no_hooks):
    preview = Preview(tiny)
    settings = [{vector(layer, seed=layer): 2.0} for layer in range(4)]
    alone, together = [preview.next_token(PROMPT, setting) for setting in settings], {}

    def ask(number):
        for _ in range(20):
            together[number] = preview.next_token(PROMPT, settings[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [together[n].steered for n in range(4)] == [found.steered for found in alone]
    assert no_hooks(tiny)


def test_so_many_at_a_time_and_no_more(tiny, monkeypatch):
    preview, inside, most, pause = Preview(tiny), [], [], threading.Event()
    forward = tiny.network.forward

    def watched(**inputs):
        inside.append(1)
        most.append(len(inside))
        pause.wait(0.2)
        inside.pop()
        return forward(**inputs)

    monkeypatch.setattr(tiny.network, "forward", watched)
    threads = [threading.Thread(target=preview.next_token, args=(f"{PROMPT} {n}", {vector(2): 1})) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(most) == 2 * 6 and max(most) == module.PASSES_AT_ONCE


def test_bad_input(tiny):
    for said, prompt, setting in (
        ("empty", " ", {}),
        ("at most 512", "long " * 200, {}),
        ("layer 9", PROMPT, {vector(9): 1.0}),
    ):
        with pytest.raises(SteeringError, match=said):
            Preview(tiny).next_token(prompt, setting)
