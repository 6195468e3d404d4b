"""Benchmarks of lm-evaluation-harness on the steered model, with a task of our own, read from this machine."""

import json
import sys

import pytest
import torch

from steering.errors import SteeringError
from steering.evaluation.harness import harness_results
from steering.vectors.vector import SteeringVector
from tests.tiny_models import HIDDEN

QUESTIONS = [{"q": f"{n} and {n} make", "choices": [f"{2 * n}", f"{3 * n}"], "answer": 0} for n in range(1, 13)]


@pytest.fixture
def task_folder(tmp_path):
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, QUESTIONS)))
    (tmp_path / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
        'output_type: multiple_choice\ntest_split: test\ndoc_to_text: "{{q}}"\ndoc_to_choice: choices\n'
        "doc_to_target: answer\nmetric_list:\n  - metric: acc\n"
    )
    return str(tmp_path)


def plain_accuracy(model, vector: SteeringVector, multiplier: float) -> float:
    """Answer the questions by hand: the likelier answer, with the vector added to the layer's output."""
    right = 0
    layer = vector.layers[0]

    def add(block, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        steered = hidden + multiplier * vector.directions[layer]
        return (steered, *output[1:]) if isinstance(output, tuple) else steered

    handle = model.blocks[layer].register_forward_hook(add)
    for question in QUESTIONS:
        chances = []
        for choice in question["choices"]:
            prompt = model.tokenizer(question["q"])["input_ids"]
            ids = prompt + model.tokenizer(" " + choice, add_special_tokens=False)["input_ids"]
            logits = model.network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            chances.append(sum(float(logits[at - 1, ids[at]]) for at in range(len(prompt), len(ids))))
        right += chances[0] > chances[1]
    handle.remove()
    return right / len(QUESTIONS)


def test_the_harness_sees_the_steered_model(tiny, task_folder, no_hooks):
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector({1: direction}, name="mine")
    rows = harness_results(tiny, vector, [-20.0, 0.0, 20.0], ["sums"], task_folder=task_folder)
    expected = [plain_accuracy(tiny, vector, m) for m in (-20.0, 0.0, 20.0)]
    assert [row["sums/acc"] for row in rows] == pytest.approx(expected)
    assert len(set(expected)) > 1, "a vector that changes nothing would prove nothing"
    assert no_hooks(tiny)


def test_what_cannot_be_run_is_told_in_a_sentence(tiny, task_folder, monkeypatch, no_hooks):
    vector = SteeringVector({1: torch.ones(HIDDEN)}, name="mine")
    with pytest.raises(SteeringError, match="has no task 'magic'"):
        harness_results(tiny, vector, [1.0], ["magic"], task_folder=task_folder)
    assert harness_results(tiny, vector, [1.0], ["sums"], task_folder=task_folder, should_stop=lambda: True) == []
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SteeringError, match="pip install lm-eval"):
        harness_results(tiny, vector, [1.0], ["sums"])
    assert no_hooks(tiny)
