"""Preference pairs as token ids; those that a model cannot read are named."""

import pytest
from tokenizers import normalizers

from steering.errors import SteeringError
from steering.models.chat_template import conversation
from steering.pairs.dataset import Message, Pairs, PreferencePair
from steering.pairs.tokenization import EncodedPair, encode, encode_pairs
from tests.tiny_models import TEMPLATE, tiny_model


def test_a_pair_is_encoded_as_it_will_be_asked(tiny):
    pair = PreferencePair("And?", "Yes", "No", before=(Message("user", "Hi"), Message("assistant", "Hello")))
    encoded = encode(tiny, pair)
    turns = conversation("And?", before=[("user", "Hi"), ("assistant", "Hello")])
    assert list(encoded.prompt) == tiny.prompts.prompt_ids(turns)
    assert tiny.tokenizer.decode(encoded.chosen) == "Yes<|im_end|>"
    assert tiny.tokenizer.decode(encoded.rejected) == "No<|im_end|>"
    assert len(encoded) == len(encoded.prompt) + 4


def test_the_length_of_a_pair_is_that_of_its_longer_conversation():
    assert len(EncodedPair((1, 2), (3,), (4, 5, 6))) == 5


def test_pairs_that_do_not_fit_are_dropped_and_named(tiny):
    room = 512 - len(encode(tiny, PreferencePair("Q", "", "")))
    pairs = Pairs.of(
        [PreferencePair("Q", "y" * n, "n") for n in (1, room, room + 1)] + [PreferencePair("Q", "y", "n" * 600)]
    )
    kept, encoded = encode_pairs(tiny, pairs)
    assert [len(pair.chosen) for pair in kept] == [1, room]
    assert len(encoded) == 2 and len(encoded[1]) == 512
    assert [dropped.line for dropped in kept.report.dropped] == [3, 4]
    assert "longer than the 512 tokens that tiny-llama reads (513 tokens)" in kept.report.dropped[0].reason


def test_pairs_that_the_template_refuses_are_dropped_and_named():
    model = tiny_model()
    refuse = "{% if 'bad' in messages[-1]['content'] %}{{ raise_exception('No bad words') }}{% endif %}"
    model.tokenizer.chat_template = refuse + TEMPLATE
    kept, encoded = encode_pairs(model, Pairs.of([PreferencePair("bad", "y", "n"), PreferencePair("good", "y", "n")]))
    assert [pair.prompt for pair in kept] == ["good"] and len(encoded) == 1
    assert "No bad words" in kept.report.dropped[0].reason


def test_an_answer_of_which_the_tokenizer_leaves_nothing_is_dropped_and_named():
    model = tiny_model(chat=False)
    model.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    model.prompts = type(model.prompts)(model.tokenizer, chat=False, takes_system=False, lead="", end_of_turn=None)
    pairs = Pairs.of([PreferencePair("Q ", "\u200b", "n"), PreferencePair("Q ", "y", "n")])
    kept, _ = encode_pairs(model, pairs)
    assert [pair.chosen for pair in kept] == ["y"]


def test_nothing_left_is_an_error(tiny):
    with pytest.raises(SteeringError, match="longer than the 512 tokens"):
        encode_pairs(tiny, Pairs.of([PreferencePair("Q", "y" * 600, "n")]))
    with pytest.raises(SteeringError, match="no preference pairs"):
        encode_pairs(tiny, Pairs.of([]))
