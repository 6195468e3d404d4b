"""The page's own widgets and scripts: JavaScript lives in `assets/`, Python only names it.

Gradio reads a template's `${...}` as code, after the value was put in, so a value never goes through a template here:
the scripts build elements from it, and what a file or a model says stays text.
"""

import json
import os
from typing import Any

import gradio as gr

from steering import paths
from steering.limits import is_space

WIDGET_SCRIPTS = ("dom", "events")
"""Before every widget's own script, which runs in a function of its own."""
HEAD_SCRIPTS = ("events", "url-state", "page")
"""In the page's head: they define `steeringPage`, whose functions gradio's events run by name."""


def widget(value: Any, script: str, **options: Any) -> gr.HTML:
    """Make a widget drawn by `assets/<script>.js`, which sees its value as `props.value` and may `trigger` events."""
    return gr.HTML(value, html_template="", js_on_load=_source(*WIDGET_SCRIPTS, script), **options)


def page_function(name: str) -> str:
    """Name a function of `steeringPage` as the `js` of a gradio event; it takes the event's inputs."""
    return f"(...inputs) => steeringPage.{name}(...inputs)"


def page_head() -> str:
    """Return the scripts of the page's head, as HTML; on a Space they know its address, which links name."""
    space = json.dumps(os.environ.get("SPACE_ID", "") if is_space() else "").replace("<", "\\u003c")
    return f"<script>\nconst STEERING_SPACE = {space};\n{_source(*HEAD_SCRIPTS)}</script>"


def _source(*names: str) -> str:
    assets = paths.shipped("assets")
    return "\n".join((assets / f"{name}.js").read_text(encoding="utf-8") for name in names)
