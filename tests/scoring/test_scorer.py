"""Log-probabilities of answers: the fast way gives what the plain way gives, and is not used where it would not."""

import pytest
import torch

from steering.intervention.hooks import steered
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import EncodedPair, encode_pairs, shared_prefix
from steering.scoring import scorer as scoring
from steering.scoring.fast import activation_cache, packed_forward
from steering.scoring.fast.packed_forward import PackedModel
from steering.scoring.fast.packing import pack
from steering.scoring.scorer import PairScorer
from tests.tiny_models import ARCHITECTURES, PLAIN, tiny_model

EVERYTHING = range(8)


def by_hand(model, pairs, additions):
    """[n, 2] summed log-probabilities, one conversation at a time, through transformers alone."""
    scores = []
    for pair in pairs:
        for answer in (pair.chosen, pair.rejected):
            ids = torch.tensor([pair.prompt + answer])
            with torch.no_grad(), steered(model.blocks, additions):
                log_p = model.network(input_ids=ids).logits[0].float().log_softmax(-1)
            start = len(pair.prompt)
            scores.append(sum(log_p[start + i - 1, token] for i, token in enumerate(answer)))
    return torch.stack(scores).view(-1, 2)


def push(model, layer, *, norm=1.0, seed=0):
    """A direction that asks for a gradient."""
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(seed))
    return {layer: (norm * direction / direction.norm()).requires_grad_()}


def scores_and_gradient(scorer, additions):
    scores = scorer.scores(EVERYTHING, additions)
    weights = torch.linspace(-1, 1, scores.numel()).view_as(scores)
    (gradient,) = torch.autograd.grad((scores * weights).sum(), list(additions.values()))
    return scores.detach(), gradient


def close(got, wanted, tolerance=1e-4):
    return (got - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_scored_exactly(architecture, pairs, no_hooks):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, pairs)
    fast, plain = PairScorer(model, encoded, 1), PairScorer(model, encoded, 1, fast=False)
    assert fast.fast == (architecture not in PLAIN), fast.why_plain
    assert not plain.fast and plain.why_plain
    assert bool(fast.why_plain) == (architecture in PLAIN)

    torch.testing.assert_close(plain.reference(EVERYTHING), by_hand(model, encoded, {}), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fast.reference(EVERYTHING), plain.reference(EVERYTHING), rtol=1e-5, atol=1e-4)
    additions = push(model, 1)
    (got, got_gradient), (wanted, gradient) = (scores_and_gradient(s, additions) for s in (fast, plain))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4)
    assert close(got_gradient, gradient)
    assert (wanted - plain.reference(EVERYTHING)).abs().mean() > 1e-2  # the push is felt
    assert no_hooks(model)


