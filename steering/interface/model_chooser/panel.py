"""The masthead's model line: which model the page runs, and, where that is allowed, the chooser that it opens."""

import os
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.model_chooser.loader import ModelLoader, cleaned, size
from steering.interface.playground.tab import Playground
from steering.limits import LOCAL_ADDRESSES, is_public
from steering.models import bundled
from steering.models.catalog import ModelInfo, describe_model, recent_models

SWITCH = "STEERING_MODEL_CHOOSER"
"""Environment variable: `on` or `off` say whether the page has the chooser, whatever `allowed` would say."""
LONGEST_SOURCE = 500
"""Characters of a path or Hub id; longer paths exist nowhere in practice, and a browser may send anything."""
KINDS = {
    "bundled": "the bundled model",
    "hub": "a model of the Hugging Face Hub",
    "folder": "a local folder",
    "gguf": "a GGUF file",
    "adapter": "a LoRA adapter with its base model",
}
Updates = dict[Any, Any]


def allowed(*, share: bool) -> bool:
    """Tell whether visitors may choose the model: by default only on a page that nobody else can reach.

    A path names a file of the server, and whoever may try paths learns which there are; so not on a public page, not on
    a network address. `STEERING_MODEL_CHOOSER` overrules that either way.
    """
    switch = os.environ.get(SWITCH, "").strip().lower()
    if switch in ("on", "off"):
        return switch == "on"
    local = os.environ.get("GRADIO_SERVER_NAME", "") in LOCAL_ADDRESSES
    return local and not is_public(share=share)


def model_line(app: AppState, decoding: str = "") -> str:
    """Name the model, whether it chats, the device and, once it is known, which weights decode."""
    model, threads = app.model, app.cpu_threads
    device = f"CPU, {threads} thread{'s' * (threads > 1)}" if model.device.type == "cpu" else str(model.device).upper()
    kind = "" if model.prompts.chat else "base model"
    return " · ".join(filter(None, [model.name, kind, device, decoding]))


class ModelChooser:
    """The model line, laid out in the container that is open when it is made; `wire` connects it.

    Args:
        can_choose: whether the line opens the chooser; if not, there is no event that takes a path, either.
    """

    def __init__(self, app: AppState, *, can_choose: bool) -> None:
        self.app, self.can_choose = app, can_choose
        self.generation: gr.State | None = None
        if not can_choose:
            self.line = gr.HTML(
                f'<p class="model-line">{escape(model_line(app))}</p>', elem_id="model-line", padding=False
            )
            return
        self.loader = ModelLoader(app)
        with gr.Accordion(model_line(app), open=False, elem_id="model-chooser") as self.line:
            with gr.Row(equal_height=True):
                self.source = gr.Textbox(
                    label="Another model",
                    info="a Hugging Face id, or the path of a folder, a GGUF file or a LoRA adapter on this machine",
                    placeholder="Qwen/Qwen2.5-0.5B-Instruct, or /path/to/model.gguf",
                    max_lines=1,
                    max_length=LONGEST_SOURCE,
                    min_width=240,
                    scale=3,
                    elem_id="model-source",
                )
                self.recent = gr.Dropdown(
                    [],
                    value=None,
                    label="Bundled and recent",
                    info="fills in the box",
                    min_width=160,
                    scale=2,
                    elem_id="model-recent",
                )
            with gr.Row():
                self.check = gr.Button("Check", size="sm", elem_id="check-model", min_width=80)
                self.load = gr.Button("Load", variant="primary", size="sm", elem_id="load-model", min_width=80)
                self.cancel = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel-model", min_width=80)
            self.status = gr.HTML(elem_id="model-status", padding=False)

    def wire(self, page: gr.Blocks, play: Playground) -> None:
        """Connect the events; `play.generation` tells the page's other parts that the model was changed."""
        self.generation = play.generation
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on(
            [page.load, play.generation.change],
            self.show_line,
            None,
            self.line,
            concurrency_limit=None,
            **hidden,
        )
        if not self.can_choose:
            return
        checked = [self.status]
        gr.on([self.check.click, self.source.submit], self.describe, self.source, checked, **hidden)
        self.recent.input(lambda chosen: chosen, self.recent, self.source, queue=False, **hidden).then(
            self.describe, self.source, checked, **hidden
        )
        self.load.click(
            self.change_model,
            self.source,
            [self.status, self.load, self.check, self.cancel, self.recent, play.generation],
            concurrency_id="load-model",
            concurrency_limit=4,  # the loader refuses a second one in a sentence
            **hidden,
        )
        self.cancel.click(self.loader.cancel, queue=False, **hidden)
        page.load(lambda: gr.update(choices=recent_choices()), None, self.recent, queue=False, **hidden)

    def show_line(self) -> Iterator[Any]:
        """Write the model line at once, and again with the way of decoding once the decoder is made."""
        yield self._line(model_line(self.app))
        yield self._line(model_line(self.app, self.app.decoding_summary()))

    def _line(self, text: str) -> Any:
        return gr.update(label=text) if self.can_choose else f'<p class="model-line">{escape(text)}</p>'

    def describe(self, source: str) -> str:
        """Say in HTML what the source is, how large, and whether it fits into memory; nothing is loaded."""
        try:
            return described(describe_model(cleaned(source)))
        except SteeringError as error:
            return html.problem(str(error))

    def change_model(self, source: str) -> Iterator[Updates]:
        """Load the model and put it in use; whatever goes wrong is said, and the old one stays."""
        controls = {self.load: True, self.check: True, self.cancel: False}
        yield {control: gr.update(visible=not free) for control, free in controls.items()}
        words = ""
        updates: Updates = {}
        try:
            for text in self.loader.load(source):
                if text != words:
                    words = text
                    yield {self.status: html.note(text)}
            updates = {self.recent: gr.update(choices=recent_choices(), value=None)}
            updates[self.status] = html.note(words)
        except SteeringError as error:
            updates = {self.status: html.problem(str(error))}
        updates |= {control: gr.update(visible=free) for control, free in controls.items()}
        yield {**updates, **({self.generation: self.app.generation} if self.generation else {})}


def recent_choices() -> list[tuple[str, str]]:
    """Return (label, source) of the bundled model and those loaded of late; a path is labelled with its last part."""
    others = [source for source in recent_models() if source != bundled.NAME]
    return [(f"{bundled.NAME} (bundled)", bundled.NAME), *((_short(source), source) for source in others)]


def described(info: ModelInfo) -> str:
    """Render what is known of a model before it is loaded."""
    facts = {
        "What": KINDS.get(info.kind, info.kind),
        "Size": size(info.file_bytes) if info.file_bytes else "",
        "Memory needed": size(info.memory_bytes) if info.memory_bytes else "",
        "Memory free": size(info.free_bytes),
    }
    rows = "".join(f"<dt>{label}</dt><dd>{escape(words)}</dd>" for label, words in facts.items() if words)
    notes = [html.problem(info.problem)] if info.problem else []
    if not info.problem and not info.fits:
        notes.append(html.note("It does not fit beside the present model, which is unloaded first."))
    if info.note:
        notes.append(html.note(info.note))
    return f"<div class='model-facts'><b>{escape(info.name)}</b><dl>{rows}</dl>{''.join(notes)}</div>"


def _short(source: str) -> str:
    """Name a path by its last two parts, so that it fits into a narrow list."""
    parts = source.replace("\\\\", "/").rstrip("/").split("/")
    return source if len(source) <= 40 else f".../{'/'.join(parts[-2:])}"
