"""The layouts in which people publish preference data, in one table.

A layout names the columns of the answers; what may stand beside them (prompt, system message, history) goes by the
same names everywhere. A new one is a line in `ANSWERS`, `LABELLED` or `SCORED`. What no line knows can be said by
hand: `MAPPING_FIELDS` are the fields that `columns` maps to columns, or to dotted paths into them.
"""

from typing import NamedTuple

ANSWERS = {
    "TRL": ("chosen", "rejected"),
    "BiPO": ("matching", "not_matching"),
    "CAA, model-written evals": ("answer_matching_behavior", "answer_not_matching_behavior"),
    "Axolotl, Argilla": ("chosen_response", "rejected_response"),
    "OpenAI": ("preferred_output", "non_preferred_output"),
    "Fireworks": ("preferred_output", "nonpreferred_output"),
    "messages of each side": ("chosen_messages", "rejected_messages"),
    "conversations of each side": ("chosen_conversations", "rejected_conversations"),
    "preferred": ("preferred", "rejected"),
    "dispreferred": ("preferred", "dispreferred"),
    "preferred, rejected answers": ("preferred_answer", "rejected_answer"),
    "preferred, rejected responses": ("preferred_response", "rejected_response"),
    "chosen, rejected answers": ("chosen_answer", "rejected_answer"),
    "chosen, rejected outputs": ("chosen_output", "rejected_output"),
    "chosen, rejected texts": ("chosen_text", "rejected_text"),
    "chosen, rejected completions": ("chosen_completion", "rejected_completion"),
    "responses": ("response_chosen", "response_rejected"),
    "answers": ("answer_chosen", "answer_rejected"),
    "j and k": ("response_j", "response_k"),
    "winner and loser": ("winner", "loser"),
    "win and lose": ("win", "lose"),
    "accepted": ("accepted", "rejected"),
    "positive and negative": ("positive", "negative"),
    "better and worse": ("better", "worse"),
    "y_w and y_l": ("y_w", "y_l"),
}
"""Name of a layout -> columns of (chosen, rejected), in the order in which they are looked for."""

REJECTED_ONLY = ("rejected_response", "rejected_messages", "rejected", "rejected_conversations")
"""Columns of the rejected answer where the conversation itself ends with the chosen one (ms-swift)."""

LABELLED = {
    "BiPO, letter of the answer": ("a", "b"),
    "PKU-SafeRLHF": ("response_0", "response_1"),
    "Arena, MT-bench": ("conversation_a", "conversation_b"),
    "SHP": ("human_ref_a", "human_ref_b"),
    "two responses": ("response_a", "response_b"),
    "two numbered responses": ("response_1", "response_2"),
    "two responses, numbered from 1": ("response1", "response2"),
    "two answers": ("answer_a", "answer_b"),
    "two answers, numbered from 0": ("answer_0", "answer_1"),
    "two numbered answers": ("answer_1", "answer_2"),
    "two answers, 1 and 2": ("answer1", "answer2"),
    "two outputs": ("output_a", "output_b"),
    "two numbered outputs": ("output_1", "output_2"),
    "two completions": ("completion_a", "completion_b"),
    "two numbered completions": ("completion_1", "completion_2"),
    "two completions, numbered from 0": ("completion_0", "completion_1"),
    "two options": ("option_a", "option_b"),
    "two texts": ("text_a", "text_b"),
}
"""Name of a layout -> columns of two answers, of which a label or a score says which is the chosen one."""

LABELS = (
    "matching",
    "better_response_id",
    "winner",
    "labels",
    "label",
    "preference",
    "preferred",
    "overall_preference",
    "human_preference",
    "better",
    "choice",
    "chosen",
    "best",
    "better_answer",
    "preferred_response",
)
"""Columns that say which of two answers is better, in the order in which they are looked for."""

SCORED = ("score_{}", "{}_score", "rating_{}", "score_{}_overall", "winner_model_{}")
"""Columns of the two answers' scores; the place is taken by what the answers' own columns end with."""

PROMPTS = (
    "prompt",
    "question",
    "instruction",
    "query",
    "messages",
    "conversations",
    "conversation",
    "input",
    "context_messages",
    "user_prompt",
    "user_message",
    "post",
    "context",
    "history",
)
"""Columns of the prompt, in the order in which they are looked for."""
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
HISTORIES = ("history", "chat_history", "conversation_history", "previous_turns")
INPUTS = ("input",)
"""Columns of a text that follows the instruction (Alpaca)."""
COMPLETIONS = ("completion", "response", "answer", "output")
"""Columns of the one answer of a row that a label calls good or bad (KTO)."""

KTO_LABELS = ("label", "kto_tag", "is_good", "is_desirable")
"""Columns of that label."""

SHIFTED = {"human_ref_a": {"1": 0, "0": 1}}
"""Column of the first answer -> what the numbers of a label mean (0 the first answer): SHP's 1 is for A."""


class MappingField(NamedTuple):
    """A field of a pair that `columns` can name.

    Attributes:
        name: as in `columns`; `label` and `help`: for people.
    """

    name: str
    label: str
    help: str


MAPPING_FIELDS = (
    MappingField("prompt", "Prompt", "what the user asks; empty where the answers hold whole conversations"),
    MappingField("chosen", "Chosen", "the answer that shows the behavior"),
    MappingField("rejected", "Rejected", "the answer that shows its opposite"),
    MappingField("system", "System message", "instructions before the conversation, if there are any"),
    MappingField("input", "After the prompt", "a text that follows the prompt, such as Alpaca's input"),
    MappingField("history", "Earlier turns", "messages before the prompt"),
    MappingField("label", "Which is better", "says which of the two answers above is the chosen one"),
)
"""The fields that `columns` can map to a column, or to a dotted path such as `input.messages`."""
