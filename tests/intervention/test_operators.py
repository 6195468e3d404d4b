"""Every operator against its formula worked out one row at a time, and in every path that steers."""

import pytest
import torch

from steering.errors import SteeringError
from steering.generation.stream import generate
from steering.intervention.additions import added, additions_for, placed
from steering.intervention.hooks import steered
from steering.intervention.operators import joined
from steering.pairs.tokenization import encode_pairs
from steering.scoring.reference import ReferenceScorer
from steering.scoring.scorer import PairScorer
from steering.vectors.action import OPERATORS
from steering.vectors.vector import SteeringVector
from tests.tiny_models import ARCHITECTURES, HIDDEN, tiny_model


def vector(seed=0, layer=1, operator="add", **fields):
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed))
    return SteeringVector({layer: direction}, name=f"v{seed}", operator=operator, **fields)


def by_hand(hidden, v, operator, m, target=None):
    """One hidden state [hidden_size], in plain arithmetic."""
    u = v / v.norm()
    p = float(hidden @ u)
    t = float(v.norm()) if target is None else target
    if operator == "add":
        return hidden + m * v
    if operator == "add-norm":
        moved = hidden + m * v
        return moved * hidden.norm() / moved.norm()
    if operator == "ablate":
        return hidden - m * p * u
    if operator == "set":
        return hidden + (m * t - p) * u
    if operator == "clamp":
        wanted = max(p, m * t) if m * t >= 0 else min(p, m * t)
        return hidden + (wanted - p) * u
    wanted = min(max(p, -abs(m * t)), abs(m * t))
    return hidden + (wanted - p) * u


@pytest.mark.parametrize("multiplier", [-1.5, 0.05, 1.0, 2.0])
@pytest.mark.parametrize("operator", OPERATORS)
def test_it_does_what_its_formula_says(tiny, operator, multiplier):
    v = vector(operator=operator)
    hidden = 5 * torch.randn(3, 4, HIDDEN, generator=torch.Generator().manual_seed(9))
    rows = additions_for(tiny, [{v: multiplier}, {}, {v: -multiplier}])[1]
    found = added(hidden, rows[:, None])
    for row, m in ((0, multiplier), (2, -multiplier)):
        for position in range(4):
            wanted = by_hand(hidden[row, position], v.directions[1], operator, m)
            assert torch.allclose(found[row, position], wanted, atol=1e-5)
    assert torch.equal(found[1], hidden[1]), "a row without a vector passes bit for bit"


def test_a_target_of_the_file_takes_the_place_of_the_norm(tiny):
    v = vector(operator="set", targets={1: 7.0})
    hidden = torch.randn(1, 2, HIDDEN)
    found = added(hidden, additions_for(tiny, [{v: 2.0}])[1][:, None])
    assert torch.allclose(found @ (v.directions[1] / v.norm), torch.full((1, 2), 14.0), atol=1e-4)


