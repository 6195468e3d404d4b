"""Log-probabilities of answers: the fast way gives what the reference gives, and is not used where it would not."""

import logging
import threading

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from steering.intervention.hooks import steered
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import EncodedPair, encode_pairs, shared_prefix
from steering.scoring import reference
from steering.scoring.fast import activation_cache, onednn_linear
from steering.scoring.fast.packed_forward import PACKED_ATTENTION, PackedModel
from steering.scoring.fast.packing import pack
from steering.scoring.scorer import PairScorer
from tests.tiny_models import ARCHITECTURES, PLAIN, tiny_model

EVERYTHING = range(8)


def by_hand(model, pairs, additions, gradient=False):
    """[n, 2] summed log-probabilities, one conversation at a time, through transformers alone."""
    scores = []
    for pair in pairs:
        for answer in (pair.chosen, pair.rejected):
            ids = torch.tensor([pair.prompt + answer])
            with torch.set_grad_enabled(gradient), steered(model.blocks, additions):
                log_p = model.network(input_ids=ids).logits[0].float().log_softmax(-1)
            start = len(pair.prompt)
            scores.append(sum(log_p[start + i - 1, token] for i, token in enumerate(answer)))
    return torch.stack(scores).view(-1, 2)


def push(model, layer, *, norm=1.0, seed=0):
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(seed))
    return {layer: norm * direction / direction.norm()}


def weighted_sum(indices, logps, reference_logps):
    """A loss that weighs every log-probability otherwise."""
    weights = torch.tensor([[1.0 + i, -2.0 - i] for i in indices])
    return (weights * logps).sum() / 10


def logps_and_gradient(scorer, additions):
    _, gradients = scorer.value_and_grad(EVERYTHING, additions, weighted_sum)
    return scorer.logps(EVERYTHING, additions), torch.cat([*gradients.values()])


def close(got, wanted, tolerance=1e-4):
    return (got - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_scored_exactly(architecture, pairs, no_hooks):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, pairs)
    fast, plain = PairScorer(model, encoded, 1), PairScorer(model, encoded, 1, fast=False)
    assert (fast.path == "reference") == bool(fast.why) == (architecture in PLAIN), fast.why
    assert plain.path == "reference" and plain.why

    torch.testing.assert_close(plain.reference_logps(EVERYTHING), by_hand(model, encoded, {}), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        fast.reference_logps(EVERYTHING), plain.reference_logps(EVERYTHING), rtol=1e-5, atol=1e-4
    )
    additions = push(model, 1)
    (got, got_gradient), (wanted, gradient) = (logps_and_gradient(s, additions) for s in (fast, plain))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)
    assert close(got_gradient, gradient)
    assert (wanted - plain.reference_logps(EVERYTHING)).abs().mean() > 1e-2  # the push is felt
    assert no_hooks(model)


