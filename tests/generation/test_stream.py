"""Columns decoded together give what transformers gives for each alone; stopping, ending, refusing."""

import contextlib
import inspect
import math
import threading
from collections import Counter

import pytest
import torch

from steering.errors import SteeringError
from steering.generation.engine.decoder import decoder_of
from steering.generation.results import Column
from steering.generation.sampling import Sampling, SharedNoise
from steering.generation.stream import generate, stream
from steering.intervention.additions import additions_for
from steering.intervention.hooks import steered
from steering.models.blocks import hidden_of, with_hidden
from steering.models.chat_template import conversation
from steering.vectors.vector import SteeringVector
from tests.tiny_models import tiny_model

PROMPT = "Hello"
CACHES = {  # each kind of cache, and none; gemma2's window is shorter than the prompt
    **dict.fromkeys(["llama", "gpt2", "bloom", "mpt", "qwen3_next", "mamba", "gemma3"], {}),
    "gemma2": {"sliding_window": 64},
}
NO_REPEATS = 4.0  # a random model says one token for ever, whatever happens to it; with this penalty it cannot
SAMPLED = {"temperature": 1.3, "top_p": 0.95, "top_k": 60, "repetition_penalty": 1.2, "seed": 7}


def vector(*layers, seed=0, hidden_size=32, **fields):
    generator = torch.Generator().manual_seed(seed)
    return SteeringVector({k: torch.randn(hidden_size, generator=generator) for k in layers}, **fields)


def prompt_ids(model, prompt=PROMPT):
    return torch.tensor([model.prompts.prompt_ids(conversation(prompt))])


def shown(model, ids):
    """The text of an answer: bytes at its end that are half a character are not shown."""
    return model.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")


def by_transformers(model, setting=None, **options):
    """(new token ids, their text) of transformers' own `generate`, with the setting added by hooks of our own."""

    def hook_for(direction):
        return lambda block, args, out: with_hidden(out, hidden_of(out) + direction)

    ids = prompt_ids(model)
    with contextlib.ExitStack() as handles:
        for one, multiplier in (setting or {}).items():
            for layer, direction in one.directions.items():
                handle = model.blocks[layer].register_forward_hook(hook_for(multiplier * direction))
                handles.callback(handle.remove)
        options = {"do_sample": False, "max_new_tokens": 10, "eos_token_id": 2, "pad_token_id": 0, **options}
        new = model.network.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
    return new, shown(model, new)


@pytest.fixture
def passes(monkeypatch):
    """Number of rows of every forward pass of a model, in order."""

    def watch(model):
        decoder_of(model)  # its trial passes are not counted
        rows, forward = [], model.network.forward

        def counted(*args, input_ids, **kwargs):
            rows.append(len(input_ids))
            return forward(*args, input_ids=input_ids, **kwargs)

        counted.__signature__ = inspect.signature(forward)
        monkeypatch.setattr(model.network, "forward", counted)
        return rows

    return watch


@pytest.fixture
def scripted(monkeypatch):
    """Make every column write these tokens, when it draws."""

    def script(*tokens):
        left = list(tokens)

        def next_noise(self, vocabulary):
            noise = torch.zeros(vocabulary)
            noise[left.pop(0)] = 1e9
            return noise

        monkeypatch.setattr(SharedNoise, "next", next_noise)

    return script


# The same answers as transformers gives ------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture, changes", CACHES.items(), ids=CACHES)
def test_columns_are_what_transformers_generates(architecture, changes):
    model = tiny_model(architecture, **changes)
    one, two = vector(1, seed=1), vector(0, 3, seed=2)
    settings = [{}, {one: 1.0}, {one: -2.0, two: 0.5}]
    for penalty in (1.0, NO_REPEATS):
        columns = generate(model, PROMPT, settings, max_new_tokens=10, repetition_penalty=penalty)
        for column, setting in zip(columns, settings, strict=True):
            ids, text = by_transformers(model, setting, repetition_penalty=penalty)
            assert (column.text, column.tokens, column.finished) == (text, len(ids), True)
            assert column.setting is setting
    assert len({column.text for column in columns}) == 3