def test_sums_come_first_then_projections_in_the_order_of_the_setting(tiny):
    plain, other, cut, fixed = (
        vector(0),
        vector(1, operator="add-norm"),
        vector(2, operator="ablate"),
        vector(3, operator="set"),
    )
    hidden = torch.randn(HIDDEN)
    setting = {cut: 1.0, plain: 0.5, fixed: 1.0, other: -0.5}
    found = added(hidden[None, None], additions_for(tiny, [setting])[1][:, None])[0, 0]
    moved = hidden + 0.5 * plain.directions[1] - 0.5 * other.directions[1]
    moved = moved * hidden.norm() / moved.norm()
    wanted = by_hand(by_hand(moved, cut.directions[1], "ablate", 1.0), fixed.directions[1], "set", 1.0)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_projections_of_both_token_scopes_act_each_where_it_should(tiny):
    everywhere, in_answer = vector(0, operator="ablate"), vector(1, operator="set", token_scope="answer")
    setting = {everywhere: 1.0, in_answer: 1.0}
    of_scope = {scope: additions_for(tiny, [setting], [scope]) for scope in ("all", "answer")}
    hidden = torch.randn(1, 5, HIDDEN)
    found = added(hidden, placed(of_scope["all"], of_scope["answer"], 5, 3)[1])
    for position in range(5):
        wanted = by_hand(hidden[0, position], everywhere.directions[1], "ablate", 1.0)
        if position >= 3:
            wanted = by_hand(wanted, in_answer.directions[1], "set", 1.0)
        assert torch.allclose(found[0, position], wanted, atol=1e-5)
    both = joined(of_scope["all"][1], of_scope["answer"][1])
    assert torch.equal(both, additions_for(tiny, [setting])[1])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_obeys_it_as_hooks_do(architecture, operator):
    """Greedy tokens of every architecture's decoding, with its caches, against the whole text run anew each token."""
    model = tiny_model(architecture)
    v = vector(operator=operator, layer=1)
    settings = [{}, {v: 3.0}, {v: -1.0}]
    columns = generate(model, "Would you?", settings, max_new_tokens=5, repetition_penalty=1.0)
    prompt = model.prompts.prompt_ids(
        [
            turn
            for turn in __import__("steering.models.chat_template", fromlist=["conversation"]).conversation(
                "Would you?"
            )
        ]
    )
    for setting, column in zip(settings, columns, strict=True):
        tokens = list(prompt)
        for _ in range(column.tokens):
            with torch.no_grad(), steered(model.blocks, additions_for(model, [setting])):
                logits = model.network(torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(logits.argmax()))
        text = model.tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True).rstrip("\ufffd")
        assert column.text == text


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_scoring_obeys_it_on_the_fast_way_as_on_the_reference(tiny, pairs, operator, scope):
    _, encoded = encode_pairs(tiny, pairs)
    multiplier = 0.05 if operator == "cap" else 2.0  # a cap beyond what is there does nothing
    rows = additions_for(tiny, [{vector(operator=operator): multiplier}])[1][0]
    scorer = PairScorer(tiny, encoded, 1, scope=scope)
    assert scorer.path == "fast"
    wanted = ReferenceScorer(tiny, encoded, scope).steered_logps(range(len(encoded)), {1: rows})
    found = scorer.logps(range(len(encoded)), {1: rows})
    assert torch.allclose(found, wanted, atol=2e-4) and not torch.allclose(found, scorer.reference_logps(range(8)))


def test_it_is_kept_in_the_file_and_older_programs_refuse_it(tmp_path, monkeypatch):
    v = vector(operator="set", targets={1: 2.5})
    path = v.save(tmp_path / "v.safetensors")
    again = SteeringVector.load(path)
    assert (again.operator, again.targets) == ("set", {1: 2.5})
    monkeypatch.setattr("steering.vectors.native_file.FORMAT_VERSION", 1)
    with pytest.raises(SteeringError, match="format version 2 is newer than 1, known here; update this program"):
        SteeringVector.load(path)
    assert SteeringVector.from_bytes(vector().to_bytes(), "plain").operator == "add", "a plain one is read as ever"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"operator": "rotate"}, "Its operator is 'rotate'; this program steers 'add' or 'add-norm' or"),
        ({"operator": "set", "targets": {2: 1.0}}, "target 1.0 for layer 2 is not a number for a layer it has"),
        ({"operator": "set", "targets": {"1": "high"}}, "target high for layer 1 is not a number"),
        ({"operator": "set", "targets": {1: float("nan")}}, "target nan for layer 1"),
    ],
)
def test_unsound_ways_to_act_are_refused(fields, says):
    with pytest.raises(SteeringError, match=says):
        SteeringVector({1: torch.ones(HIDDEN)}, name="v", **fields)


def test_vectors_that_do_not_add_have_no_sum_but_a_multiple():
    half = vector(operator="set", targets={1: 4.0}, token_scope="answer") * 0.5
    assert (half.operator, half.targets, half.token_scope) == ("set", {1: 2.0}, "answer")
    with pytest.raises(SteeringError, match="Vectors that set have no sum"):
        vector(0, operator="set") + vector(1, operator="set")
    with pytest.raises(SteeringError, match="act in different ways, so they have no sum"):
        vector(0) + vector(1, operator="ablate")
    with pytest.raises(SteeringError, match="act at different positions"):
        vector(0) + vector(1, token_scope="answer")