def test_reference_scores_are_those_of_one_conversation_at_a_time(tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    additions = push(tiny, 2)
    plain = PairScorer(tiny, encoded, 2, fast=False)
    wanted = by_hand(tiny, encoded, additions)
    torch.testing.assert_close(plain.logps(EVERYTHING, additions), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layer", range(4))
def test_every_layer(layer, tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    additions = push(tiny, layer)
    fast, plain = (logps_and_gradient(PairScorer(tiny, encoded, layer, fast=f), additions) for f in (True, False))
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-5, atol=1e-4)
    assert close(fast[1], plain[1])


def test_additions_at_later_layers_too(tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    additions = {**push(tiny, 1), **push(tiny, 3, seed=1)}
    fast, plain = (PairScorer(tiny, encoded, 1, fast=f).logps(EVERYTHING, additions) for f in (True, False))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-4)


def test_no_additions_are_exactly_the_reference(tiny, pairs):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    for nothing in ({}, None):
        assert torch.equal(scorer.logps(EVERYTHING, nothing), scorer.reference_logps(EVERYTHING))
    assert scorer.logps([], push(tiny, 1)).shape == scorer.reference_logps([]).shape == (0, 2)


@pytest.mark.parametrize("disk", ["room", "full"])
@pytest.mark.parametrize("memory", [0, 40_000, 10**9], ids=["none in memory", "some in memory", "all in memory"])
def test_where_hidden_states_are_cached_changes_no_number(memory, disk, tiny, pairs, monkeypatch):
    _, encoded = encode_pairs(tiny, pairs)
    wanted, gradient = logps_and_gradient(PairScorer(tiny, encoded, 1, fast=False), push(tiny, 1))
    monkeypatch.setattr(activation_cache, "MEMORY_BUDGET", memory)
    if disk == "full":
        monkeypatch.setattr(activation_cache, "DISK_RESERVE", 10**18)
    scorer = PairScorer(tiny, encoded, 1)
    for _ in range(2):  # the second time from the cache
        logps, got = logps_and_gradient(scorer, push(tiny, 1))
        torch.testing.assert_close(logps, wanted, rtol=1e-5, atol=1e-4)
        assert close(got, gradient)
    assert scorer.path == "fast"
    everything_fits = disk == "room" or memory == 10**9
    assert bool(scorer.note) == (not everything_fits)
    if not everything_fits:
        assert ("of 0 pairs" in scorer.note) == (memory == 0)


def test_the_whole_model_runs_once_a_pair(tiny, pairs):
    """Seen by the first block, which only runs where hidden states are not cached."""
    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    passes, attention = [], type(tiny.blocks[0].self_attn)
    forward = attention.forward

    def counted(self, *args, **kwargs):
        passes.append(self.layer_idx)
        return forward(self, *args, **kwargs)

    attention.forward = counted
    try:
        for epoch in range(3):
            for batch in ([0, 1, 2], [3, 4, 5], [6, 7]) if epoch % 2 else ([7, 0], [1, 6, 2], [5, 3, 4]):
                scorer.logps(batch, push(tiny, 1))
    finally:
        attention.forward = forward
    assert passes.count(0) == 3 and passes.count(2) == 3 + 9


@pytest.mark.parametrize("template", [True, False], ids=["chat", "base"])
def test_a_base_model_without_a_chat_template(template, pairs):
    model = tiny_model(chat=template)
    _, encoded = encode_pairs(model, pairs)
    fast = PairScorer(model, encoded, 2)
    assert fast.path == "fast"
    torch.testing.assert_close(fast.reference_logps(EVERYTHING), by_hand(model, encoded, {}), rtol=1e-5, atol=1e-4)


def test_pairs_that_share_nothing_and_pairs_that_share_all(tiny):
    unlike = [EncodedPair((3, 4), (5, 6), (7,)), EncodedPair((9,), (5,), (6, 7, 8))]
    alike = [EncodedPair((3, 4, 9), (5, 6), (7,)), EncodedPair((3, 4, 9), (8, 2), (7, 7))]
    for pairs, prefix in ((unlike, ()), (alike, (3, 4)), (alike[:1], (3, 4))):
        scorer = PairScorer(tiny, pairs, 1)
        assert scorer.path == "fast" and shared_prefix(pair.prompt[:-1] for pair in pairs) == prefix
        additions = push(tiny, 1)
        got = scorer.logps(range(len(pairs)), additions)
        torch.testing.assert_close(got, by_hand(tiny, pairs, additions), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "reference"])
def test_half_precision(fast, pairs):
    exact, half = tiny_model(), tiny_model()
    half.network.to(torch.bfloat16)
    _, encoded = encode_pairs(half, pairs)
    scorer = PairScorer(half, encoded, 1, fast=fast)
    assert (scorer.path == "fast") == fast
    additions = push(half, 1)
    logps, gradient = logps_and_gradient(scorer, additions)
    assert logps.dtype == gradient.dtype == torch.float32
    wanted, _ = logps_and_gradient(PairScorer(exact, encoded, 1), additions)
    torch.testing.assert_close(logps, wanted, rtol=2e-2, atol=1)


def test_half_precision_training_keeps_the_vector_in_full(pairs):
    from steering.training import train

    model = tiny_model()
    model.network.to(torch.bfloat16)
    vector = train(model, pairs, layer=1, epochs=2, holdout=0)
    assert vector.directions[1].dtype == torch.float32
    assert not torch.equal(vector.directions[1], vector.directions[1].bfloat16().float())


# Not fast ------------------------------------------------------------------------------------------------------------


def deaf_to(network, name):
    """The same network, with a forward pass that never hears one of its arguments."""
    kind = type(network)

    class Deaf(kind):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **{key: value for key, value in kwargs.items() if key != name})

    network.__class__ = Deaf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["position_ids", "attention_mask"])