@pytest.mark.parametrize("sampling", [{"repetition_penalty": NO_REPEATS}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("architecture", ["llama", "bloom", "qwen3_next"])
def test_a_column_does_not_depend_on_the_others(architecture, sampling):
    model = tiny_model(architecture)
    one, two = vector(1, seed=1), vector(2, seed=2)
    settings = [{}, {one: 1.0}, {two: -1.0}, {one: 0.5, two: 2.0}, {one: 0.0}]
    together = generate(model, PROMPT, settings, max_new_tokens=10, **sampling)
    for column, setting in zip(together, settings, strict=True):
        (alone,) = generate(model, PROMPT, [setting], max_new_tokens=10, **sampling)
        assert (column.text, column.tokens) == (alone.text, alone.tokens)
    assert together[0].text == together[4].text
    assert together[0].text != together[1].text


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_the_answer_scope_begins_at_the_last_token_of_the_prompt(architecture):
    """By hand: the whole text again for each token, the vector at the positions that predict the answer."""
    model = tiny_model(architecture)
    everywhere, answer = vector(1, seed=1), vector(1, 2, seed=2, token_scope="answer")
    settings = [{}, {answer: 2.0}, {everywhere: 1.0, answer: -2.0}, {everywhere: 1.0}]
    columns = generate(model, PROMPT, settings, max_new_tokens=6, repetition_penalty=NO_REPEATS)
    texts = []
    for setting in settings:
        ids = prompt_ids(model)
        start = ids.shape[1]
        for _ in range(6):
            where = {"all": 1.0, "answer": (torch.arange(ids.shape[1]) >= start - 1)[None, :, None]}
            additions = {}
            for one, multiplier in setting.items():
                for layer, direction in one.directions.items():
                    here = torch.zeros(1, ids.shape[1], 32) + multiplier * where[one.token_scope] * direction
                    additions[layer] = additions.get(layer, 0) + here
            with torch.no_grad(), steered(model.blocks, additions):
                logits = model.network(input_ids=ids).logits[:, -1]
            scores = Sampling(repetition_penalty=NO_REPEATS).processors()(ids, logits)
            ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
        texts.append(shown(model, ids[0, start:]))
    assert [column.text for column in columns] == texts
    assert len(set(texts)) == 4


def test_repetition_penalty_is_that_of_transformers(tiny):
    plain, penalised = (
        generate(tiny, PROMPT, max_new_tokens=20, repetition_penalty=penalty)[0].text for penalty in (1.0, 1.8)
    )
    assert penalised == by_transformers(tiny, max_new_tokens=20, repetition_penalty=1.8)[1]
    assert penalised != plain


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.5, "top_p": 0.3},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.4},
        {"temperature": 1.0, "repetition_penalty": 0.7},
    ],
)
def test_processors_are_those_of_transformers(options, tiny):
    """The scores that transformers draws from, step by step, are ours for the same tokens."""
    ids, theirs = prompt_ids(tiny), {"top_k": 0, "top_p": 1.0, **options}
    torch.manual_seed(0)
    drawn = tiny.network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        max_new_tokens=4,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
        **theirs,
    )
    for step, wanted in enumerate(drawn.scores):
        tokens = drawn.sequences[:, : ids.shape[1] + step]
        with torch.no_grad():
            logits = tiny.network(input_ids=tokens).logits[:, -1]
        torch.testing.assert_close(Sampling(**options).processors()(tokens, logits), wanted, rtol=1e-4, atol=1e-4)


def test_a_sampled_answer_by_hand(tiny):
    """Scores plus the noise of the seed, step by step, without a cache."""
    sampling = Sampling(max_new_tokens=8, **SAMPLED)
    noise, tokens, written = SharedNoise(7), prompt_ids(tiny), []
    for _ in range(8):
        with torch.no_grad():
            logits = tiny.network(input_ids=tokens).logits[:, -1]
        chosen = int((sampling.processors()(tokens, logits) + noise.next(260)).argmax())
        written.append(chosen)
        tokens = torch.cat([tokens, torch.tensor([[chosen]])], dim=1)
        if chosen in tiny.stop_tokens:
            break
    assert len(written) > 2
    assert generate(tiny, PROMPT, sampling=sampling)[0].text == shown(tiny, written)


# Chance --------------------------------------------------------------------------------------------------------------


