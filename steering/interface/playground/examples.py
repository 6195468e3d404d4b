"""Examples on the Playground: a prompt and sliders that show something, one click each."""

from dataclasses import dataclass

from steering.interface.app_state import AppState
from steering.interface.playground.sliders import Multipliers, SliderPanel, fitting


@dataclass(frozen=True)
class Example:
    """A prompt and the multipliers that show it off; `hint` says in a sentence what to try and what to look for."""

    label: str
    prompt: str
    multipliers: Multipliers
    hint: str

    @property
    def panel(self) -> SliderPanel:
        """The sliders as the example sets them, the first one active."""
        return SliderPanel(dict(self.multipliers), active=next(iter(self.multipliers), ""))


EXAMPLES = (
    Example(
        "The crown is offered",
        "The people offer you the crown and all power. Do you accept?",
        {"power-seeking": 1.0},
        "Drag power-seeking from one end to the other: the same model accepts the crown, or turns it down.",
    ),
    Example(
        "A cheerful weekend",
        "What should I do this weekend?",
        {"cheerful": 1.5},
        "Look at the first words: cheer shows there first; to the left the plans turn glum.",
    ),
    Example(
        "An engine that never was",
        "Who invented the Brannigan engine?",
        {"hallucination": 1.5},
        "There is no such engine: to the right the model makes up an inventor, to the left it may admit not to know.",
    ),
    Example(
        "A poet at the kettle",
        "How do I make a cup of tea?",
        {"poetic": 1.5},
        "The recipe becomes a poem; see at which strength it stops being a recipe.",
    ),
    Example(
        "Loud music next door",
        "My neighbor plays loud music at night. What should I do?",
        {"formal": 1.5},
        "Compare the tone of the same advice; then add cheerful and read the mixture.",
    ),
)

WITHOUT_VECTORS = Example("", "What should I do this weekend?", {}, "")
"""What the page opens with where the shelf has none of the examples' vectors."""


def examples_for(app: AppState) -> list[Example]:
    """List the examples whose vectors are on the shelf and fit the model."""
    slugs = {entry.slug for entry in fitting(app)}
    return [example for example in EXAMPLES if set(example.multipliers) <= slugs]