def test_plain_scores_are_those_of_one_conversation_at_a_time(tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    additions = push(tiny, 2)
    plain = PairScorer(tiny, encoded, 2, fast=False)
    wanted = by_hand(tiny, encoded, additions)
    torch.testing.assert_close(plain.scores(EVERYTHING, additions).detach(), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layer", range(4))
def test_every_layer(layer, tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    additions = push(tiny, layer)
    fast, plain = (scores_and_gradient(PairScorer(tiny, encoded, layer, fast=f), additions) for f in (True, False))
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-5, atol=1e-4)
    assert close(fast[1], plain[1])


def test_additions_at_later_layers_too(tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    additions = {**push(tiny, 1), **push(tiny, 3, seed=1)}
    fast, plain = (PairScorer(tiny, encoded, 1, fast=f).scores(EVERYTHING, additions).detach() for f in (True, False))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-4)


def test_no_additions_are_exactly_the_reference(tiny, pairs):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    assert torch.equal(scorer.scores(EVERYTHING, {}), scorer.reference(EVERYTHING))


@pytest.mark.parametrize("disk", ["room", "full"])
@pytest.mark.parametrize("memory", [0, 40_000, 10**9], ids=["none in memory", "some in memory", "all in memory"])
def test_where_states_are_kept_changes_no_number(memory, disk, tiny, pairs, monkeypatch):
    _, encoded = encode_pairs(tiny, pairs)
    wanted, gradient = scores_and_gradient(PairScorer(tiny, encoded, 1, fast=False), push(tiny, 1))
    monkeypatch.setattr(activation_cache, "MEMORY_BUDGET", memory)
    if disk == "full":
        monkeypatch.setattr(activation_cache, "DISK_RESERVE", 10**18)
    scorer = PairScorer(tiny, encoded, 1)
    for _ in range(2):  # the second time from what was kept
        scores, got = scores_and_gradient(scorer, push(tiny, 1))
        torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-4)
        assert close(got, gradient)
    kept = [i for i in EVERYTHING if i in scorer.states]
    assert len(kept) == 8 if disk == "room" or memory == 10**9 else len(kept) < 8
    assert bool(kept) or (memory == 0 and disk == "full")
    assert bool(scorer.states.problem) == (len(kept) < 8)


def test_references_and_states_are_computed_once_a_pair(tiny, pairs, monkeypatch):
    _, encoded = encode_pairs(tiny, pairs)
    scorer = PairScorer(tiny, encoded, 1)
    passes, whole = [], scorer._packed.from_tokens
    monkeypatch.setattr(scorer._packed, "from_tokens", lambda batch: passes.append(1) or whole(batch))
    for epoch in range(3):
        for batch in ([0, 1, 2], [3, 4, 5], [6, 7]) if epoch % 2 else ([7, 0], [1, 6, 2], [5, 3, 4]):
            scorer.scores(batch, push(tiny, 1))
    assert len(passes) == 3


@pytest.mark.parametrize("template", [True, False], ids=["chat", "base"])
def test_a_base_model_without_a_chat_template(template, pairs):
    model = tiny_model(chat=template)
    _, encoded = encode_pairs(model, pairs)
    fast = PairScorer(model, encoded, 2)
    assert fast.fast
    torch.testing.assert_close(fast.reference(EVERYTHING), by_hand(model, encoded, {}), rtol=1e-5, atol=1e-4)


def test_pairs_that_share_nothing_and_pairs_that_share_all(tiny):
    unlike = [EncodedPair((3, 4), (5, 6), (7,)), EncodedPair((9,), (5,), (6, 7, 8))]
    alike = [EncodedPair((3, 4, 9), (5, 6), (7,)), EncodedPair((3, 4, 9), (8, 2), (7, 7))]
    for pairs, prefix in ((unlike, ()), (alike, (3, 4)), (alike[:1], (3, 4))):
        scorer = PairScorer(tiny, pairs, 1)
        assert scorer.fast and scorer.prefix == prefix
        additions = push(tiny, 1)
        got = scorer.scores(range(len(pairs)), additions).detach()
        torch.testing.assert_close(got, by_hand(tiny, pairs, additions), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_half_precision(fast, pairs):
    exact, half = tiny_model(), tiny_model()
    half.network.to(torch.bfloat16)
    _, encoded = encode_pairs(half, pairs)
    scorer = PairScorer(half, encoded, 1, fast=fast)
    assert scorer.fast == fast
    additions = push(half, 1)
    scores, gradient = scores_and_gradient(scorer, additions)
    assert scores.dtype == gradient.dtype == torch.float32
    wanted, _ = scores_and_gradient(PairScorer(exact, encoded, 1), additions)
    torch.testing.assert_close(scores, wanted, rtol=2e-2, atol=1)


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
        model.network.config._attn_implementation = "eager"
    deaf_to(model.network, name)
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, 1)
    assert not scorer.fast and "other results" in scorer.why_plain
    if name == "position_ids":
        tolerance = {torch.float32: 1e-4, torch.bfloat16: 1.0}[dtype]
        torch.testing.assert_close(scorer.reference(EVERYTHING), by_hand(model, encoded, {}), rtol=1e-3, atol=tolerance)


def test_a_model_that_cannot_be_resumed_is_noticed(tiny, pairs, monkeypatch):
    class Whole(PackedModel):  # always runs from the first block
        def __init__(self, *args):
            super().__init__(*args)
            self._later = self._whole

    monkeypatch.setattr(scoring, "PackedModel", Whole)
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    assert not scorer.fast and "other results" in scorer.why_plain


def test_a_model_that_refuses_is_noticed(tiny, pairs, monkeypatch, no_hooks):
    def refuse(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(packed_forward, "_attending", refuse)
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    assert not scorer.fast and "NotImplementedError" in scorer.why_plain
    assert no_hooks(tiny)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3_text", "gemma3", "gpt_oss"])
def test_pairs_longer_than_a_sliding_window_are_scored_plainly(architecture):
    text = {**ARCHITECTURES["llama"], "vocab_size": 260, "sliding_window": 64}
    changes = {"text_config": text} if architecture == "gemma3" else {"sliding_window": 64}
    model = tiny_model(architecture, chat=False, **changes)
    short = Pairs.of([PreferencePair("Yes?", "y", "n"), PreferencePair("No?", "n", "y" * 20)])
    long = Pairs.of([*short, PreferencePair("Yes?", "y" * 80, "n")])
    for pairs, fast in ((short, True), (long, False)):
        _, encoded = encode_pairs(model, pairs)
        scorer = PairScorer(model, encoded, 1)
        assert scorer.fast == fast and ("window of 64" in scorer.why_plain) == (not fast)
        additions = push(model, 1)
        got = scorer.scores(range(len(pairs)), additions).detach()
        torch.testing.assert_close(got, by_hand(model, encoded, additions), rtol=1e-5, atol=2e-4)


def test_a_batch_longer_than_a_sliding_window_is_still_exact(pairs):
    model = tiny_model("mistral", sliding_window=200)  # every pair fits, eight of them do not
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, 1)
    additions = push(model, 1)
    assert scorer.fast
    got = scorer.scores(EVERYTHING, additions).detach()
    torch.testing.assert_close(got, by_hand(model, encoded, additions), rtol=1e-5, atol=1e-4)


# Parts ---------------------------------------------------------------------------------------------------------------


def test_a_packed_batch_is_the_tree_it_says():
    one = EncodedPair((1, 2, 3), (4, 5, 9), (6, 9))
    two = EncodedPair((1, 2, 7, 8), (4, 9), (5, 5, 9))
    batch = pack([one, two], (1, 2), torch.device("cpu"), torch.float32)
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 5]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 3, 2, 3, 4, 4, 5]]
    assert batch.sizes == (2, 4, 5)
    assert batch.targets.tolist() == [4, 5, 9, 6, 9, 4, 9, 5, 5, 9]
    assert batch.places[batch.readout].tolist() == [2, 3, 4, 2, 5, 7, 8, 7, 9, 10]
    assert batch.places.tolist() == [2, 3, 4, 5, 7, 8, 9, 10]
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


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
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
    got = scorer.scores(EVERYTHING, {layer: v})
    torch.testing.assert_close(got.detach().view(-1), torch.stack(wanted).detach(), rtol=1e-5, atol=1e-4)
    everywhere = PairScorer(tiny, encoded, layer, fast=fast).scores(EVERYTHING, {layer: v})
    assert (got - everywhere).abs().max() > 1e-2
