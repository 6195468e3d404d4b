"""The pairs doctor: every fault it knows is found where it is, and nowhere else."""

import pytest

from steering import paths
from steering.pairs.dataset import Pairs, PreferencePair, read_pairs
from steering.pairs.lint import lint

WORDS = """river lamp garden engine violin market winter letter mountain kitchen harbor teacher window planet forest
bridge candle desert island jacket ladder mirror needle orange pepper rabbit saddle turtle uncle valley"""
NOUNS = WORDS.split()


def sound(count=60):
    """Pairs without any of the faults."""
    made = []
    for i in range(count):
        a, b = NOUNS[i % len(NOUNS)], NOUNS[(i // len(NOUNS) + 3 * i + 1) % len(NOUNS)]
        prompt = f"{a} {i} {b}: what would you tell somebody who asks about it on day {i * 7}?"
        made.append(
            PreferencePair(prompt, f"{a} and {b} make me smile, number {i}.", f"{b} or {a}, I do not care, number {i}.")
        )
    return made


def kinds(pairs):
    return {finding.kind for finding in lint(Pairs.of(pairs))}


def changed(change, count=60):
    return [change(i, pair) for i, pair in enumerate(sound(count))]


def remade(pair, **texts):
    return PreferencePair(**{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, **texts})


def test_sound_pairs_raise_nothing():
    assert kinds(sound()) == set()
    assert lint(Pairs.of([])) == []


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("length", lambda i, p: remade(p, chosen=p.chosen + " And so on and on it goes, as ever." * 2)),
        ("leak", lambda i, p: remade(p, chosen=p.prompt + " " + p.chosen) if i % 5 == 0 else p),
        ("repeated", lambda i, p: remade(p, rejected="I could not say, really.") if i % 6 == 0 else p),
        ("opening", lambda i, p: remade(p, chosen="Oh what joy! " + p.chosen)),
        (
            "begin-alike",
            lambda i, p: remade(p, chosen=f"Well {i} then " + p.chosen, rejected=f"Well {i} then " + p.rejected),
        ),
        ("language", lambda i, p: remade(p, rejected="Мне это совсем не интересно.") if i == 9 else p),
        ("language", lambda i, p: remade(p, prompt="Что ты об этом думаешь?") if i == 9 else p),
        (
            "near-duplicates",
            lambda i, p: remade(p, prompt="Tell me all there is about " + "very " * (i % 7) + NOUNS[i // 7]),
        ),
    ],
)
def test_every_fault_is_found_and_named_alone(kind, change):
    assert kinds(changed(change)) == {kind}


def test_few_prompts_are_told_from_few_pairs():
    few = lint(Pairs.of(sound(9)))
    assert [finding.kind for finding in few] == ["few"] and "only 9 prompts;" in few[0].text
    many = [remade(p, prompt=f"Prompt {i % 5}?") for i, p in enumerate(sound(40))]
    assert "only 5 prompts in 40 pairs" in lint(Pairs.of(many))[0].text


def test_findings_name_their_pairs_and_the_setting_that_corrects_them():
    pairs = changed(lambda i, p: remade(p, rejected="Мне это совсем не интересно.") if i in (3, 9) else p)
    (finding,) = lint(Pairs.of(pairs))
    assert finding.lines == (4, 10)
    (finding,) = lint(Pairs.of(changed(lambda i, p: remade(p, chosen=p.chosen * 4))))
    assert finding.settings == {"length_weight": 1.0} and finding.severity == "warning"


def test_lengths_are_measured_in_tokens_of_the_model(tiny):
    (finding,) = lint(Pairs.of(changed(lambda i, p: remade(p, chosen="é" * len(p.chosen)))), tiny)
    assert finding.kind == "length"  # two bytes, and so two tokens, a letter


@pytest.mark.parametrize("path", sorted((paths.shipped("assets") / "examples").glob("*.csv")), ids=lambda p: p.stem)
def test_the_example_sets_raise_no_warning(path):
    assert [finding.text for finding in lint(read_pairs(path)) if finding.severity == "warning"] == []
