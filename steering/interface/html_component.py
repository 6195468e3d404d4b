"""The page's own widgets: a script from `assets/` that draws into an empty element.

Gradio reads a template's `${...}` as code, after the value was put in, so a value never goes through a template here:
the scripts build elements from it, and what a file or a model says stays text.
"""

from typing import Any

import gradio as gr

from steering import paths


def widget(value: Any, script: str, **options: Any) -> gr.HTML:
    """A widget drawn by `assets/<script>.js`, which sees its value as `props.value` and may fire events by name."""
    assets = paths.shipped("assets")
    code = "\n".join((assets / f"{name}.js").read_text(encoding="utf-8") for name in ("dom", script))
    return gr.HTML(value, html_template="", js_on_load=code, **options)
