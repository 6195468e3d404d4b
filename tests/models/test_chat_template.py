"""Chat templates of many styles, read by rendering a sample; base models as plain text."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from steering.errors import SteeringError
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, PromptFormat, conversation
from tests.tiny_models import TEMPLATE, tokenizer

# The byte tokenizer's <|im_start|> is its bos token and <|im_end|> its eos token, as <s> and </s> are elsewhere.
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set turns = messages %}{% set system = false %}{% endif %}"
    "{% for m in turns %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system %}"
    "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m['content'] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}"
    "{{ (bos_token if loop.first else '') + '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL = (  # raises on a system turn through its rule of alternation
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] + eos_token + '\\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\\n' + m['content'] + eos_token + '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
QWEN3 = (  # thinks unless its template is asked not to; the empty thought is part of the prompt, and of the last answer
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
OWN_SYSTEM = (  # speaks for itself when no system prompt is given, as Qwen2.5 does
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are Q.<|im_end|>\\n' }}{% endif %}" + TEMPLATE
)
STYLES = {  # template, its special tokens, takes a system turn, lead, end of turn
    "chatml": (TEMPLATE, [], True, "", "<|im_end|>"),
    "llama-2": (LLAMA2, [], True, " ", "<|im_end|>"),
    "llama-3": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], True, "", "<|eot_id|>"),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"], False, "", "<end_of_turn>"),
    "mistral": (MISTRAL, [], False, "", "<|im_end|>"),
    "drops system": (DROPS_SYSTEM, ["<|user|>", "<|assistant|>"], False, "", "<|im_end|>"),
    "qwen3": (QWEN3, [], True, "", "<|im_end|>"),
    "own system": (OWN_SYSTEM, [], True, "", "<|im_end|>"),
}
every_style = pytest.mark.parametrize("style", STYLES)


def prompt_format(style):
    template, special, *_ = STYLES[style]
    made = tokenizer()
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.chat_template = template
    return PromptFormat.of(with_borders(made))


def with_borders(made):
    """Let the tokenizer put bos in front and eos behind by itself, as Llama's and others do."""
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    return made


def text_of(prompts, ids):
    return prompts.tokenizer.decode(ids, skip_special_tokens=False)


@every_style
def test_the_format_is_learned_from_a_sample(style):
    *_, takes_system, lead, end = STYLES[style]
    prompts = prompt_format(style)
    assert prompts.chat
    assert prompts.takes_system == takes_system
    assert prompts.lead == lead
    assert prompts.end_of_turn == prompts.tokenizer.convert_tokens_to_ids(end)


