"""From a description of a behavior to preference pairs: drafts, for people to correct."""

from steering.drafting.draft import DraftProgress, draft_pairs
from steering.drafting.endpoint import Endpoint
from steering.drafting.instructions import contrasting_system_prompts
from steering.drafting.prompts import DraftPrompt, draft_prompts

__all__ = [
    "DraftProgress",
    "DraftPrompt",
    "Endpoint",
    "contrasting_system_prompts",
    "draft_pairs",
    "draft_prompts",
]
