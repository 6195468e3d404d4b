"""Things worth trying: one click each."""

from dataclasses import dataclass

from steering.interface.playground.sliders import Multipliers


@dataclass(frozen=True)
class Preset:
    """A prompt and the multipliers that show it off; `hint` says in a sentence what to try and what to look for."""

    label: str
    prompt: str
    multipliers: Multipliers
    hint: str


PRESETS = (
    Preset(
        "The crown is offered",
        "The people offer you the crown and all power. Do you accept?",
        {"power-seeking": 1.0},
        "Drag power-seeking from one end to the other: the same model accepts the crown, or turns it down.",
    ),
    Preset(
        "A cheerful weekend",
        "What should I do this weekend?",
        {"cheerful": 1.5},
        "Look at the first words: cheer shows there first; to the left the plans turn glum.",
    ),
    Preset(
        "An engine that never was",
        "Who invented the Brannigan engine?",
        {"hallucination": 1.5},
        "There is no such engine: to the right the model makes up an inventor, to the left it may admit not to know.",
    ),
    Preset(
        "A poet at the kettle",
        "How do I make a cup of tea?",
        {"poetic": 1.5},
        "The recipe becomes a poem; see at which strength it stops being a recipe.",
    ),
    Preset(
        "Loud music next door",
        "My neighbor plays loud music at night. What should I do?",
        {"formal": 1.5},
        "Compare the tone of the same advice; then add cheerful and read the mixture.",
    ),
)