@pytest.mark.parametrize(
    "style, written",
    [
        ("chatml", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        ("llama-2", "<|im_start|>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST]"),
        ("gemma", "<|im_start|><start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\n"),
        ("mistral", "<|im_start|>[INST] S\n\nQ [/INST]"),
        ("drops system", "<|user|>\nS\n\nQ<|im_end|>\n<|assistant|>\n"),
        (
            "qwen3",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
            "<think>\n\n</think>\n\n",
        ),
        ("own system", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_a_prompt_is_written_as_the_template_writes_it(style, written):
    prompts = prompt_format(style)
    turns = conversation("Q", system="S")
    assert prompts.text(turns) == written
    assert text_of(prompts, prompts.prompt_ids(turns)) == written  # no second bos token


@every_style
def test_the_system_prompt_is_folded_into_the_first_user_turn_only(style):
    prompts = prompt_format(style)
    text = prompts.text(conversation("Third", system="Be brief.", before=[("user", "First"), ("assistant", "Second")]))
    assert text.count("Be brief.") == 1
    places = [text.index(part) for part in ("Be brief.", "First", "Second", "Third")]
    assert places == sorted(places)


@every_style
@pytest.mark.parametrize("answer", ["Yes.", "Yes, gladly.\nAnd now?", "Gr\u00fcezi \u263a"])
def test_prompt_and_answer_are_what_the_template_writes(style, answer):
    """Prompt and answer, decoded, begin the template's own rendering of the conversation, end of turn included."""
    prompts = prompt_format(style)
    turns = conversation("Do you?", system="S" if prompts.takes_system else "")
    prompt, whole_answer = prompts.pair_ids(turns, answer)
    assert prompt == prompts.prompt_ids(turns)
    messages = [{"role": role, "content": content} for role, content in [*turns, ("assistant", answer)]]
    rendered = prompts.tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)
    ours = text_of(prompts, prompt + whole_answer)
    if style == "llama-2":  # writes a space before </s>, which the authors' code does not
        rendered = rendered.replace(answer + " <|im_end|>", answer + "<|im_end|>")
    assert rendered.startswith(ours)
    assert whole_answer[-1] == prompts.end_of_turn and prompts.end_of_turn not in whole_answer[:-1]


def test_answers_of_a_pair_follow_the_same_prompt():
    prompts = prompt_format("chatml")
    turns = conversation("Q")
    (one, chosen), (other, rejected) = prompts.pair_ids(turns, "yes"), prompts.pair_ids(turns, "no")
    assert one == other and chosen != rejected


def test_white_space_of_an_answer_is_kept():
    prompts = prompt_format("chatml")
    _, answer = prompts.pair_ids(conversation("Q"), "  two\n\n")
    assert text_of(prompts, answer) == "  two\n\n<|im_end|>"


def test_conversation():
    before = [("user", "a"), ("assistant", "b")]
    assert conversation("Q") == [("system", DEFAULT_SYSTEM_PROMPT), ("user", "Q")]
    assert conversation("Q", system="") == [("user", "Q")]
    assert conversation("Q", system="S", before=before) == [("system", "S"), *before, ("user", "Q")]
    own = [("system", "mine"), *before]
    assert conversation("Q", system="S", before=own) == [*own, ("user", "Q")]
    assert before == [("user", "a"), ("assistant", "b")]


# Templates that fail -------------------------------------------------------------------------------------------------


def test_a_conversation_that_the_template_refuses_is_reported():
    with pytest.raises(SteeringError, match="chat template refuses.*Roles must alternate") as error:
        prompt_format("gemma").text([("user", "a"), ("user", "b")])
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("template", ["{% for %}", "{{ raise_exception('no') }}", "{{ 1 + messages[0]['content'] }}"])
def test_a_template_that_always_fails_is_reported(template):
    made = tokenizer()
    made.chat_template = template
    with pytest.raises(SteeringError, match="chat template refuses"):
        PromptFormat.of(made)


def test_a_template_that_cannot_write_answers_still_serves():
    made = tokenizer()
    made.chat_template = (
        "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}Q: {{ messages[0]['content'] }}\nA:"
    )
    prompts = PromptFormat.of(made)
    assert (prompts.takes_system, prompts.lead, prompts.end_of_turn) == (False, "", 2)
    assert prompts.text(conversation("why", system="S")) == "Q: S\n\nwhy\nA:"


def test_a_template_without_an_end_of_turn_token_ends_with_eos():
    made = tokenizer()
    made.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    assert PromptFormat.of(made).end_of_turn == 2


# Base models ---------------------------------------------------------------------------------------------------------


def base(bos=False, eos=True):
    made = tokenizer(chat=False)
    if bos:
        with_borders(made)
    if not eos:
        made.eos_token = None
    return PromptFormat.of(made)


def test_a_base_model_continues_plain_text():
    prompts = base()
    assert not prompts.chat
    turns = conversation("Once upon", before=[("system", "S"), ("user", "A tale."), ("assistant", "Yes.")])
    assert prompts.text(turns) == "S\n\nA tale.\n\nYes.\n\nOnce upon"
    assert text_of(prompts, prompts.prompt_ids(conversation("Once upon"))) == "Once upon"


@pytest.mark.parametrize(
    "prompt, answer, written",
    [
        ("Once upon", "a time", " a time"),
        ("Once upon", " a time", " a time"),
        ("Once upon", "\na time", "\na time"),
        ("Once upon ", "a time", "a time"),
        ("Once upon\n", "a time", "a time"),
    ],
)
@pytest.mark.parametrize("bos", [False, True])
def test_an_answer_to_plain_text_is_the_next_word(prompt, answer, written, bos):
    prompts = base(bos)
    ids, whole_answer = prompts.pair_ids(conversation(prompt), answer)
    assert text_of(prompts, ids) == ("<|im_start|>" if bos else "") + prompt
    assert text_of(prompts, whole_answer) == written + "<|im_end|>"


def test_a_base_model_without_an_eos_token_has_no_end_of_turn():
    prompts = base(eos=False)
    assert prompts.end_of_turn is None
    assert text_of(prompts, prompts.pair_ids(conversation("Once"), "upon")[1]) == " upon"


def test_an_empty_prompt_of_a_base_model_is_the_start_token():
    prompts = base()
    assert prompts.prompt_ids([("user", "")]) == [1]
    assert prompts.pair_ids([("user", "")], "Once")[0] == [1]
    nothing = base(eos=False)
    nothing.tokenizer.bos_token = None
    assert nothing.prompt_ids([("user", "")]) == [0]


def test_a_tokenizer_that_merges_across_the_border_does_not_move_it():
    """Where prompt and answer meet, one token must not eat a part of each: generation starts exactly at the border."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|end|>", *letters, "ab"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    made.chat_template = "{{ messages[-1]['content'] }}"
    prompts = PromptFormat.of(made)
    prompt, answer = prompts.pair_ids([("user", "xa")], "by")
    assert prompt == prompts.prompt_ids([("user", "xa")])
    assert [made.decode([i]) for i in prompt + answer] == ["x", "a", "b", "y", "<|end|>"]


# Thoughts, and special tokens that are only text --------------------------------------------------------------------

OPENS_THOUGHT = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


def thinking_format():
    made = tokenizer()
    made.chat_template = OPENS_THOUGHT
    return PromptFormat.of(made)


def test_answers_stand_after_the_thought_that_a_template_opens():
    prompts = thinking_format()
    assert prompts.opens_thought and not prompt_format("qwen3").opens_thought
    prompt, answer = prompts.pair_ids(conversation("Q", system=""), "Yes.")
    assert text_of(prompts, prompt) == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert text_of(prompts, answer) == "Yes.<|im_end|>"
    assert prompts.prompt_ids(conversation("Q", system="")) == prompt  # what is written is what was trained


def test_an_answer_with_a_thought_of_its_own_opens_no_second_one():
    prompts = thinking_format()
    own = "<think>\nHm.\n</think>\n\nYes."
    assert prompts.brings_thought(own) and not prompts.brings_thought("Yes.")
    assert not prompt_format("chatml").brings_thought(own)
    (prompt, answer), (same, plain) = (
        prompts.pair_ids(conversation("Q"), text, thinking=True) for text in (own, "No.")
    )
    assert prompt == same and text_of(prompts, prompt).endswith("assistant\n<think>\n")
    assert text_of(prompts, answer) == "Hm.\n</think>\n\nYes.<|im_end|>"
    assert text_of(prompts, plain) == "</think>\n\nNo.<|im_end|>"


@every_style
def test_special_tokens_in_a_text_are_letters(style):
    prompts = prompt_format(style)
    special = {prompts.tokenizer.convert_tokens_to_ids(token) for token in prompts.tokenizer.all_special_tokens}
    special |= {token for token, added in prompts.tokenizer.added_tokens_decoder.items() if added.special}
    plain, _ = prompts.pair_ids(conversation("why twice?"), "so")
    quoted, answer = prompts.pair_ids(conversation("why <|im_end|> twice?"), "so <|im_start|>system")
    count = lambda ids: sum(token in special for token in ids)  # noqa: E731
    assert count(quoted) == count(plain) and count(answer) == 1  # the end of the turn
    assert "why <|im_end|> twice?" in text_of(prompts, quoted) and "<|im_start|>system" in text_of(prompts, answer)


@pytest.mark.parametrize("text", ["plain", "Grüezi \u263a\n two  spaces ", "x" * 300])
def test_texts_without_special_tokens_are_tokenised_as_ever(text):
    prompts = prompt_format("chatml")
    turns = conversation(text)
    assert prompts.prompt_ids(turns) == prompts.tokenizer(prompts.text(turns), add_special_tokens=False)["input_ids"]


def test_a_model_without_a_template_reads_the_system_message_of_a_row_but_not_the_default_one():
    prompts = PromptFormat.of(tokenizer(chat=False))
    assert prompts.text(conversation("Q")) == "Q"
    assert prompts.text(conversation("Q", system="Be brief.")) == "Be brief.\n\nQ"
    ids = prompts.prompt_ids(conversation("a <|im_end|> b"))
    assert 2 not in ids and text_of(prompts, ids).endswith("a <|im_end|> b")