def test_a_model_that_ignores_what_packing_needs_is_noticed(name, dtype, pairs):
    model = tiny_model("opt" if name == "attention_mask" else "llama")  # packed attention looks at no mask of Llama's
    model.network.to(dtype)
    if name == "attention_mask":
        model.network.set_attn_implementation("eager")
    deaf_to(model.network, name)
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, 1)
    assert scorer.path == "reference" and "other results" in scorer.why
    if name == "position_ids":
        tolerance = {torch.float32: 1e-4, torch.bfloat16: 1.0}[dtype]
        torch.testing.assert_close(
            scorer.reference_logps(EVERYTHING), by_hand(model, encoded, {}), rtol=1e-3, atol=tolerance
        )


def test_a_model_that_cannot_be_resumed_is_noticed(tiny, pairs, monkeypatch):
    def from_the_first_block(self, hidden_states, batch):
        return self.from_tokens(batch)[1]

    monkeypatch.setattr(PackedModel, "from_hidden_states", from_the_first_block)
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    assert scorer.path == "reference" and "other results" in scorer.why


def test_a_model_that_refuses_is_noticed(tiny, pairs, monkeypatch, no_hooks):
    def refuse(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(PackedModel, "from_tokens", refuse)
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    assert scorer.path == "reference" and "NotImplementedError" in scorer.why
    assert no_hooks(tiny)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3_text", "gemma3", "gpt_oss"])
def test_pairs_longer_than_a_sliding_window_are_scored_the_reference_way(architecture):
    text = {**ARCHITECTURES["llama"], "vocab_size": 260, "sliding_window": 64}
    changes = {"text_config": text} if architecture == "gemma3" else {"sliding_window": 64}
    model = tiny_model(architecture, chat=False, **changes)
    short = Pairs.of([PreferencePair("Yes?", "y", "n"), PreferencePair("No?", "n", "y" * 20)])
    long = Pairs.of([*short, PreferencePair("Yes?", "y" * 80, "n")])
    for pairs, fast in ((short, True), (long, False)):
        _, encoded = encode_pairs(model, pairs)
        scorer = PairScorer(model, encoded, 1)
        assert (scorer.path == "fast") == fast and ("window of 64" in scorer.why) == (not fast)
        additions = push(model, 1)
        got = scorer.logps(range(len(pairs)), additions)
        torch.testing.assert_close(got, by_hand(model, encoded, additions), rtol=1e-5, atol=2e-4)


def test_a_batch_longer_than_a_sliding_window_is_still_exact(pairs):
    model = tiny_model("mistral", sliding_window=200)  # every pair fits, eight of them do not
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, 1)
    additions = push(model, 1)
    assert scorer.path == "fast"
    got = scorer.logps(EVERYTHING, additions)
    torch.testing.assert_close(got, by_hand(model, encoded, additions), rtol=1e-5, atol=1e-4)


