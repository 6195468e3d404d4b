"""The experiments: each runs through, goes on after a stop, and says what it found."""

import json
import math

import pytest
import torch

from steering.errors import SteeringError
from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.statistics import estimate
from steering.experiments import Bench, experiment_named, experiments, reproduce
from steering.experiments.bench import Subject, ways_at
from steering.experiments.in_character import planted
from steering.experiments.jailbreak import harmless_prompts
from steering.experiments.layers import layers_of
from steering.experiments.lora_copy import lora_copies
from steering.experiments.picture import picture, table_html, write_page
from steering.experiments.result import Heat, Lines, Result
from steering.experiments.together import way_of_sum
from steering.experiments.transfer import share_kept
from steering.pairs.dataset import Pairs, PreferencePair


def run_to_end(name: str, bench: Bench):
    *_, last = reproduce(experiment_named(name), bench)
    return last


@pytest.fixture
def bench(tiny, tmp_path) -> Bench:
    """A bench with a random model, whose vectors are trained for one epoch, and a judge by code."""
    return Bench(tiny, tmp_path / "run", prompt_count=3, tokens=4, epochs=1, judge_name="length", weights="full")


@pytest.mark.parametrize("name", sorted(experiments()))
def test_every_experiment_runs_through_on_any_model(name, bench, monkeypatch):
    monkeypatch.setattr("steering.experiments.layers.LAYERS", 2)  # each is a training
    monkeypatch.setattr("steering.experiments.timeline.TUNING_EPOCHS", 1)
    bench.vectors = ("poetic",) if name in ("utility", "in-character", "personas") else ()
    last = run_to_end(name, bench)
    assert last.done and last.result.verdict and last.result.rows
    assert all(len(row) == len(last.result.columns) for row in last.result.rows)
    kept = json.loads((bench.folder / "result.json").read_text())
    assert kept["experiment"] == name and kept["verdict"] == last.result.verdict
    page = write_page(experiment_named(name), last.result, bench.model.name, bench.folder).read_text()
    assert "<script src=" not in page and last.result.columns[0] in page
    assert (picture(last.result) is not None) == (last.result.picture is not None)


def test_a_stopped_experiment_goes_on_and_repeats_nothing(bench, tiny):
    asked = [0]

    def stop_in_the_middle() -> bool:
        asked[0] += 1
        return asked[0] > 60

    bench.vectors, bench.should_stop = ("poetic",), stop_in_the_middle
    last = run_to_end("personas", bench)
    assert last.stopped and not last.done
    trained = {file: file.stat().st_mtime_ns for file in (bench.folder / "vectors").glob("*")}
    before = {file: file.read_text() for file in bench.folder.rglob("answers.jsonl")}
    assert trained
    bench.should_stop = lambda: False
    again = run_to_end("personas", bench)
    assert again.done
    assert {file: file.stat().st_mtime_ns for file in trained} == trained, "no vector is trained twice"
    assert all(file.read_text().startswith(text) for file, text in before.items()), "no answer is written twice"
    fresh = Bench(tiny, None, 3, 4, 1, ("poetic",), judge_name="length", weights="full")
    assert run_to_end("personas", fresh).result.as_json() == again.result.as_json()


def test_a_lora_copy_learns_its_answers_and_leaves_the_model_alone(tiny, tmp_path):
    pairs = Pairs.of(PreferencePair(f"Say {n}.", "aaaaaaaa", "bbbbbbbb") for n in range(8))
    before = {name: weight.clone() for name, weight in tiny.network.named_parameters()}
    options = {"epochs": 3, "learning_rate": 3e-2, "file": tmp_path / "lora.pt"}
    copies = list(lora_copies(tiny, pairs, **options))
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.network.named_parameters())
    assert not any(weight.requires_grad for weight in tiny.network.parameters())

    def chance(model) -> float:
        ids = torch.tensor([model.tokenizer("aaaa", add_special_tokens=False)["input_ids"]])
        return float(model.network(input_ids=ids).logits[0, -1].log_softmax(-1)[ids[0, 0]])

    assert chance(copies[-1]) > chance(tiny) + 0.1
    again = list(lora_copies(tiny, pairs, **options))
    assert [copy.fingerprint for copy in again] == [copy.fingerprint for copy in copies], "kept adapters are taken"


def test_the_share_of_an_effect_that_is_kept():
    own = {-1.0: [0.0, 0.0, 0.2, 0.0], 0.0: [0.5] * 4, 1.0: [1.0, 1.0, 0.8, 1.0]}
    half = {-1.0: [0.25, 0.25, 0.35, 0.25], 0.0: [0.5] * 4, 1.0: [0.75, 0.75, 0.65, 0.75]}
    kept = share_kept(half, own)
    assert math.isclose(kept.mean, 0.5) and math.isclose(kept.low, 0.5) and math.isclose(kept.high, 0.5)
    assert share_kept(half, {m: [0.5] * 4 for m in (-1.0, 0.0, 1.0)}).count == 0, "no effect, so no share of it"


def test_two_vectors_are_added(tiny, bench):
    """The sum at (+1, -1) is written exactly as one vector that is the sum."""
    subject = next(_values(bench.subject("poetic")))
    other = next(_values(bench.subject("formal")))
    way = way_of_sum(subject.vector, 1.0, other.vector, -1.0)
    layer = subject.vector.layers[0]
    expected = subject.vector.directions[layer] - other.vector.directions[layer]
    assert torch.allclose(way.setting and next(iter(way.setting)).directions[layer], expected)


def _values(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            yield end.value
            return


def test_behaviors_and_experiments_that_there_are_not(bench):
    with pytest.raises(SteeringError, match="There is no behavior 'magic'; choose one of: agreeable"):
        list(bench.subject("magic"))
    with pytest.raises(SteeringError, match="There is no experiment 'magic'; choose one of: personas"):
        experiment_named("magic")
    bench.vectors = ("formal",)
    with pytest.raises(SteeringError, match="There are no questions for 'formal'"):
        run_to_end("in-character", bench)


def test_shipped_questions_are_sound():
    questions = planted()
    assert len(questions) == 60 and len({each.question for each in questions}) == 60
    for each in questions:
        assert each.fact.lower() in each.corrects.lower() and each.fact.lower() not in each.swallows.lower()
    assert len(set(harmless_prompts())) == 24
    assert layers_of(30) == [5, 9, 13, 17, 21, 25] and layers_of(2) == [0, 1]


def test_tables_and_pictures_escape_what_they_show():
    result = Result(("<b>", "n"), (("<i>", estimate([0.5, 0.7])), ("none", None)))
    assert "<i>" not in table_html(result) and "0.60 [0.50, 0.70]" in result.as_text()
    heat = Result((), (), picture=Heat(("a", "b"), ("c",), ((0.5, None),), "x", "y", "t"))
    assert picture(heat).data[0].text[0][0] == "0.50" and picture(heat).data[0].text[0][1] == ""
    lines = Result((), (), picture=Lines({"one": [(0.0, estimate([1.0, 0.0])), (1.0, estimate([]))]}, "x", "y"))
    assert list(picture(lines).data[0].x) == [0.0], "a point that nobody judged is left out"


def test_scores_are_those_of_the_written_answers(bench):
    subject: Subject = next(_values(bench.subject("poetic")))
    ways = ways_at("poetic", subject.vector, (0.0, 1.0))
    written = next(_values(bench.write("part", ways, ["Who are you?", "Why?"])))
    for arm in (UNTOUCHED, Arm("poetic", 1.0)):
        expected = [float(len(answer.text.split()) <= 25) for answer in written.answers[arm]]
        assert bench.scores(subject, written, arm) == expected
