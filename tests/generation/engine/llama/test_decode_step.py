"""The lean step writes what the float16 twin writes, whoever joins, leaves or fails, on one lane or several."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from steering.generation.engine.llama.parallel import Lanes
from torch import nn
from transformers import DynamicCache

from steering.generation.engine.batching import rows_for
from steering.generation.engine.decoder import Batch, decoder_of
from steering.generation.engine.llama import decode_step
from steering.generation.engine.llama.decode_step import Lane
from steering.generation.server import DecodeServer
from steering.generation.stream import generate
from tests.generation.engine.test_decoder import batch_of
from tests.generation.test_server import REQUESTS, texts, together
from tests.generation.test_stream import NO_REPEATS, PROMPT, vector
from tests.tiny_models import ARCHITECTURES, tiny_model

LEAN = ("llama", "qwen2", "qwen3")
SETTINGS = [{}, {vector(1, seed=1): 2.0}, {vector(0, 3, seed=2): -1.0}, {vector(2, seed=3, token_scope="answer"): 1.5}]


def lively(architecture, **changes):
    """A tiny model whose norms and biases are random, too."""
    model = tiny_model(architecture, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(params=[1, 2, 3])
def cores(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def test_which_models_are_written_the_lean_way():
    """A test that passed because all went the plain way would show nothing."""
    lean = {name for name in ARCHITECTURES if decoder_of(tiny_model(name), "float16").lean is not None}
    assert lean == set(LEAN)  # mistral's cache forgets what is behind its window
    assert decoder_of(tiny_model("mistral", sliding_window=None), "float16").lean is not None
    assert decoder_of(tiny_model("llama")).lean is None  # the full weights are the model's own, bit for bit


@pytest.mark.parametrize("architecture", LEAN)
def test_lanes_write_what_the_twin_writes(architecture, cores, monkeypatch):
    """Four rows, then two more with a longer prompt; rows leave, the room is outgrown."""
    monkeypatch.setattr(decode_step, "ROOM", 3)
    model = lively(architecture)
    decoder = decoder_of(model, "float16")
    rows = rows_for(decoder, 1)
    assert isinstance(rows, Lanes)
    longer = Batch(decoder, list(range(10, 160)), {"all": {1: torch.ones(2, 32)}, "answer": {}}, [7, 8])
    alone = [
        batch_of(model, SETTINGS, weights="float16"),
        Batch(decoder, longer.tokens[0].tolist(), longer.additions, [7, 8]),
    ]
    for number, batch in enumerate((batch_of(model, SETTINGS, weights="float16"), longer)):
        for one in (batch, alone[number]):
            one.logits()
            one.advance(torch.arange(40, 40 + len(one.rows)), range(len(one.rows)))
        rows.join(batch)
        going = {0: [[0, 1, 2, 3], [0, 2, 3], [0, 2]], 1: [[0, 1], [0, 1], [0, 1], [0, 1], [1], [0]]}[number]
        for step in range(6):
            wanted = [other.logits() for other in alone[: number + 1]]
            for got, want in zip(rows.logits(), wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.std()))
            chosen = [torch.arange(50 + step, 50 + step + len(other.rows)) for other in alone[: number + 1]]
            places = [list(range(len(tokens))) for tokens in chosen]
            if step < len(going):
                places[-1] = going[step]
            rows.advance(chosen, places)
            for other, tokens, kept in zip(alone, chosen, places, strict=False):
                other.advance(tokens, kept)
    assert [member.rows for member in rows.members] == [other.rows for other in alone] == [[0, 3], [8]]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(1, 3), st.integers(1, 9)),  # so many rows of that length join
            st.lists(st.integers(0, 9), max_size=6),  # these leave
        ),
        max_size=12,
    )
)
def test_rows_that_move_up_keep_what_is_theirs(events):
    lane, expected, made = Lane(None), [], 0
    for event in events:
        if isinstance(event, tuple):
            count, length = event
            rows = [torch.full((2, 2, 1, length, 1), float(made + number)) for number in range(count)]
            made += count
            states = torch.stack(rows, dim=2)
            lane.join(DynamicCache(zip(*states, strict=True)), {0: torch.ones(count, 1)}, range(count))
            expected += rows
        elif expected:
            expected = [expected[row] for row in lane.keep([row for row in range(len(expected)) if row not in event])]
        assert len(lane) == len(expected)
        for row, states in enumerate(expected):
            assert torch.equal(lane.states(row), states)
            assert not lane._cached[:, :, row, :, : lane.starts[row]].isnan().any()  # a mask hides only what is finite


@pytest.mark.parametrize("architecture", LEAN)
def test_a_column_does_not_depend_on_the_others(architecture, cores):
    model = lively(architecture)
    options = {"max_new_tokens": 10, "repetition_penalty": NO_REPEATS, "weights": "float16"}
    together_ = generate(model, PROMPT, SETTINGS * 2, trace=True, **options)
    for column, setting in zip(together_, SETTINGS * 2, strict=True):
        assert texts([column]) == texts(generate(model, PROMPT, [setting], **options))
    assert len({column.text for column in together_}) == len(SETTINGS)


def test_visitors_share_the_lanes(cores):
    model = lively("llama")
    found = together(DecodeServer(model, weights="float16"), waits=(0, 0.02, 0.05, 0.1))
    for number, (prompt, columns, options) in enumerate(REQUESTS):
        options = {"repetition_penalty": NO_REPEATS, **options}
        assert texts(found[number]) == texts(generate(model, prompt, columns, weights="float16", **options))


def test_without_torchscript_python_runs_the_same_step(monkeypatch):
    options = {"max_new_tokens": 8, "repetition_penalty": NO_REPEATS, "weights": "float16"}
    wanted = texts(generate(lively("llama"), PROMPT, SETTINGS, **options))
    monkeypatch.setattr(torch.jit, "script", lambda module: 1 / 0)
    model = lively("llama")
    assert texts(generate(model, PROMPT, SETTINGS, **options)) == wanted
    assert type(decoder_of(model, "float16").lean.step) is decode_step.LeanStep


def test_a_model_that_only_looks_like_llama_is_noticed():
    model = tiny_model()
    model.blocks[-1].mlp.act_fn = nn.GELU()
    assert decoder_of(model, "float16").lean is None
    options = {"max_new_tokens": 8, "repetition_penalty": NO_REPEATS}
    light, full = (generate(model, PROMPT, SETTINGS, weights=weights, **options) for weights in ("float16", "full"))
    assert texts(light) == texts(full)


def test_a_matrix_too_large_for_float16_goes_the_plain_way():
    model = tiny_model()
    with torch.no_grad():
        model.blocks[0].mlp.up_proj.weight[0, 0] = 1e5
    assert decoder_of(model, "float16").lean is None


def test_a_step_that_fails_leaves_no_trace(cores, no_hooks, monkeypatch):
    model = lively("llama")
    options = {"max_new_tokens": 8, "repetition_penalty": NO_REPEATS, "weights": "float16"}
    wanted = texts(generate(model, PROMPT, SETTINGS, **options))
    with monkeypatch.context() as patch:
        patch.setattr(Lane, "step", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(model, PROMPT, SETTINGS, **options)
    assert no_hooks(model)
    assert texts(generate(model, PROMPT, SETTINGS, **options)) == wanted
