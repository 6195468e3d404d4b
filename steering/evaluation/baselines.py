"""What a vector is compared with: prompting, few-shot examples, the mean difference, random directions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from steering.errors import SteeringError
from steering.evaluation.answers import Arm
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.pairs.dataset import Pairs
from steering.prompting.instructions import contrasting_system_prompts
from steering.vectors.vector import SteeringVector

SYSTEM_PROMPT, FEW_SHOT, MEAN_DIFFERENCE, RANDOM = "system prompt", "few-shot", "mean difference", "random"
BASELINES = {
    SYSTEM_PROMPT: "A system prompt that asks for the behavior",
    FEW_SHOT: "Three of the pairs' answers shown before the prompt",
    MEAN_DIFFERENCE: "The mean difference of activations (CAA), at the vector's own KL divergence",
    RANDOM: "Random directions of the vector's norm",
}
"""Name -> what it is."""
RANDOM_ARM = "random direction"
"""Begins the names of their arms."""
SHOTS = 3
"""Examples of few-shot prompting. More would leave a small model little room and take longer to read."""


@dataclass(frozen=True)
class Way:
    """How one arm answers.

    Attributes:
        arm: its name and multiplier.
        vector: what steers it; None for none.
        system, before: its system prompt and the turns before the prompt.
        trace: whether its tokens' probabilities are wanted, which costs a row more.
    """

    arm: Arm
    vector: SteeringVector | None = None
    system: str = DEFAULT_SYSTEM_PROMPT
    before: Conversation = ()
    trace: bool = True

    @property
    def setting(self) -> dict[SteeringVector, float]:
        """Return its setting: the vector at the arm's multiplier."""
        return {self.vector: self.arm.multiplier} if self.vector is not None and self.arm.multiplier else {}


def is_random(arm: Arm) -> bool:
    """Tell whether an arm is one of the random directions."""
    return re.fullmatch(rf"{RANDOM_ARM} \d+", arm.name) is not None


def both_sides(behavior: str) -> tuple[str, str]:
    """Split a vector's behavior, `formal prose; left: slang`, into the behavior and its opposite (maybe empty)."""
    towards, _, away = behavior.partition("; left:")
    return towards.strip(), away.strip()


def prompting(behavior: str) -> list[Way]:
    """Ask for the behavior, and for its opposite, by the system prompt; no ways for a vector without a behavior."""
    try:
        towards, away = contrasting_system_prompts(*both_sides(behavior))
    except SteeringError:  # no description, or one of a page's length
        return []
    return [Way(Arm(SYSTEM_PROMPT, sign), system=text) for sign, text in ((1.0, towards), (-1.0, away))]


def few_shot(pairs: Pairs, avoid: Sequence[str], shots: int = SHOTS) -> list[Way]:
    """Show chosen answers, and rejected ones, before the prompt; the examples' prompts are none of those to `avoid`."""
    avoided = {prompt.strip() for prompt in avoid}
    shown = [pair for pair in pairs if pair.prompt.strip() not in avoided and not pair.before][:shots]
    if not shown:
        return []
    sides = ((1.0, "chosen"), (-1.0, "rejected"))
    turns = {
        sign: [turn for pair in shown for turn in (("user", pair.prompt), ("assistant", getattr(pair, side)))]
        for sign, side in sides
    }
    return [Way(Arm(FEW_SHOT, sign), before=turns[sign]) for sign, _ in sides]


def random_directions(vector: SteeringVector, count: int, seed: int) -> list[SteeringVector]:
    """Draw directions with the vector's norm at each of its layers, of any orientation alike."""
    drawn = []
    for number in range(count):
        generator = torch.Generator().manual_seed(1_000_003 * seed + number)
        directions = {}
        for layer, norm in vector.norms.items():
            direction = torch.randn(vector.hidden_size, generator=generator)
            directions[layer] = direction * (norm / float(direction.norm()))
        drawn.append(replace(vector, directions=directions, name=f"{RANDOM_ARM} {number + 1}", method={"name": RANDOM}))
    return drawn