# The gradient ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "reference"])
@pytest.mark.parametrize("layers", [(1,), (1, 3)])
def test_values_and_gradients_are_those_of_one_conversation_at_a_time(fast, layers, tiny, pairs, two_cores):
    _, encoded = encode_pairs(tiny, pairs)
    vectors = {k: push(tiny, k, seed=k)[k] for k in layers}
    leaves = {k: v.clone().requires_grad_() for k, v in vectors.items()}
    logps, untouched = by_hand(tiny, encoded, leaves, gradient=True), by_hand(tiny, encoded, {})
    batch = [6, 1, 3, 4]
    signs = torch.tensor([1.0, -1.0])
    deltas = ((logps - untouched) @ signs)[batch]
    wanted_loss = torch.nn.functional.softplus(-0.1 * deltas).sum()
    wanted = torch.autograd.grad(wanted_loss, list(leaves.values()))
    parts = []

    def loss(indices, logps, reference_logps):
        parts.append(list(indices))
        delta = (logps - reference_logps) @ signs
        return torch.stack([torch.nn.functional.softplus(-0.1 * delta).sum(), delta.detach().sum()])

    scorer = PairScorer(tiny, encoded, 1, fast=fast)
    values, gradients = scorer.value_and_grad(batch, vectors, loss)
    assert len(parts) == 2 and sorted(sum(parts, [])) == sorted(batch)
    torch.testing.assert_close(values, torch.stack([wanted_loss, deltas.sum()]).detach(), rtol=1e-4, atol=1e-3)
    assert list(gradients) == list(layers)
    assert all(close(g, w) and not g.requires_grad for g, w in zip(gradients.values(), wanted, strict=True))
    again = scorer.value_and_grad(batch, vectors, loss)
    assert torch.equal(again[0], values) and all(torch.equal(again[1][k], gradients[k]) for k in layers)


def test_a_scalar_loss_gives_one_value_with_or_without_gradients_outside(tiny, pairs):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    values, gradients = scorer.value_and_grad([0, 1], push(tiny, 1), weighted_sum)
    with torch.no_grad():
        same, others = scorer.value_and_grad([0, 1], push(tiny, 1), weighted_sum)
    assert values.shape == (1,) and torch.equal(same, values) and torch.equal(others[1], gradients[1])


@pytest.mark.parametrize("budget", [1, 10**6], ids=["one pair at a time", "a few at a time"])
def test_the_reference_runs_in_chunks_that_fit_the_budget(budget, tiny, pairs, monkeypatch):
    _, encoded = encode_pairs(tiny, pairs)
    wanted = logps_and_gradient(PairScorer(tiny, encoded, 1, fast=False), push(tiny, 1))
    monkeypatch.setattr(reference, "LOGITS_BYTES", budget)
    chunks = []

    def loss(indices, logps, reference_logps):
        chunks.append(len(indices))
        return weighted_sum(indices, logps, reference_logps)

    scorer = PairScorer(tiny, encoded, 1, fast=False)
    scorer.value_and_grad(EVERYTHING, push(tiny, 1), loss)
    assert sum(chunks) == 8 and len(chunks) > 1 and (max(chunks) == 1) == (budget == 1)
    for got, want in zip(logps_and_gradient(scorer, push(tiny, 1)), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_what_a_scorer_cannot_answer(tiny, pairs):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    with pytest.raises(ValueError, match="no pairs"):
        scorer.value_and_grad([], push(tiny, 1), weighted_sum)
    for call in (scorer.logps, lambda *arguments: scorer.value_and_grad(*arguments, weighted_sum)):
        with pytest.raises(ValueError, match="from layer 1 on, not at layer 0"):
            call([0], push(tiny, 0))


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "bloom"])
def test_numbers_are_the_same_on_two_cores(architecture, pairs, two_cores, no_hooks):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, pairs)
    found = []
    for cores in (1, 2):
        torch.set_num_threads(cores)
        scorer = PairScorer(model, encoded, 1)
        found.append((scorer.reference_logps(EVERYTHING), scorer.logps([6, 1, 3], push(model, 1))))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4)
    assert no_hooks(model)


