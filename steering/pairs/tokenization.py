"""Preference pairs as token ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from steering.errors import SteeringError
from steering.models.chat_template import conversation
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, PreferencePair


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of one preference pair.

    Attributes:
        prompt: the rendered conversation, up to where the answer begins.
        chosen: the answer with the end-of-turn token; `rejected` likewise.
    """

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def __len__(self) -> int:
        """Tokens of the longer of the two conversations: what must fit into the context."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def encode(model: LanguageModel, pair: PreferencePair) -> EncodedPair:
    """Tokenise a pair, in the model's chat template with the default system prompt.

    Raises SteeringError if the template refuses the conversation or an answer has no tokens.
    """
    turns = conversation(pair.prompt, before=pair.before)
    thinking = any(map(model.prompts.brings_thought, (pair.chosen, pair.rejected)))
    prompt, chosen = model.prompts.pair_ids(turns, pair.chosen, thinking=thinking)
    _, rejected = model.prompts.pair_ids(turns, pair.rejected, thinking=thinking)
    if not chosen or not rejected:
        raise SteeringError(f"An answer is nothing to the tokenizer of {model.name}; write it in other characters.")
    return EncodedPair(tuple(prompt), tuple(chosen), tuple(rejected))


def encode_pairs(
    model: LanguageModel, pairs: Pairs, read_as: Sequence[PreferencePair] | None = None
) -> tuple[Pairs, list[EncodedPair]]:
    """Tokenise all pairs; those that the model cannot read are dropped, with the reason in the report.

    Args:
        read_as: what the model reads in place of each pair; None for the pairs themselves.

    Returns:
        (the pairs that are left, their token ids), of equal length.

    Raises:
        SteeringError: none is left.
    """
    if not pairs:
        raise SteeringError("There are no preference pairs; bring at least one.")
    encoded = {}
    reasons = {}
    for index, pair in enumerate(pairs if read_as is None else read_as):
        try:
            tokens = encode(model, pair)
        except SteeringError as error:
            reasons[index] = str(error).rstrip(".")
            continue
        if model.context_length and len(tokens) > model.context_length:
            limit = f"longer than the {model.context_length:,} tokens that {model.name} reads"
            reasons[index] = f"{limit} ({len(tokens):,} tokens)"
        else:
            encoded[index] = tokens
    readable = pairs.drop(reasons) if reasons else pairs
    return readable, list(encoded.values())


def readable_pairs(model: LanguageModel, pairs: Pairs) -> Pairs:
    """Leave out the pairs that the model cannot read, before they are split, so that one report counts them all.

    The report also says where the model's own ways change what is trained. Raises SteeringError if none is left.
    """
    readable, _ = encode_pairs(model, pairs)
    if not model.prompts.opens_thought:
        return readable
    own = sum(model.prompts.brings_thought(pair.chosen) for pair in readable)
    what = (
        f"{model.name} is a reasoning model, which thinks before it answers. Answers are placed after an empty thought"
    )
    note = f"{what}, but for {own:,} that bring their own." if own else f"{what}."
    notes = (*(each for each in readable.report.notes if each != note), note)
    return replace(readable, report=replace(readable.report, notes=notes))


def shared_prefix(sequences: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Find the longest run of ids with which every sequence begins (a chat template's head and system prompt)."""
    sequences = list(sequences)
    if not sequences:
        return ()
    low, high = min(sequences), max(sequences)
    length = 0
    while length < min(len(low), len(high)) and low[length] == high[length]:
        length += 1
    return low[:length]
