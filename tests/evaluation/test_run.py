"""The evaluation of a vector: what it writes, keeps, resumes and concludes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from steering import paths, read_pairs
from steering.errors import SteeringError
from steering.evaluation import baselines
from steering.evaluation.answers import UNTOUCHED, Answer, Arm, composite
from steering.evaluation.curve_chart import curve_chart
from steering.evaluation.equal_kl import scaled_to
from steering.evaluation.judges import JudgeCard, Verdict
from steering.evaluation.points import Point
from steering.evaluation.report import compared, report_html
from steering.evaluation.run import Evaluation
from steering.evaluation.settings import EvaluationSettings
from steering.evaluation.store import RunFolder
from steering.evaluation.summary import useful_range
from steering.pairs.dataset import Pairs, PreferencePair
from steering.training import train
from steering.training.vector_report import (
    evaluation_of,
    prompts_for,
    trained_and_held_out,
    with_findings,
)
from steering.vectors.vector import SteeringVector
from tests.tiny_models import HIDDEN

PROMPTS = ("Who are you?", "What now?", "Tell me more.", "Is it late?", "Why?")


@pytest.fixture
def small(tiny):
    """A quick evaluation of a random vector on a random model, judged by code."""
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector({1: direction}, name="random", behavior="short; left: long")
    pairs = Pairs.of(PreferencePair(f"Say {n}.", f"Yes {n}", f"No, {'no, ' * 30}{n}") for n in range(12))
    settings = EvaluationSettings(
        PROMPTS, multipliers=(1.0, -1.0, 2.0, -2.0), finer=(), max_new_tokens=6, judge="length", random_directions=3
    )
    return tiny, vector, pairs, settings


def run_to_end(evaluation: Evaluation):
    *_, last = evaluation.run()
    return last


def test_every_arm_answers_every_prompt(small, tmp_path):
    last = run_to_end(evaluation := Evaluation(*small, folder=RunFolder(tmp_path / "run")))
    arms = {arm for arm, _ in evaluation.writer.answers}
    assert {UNTOUCHED, *(Arm("random", m) for m in (1, -1, 2, -2)), Arm("system prompt", -1.0)} <= arms
    for arm in (UNTOUCHED, Arm("random", 2.0), Arm("few-shot", 1.0)):
        assert [answer.prompt for answer in evaluation.writer.of(arm)] == list(range(len(PROMPTS)))
    assert last.stage == "done" and last.share == 1 and last.summary.random_rank[1] == 3
    assert json.loads((tmp_path / "run" / "results.json").read_text())["judge"]["name"] == "length"


def test_it_goes_on_after_a_kill_and_repeats_nothing(small, tmp_path):
    whole = RunFolder(tmp_path / "whole")
    expected = run_to_end(Evaluation(*small, folder=whole))
    folder, asked = RunFolder(tmp_path / "cut"), [0]

    def killed() -> bool:
        asked[0] += 1
        return asked[0] > 30

    stopped = run_to_end(Evaluation(*small, folder=folder, should_stop=killed))
    assert stopped.stopped and stopped.share < 1
    with (folder.path / "answers.jsonl").open("a") as file:
        file.write('{"arm": {"name": "random", "mul')  # a kill in the middle of a line
    before = len(folder.answers())
    again = Evaluation(*small, folder=folder)
    last = run_to_end(again)
    assert again.writer.written == len(folder.answers()) - before, "what was there is not written again"
    assert {key: answer.text for key, answer in folder.answers().items()} == {
        key: answer.text for key, answer in whole.answers().items()
    }
    assert last.summary.as_json() == expected.summary.as_json()


def test_a_stop_while_something_is_being_made_is_a_stop(small):
    asked = [0]

    def stops_late() -> bool:
        return asked[0] > 0

    def half_made():
        asked[0] = 1
        raise SteeringError("The training was stopped before its first step, so there is no vector.")

    tiny, vector, pairs, settings = small
    last = run_to_end(
        Evaluation(tiny, vector, pairs, settings, comparisons={"mean difference": half_made}, should_stop=stops_late)
    )
    assert last.stopped and last.stage == "baselines"
    with pytest.raises(SteeringError, match="nothing to compare"):

        def never_made():
            raise SteeringError("nothing to compare")

        run_to_end(Evaluation(tiny, vector, pairs, settings, comparisons={"mean difference": never_made}))


def test_directions_that_nobody_judged_are_no_evidence(small, monkeypatch):
    class Silent:
        card = JudgeCard("silent", None)

        def make(self, context):
            return self

        def verdicts(self, prompts, texts, readings, should_stop=lambda: False):
            return [Verdict(None, problem="down")] * len(texts)

    monkeypatch.setattr("steering.evaluation.run.judge_named", lambda name: Silent())
    last = run_to_end(Evaluation(*small))
    assert last.summary.random_rank is None and last.summary.effective is None
    assert all(point.missing == point.answers for point in last.points.values())


def test_the_same_seed_gives_the_same_numbers(small):
    first, second = (run_to_end(Evaluation(*small)) for _ in range(2))
    assert first.summary.as_json() == second.summary.as_json()
    assert [p.as_json() for p in first.points.values()] == [p.as_json() for p in second.points.values()]


def test_multiplier_0_is_the_untouched_model_and_kl_is_that_of_the_logits(small):
    tiny, vector, pairs, settings = small
    evaluation = Evaluation(tiny, vector, pairs, replace(settings, weights="full", baselines=()))
    run_to_end(evaluation)
    steered = evaluation.writer.of(Arm("random", 2.0))
    assert all(not answer.kl for answer in evaluation.writer.of(UNTOUCHED))
    assert all(min(answer.kl) >= 0 and max(answer.kl) > 0 for answer in steered)


def test_another_evaluation_in_the_folder_is_not_overwritten(small, tmp_path):
    folder = RunFolder(tmp_path)
    run_to_end(Evaluation(*small, folder=folder))
    tiny, vector, pairs, settings = small
    folder.check(settings.key(tiny, vector, pairs))
    with pytest.raises(SteeringError, match="holds another evaluation"):
        folder.check(replace(settings, seed=1).key(tiny, vector, pairs))


def test_the_report_is_one_file_that_escapes_what_it_shows(small, tmp_path):
    tiny, vector, pairs, settings = small
    evil = replace(vector, name="<script>alert(1)</script>")
    folder = RunFolder(tmp_path)
    run_to_end(Evaluation(tiny, evil, pairs, settings, folder=folder))
    page = report_html(folder.facts(), folder.results(), folder.answers())
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page
    assert 'src="http' not in page and "cdn" not in page.split("Every answer")[1]
    assert all(prompt in page for prompt in ("Who are you?", "Is it late?"))


def test_two_evaluations_are_compared_prompt_by_prompt(small, tmp_path):
    tiny, vector, pairs, settings = small
    folders = [RunFolder(tmp_path / name) for name in ("a", "b")]
    run_to_end(Evaluation(tiny, vector, pairs, settings, folder=folders[0]))
    run_to_end(Evaluation(tiny, replace(vector, name="other"), pairs, settings, folder=folders[1]))
    rows = compared(*folders)
    assert [row["multiplier"] for row in rows] == [-2, -1, 0, 1, 2]
    assert all(row["behavior"]["mean"] == 0 and row["behavior"]["p_value"] == 1 for row in rows)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompts": ("one",)}, "1 prompts are too few"),
        ({"multipliers": (1000.0,)}, "multiplier 1000"),
        ({"baselines": ("magic",)}, "no baseline 'magic'"),
        ({"max_new_tokens": 0}, "Answers of 0 tokens"),
        ({"random_directions": -1}, "-1 random directions"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(SteeringError, match=says):
        EvaluationSettings(**{"prompts": PROMPTS} | settings)


def test_an_answer_is_read_as_it_was_written():
    answer = Answer(
        Arm("x", -1.5), 3, 'Ünï\n"text"', 4, 3.25, 0.5, 0.25, 1.1, "repeats itself", 0.75, (0.5, 0.125), 0.5
    )
    assert Answer.from_line(answer.to_line()) == answer


def test_the_composite_is_0_if_any_score_is():
    assert composite(1.0, 1.0, 1.0) == 2.0 and composite(0.5, 0.0, 1.0) == 0.0 and composite(0.5, None, 1.0) is None
    assert composite(0.5, 1.0, 1.0) == pytest.approx(3 / (1 / 1 + 1 / 2 + 1 / 2))
    assert Answer(Arm("x", -1.0), 0, "", 1, behavior=0.0, relevance=1.0, fluency=1.0).composite == 2.0


def test_random_directions_have_the_norm_of_the_vector_at_each_layer():
    vector = SteeringVector({1: torch.ones(HIDDEN), 2: 3 * torch.ones(HIDDEN)}, name="x")
    first, second = baselines.random_directions(vector, 2, seed=0)
    for drawn in (first, second):
        assert drawn.norms == pytest.approx(vector.norms)
    assert abs(float(torch.cosine_similarity(first.directions[1], second.directions[1], dim=0))) < 0.9


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_a_multiplier_is_found_where_the_kl_is_wanted(exponent):
    found = scaled_to(0.5, lambda m: 0.02 * m**exponent, start=1.0, rounds=6)
    assert 0.02 * found**exponent == pytest.approx(0.5, rel=0.12)


def point(name: str, multiplier: float, behavior: float, fluency: float = 1.0, broken: float = 0.0):
    from steering.evaluation.points import Point
    from steering.evaluation.statistics import Estimate

    def exact(value):
        return Estimate(value, value, value, 1)

    scores = {"behavior": behavior, "fluency": fluency, "relevance": 1.0, "composite": 1.0, "kl": 0.1}
    arm = Arm(name, multiplier) if multiplier else UNTOUCHED
    return arm, Point(arm, 1, 0, {k: exact(v) for k, v in scores.items()}, 0.1, broken, 1.0, 0.0, 1.0, 9.0)


@pytest.mark.parametrize(
    ("curve", "ends"),
    [
        ([(-1, 0.2, 1, 0), (0, 0.5, 1, 0), (1, 0.7, 1, 0), (2, 0.9, 0.9, 0)], (-1, 2)),
        ([(-1, 0.2, 1, 0), (0, 0.5, 1, 0), (1, 0.7, 1, 0), (2, 0.9, 0.5, 0)], (-1, 1)),  # no longer fluent
        ([(-1, 0.2, 1, 0), (0, 0.5, 1, 0), (1, 0.7, 1, 0), (2, 0.9, 1, 0.3)], (-1, 1)),  # broken answers
        ([(-1, 0.2, 1, 0), (0, 0.5, 1, 0), (1, 0.7, 1, 0), (2, 0.6, 1, 0), (4, 0.9, 1, 0)], (-1, 1)),  # falls back
        ([(-1, 0.6, 1, 0), (0, 0.5, 1, 0), (1, 0.4, 1, 0)], (0, 0)),  # the wrong way round
    ],
)
def test_the_useful_range_ends_where_the_behavior_or_the_text_does(curve, ends):
    points = dict(point("v", *row) for row in curve)
    assert useful_range(points, "v") == ends


def example_set(name: str) -> Pairs:
    return read_pairs(paths.shipped("assets") / "examples" / f"{name}.csv")


def quick(vector: SteeringVector, pairs: Pairs) -> EvaluationSettings:
    return EvaluationSettings(
        tuple(prompts_for(vector, pairs, "pairs", 6)),
        multipliers=(1.0, -1.0),
        finer=(),
        max_new_tokens=10,
        baselines=("random",),
    )


def test_the_held_out_pairs_of_a_shipped_vector_are_found():
    pairs = example_set("cheerful")
    vector = SteeringVector.load(paths.shipped("vectors") / "cheerful.safetensors")
    training, held_out = trained_and_held_out(vector, pairs)
    assert (len(training), len(held_out)) == (77, 19) and training.sha256 == vector.pairs["sha256"]
    assert trained_and_held_out(vector, example_set("pirate"))[0] == Pairs.of([])
    prompts = prompts_for(vector, pairs, "pairs", 30)
    assert len(prompts) == 30 and not {pair.prompt for pair in training} & set(prompts)


def test_a_shipped_vector_is_effective_and_carries_what_was_found(bundled):
    pairs = example_set("cheerful")
    vector = SteeringVector.load(paths.shipped("vectors") / "cheerful.safetensors")
    evaluation = evaluation_of(bundled, vector, pairs, quick(vector, pairs))
    last = run_to_end(evaluation)
    assert last.summary.effective and last.summary.random_rank == (20, 20)
    found = with_findings(vector, last, evaluation.name)
    again = SteeringVector.from_bytes(found.to_bytes(), "again")
    assert again.metrics["useful_range"] == list(last.summary.useful_range)
    assert again.metrics["judge"]["accuracy"] >= 0.9 and again.default_multiplier == last.summary.recommended


@pytest.mark.parametrize("kind", ["noise", "shuffled labels"])
def test_noise_and_shuffled_labels_are_called_ineffective(bundled, kind):
    pairs = example_set("cheerful")
    if kind == "noise":
        direction = torch.randn(bundled.hidden_size, generator=torch.Generator().manual_seed(5))
        vector = SteeringVector({14: 20 * direction / direction.norm()}, name="noise", behavior="cheerful")
    else:
        wrong = np.random.default_rng(0).permutation(len(pairs))[: len(pairs) // 2]
        shuffled = pairs.flip(int(n) for n in wrong)
        vector = train(bundled, shuffled[:60], method="caa", held_out=Pairs.of([]), layer=14)
        vector = replace(vector * (20 / vector.norm), name="shuffled", behavior="cheerful")
    last = run_to_end(evaluation_of(bundled, vector, pairs, quick(vector, pairs)))
    assert last.summary.effective is False
    assert any("ineffective" in text for text in last.summary.sentences)


def test_questions_are_asked_along_the_curve_and_not_twice(small, tmp_path, monkeypatch):
    asked = []

    def answered(model, vector, multipliers):
        for multiplier in multipliers:
            asked.append(multiplier)
            yield multiplier, 0.5 + multiplier / 10

    monkeypatch.setattr("steering.evaluation.run.utility_steps", answered)
    tiny, vector, pairs, settings = small
    settings, folder = replace(settings, utility=True), RunFolder(tmp_path)
    stopped = run_to_end(Evaluation(tiny, vector, pairs, settings, folder=folder, should_stop=lambda: len(asked) > 1))
    assert stopped.stopped and stopped.stage == "utility" and asked == [0, 1]
    last = run_to_end(Evaluation(tiny, vector, pairs, settings, folder=folder))
    assert asked == [0, 1, -1, 2, -2], "what was known is not asked again"
    found = {arm.multiplier: point.utility for arm, point in last.points.items() if arm.name in ("random", "untouched")}
    assert found == {0: 0.5, 1: 0.6, -1: 0.4, 2: 0.7, -2: 0.3}
    figure = curve_chart({"random": [point.as_json() for point in last.points.values()]})
    assert any("Utility" in note.text for note in figure.layout.annotations)
    again = [Point.from_json(json.loads(json.dumps(point.as_json()))) for point in last.points.values()]
    assert [point.as_json() for point in again] == [point.as_json() for point in last.points.values()]
