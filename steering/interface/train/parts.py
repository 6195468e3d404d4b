"""What the steps of the Train tab share: how a handler's update reaches the page."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of every event of the tab: no spinner over its outputs, no name in the API."""

Update = dict[str, Any]
"""What a handler changes on the page, by the names of its parts."""


def on_page(components: Mapping[str, Any], update: Mapping[str, Any]) -> Any:
    """Return a handler's update for gradio: its names replaced by components; the parts it does not name stay."""
    return {components[part]: value for part, value in update.items()} or gr.skip()
