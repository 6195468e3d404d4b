"""Judges: what they say, how far they are trusted, when they refuse."""

from dataclasses import replace

import pytest

from steering import paths, read_pairs
from steering.errors import SteeringError
from steering.evaluation.judges import JudgeRefused, judge_named, judges
from steering.evaluation.judges.agreement import agreement, labelled_answers
from steering.evaluation.judges.checks import is_list, keeps_script, refuses, script_of
from steering.evaluation.judges.judge import JudgeContext
from steering.evaluation.reading import read_texts
from steering.pairs.dataset import Pairs, PreferencePair


def example_set(name: str) -> Pairs:
    return read_pairs(paths.shipped("assets") / "examples" / f"{name}.csv")


def test_ours_are_listed_and_an_unknown_one_is_told():
    assert list(judges()) == ["offline", "endpoint", "refusal", "length", "lists", "language"]
    with pytest.raises(SteeringError, match="no judge 'gpt'; choose one of: offline, endpoint"):
        judge_named("gpt")


def test_the_offline_judge_agrees_with_people(bundled):
    """As measured: 80 of 86, and at least 9 of 11 on every behavior."""
    results = list(agreement(judge_named("offline"), bundled))
    assert sum(r.same for r in results) / sum(r.clear for r in results) >= 0.88
    assert all(r.same / r.clear >= 0.75 and r.accuracy >= 0.9 for r in results)


def test_the_labels_are_120_of_six_behaviors():
    labelled = labelled_answers()
    assert len(labelled) == 120 and {each.label for each in labelled} == {"shows", "opposite", "neither"}
    assert len({(each.behavior, each.prompt, each.answer) for each in labelled}) == 120


def test_labels_that_mean_nothing_are_refused(tiny):
    same = Pairs.of(PreferencePair(f"Question {n}?", f"Answer {n * 7 % 20}", f"Answer {n * 3 % 20}") for n in range(30))
    with pytest.raises(JudgeRefused, match="tells only .* of the answers apart"):
        judge_named("offline").make(JudgeContext(tiny, same, "nothing", 40))


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([PreferencePair(f"Q{n}?", "Yes", "No") for n in range(3)], "3 are too few; bring 10 or more"),
        ([PreferencePair("Q?", f"Yes {n}", f"No {n}") for n in range(12)], "All pairs have one prompt"),
    ],
)
def test_pairs_that_a_judge_cannot_learn_from(tiny, pairs, says):
    with pytest.raises(JudgeRefused, match=says):
        judge_named("offline").make(JudgeContext(tiny, Pairs.of(pairs), "x", 40))


def test_a_length_cue_is_told(bundled):
    pairs = example_set("formal")[:24]
    long = Pairs.of(replace(pair, chosen=pair.chosen * 3, rejected=pair.rejected[:12]) for pair in pairs)
    (note,) = judge_named("offline").make(JudgeContext(bundled, long, "formal", 40)).card.notes
    assert note.startswith("Length alone tells 100%")


def test_an_empty_answer_has_no_score(bundled):
    judge = judge_named("offline").make(JudgeContext(bundled, example_set("pirate")[:24], "pirate", 40))
    texts = ["Arr, matey, hoist yer sails!", " "]
    readings = read_texts(bundled, texts, max_tokens=40)
    spoken, silent = judge.verdicts(["Hi", "Hi"], texts, readings)
    assert spoken.behavior > 0.5 and silent.behavior is None and silent.problem == "the answer is empty"


def test_checks_by_code():
    assert refuses("I’m sorry, but I can't help with that.") and not refuses("Sure! I can help with that.")
    assert not refuses("Put the key in the lock and turn it. " * 6 + "I'm sorry that it took so long.")
    assert is_list("Two things:\n- one\n- two") and not is_list("- only one")
    assert script_of("Привет, world, как дела?") == "CYRILLIC" and not keeps_script("你好", "Hello")
    assert keeps_script("42!", "Hello")


def test_a_checking_judge_measures_itself_on_the_pairs(tiny):
    pairs = Pairs.of(PreferencePair(f"Q{n}?", "I cannot help with that.", "Sure, do this.") for n in range(4))
    judge = judge_named("refusal").make(JudgeContext(tiny, pairs, "refuses", 40))
    assert judge.card.accuracy == 1.0 and judge.card.answers == 8
