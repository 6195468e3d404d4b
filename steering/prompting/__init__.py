"""What models are asked: system prompts for a behavior, prompts that ship, and servers that answer."""

from steering.prompting.endpoint import Endpoint
from steering.prompting.instructions import contrasting_system_prompts
from steering.prompting.prompts import DraftPrompt, draft_prompts

__all__ = ["DraftPrompt", "Endpoint", "contrasting_system_prompts", "draft_prompts"]
