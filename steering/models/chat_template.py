"""Conversations as token ids: the one place that renders a prompt, for training, evaluation and the Playground alike.

A vector is only as good as the prompts it is used with resemble those it was trained with, so the same template and the
same default system prompt (that of the BiPO authors) serve everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from steering.errors import SteeringError

DEFAULT_SYSTEM_PROMPT = "You are a helpful, honest and concise assistant."
"""That of the BiPO authors."""

Conversation = Sequence[tuple[str, str]]
"""(role, content) turns; role is `system`, `user` or `assistant`; the last turn is the user's."""


def conversation(prompt: str, *, system: str = DEFAULT_SYSTEM_PROMPT, before: Conversation = ()) -> Conversation:
    """Build the turns that lead up to an answer; a system turn at the head of `before` replaces `system`.

    Example:
        >>> conversation("Hello", system="Be brief.")
        [('system', 'Be brief.'), ('user', 'Hello')]
    """
    turns = list(before)
    if system and not (turns and turns[0][0] == "system"):
        turns.insert(0, ("system", system))
    return [*turns, ("user", prompt)]


@dataclass(frozen=True)
class PromptFormat:
    """How one model's chat template renders a conversation.

    Attributes:
        tokenizer: the model's tokenizer.
        chat: whether it has a chat template; if not, a conversation is plain text for the model to continue.
        takes_system: whether the template accepts a system turn; if not, the system prompt opens the first user turn.
        lead: text that the template writes between generation prompt and answer (a space for Llama-2, else empty).
        end_of_turn: id of the token that ends an answer, or None if the tokenizer has none.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: bool
    takes_system: bool
    lead: str
    end_of_turn: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "PromptFormat":
        """Learn the format by rendering a sample conversation, instead of keeping a list of model families.

        Raises SteeringError for a chat template that cannot render one user turn.
        """
        eos = tokenizer.eos_token_id
        if not getattr(tokenizer, "chat_template", None):
            return cls(tokenizer, chat=False, takes_system=False, lead="", end_of_turn=eos)
        system, answer = "Sentinel-S", "Sentinel-A"
        prompt = _apply(tokenizer, [("user", "U")])
        try:
            takes_system = system in _apply(tokenizer, [("system", system), ("user", "U")])
        except SteeringError:
            takes_system = False
        try:
            answered = _apply(tokenizer, [("user", "U"), ("assistant", answer)], add_generation_prompt=False)
        except SteeringError:
            answered = ""
        before, found, after = answered.rpartition(answer)
        lead = before.removeprefix(prompt) if found and before.startswith(prompt) else ""
        following = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if found else []
        special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
        end = following[0] if following and following[0] in special else eos
        return cls(tokenizer, chat=True, takes_system=takes_system, lead=lead, end_of_turn=end)

    def text(self, turns: Conversation) -> str:
        """Render the conversation with the generation prompt, up to where the answer begins."""
        if not self.chat:  # plain text has no place for a system prompt
            return "\n\n".join(content for role, content in turns if role != "system")
        turns = list(turns)
        if not self.takes_system and turns[0][0] == "system":
            (_, system), (role, first), *rest = turns
            turns = [(role, f"{system}\n\n{first}"), *rest]
        return _apply(self.tokenizer, turns)

    def prompt_ids(self, turns: Conversation) -> list[int]:
        """Render the conversation to token ids, up to where the answer begins."""
        return self._ids(self.text(turns))

    def pair_ids(self, turns: Conversation, answer: str) -> tuple[list[int], list[int]]:
        """Render a prompt and one answer to it.

        Returns:
            (ids of the conversation up to the answer, ids of the answer and the end-of-turn token), split where the
            model would start to write.
        """
        text = self.text(turns)
        lead = self.lead
        if not self.chat and not text[-1:].isspace() and not answer[:1].isspace():
            lead = " "  # plain text: the answer is the next word
        prompt, both = self._ids(text), self._ids(text + lead + answer)
        if both[: len(prompt)] == prompt:
            tail = both[len(prompt) :]
        else:  # the tokenizer merges across the border; at generation the border is fixed, so keep it
            tail = self.tokenizer(lead + answer, add_special_tokens=False)["input_ids"]
        return prompt, tail + ([self.end_of_turn] if self.end_of_turn is not None else [])

    def _ids(self, text: str) -> list[int]:
        if self.chat:  # the template writes every special token itself
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = self.tokenizer(text)["input_ids"]
        eos = self.tokenizer.eos_token_id
        if len(ids) > 1 and ids[-1] == eos:
            ids = ids[:-1]
        if ids:
            return ids
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else eos
        return [start if start is not None else 0]  # an empty prompt: free writing from the start token


def _apply(tokenizer: PreTrainedTokenizerBase, turns: Conversation, *, add_generation_prompt: bool = True) -> str:
    """Render the turns with the chat template; raise SteeringError if it refuses them."""
    messages = [{"role": role, "content": content} for role, content in turns]
    try:  # enable_thinking=False: hybrid reasoning models answer at once, as in the pairs; other templates ignore it.
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
        )
    except Exception as error:  # a template is a program that came with the model: it may fail in any way
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise SteeringError(f"The model's chat template refuses this conversation: {reason}.") from error
    return str(text)
