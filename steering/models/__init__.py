"""Language models: loading them, finding their decoder blocks, rendering their prompts."""

from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation, conversation
from steering.models.loading import LanguageModel, load_model, wrap_model

__all__ = [
    "DEFAULT_SYSTEM_PROMPT",
    "Conversation",
    "LanguageModel",
    "conversation",
    "load_model",
    "wrap_model",
]
