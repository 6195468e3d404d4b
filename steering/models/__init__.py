"""Language models: loading them, finding their decoder blocks, rendering their prompts."""

import logging

# Where peft is installed, transformers imports it, and peft bitsandbytes, which then warns of kernels it cannot load,
# whether or not anything is quantised; it would also warn at every multiplication.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation, conversation  # noqa: E402
from steering.models.loading import LanguageModel, load_model, wrap_model  # noqa: E402

__all__ = [
    "DEFAULT_SYSTEM_PROMPT",
    "Conversation",
    "LanguageModel",
    "conversation",
    "load_model",
    "wrap_model",
]
