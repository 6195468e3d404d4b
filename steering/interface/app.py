"""The page: header and tabs, and the server it runs on."""

import os
from collections.abc import Mapping
from typing import Any

import gradio as gr

from steering import paths
from steering.interface import api
from steering.interface.app_state import AppState
from steering.interface.html_component import page_head
from steering.interface.model_chooser.panel import ModelChooser, allowed
from steering.interface.playground import tab as playground
from steering.interface.theme import theme
from steering.interface.train import tab as train
from steering.interface.vectors import tab as vectors
from steering.models.loading import LanguageModel
from steering.runtime.cpu_environment import configure_cpu
from steering.vectors.library import Library

MAX_UPLOAD = "100mb"  # what `pairs.readers.MAX_BYTES` allows a file of pairs
MAX_WAITING = 32  # visitors who may wait in each queue before the page says it is full

HELP = """
A **steering vector** is one direction added inside a language model while it reads and writes. The **multiplier** on
its slider says how strongly: 0 is the untouched model, +1 the strength it was trained at, negative the opposite.

1. **Playground**: drag a slider, see the first word move with it, and read the same prompt answered without and with
   steering. Then drag again: the last column flips through the whole range.
2. **Train**: bring pairs of answers, one that shows a behavior and one that shows its opposite, and make a vector.
3. **Vectors**: everything on your shelf: what it does, how well, and its file.

Vectors are trained by *BiPO* (Cao et al., NeurIPS 2024). Everything runs on this machine; nothing is sent anywhere.
"""


def build(
    model: LanguageModel,
    library: Library | None = None,
    *,
    source: str | None = None,
    load_options: Mapping[str, Any] | None = None,
    can_choose: bool = False,
) -> gr.Blocks:
    """Build the whole page.

    Args:
        model: the one that it opens with; `source` is what `load_model` was given for it.
        library: the user's shelf unless another one is given.
        load_options: arguments of `load_model` for models chosen on the page.
        can_choose: whether visitors may choose another model, by paths on this machine, too, and have drafts written by
            another server. Not on a public page.
    """
    app = AppState(model, library or Library(), source=source, load_options=load_options)
    app.warm_up()
    with gr.Blocks(title="Steering Playground", fill_width=True, analytics_enabled=False) as page:
        api.document(app)  # first, so that no other event takes the names
        with gr.Row(elem_id="masthead"):
            with gr.Column(min_width=300):
                gr.HTML('<div class="masthead"><h1>Steering Playground</h1></div>', padding=False)
                chooser = ModelChooser(app, can_choose=can_choose)
            with gr.Column(min_width=300), gr.Accordion("What is this?", open=False, elem_id="help"):
                gr.Markdown(HELP)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Playground", id="playground"):
                play = playground.build(app, page)
            with gr.Tab("Train", id="train"):
                train.build(app, page, tabs, play, endpoints=can_choose)
            with gr.Tab("Vectors", id="vectors"):
                vectors.build(app, page, play)
        chooser.wire(page, play)
        page.unload(app.runs.forget)
        page.unload(app.training_runs.forget)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=8)
    return page


def launch(
    model: LanguageModel,
    port: int | None = None,
    share: bool = False,
    *,
    source: str | None = None,
    load_options: Mapping[str, Any] | None = None,
) -> None:
    """Open the page in the browser, and serve until interrupted; `source` and `load_options` as `build` takes them."""
    configure_cpu()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the page calls nobody
    on_space = os.environ.get("SYSTEM") == "spaces"
    page = build(model, source=source, load_options=load_options, can_choose=allowed(share=share))
    page.launch(
        server_port=port,
        share=share,
        inbrowser=not on_space and not os.environ.get("CI"),
        **launch_options(),
    )


def launch_options() -> dict[str, object]:
    """Options that every launch of the page has in common, tests included."""
    return {
        "theme": theme(),
        "css_paths": [paths.shipped("assets") / name for name in ("app.css", "data-step.css", "model.css")],
        "head": page_head(),
        "footer_links": ["api", "settings"],
        "max_file_size": MAX_UPLOAD,
        # Vectors can be downloaded, wherever the program was started.
        "allowed_paths": [str(paths.shipped("vectors")), str(paths.data_dir() / "vectors")],
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": True,
        "show_error": True,
    }