def test_several_threads_may_ask_at_once(tiny, pairs, two_cores):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)

    def answer():
        return scorer.value_and_grad(range(7), push(tiny, 1), weighted_sum)[1][1]

    wanted, found = answer(), []
    visitors = [threading.Thread(target=lambda: found.extend(answer() for _ in range(5))) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(timeout=60)
    assert len(found) == 30 and all(torch.equal(each, wanted) for each in found)


# When the fast way is wrong or fails ----------------------------------------------------------------------------------


def assert_as_the_reference(scorer, model, encoded):
    wanted = logps_and_gradient(PairScorer(model, encoded, 1, fast=False), push(model, 1))
    for got, want in zip(logps_and_gradient(scorer, push(model, 1)), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


@pytest.fixture
def operator(monkeypatch):
    """oneDNN's operator, used for every product; what is assigned to `replaced` takes its place."""

    class Operator:
        replaced = None

        def __call__(self, states, weight, bias):
            linear_pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - torch has no public name for it
            return linear_pointwise.default(states, weight, bias, "none", [], "")

    own = Operator()
    monkeypatch.setattr(onednn_linear, "onednn_operator", lambda: own.replaced or own)
    monkeypatch.setattr(onednn_linear, "MIN_WEIGHT_NUMBERS", 0)
    monkeypatch.setattr(onednn_linear, "MIN_ROWS", 1)
    return own


def raises(states, weight, bias):
    raise RuntimeError("_linear_pointwise() takes 5 positional arguments")


def test_a_private_operator_that_raises_is_noticed_at_the_start(operator, tiny, pairs, caplog):
    operator.replaced = raises
    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    assert scorer.path == "reference" and "RuntimeError" in scorer.why
    assert "takes 5 positional arguments" in caplog.text and caplog.records[0].levelno == logging.WARNING
    assert_as_the_reference(scorer, tiny, encoded)


@pytest.mark.parametrize("call", ["logps", "value_and_grad", "reference_logps"])
def test_a_private_operator_that_raises_in_the_middle_is_answered_from_the_reference(
    call, operator, tiny, pairs, caplog, no_hooks
):
    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    scorer.value_and_grad([0, 1], push(tiny, 1), weighted_sum)
    assert scorer.path == "fast" and not scorer.note
    operator.replaced = raises
    wanted = PairScorer(tiny, encoded, 1, fast=False)
    arguments = {"logps": ([0, 5], push(tiny, 1)), "value_and_grad": ([0, 5], push(tiny, 1), weighted_sum)}
    ask = arguments.get(call, ([0, 5],))
    got, want = getattr(scorer, call)(*ask), getattr(wanted, call)(*ask)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert scorer.path == "reference" and "RuntimeError" in scorer.why and scorer.why in scorer.note
    assert_as_the_reference(scorer, tiny, encoded)
    assert sum("takes 5 positional arguments" in record.message for record in caplog.records) == 1
    assert no_hooks(tiny)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")]
)
def test_want_of_memory_is_no_reason_to_go_a_way_that_needs_more(error, operator, tiny, pairs):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)

    def full(*_):
        raise error

    operator.replaced = full
    with pytest.raises(type(error)):
        scorer.logps([0], push(tiny, 1))
    assert scorer.path == "fast"


def test_a_loss_that_raises_says_nothing_of_the_way(tiny, pairs, caplog):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    with pytest.raises(ZeroDivisionError):
        scorer.value_and_grad([0], push(tiny, 1), lambda *_: 1 / 0)
    assert scorer.path == "fast" and not caplog.records


def shifted(states, weight, bias):
    return torch.nn.functional.linear(states, weight, bias) + 1e-2 * torch.linspace(0, 1, len(weight))


def scaled(states, weight, bias):
    return torch.nn.functional.linear(states, 1.01 * weight, bias)


@pytest.mark.parametrize("wrong", [shifted, scaled])
def test_a_wrong_head_is_noticed(wrong, operator, tiny, pairs, caplog):
    """Only the LM head: the blocks' products are right."""
    _, encoded = encode_pairs(tiny, pairs)
    words = len(tiny.network.get_output_embeddings().weight)

    def of_head(states, weight, bias):
        own = wrong if len(weight) == words else torch.nn.functional.linear
        return own(states, weight, bias)

    operator.replaced = of_head
    scorer = PairScorer(tiny, encoded, 1)
    assert scorer.path == "reference" and "LM head" in caplog.text
    assert_as_the_reference(scorer, tiny, encoded)


def test_a_head_that_is_wrong_in_the_run_only_is_noticed(tiny, pairs, caplog, monkeypatch):
    """Past the head's own check, by the comparison of whole passes."""
    from steering.scoring.fast.lm_head import LMHead

    call, states_seen = LMHead.__call__, []

    def wrong(self, states, rows, targets):
        states_seen.append(1)
        return call(self, states, rows, targets) + (1e-2 if len(states_seen) > 1 else 0)

    monkeypatch.setattr(LMHead, "__call__", wrong)
    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    assert scorer.path == "reference" and "other results" in scorer.why
    assert "other log-probabilities of the untouched model" in caplog.text
    assert_as_the_reference(scorer, tiny, encoded)


