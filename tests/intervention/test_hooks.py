"""How vectors enter the residual stream: exactly, row by row, on one thread, and without a trace afterwards."""

import math
import threading

import pytest
import torch

from steering.errors import SteeringError
from steering.intervention.additions import additions_for
from steering.intervention.hooks import observed, steered
from steering.models.blocks import hidden_of
from steering.vectors.vector import SteeringVector
from tests.tiny_models import ARCHITECTURES, tiny_model

TOKENS = torch.tensor([[1, 40, 50, 60, 70, 80, 90]])


def vector(*layers, seed=0, hidden_size=32, **fields):
    generator = torch.Generator().manual_seed(seed)
    return SteeringVector({k: torch.randn(hidden_size, generator=generator) for k in layers}, **fields)


@torch.no_grad()
def logits(model, tokens=TOKENS, **options):
    return model.network(input_ids=tokens, **options).logits


def run(model, settings, tokens=TOKENS):
    with steered(model.blocks, additions_for(model, settings)):
        return logits(model, tokens.expand(len(settings), -1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_added_is_the_untouched_model_bit_for_bit(architecture):
    model = tiny_model(architecture)
    one, other = vector(1), vector(0, 3)
    for settings in ([{}], [{one: 0.0}], [{one: 0.0, other: -0.0}], [{}, {one: 0}, {other: 0}]):
        assert additions_for(model, settings) == {}
        assert torch.equal(run(model, settings), logits(model, TOKENS.expand(len(settings), -1)))


def test_an_untouched_row_beside_steered_ones_is_the_untouched_model_bit_for_bit(tiny):
    rows = run(tiny, [{vector(1): 2.0}, {}, {vector(2): -1.0}])
    assert torch.equal(rows[1], logits(tiny, TOKENS.expand(3, -1))[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layer_k_is_the_output_of_block_k(architecture):
    """The vector is seen, alone and whole, in the hidden states after block k, at every position."""
    model, direction = tiny_model(architecture), vector(2)
    states = {}
    for name, setting in (("untouched", {}), ("moved", {direction: 1.5})):
        with steered(model.blocks, additions_for(model, [setting])), observed(model.blocks[1]) as before:
            taken = []
            handle = model.blocks[2].register_forward_hook(lambda b, a, out, taken=taken: taken.append(hidden_of(out)))
            logits(model)
            handle.remove()
        states[name] = (hidden_of(before[0]), taken[0])
    assert torch.equal(states["untouched"][0], states["moved"][0])  # block 1 knows nothing of it
    difference = states["moved"][1] - states["untouched"][1]
    wanted = (1.5 * direction.directions[2]).expand_as(difference)
    torch.testing.assert_close(difference, wanted, rtol=1e-4, atol=1e-4)


def test_layer_k_is_hidden_states_k_plus_one():
    model = tiny_model()  # its own: transformers leaves hooks of its own behind when asked for hidden states
    with observed(model.blocks[2]) as outputs:
        hidden_states = model.network(input_ids=TOKENS, output_hidden_states=True).hidden_states
    assert torch.equal(hidden_of(outputs[0]), hidden_states[3])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_of_a_mixed_batch_equals_the_same_row_alone(architecture):
    model = tiny_model(architecture)
    a, b = vector(1, seed=1), vector(0, 2, 3, seed=2)
    settings = [{}, {a: 1.0}, {b: -2.0}, {a: 0.5, b: 1.0}, {a: 0.0}]
    together = run(model, settings)
    for row, setting in enumerate(settings):
        torch.testing.assert_close(together[row], run(model, [setting])[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[1], together[0], atol=1e-2)


def test_several_vectors_are_their_weighted_sum_per_layer(tiny):
    a, b, c = vector(1, seed=1), vector(1, 3, seed=2), vector(2, seed=3)
    wanted = {
        1: 2.0 * a.directions[1] - 0.5 * b.directions[1],
        2: 3.0 * c.directions[2],
        3: -0.5 * b.directions[3],
    }
    handles = [
        tiny.blocks[k].register_forward_hook(lambda block, args, out, v=v: hidden_of(out) + v)
        for k, v in wanted.items()
    ]
    by_hand = logits(tiny)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(run(tiny, [{a: 2.0, b: -0.5, c: 3.0}]), by_hand)
    assert list(additions_for(tiny, [{c: 1, a: 1}])) == [1, 2]


def test_additions_have_a_row_for_each_setting(tiny):
    a = vector(1)
    additions = additions_for(tiny, [{a: 2.0}, {}, {a: -1.0}])
    rows = [2.0 * a.directions[1], torch.zeros(32), -a.directions[1]]
    torch.testing.assert_close(additions[1], torch.stack(rows))
    assert additions[1].dtype == torch.float32


def test_gradients_flow_into_the_additions(tiny):
    direction = torch.zeros(32, requires_grad=True)
    with steered(tiny.blocks, {1: direction}):
        tiny.network(input_ids=TOKENS).logits.sum().backward()
    assert direction.grad.norm() > 0


def test_half_precision_stays_half_precision():
    model = tiny_model()
    model.network.to(torch.bfloat16)
    assert run(model, [{vector(1): 1.0}]).dtype == torch.bfloat16


# Threads and failures ------------------------------------------------------------------------------------------------


def in_another_thread(work):
    result = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    thread.join(timeout=30)
    return result[0]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom"])
def test_another_thread_inside_a_steered_context_is_untouched_bit_for_bit(architecture):
    model, direction = tiny_model(architecture), vector(1, 2)
    alone = logits(model)
    with steered(model.blocks, additions_for(model, [{direction: 3.0}])), observed(model.blocks[1]) as outputs:
        other = in_another_thread(lambda: logits(model))
        assert outputs == []
        mine = logits(model)
    assert torch.equal(other, alone)
    assert not torch.allclose(mine, alone, atol=1e-2)


def test_two_threads_steer_at_once_each_its_own_way(tiny):
    a, b = vector(1, seed=1), vector(1, 2, seed=2)
    wanted = {name: run(tiny, [{v: 1.0}]) for name, v in (("a", a), ("b", b))}
    both_inside = threading.Barrier(2, timeout=30)
    got = {"a": [], "b": []}

    def work(name, v):
        for _ in range(20):
            with steered(tiny.blocks, additions_for(tiny, [{v: 1.0}])):
                both_inside.wait()
                got[name].append(logits(tiny))
                both_inside.wait()

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", a), ("b", b))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for name, results in got.items():
        assert len(results) == 20 and all(torch.equal(result, wanted[name]) for result in results)


@pytest.mark.parametrize("context", ["steered", "observed"])
def test_no_hook_is_left_after_an_exception(context, tiny, no_hooks):
    opened = steered(tiny.blocks, {1: torch.ones(32), 2: torch.ones(32)})
    with pytest.raises(KeyboardInterrupt), opened if context == "steered" else observed(tiny.blocks[0]):
        assert not no_hooks(tiny)
        raise KeyboardInterrupt
    assert no_hooks(tiny)


def test_no_hook_is_left_when_opening_fails(tiny, no_hooks):
    with pytest.raises(IndexError), steered(tiny.blocks, {1: torch.ones(32), 9: torch.ones(32)}):
        pass
    assert no_hooks(tiny)


def test_no_hook_is_left_when_the_network_fails(tiny, no_hooks):
    with pytest.raises(RuntimeError), steered(tiny.blocks, {1: torch.ones(34)}):
        logits(tiny)
    assert no_hooks(tiny)
    assert torch.isfinite(logits(tiny)).all()


# What cannot be applied ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", [math.nan, math.inf, -math.inf, 101, -1e9, None, "much"])
def test_an_unsound_multiplier(multiplier, tiny):
    with pytest.raises(SteeringError, match="(?i)multiplier"):
        additions_for(tiny, [{}, {vector(1): multiplier}])


@pytest.mark.parametrize("multiplier", [0, 1])
def test_a_vector_of_another_width_or_depth(multiplier, tiny):
    with pytest.raises(SteeringError, match="hidden size 16"):
        additions_for(tiny, [{vector(1, hidden_size=16): multiplier}])
    with pytest.raises(SteeringError, match="layer 4.*layers 0 to 3"):
        additions_for(tiny, [{vector(4): multiplier}])
