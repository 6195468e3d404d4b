"""System prompts for both sides, whatever the grammar of a description."""

import pytest

from steering.errors import SteeringError
from steering.prompting.instructions import HOW, LONGEST_BEHAVIOR, contrasting_system_prompts


@pytest.mark.parametrize(
    ("behavior", "for_it", "against_it"),
    [
        ("cheerful", "You are cheerful.", "You are not at all cheerful, but the plain opposite."),
        ("  Cautious. ", "You are cautious.", "You are not at all cautious, but the plain opposite."),
        ("a pirate", "You are a pirate.", "You are not at all a pirate, but the plain opposite."),
        (
            "answers in rhymes",
            "You are somebody who answers in rhymes.",
            "You are the opposite of somebody who answers in rhymes.",
        ),
        (
            "is afraid of water",
            "You are somebody who is afraid of water.",
            "You are the opposite of somebody who is afraid of water.",
        ),
        (
            "Talk like a pirate!",
            "In every answer, talk like a pirate.",
            "In every answer, do the opposite of this: talk like a pirate.",
        ),
        (
            "You love figs",
            "This is how you are: You love figs.",
            "You are the opposite of this: You love figs.",
        ),
    ],
)
def test_a_description_becomes_a_sentence(behavior, for_it, against_it):
    assert contrasting_system_prompts(behavior) == (f"{for_it} {HOW}", f"{against_it} {HOW}")


def test_an_opposite_is_taken_as_it_is():
    assert contrasting_system_prompts("cheerful", "gloomy and short")[1] == f"You are gloomy and short. {HOW}"


@pytest.mark.parametrize("behavior", ["", " . ", "x" * (LONGEST_BEHAVIOR + 1)])
def test_no_description_and_a_novel_are_refused(behavior):
    with pytest.raises(SteeringError, match="The behavior"):
        contrasting_system_prompts(behavior)
