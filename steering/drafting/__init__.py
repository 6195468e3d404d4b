"""From a description of a behavior to preference pairs: drafts, for people to correct."""

from steering.drafting.draft import DraftProgress, draft_pairs

__all__ = ["DraftProgress", "draft_pairs"]
