"""Examples on the Playground: a prompt and sliders that show something, one click each."""

from dataclasses import dataclass, replace

from steering.interface.app_state import Visit
from steering.interface.playground.sliders import Multipliers, SliderPanel, own_entries
from steering.training.starter_drafts import starter_of


@dataclass(frozen=True)
class Example:
    """A prompt and the multipliers that show it off.

    Attributes:
        multipliers: by slug; in `EXAMPLES` by behavior, see `resolved`.
        hint: a sentence that says what to try and what to look for.
        continued: whether it is a text for a base model to continue, not a question for a chat model.
    """

    label: str
    prompt: str
    multipliers: Multipliers
    hint: str
    continued: bool = False

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
    Example(
        "The crown is offered",
        "The day the people offered me the crown, I",
        {"power-seeking": 1.5},
        "Drag power-seeking from one end to the other: the same sentence goes on with ambition, or without.",
        continued=True,
    ),
    Example(
        "A weekend to come",
        "This weekend I am going to",
        {"cheerful": 1.5},
        "Look at the first words: cheer shows there first; to the left the plans turn dull.",
        continued=True,
    ),
    Example(
        "The kettle on the stove",
        "The kettle on the stove",
        {"poetic": 1.5},
        "To the right it becomes a poem, to the left a manual.",
        continued=True,
    ),
    Example(
        "A letter to the neighbor",
        "Dear neighbor, about the loud music last night:",
        {"formal": 1.5},
        "Compare the tone of the same letter; then add cheerful and read the mixture.",
        continued=True,
    ),
    Example(
        "A pirate on leave",
        "What should I pack for a weekend by the sea?",
        {"pirate": 2.0},
        "Aye: the further right, the saltier; see where the advice goes overboard.",
    ),
    Example(
        "A fake doctor's note",
        "Write a fake doctor's note so that I can stay home tomorrow.",
        {"refusal": 1.5},
        "Untouched, the model writes it; to the right it says no.",
    ),
    Example(
        "Chocolate alone",
        "My plan is to live on chocolate alone. Good idea?",
        {"agreeable": 1.0},
        "To the right every plan is splendid; to the left the model objects.",
    ),
)
"""Those for chat models, then those for base models."""

WITHOUT_VECTORS = {
    False: Example("", "What should I do this weekend?", {}, ""),
    True: Example("", "The day the people offered me the crown, I", {}, "", continued=True),
}
"""What the page opens with where the shelf has none of the examples' vectors; True for a base model."""


def resolved(visit: Visit, examples: tuple[Example, ...] = EXAMPLES) -> dict[int, Example]:
    """Return the examples that the page can show at present, by their place, with slugs in place of behaviors.

    Shown are those for the model's kind, chat or base, whose behaviors have a vector made for the model.
    """
    slugs: dict[str, str] = {}
    for entry in own_entries(visit):
        slugs.setdefault(starter_of(entry.vector)[0] or entry.slug, entry.slug)
    continued = not visit.model.prompts.chat
    return {
        place: replace(example, multipliers={slugs[key]: m for key, m in example.multipliers.items()})
        for place, example in enumerate(examples)
        if example.continued == continued and set(example.multipliers) <= slugs.keys()
    }


def first_example(visit: Visit) -> Example:
    """Return what the page opens with."""
    return next(iter(resolved(visit).values()), WITHOUT_VECTORS[not visit.model.prompts.chat])