def test_a_wrong_gradient_is_noticed(operator, tiny, pairs, caplog):
    """Forward all is right; the product of the backward pass, by a transposed matrix, is not."""

    def wrong_backward(states, weight, bias):
        result = torch.nn.functional.linear(states, weight, bias)
        return result if weight.is_contiguous() else 1.01 * result

    operator.replaced = wrong_backward
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    assert scorer.path == "reference" and "other gradients" in caplog.text


def test_a_model_that_attends_its_own_way_is_not_touched(tiny, pairs):
    before = tiny.network.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    after = tiny.network.config._attn_implementation  # noqa: SLF001
    assert after == before != PACKED_ATTENTION
    assert PACKED_ATTENTION in ALL_ATTENTION_FUNCTIONS


# Parts ---------------------------------------------------------------------------------------------------------------


def test_a_packed_batch_is_the_tree_it_says():
    one = EncodedPair((1, 2, 3), (4, 5, 9), (6, 9))
    two = EncodedPair((1, 2, 7, 8), (4, 9), (5, 5, 9))
    batch = pack([one, two], (1, 2), torch.device("cpu"), torch.float32)
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 5]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3, 2, 3, 4, 4, 5]]
    assert batch.sizes == (2, 4, 5)
    assert batch.targets.tolist() == [4, 5, 9, 6, 9, 4, 9, 5, 5, 9]
    assert batch.predicting[batch.rows].tolist() == [2, 3, 4, 2, 5, 7, 8, 7, 9, 10]
    assert batch.predicting.tolist() == [2, 3, 4, 5, 7, 8, 9, 10]
    assert batch.owners.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    sees = [[place for place, value in enumerate(row) if value == 0] for row in batch.mask[0, 0].tolist()]
    assert sees == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 5],
        [0, 1, 6],
        [0, 1, 6, 7],
        [0, 1, 6, 7, 8],
        [0, 1, 6, 7, 9],
        [0, 1, 6, 7, 9, 10],
    ]


def test_shared_prefix():
    assert shared_prefix([]) == ()
    assert shared_prefix([(1, 2, 3)]) == (1, 2, 3)
    assert shared_prefix([(1, 2, 3), (1, 2), (1, 2, 9)]) == (1, 2)
    assert shared_prefix([(1,), (2,)]) == ()


def test_residual_norm_is_a_median_over_tokens(pairs):
    model = tiny_model()  # its own: transformers leaves hooks of its own behind when asked for hidden states
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, 2)
    with torch.no_grad():
        norms = [
            model.network(input_ids=torch.tensor([pair.prompt + pair.chosen]), output_hidden_states=True)
            .hidden_states[3][0]
            .norm(dim=-1)
            for pair in encoded[:4]
        ]
    assert scorer.residual_norms([2]) == {2: pytest.approx(float(torch.cat(norms).median()), rel=1e-5)}


# Token scope ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "reference"])
def test_the_answer_scope_leaves_the_prompt_alone(fast, tiny, pairs):
    """As if each answer were steered by hand, from the prompt's last token on."""
    _, encoded = encode_pairs(tiny, pairs)
    (layer, v), *_ = push(tiny, 1).items()
    scorer = PairScorer(tiny, encoded, layer, scope="answer", fast=fast)
    wanted = []
    for pair in encoded:
        for answer in (pair.chosen, pair.rejected):
            where = torch.zeros(1, len(pair.prompt) + len(answer), 1)
            where[:, len(pair.prompt) - 1 :] = 1
            alone = EncodedPair(pair.prompt, answer, answer)
            wanted.append(by_hand(tiny, [alone], {layer: where * v})[0, 0])
    got = scorer.logps(EVERYTHING, {layer: v})
    torch.testing.assert_close(got.view(-1), torch.stack(wanted), rtol=1e-5, atol=1e-4)
    everywhere = PairScorer(tiny, encoded, layer, fast=fast).logps(EVERYTHING, {layer: v})
    assert (got - everywhere).abs().max() > 1e-2