def chi_square(counts, probabilities, draws):
    return sum((counts[i] - draws * p) ** 2 / (draws * p) for i, p in enumerate(probabilities))


def test_shared_noise_draws_from_the_distribution():
    draws, critical = 6000, 25.7  # of chi-square with 5 degrees of freedom, exceeded once in 10,000
    log_p = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0]).log_softmax(0)
    within, across = SharedNoise(0), (SharedNoise(seed) for seed in range(draws))
    by_step = Counter(int((log_p + within.next(6)).argmax()) for _ in range(draws))
    by_seed = Counter(int((log_p + noise.next(6)).argmax()) for noise in across)
    for counts in (by_step, by_seed):
        assert chi_square(counts, log_p.exp().tolist(), draws) < critical


def test_shared_noise_makes_columns_differ_only_where_their_distributions_do():
    """Two columns whose distributions nearly agree draw the same token nearly always; independent draws would not."""
    noise = SharedNoise(1)
    one = torch.zeros(50)
    other = one + 0.05 * torch.randn(50, generator=torch.Generator().manual_seed(0))
    draws = [noise.next(50) for _ in range(500)]
    same = sum(int((one + n).argmax() == (other + n).argmax()) for n in draws)
    assert same > 450


def test_shared_noise_is_finite_and_repeats_with_its_seed():
    one, same, other = SharedNoise(3), SharedNoise(3), SharedNoise(4)
    first = one.next(100_000)
    assert torch.isfinite(first).all()
    assert torch.equal(first, same.next(100_000)) and not torch.equal(first, other.next(100_000))
    assert not torch.equal(first, one.next(100_000))


