"""Conversations as token ids: the one place that renders a prompt, for training, evaluation and the Playground alike.

A vector is only as good as the prompts it is used with resemble those it was trained with, so the same template and the
same default system prompt (that of the BiPO authors) serve everywhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from steering.errors import SteeringError

DEFAULT_SYSTEM_PROMPT = "You are a helpful, honest and concise assistant."
"""That of the BiPO authors."""

THOUGHT, END_OF_THOUGHT = "<think>", "</think>"
"""What reasoning models write their thoughts between (DeepSeek-R1, Qwen3 and their kind)."""
NO_THOUGHT = f"\n\n{END_OF_THOUGHT}\n\n"
"""Closes a thought that the template opened, the way Qwen3's own template writes an empty one."""

INERT = "\ufdd0{}\ufdd1"
"""Stands for a special token in somebody's text until the text is tokenised; the two are no characters of any text."""

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
        opens_thought: whether the template opens a thought where the answer belongs. Answers are then placed after an
            empty thought, in training and in use, unless they bring a thought of their own.

    Special tokens that stand in somebody's text (a prompt that quotes `<|im_end|>`) are tokenised as plain text.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: bool
    takes_system: bool
    lead: str
    end_of_turn: int | None
    opens_thought: bool = False

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
        opens_thought = prompt.rstrip().endswith(THOUGHT)
        before, found, after = answered.rpartition(answer)
        lead = before.removeprefix(prompt) if found and before.startswith(prompt) and not opens_thought else ""
        following = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if found else []
        special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
        end = following[0] if following and following[0] in special else eos
        return cls(tokenizer, True, takes_system, lead, end, opens_thought)

    def text(self, turns: Conversation, *, thinking: bool = False) -> str:
        """Render the conversation with the generation prompt, up to where the answer begins.

        Args:
            thinking: leave a thought that the template opens open, for an answer that brings its thought along.
        """
        if not self.chat:  # the default system prompt means nothing to a model that continues text; a chosen one does
            return "\n\n".join(
                text for role, text in turns if role != "system" or text not in ("", DEFAULT_SYSTEM_PROMPT)
            )
        turns = list(turns)
        if not self.takes_system and turns[0][0] == "system":
            (_, system), (role, first), *rest = turns
            turns = [(role, f"{system}\n\n{first}"), *rest]
        text = _apply(self.tokenizer, turns)
        return text.rstrip() + NO_THOUGHT if self.opens_thought and not thinking else text

    def prompt_ids(self, turns: Conversation) -> list[int]:
        """Render the conversation to token ids, up to where the answer begins."""
        return self._ids(self.text(self._inert_turns(turns)))

    def pair_ids(self, turns: Conversation, answer: str, *, thinking: bool = False) -> tuple[list[int], list[int]]:
        """Render a prompt and one answer to it.

        Args:
            thinking: the prompt ends in an open thought (see `text`), which the answer goes on with, or ends at once.

        Returns:
            (ids of the conversation up to the answer, ids of the answer and the end-of-turn token), split where the
            model would start to write.
        """
        text, answer = self.text(self._inert_turns(turns), thinking=thinking), self._inert(answer)
        lead = self.lead
        if thinking:
            own = answer.lstrip().removeprefix(THOUGHT)
            answer = own.lstrip("\n") if own != answer.lstrip() else NO_THOUGHT.lstrip("\n") + answer
        if not self.chat and not text[-1:].isspace() and not answer[:1].isspace():
            lead = " "  # plain text: the answer is the next word
        prompt, both = self._ids(text), self._ids(text + lead + answer)
        # Where the tokenizer merges across the border: at generation the border is fixed, so keep it.
        tail = both[len(prompt) :] if both[: len(prompt)] == prompt else self._plain_ids(lead + answer)
        return prompt, tail + ([self.end_of_turn] if self.end_of_turn is not None else [])

    def brings_thought(self, answer: str) -> bool:
        """Whether an answer begins with a thought, on a model whose template opens one."""
        return self.opens_thought and answer.lstrip().startswith(THOUGHT)

    @cached_property
    def _special_tokens(self) -> list[str]:
        """List the tokens with a meaning, the longest first."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        named = {str(token) for token in added if getattr(token, "special", False)} | {
            *self.tokenizer.all_special_tokens
        }
        return sorted((token for token in named if token.strip()), key=len, reverse=True)

    @cached_property
    def _special_token(self) -> re.Pattern[str] | None:
        return re.compile("|".join(map(re.escape, self._special_tokens))) if self._special_tokens else None

    def _inert_turns(self, turns: Conversation) -> Conversation:
        return [(role, self._inert(content)) for role, content in turns]

    def _inert(self, text: str) -> str:
        """Replace special tokens in a text, so that tokenising does not see them (`_plain_ids` puts them back)."""
        if self._special_token is None:
            return text
        return self._special_token.sub(lambda token: INERT.format(self._special_tokens.index(token.group())), text)

    def _plain_ids(self, text: str) -> list[int]:
        """Tokenise a text without tokens at its ends; special tokens only where the template wrote them."""
        ids: list[int] = []
        for part in re.split("(\ufdd0\\d+\ufdd1)", text) if "\ufdd0" in text else [text]:
            pieces = [part]
            if part.startswith("\ufdd0"):  # in two pieces, neither of which is the token
                token = self._special_tokens[int(part[1:-1])]
                pieces = [token[:1], token[1:]]
            for piece in pieces:
                ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
        return ids

    def _ids(self, text: str) -> list[int]:
        if self.chat:  # the template writes every special token itself
            return self._plain_ids(text)
        if "\ufdd0" in text:
            return [*self._ids(""), *self._plain_ids(text)] if self._begins_with_a_token else self._plain_ids(text)
        ids = self.tokenizer(text)["input_ids"]
        eos = self.tokenizer.eos_token_id
        if len(ids) > 1 and ids[-1] == eos:
            ids = ids[:-1]
        if ids:
            return ids
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else eos
        return [start if start is not None else 0]  # an empty prompt: free writing from the start token

    @property
    def _begins_with_a_token(self) -> bool:
        """Whether the tokenizer puts a token before plain text."""
        ids = self.tokenizer("a")["input_ids"]
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id


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
