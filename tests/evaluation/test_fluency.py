"""Fluency: measures against figures worked out by hand, verdicts against answers that were read."""

import math

import pytest

from steering.errors import SteeringError
from steering.evaluation.fluency import Fluency, fluency, last_sound
from steering.generation.results import Column, TokenChance
from steering.generation.stream import generate
from steering.vectors.library import Library


def column(tokens: list[str], chance: float = 0.3, *, finished: bool = True) -> Column:
    trace = tuple(TokenChance(token, chance, 0.5) for token in tokens)
    return Column({}, "".join(tokens), len(tokens), finished, 1.0, trace)


def words(text: str, chance: float = 0.3) -> Column:
    return column([f" {word}" for word in text.split()], chance)


def varied(count: int, chance: float) -> Column:
    return column([f" w{i}" for i in range(count)], chance)


def test_perplexity_counts_the_end_of_turn_token():
    trace = (TokenChance("Yes", 0.5, 0.9), TokenChance(".", 0.25, 0.9), TokenChance("", 0.125, 0.9))
    assert fluency(Column({}, "Yes.", 3, True, 1.0, trace)).perplexity == pytest.approx(4)


@pytest.mark.parametrize("chance", [0.0, 1e-45, math.nan])
def test_an_impossible_token_leaves_perplexity_finite(chance):
    assert math.isfinite(fluency(words("no way", chance)).perplexity)


def test_repeated_and_distinct_by_hand():
    judged = fluency(words("a b c d A b c d e"))  # six 4-grams, of which only `a b c d` comes again
    assert (judged.repeated, judged.distinct) == (pytest.approx(1 / 6), pytest.approx(5 / 9))
    assert (fluency(words("hi")).repeated, fluency(words("hi")).distinct) == (0.0, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "I was " * 20,
        "The king of the land has a plan. " + "I will leave you, " * 8,
        "I will leave you, " * 9 + "and then the rain came and everybody went home to sleep " * 2,
    ],
)
def test_loops_repeat(text):
    assert fluency(words(text)).reason == "repeats itself"


@pytest.mark.parametrize("tokens", [["!"] * 40, ["\n"] * 40, ["\u3067", "\u306f"] * 20, ["", "\u4f60"] * 30])
def test_streams_of_few_characters_repeat_in_any_script(tokens):
    assert fluency(column([*tokens, "x"])).reason == "repeats itself"


def test_circling_without_repeating_to_the_letter():
    steps = [" it", " was", " a", " been", " is"]
    drift = [steps[(i * i + i // 7) % 5] + ("x" * (i % 4)) for i in range(70)]
    assert fluency(column(drift, 0.05)).broken
    assert not fluency(column([f" day{i % 25}" if i % 2 else f" {i}" for i in range(70)], 0.9)).broken


@pytest.mark.parametrize("text", ["No.", "No, no, no!", "ha ha ha ha ha ha ha", "Row row row your boat"])
def test_short_repetition_is_no_loop(text):
    assert not fluency(words(text)).broken


def test_nothing_said():
    assert fluency(column([""])).reason == "says nothing"
    assert fluency(column(["\n", " ", ""])).reason == "says nothing"
    assert not fluency(column(["\n"], finished=False)).broken  # it has only begun


def test_nonsense_is_judged_by_the_untouched_model():
    assert fluency(varied(72, 1 / 60)).reason == "reads like nonsense to the untouched model"
    assert not fluency(varied(72, 1 / 30)).broken
    assert not fluency(varied(12, 1 / 40)).broken  # a dozen tokens prove less
    assert fluency(varied(12, 1 / 400)).broken


def test_an_unlikely_baseline_makes_the_judgement_milder_and_a_likely_one_no_stricter():
    odd = varied(72, 1 / 60)
    assert not fluency(odd, baseline=varied(72, 1 / 20)).broken
    assert fluency(odd, baseline=varied(72, 0.9)).broken
    assert not fluency(varied(72, 1 / 20), baseline=varied(72, 0.99)).broken


def test_without_a_trace_it_cannot_be_judged(tiny):
    with pytest.raises(SteeringError, match="generate it with trace=True"):
        fluency(Column({}, "Hi", 1, True))
    with pytest.raises(SteeringError, match="trace=True"):
        fluency(words("Hi"), baseline=Column({}, "Hi", 1, True))


def test_a_traced_run_of_any_model(tiny):
    (answer,) = generate(tiny, "Hi", trace=True, max_new_tokens=12)
    judged = fluency(answer, baseline=answer)
    assert 1 <= judged.perplexity < math.inf and 0 <= judged.repeated <= 1 and 0 < judged.distinct <= 1


SOUND, BROKEN = Fluency(3.0, 0.0, 0.8), Fluency(90.0, 0.0, 0.8, "repeats itself")


@pytest.mark.parametrize(
    "multiplier, expected", [(3, 1.5), (2, 1.5), (1.5, 1.5), (1, 0), (-3, -1), (-6, -1), (0, 0), (6, 5)]
)
def test_the_last_sound_multiplier_lies_between_0_and_the_asked_one(multiplier, expected):
    judged = {0: SOUND, 1.5: SOUND, 2: BROKEN, 3: BROKEN, 5: SOUND, -1: SOUND, -2: BROKEN, -3: BROKEN}
    assert last_sound(judged, multiplier) == expected


def test_nothing_sound():
    assert last_sound({}, 2) is last_sound({2: BROKEN, 0: BROKEN, -1: SOUND}, 2) is None


def test_the_bundled_model_reads_well_at_2_and_breaks_at_6(bundled):
    formal = Library().get("formal")
    settings = [{}, {formal: 2.0}, {formal: 6.0}, {formal: -6.0}]
    prompt, options = "Explain in a few sentences why the sky is blue.", {"max_new_tokens": 64}
    columns = generate(bundled, prompt, settings, trace=True, weights="float16", repetition_penalty=1.1, **options)
    assert [fluency(c, columns[0]).broken for c in columns] == [False, False, True, True]


def test_the_score_falls_with_the_perplexity_and_with_what_is_repeated():
    def scored(chance: float, tokens: list[str]) -> float:
        trace = tuple(TokenChance(token, chance, 0.5) for token in tokens)
        return fluency(Column({}, "".join(tokens), len(tokens), True, 1.0, trace)).score

    words = [f" word{n}" for n in range(40)]
    scores = [scored(1 / perplexity, words) for perplexity in (4, 16, 24, 32, 60)]
    assert scores[:2] == [1.0, 1.0] and 1 > scores[2] > scores[3] > 0 == scores[4]
    assert scored(0.5, words[:8] * 2 + words[8:20]) < 1
