"""The written-out Llama step gives what transformers' forward gives, whoever joins, leaves or fails."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from steering.generation.engine.batching import ActiveRows
from steering.generation.engine.decoder import decoder_of
from steering.generation.engine.llama.engine import LlamaEngine
from steering.generation.engine.llama.kv_cache import RowsKVCache
from steering.generation.precision import precision_report
from steering.generation.server import DecodeServer
from steering.generation.stream import generate
from steering.generation.transformers_engine import TransformersEngine
from tests.generation.engine.test_decoder import batch_of
from tests.generation.test_server import REQUESTS, texts, together
from tests.generation.test_stream import NO_REPEATS, PROMPT, vector
from tests.tiny_models import ARCHITECTURES, tiny_model

LLAMA_LIKE = ("llama", "qwen2", "qwen3")
LLAMA_STEP = "written-out Llama step, float16"
SETTINGS = [{}, {vector(1, seed=1): 2.0}, {vector(0, 3, seed=2): -1.0}, {vector(2, seed=3, token_scope="answer"): 1.5}]


def lively(architecture, **changes):
    """A tiny model whose norms and biases are random, too, and whose weights float16 holds without rounding."""
    model = tiny_model(architecture, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.copy_(parameter.half())
    return model


@pytest.fixture(params=[1, 3])
def cores(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def test_which_models_are_decoded_by_the_llama_step():
    """A test that passed because all went the plain way would show nothing."""
    written_out = {name for name in ARCHITECTURES if precision_report(tiny_model(name)).way == LLAMA_STEP}
    assert written_out == set(LLAMA_LIKE)  # mistral's cache forgets what is behind its window
    assert precision_report(tiny_model("mistral", sliding_window=None)).way == LLAMA_STEP
    assert precision_report(tiny_model("llama"), "full").way == "transformers' forward"  # the model's own, bit for bit


@pytest.mark.parametrize("biases", [{}, {"attention_bias": True, "mlp_bias": True}])
def test_a_llama_with_biases(biases):
    model = lively("llama", **biases)
    assert precision_report(model).way == LLAMA_STEP
    options = {"max_new_tokens": 10, "repetition_penalty": NO_REPEATS}
    light, full = (generate(model, PROMPT, SETTINGS, weights=weights, **options) for weights in ("float16", "full"))
    assert texts(light) == texts(full)


@pytest.mark.parametrize("architecture", LLAMA_LIKE)
def test_rows_give_what_transformers_gives(architecture, monkeypatch):
    """Four rows, then two more with a longer prompt; rows leave, the room is outgrown."""
    monkeypatch.setattr(LlamaEngine, "new_cache", lambda self: RowsKVCache(self._model, growth=3))
    model = lively(architecture)
    decoders = decoder_of(model, "float16"), decoder_of(model)
    assert isinstance(decoders[0].engine, LlamaEngine) and isinstance(decoders[1].engine, TransformersEngine)
    all_rows = [ActiveRows(decoder) for decoder in decoders]
    batches = [[batch_of(model, SETTINGS), batch_of(model, [SETTINGS[1], {}], ids=range(10, 160))] for _ in decoders]
    for number in range(2):
        for decoder, rows, own in zip(decoders, all_rows, batches, strict=True):
            decoder.engine.prefill(own[number])
            rows.add_prefilled(own[number], torch.arange(40, 40 + len(own[number].rows)), range(len(own[number].rows)))
        going = {0: [[0, 1, 2, 3], [0, 2, 3], [0, 2]], 1: [[0, 1], [0, 1], [0, 1], [0, 1], [1], [0]]}[number]
        for step in range(6):
            ours, theirs = (rows.logits() for rows in all_rows)
            for got, want in zip(ours, theirs, strict=True):
                torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.std()))
            chosen = [torch.arange(50 + step, 50 + step + len(got)) for got in ours]
            places = [list(range(len(tokens))) for tokens in chosen]
            if step < len(going):
                places[-1] = going[step]
            for rows in all_rows:
                rows.append(chosen, places)
    assert [member.rows for member in all_rows[0].members] == [[0, 3], [1]]
    assert [member.rows for member in all_rows[1].members] == [[0, 3], [1]]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(1, 3), st.integers(1, 9)),  # so many rows of that length join
            st.lists(st.integers(0, 9), max_size=6),  # these leave
        ),
        max_size=12,
    )
)
def test_rows_that_move_up_keep_their_keys_and_values(events):
    cache, expected, made = RowsKVCache(None), [], 0
    for event in events:
        if isinstance(event, tuple):
            count, length = event
            rows = [torch.full((2, 2, 1, length, 1), float(made + number)) for number in range(count)]
            made += count
            cache.add_rows(torch.stack(rows, dim=2))
            expected += rows
        elif expected:
            staying = [row for row in range(len(expected)) if row not in event]
            cache.keep_rows(staying)
            expected = [expected[row] for row in staying]
        assert len(cache) == len(expected)
        for row, keys_values in enumerate(expected):
            assert torch.equal(cache.keys_values(row), keys_values)
            cache.starts[row], start = 0, cache.starts[row]
            assert not cache.keys_values(row).isnan().any()  # a mask hides only what is finite
            cache.starts[row] = start


@pytest.mark.parametrize("architecture", LLAMA_LIKE)
def test_a_column_does_not_depend_on_the_others(architecture, cores):
    model = lively(architecture)
    options = {"max_new_tokens": 10, "repetition_penalty": NO_REPEATS, "weights": "float16"}
    together_ = generate(model, PROMPT, SETTINGS * 2, trace=True, **options)
    for column, setting in zip(together_, SETTINGS * 2, strict=True):
        assert texts([column]) == texts(generate(model, PROMPT, [setting], **options))
    assert len({column.text for column in together_}) == len(SETTINGS)


def test_visitors_share_the_step(cores):
    model = lively("llama")
    found = together(DecodeServer(model, weights="float16"), waits=(0, 0.02, 0.05, 0.1))
    for number, (prompt, columns, options) in enumerate(REQUESTS):
        options = {"repetition_penalty": NO_REPEATS, **options}
        assert texts(found[number]) == texts(generate(model, prompt, columns, weights="float16", **options))


def test_a_model_that_only_looks_like_llama_is_noticed(caplog):
    model = tiny_model()
    model.blocks[-1].mlp.act_fn = nn.GELU()
    assert precision_report(model).way == "transformers' forward, float16 weights"
    assert f"{LLAMA_STEP}: refused" in caplog.text
    options = {"max_new_tokens": 8, "repetition_penalty": NO_REPEATS}
    light, full = (generate(model, PROMPT, SETTINGS, weights=weights, **options) for weights in ("float16", "full"))
    assert texts(light) == texts(full)


def test_a_matrix_too_large_for_float16_goes_another_way():
    model = tiny_model()
    with torch.no_grad():
        model.blocks[0].mlp.up_proj.weight[0, 0] = 1e5
    assert precision_report(model).way != LLAMA_STEP