def test_the_seed_decides(tiny):
    texts = [generate(tiny, PROMPT, temperature=2.0, seed=seed, max_new_tokens=8)[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_top_k_of_one_is_greedy(tiny):
    greedy, drawn = (
        generate(tiny, PROMPT, max_new_tokens=8, **o)[0].text for o in ({}, {"temperature": 2, "top_k": 1})
    )
    assert greedy == drawn


# Ending --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture, changes", CACHES.items(), ids=CACHES)
def test_finished_rows_leave_the_batch_and_the_others_go_on_unchanged(architecture, changes, passes):
    model = tiny_model(architecture, **changes)
    settings = [{}, {vector(1, seed=1): 2.0}, {vector(1, seed=2): 2.0}, {vector(1, seed=3): 2.0}]
    options = {"max_new_tokens": 12, "repetition_penalty": NO_REPEATS}
    long = [by_transformers(model, setting, eos_token_id=None, **options)[0] for setting in settings]
    stops = {long[1][2], long[3][5]}  # some row ends at its third token, some at its sixth at the latest
    model.network.generation_config.eos_token_id = list(stops)
    lengths = [next((i for i, token in enumerate(ids, 1) if token in stops), 12) for ids in long]
    assert min(lengths) < max(lengths)

    rows = passes(model)
    columns = generate(model, PROMPT, settings, **options)

    assert [column.tokens for column in columns] == lengths
    assert [column.text for column in columns] == [
        shown(model, ids[:length]) for ids, length in zip(long, lengths, strict=True)
    ]
    assert all(column.finished for column in columns)
    prompt, *steps = rows
    assert prompt == (1 if decoder_of(model).plain.shares_prompt else 4)
    assert steps == [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_when_all_columns_end_so_does_the_run(tiny, passes, scripted):
    scripted(40, 41, 2)
    rows = passes(tiny)
    *_, last = stream(tiny, PROMPT, [{}, {vector(1): 1.0}], temperature=1.0, max_new_tokens=50)
    assert rows == [1, 2, 2]  # the prompt is read once
    assert [(column.text, column.tokens, column.finished) for column in last] == [
        (tiny.tokenizer.decode([40, 41]), 3, True)
    ] * 2


def test_a_snapshot_follows_each_token(tiny):
    shots = list(stream(tiny, PROMPT, [{}, {vector(1): 1.0}], max_new_tokens=5))
    assert [[column.tokens for column in shot] for shot in shots] == [[n, n] for n in range(1, 6)]
    assert [shot[0].finished for shot in shots] == [False] * 4 + [True]
    seconds = [shot[0].seconds for shot in shots]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert shots[-1][0].tokens_per_second == pytest.approx(5 / seconds[-1])


def test_half_a_character_is_held_back_until_it_is_whole(tiny, scripted):
    smile = tiny.tokenizer("\u263a", add_special_tokens=False)["input_ids"]
    letter = tiny.tokenizer("x", add_special_tokens=False)["input_ids"]
    scripted(*letter, *smile, 2)
    texts = [shot[0].text for shot in stream(tiny, PROMPT, temperature=1.0, max_new_tokens=9)]
    assert texts == ["x", "x", "x", "x\u263a", "x\u263a"]


def test_the_context_caps_an_answer(scripted):
    model = tiny_model(max_position_embeddings=100)
    room = 100 - prompt_ids(model).shape[1]
    scripted(*[40] * 200)
    (column,) = generate(model, PROMPT, temperature=1.0, max_new_tokens=4096)
    assert (column.tokens, column.finished) == (room, True)


def test_a_prompt_that_fills_the_context_but_for_one_token():
    model = tiny_model()
    room = 512 - prompt_ids(model, "x").shape[1]
    (column,) = generate(model, "x" * room)  # one token is left
    assert (column.tokens, column.finished) == (1, True)
    with pytest.raises(SteeringError, match="512 tokens long.*at most 512"):
        generate(model, "x" * (room + 1))


# Stopping ------------------------------------------------------------------------------------------------------------


def test_should_stop_ends_within_one_token(tiny, passes):
    rows, shots = passes(tiny), []
    for shot in stream(tiny, PROMPT, max_new_tokens=50, should_stop=lambda: len(shots) >= 3):
        shots.append(shot)
    assert len(shots) == 3 and len(rows) == 3
    assert not shots[-1][0].finished


def test_should_stop_before_the_first_token(tiny):
    assert generate(tiny, PROMPT, should_stop=lambda: True) == []


def test_no_hook_between_tokens_after_closing_or_after_failing(tiny, no_hooks, monkeypatch):
    running = stream(tiny, PROMPT, [{vector(1): 1.0}], max_new_tokens=50)
    next(running)
    assert no_hooks(tiny)
    running.close()
    assert no_hooks(tiny)

    running = stream(tiny, PROMPT, [{vector(1): 1.0}], max_new_tokens=50)
    next(running)

    def broken(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(tiny.blocks[-1], "forward", broken)
    with pytest.raises(RuntimeError):
        next(running)
    assert no_hooks(tiny)


def test_two_visitors_at_once_get_what_each_gets_alone(tiny):
    runs = {
        "one": ([{}, {vector(1, seed=1): 2.0}], {"seed": 1, "temperature": 1.0}),
        "two": ([{vector(1, 2, seed=2): -2.0}, {}, {vector(3, seed=3): 1.0}], {"repetition_penalty": NO_REPEATS}),
    }
    alone = {
        name: [column.text for column in generate(tiny, PROMPT, settings, max_new_tokens=25, **options)]
        for name, (settings, options) in runs.items()
    }
    together, start = {}, threading.Barrier(2, timeout=30)

    def visit(name):
        settings, options = runs[name]
        shots = stream(tiny, PROMPT, settings, max_new_tokens=25, **options)
        for _ in range(25):  # each waits for the other, so that their tokens alternate
            start.wait()
            together[name] = [column.text for column in next(shots, [])] or together[name]

    threads = [threading.Thread(target=visit, args=(name,)) for name in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert together == alone


def test_interleaved_runs_on_one_thread_do_not_touch_each_other(tiny):
    settings = [{vector(1, seed=1): 2.0}], [{vector(2, seed=2): 2.0}]
    options = {"max_new_tokens": 10, "repetition_penalty": NO_REPEATS}
    alone = [generate(tiny, PROMPT, columns, **options)[0].text for columns in settings]
    assert alone[0] != alone[1]
    pairs = zip(*(stream(tiny, PROMPT, columns, **options) for columns in settings), strict=True)
    *_, last = pairs
    assert [shot[0].text for shot in last] == alone


# Prompts, titles -----------------------------------------------------------------------------------------------------


def test_system_and_turns_before_reach_the_model(tiny, monkeypatch):
    seen = []
    decoder_of(tiny)  # its trial passes are not looked at
    forward = tiny.network.forward
    monkeypatch.setattr(tiny.network, "forward", lambda **k: seen.append(k["input_ids"][0].tolist()) or forward(**k))
    before = [("user", "Hi"), ("assistant", "Hello!")]
    generate(tiny, "  And?\n", system="Be brief.", before=before, max_new_tokens=1)
    turns = [("system", "Be brief."), *before, ("user", "And?")]
    assert seen == [tiny.prompts.prompt_ids(turns)]


def test_titles():
    cheerful, nameless = vector(1, name="cheerful"), vector(1)
    assert Column({}).title == Column({cheerful: 0}).title == "baseline"
    assert Column({cheerful: 1.5, nameless: -1}).title == "cheerful +1.5, unnamed -1"
    assert Column({cheerful: 2}).title == "cheerful +2"
    assert Column({}).tokens_per_second == 0


# What cannot be generated --------------------------------------------------------------------------------------------


def refused(said, model, prompt=PROMPT, columns=({},), **options):
    with pytest.raises(SteeringError, match=said) as error:
        stream(model, prompt, columns, **options)  # at once, not at the first token
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text


def test_bad_input_is_refused_at_once(tiny):
    refused("empty", tiny, "")
    refused("empty", tiny, " \n\t")
    refused("at most 512", tiny, "long " * 200)
    refused("0 columns", tiny, columns=[])
    refused("17 columns", tiny, columns=[{}] * 17)
    refused("hidden size 16", tiny, columns=[{}, {vector(1, hidden_size=16): 1.0}])
    refused("layer 4", tiny, columns=[{vector(4): 1.0}])
    refused("(?i)multiplier nan", tiny, columns=[{vector(1): math.nan}])
    refused("(?i)multiplier inf", tiny, columns=[{vector(1): math.inf}])


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 5000},
        {"max_new_tokens": 2.5},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": "hot"},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"top_k": 3.5},
        {"repetition_penalty": 0},
        {"repetition_penalty": None},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_sampling_out_of_range(options, tiny):
    refused(next(iter(options)).replace("_", " "), tiny, **options)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "mamba"])
def test_a_trace_tells_what_both_models_think_of_each_token(architecture):
    model = tiny_model(architecture)
    settings = [{}, {vector(1): 2.0}, {vector(2, seed=1): -1.5, vector(0, seed=2): 0.5}]
    options = {"max_new_tokens": 6, "repetition_penalty": NO_REPEATS}
    columns = generate(model, PROMPT, settings, trace=True, **options)
    assert [column.text for column in columns] == [c.text for c in generate(model, PROMPT, settings, **options)]
    prompt = prompt_ids(model)[0].tolist()
    for column, setting in zip(columns, settings, strict=True):
        assert "".join(chance.text for chance in column.trace) == column.text
        assert len(column.trace) == column.tokens
        written = by_transformers(model, setting, **options)[0]
        ids = torch.tensor([prompt + written])
        for which, additions in (("untouched", {}), ("steered", additions_for(model, [setting]))):
            with torch.inference_mode(), steered(model.blocks, additions):
                log_probabilities = model.network(ids).logits[0].float().log_softmax(-1)
            want = [log_probabilities[len(prompt) - 1 + i, token].exp() for i, token in enumerate(written)]
            got = [getattr(chance, which) for chance in column.trace]
            torch.testing.assert_close(torch.tensor(got), torch.stack(want), rtol=1e-2, atol=1e-6)


def test_each_column_goes_on_from_its_own_history(tiny):
    histories = [[("user", "Hi"), ("assistant", "Yes.")], [], [("user", "Hi"), ("assistant", "Yes.")]]
    settings = [{}, {vector(1): 2.0}, {vector(1): 1.0}]
    options = {"max_new_tokens": 7, "repetition_penalty": NO_REPEATS}
    together = generate(tiny, PROMPT, settings, histories=histories, **options)
    for column, setting, history in zip(together, settings, histories, strict=True):
        assert column.text == generate(tiny, PROMPT, [setting], before=history, **options)[0].text
    with pytest.raises(SteeringError, match="2 histories were given for 3 columns"):
        generate(tiny, PROMPT, settings, histories=histories[:2])
