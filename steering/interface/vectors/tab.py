"""The Vectors tab: what is on the shelf; download, bring, delete."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.html_component import widget
from steering.interface.playground.sliders import fitting, mixer_value, read_mixer
from steering.interface.playground.tab import Playground
from steering.vectors.formats import read_any
from steering.vectors.library import Entry

SKIP = gr.skip()


def shelf_panel(value: dict[str, Any], **options: Any) -> gr.HTML:
    """Value: {"items": [{slug, name, behavior, tag, misfit}], "selected": slug}. Fires `select` when one is chosen."""
    return widget(value, "shelf", **options)


def build(app: AppState, page: gr.Blocks, play: Playground) -> None:
    """Lay the tab out and wire it."""
    hidden = {"show_progress": "hidden", "api_visibility": "private"}
    deleted = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            shelf = shelf_panel(_shelf(app), elem_id="shelf")
            with gr.Accordion("Bring a vector file", open=False, elem_id="bring"):
                file = gr.File(
                    label="A .safetensors of ours, or BiPO's .pt",
                    file_types=[".safetensors", ".pt", ".pth"],
                    height=140,
                    elem_id="vector-file",
                )
                with gr.Row():
                    # A text box: gradio's empty number box sends 0, which is a layer.
                    layer = gr.Textbox(label="Layer", info="for .pt files only", max_length=5, elem_id="import-layer")
                    name = gr.Textbox(label="Name", info="empty: the file's own", max_length=80, elem_id="import-name")
                bring = gr.Button("Put it on the shelf", elem_id="import-vector")
        with gr.Column(scale=2, min_width=320):
            news = gr.HTML(elem_id="shelf-news")
            undo = gr.Button("Undo the deletion", visible=False, size="sm", elem_id="undo-delete")
            details = gr.HTML(_details(app, _first(app)), elem_id="vector-details")
            with gr.Row():
                download = gr.DownloadButton("Download", elem_id="download-vector", value=_file(app, _first(app)))
                remove = gr.Button("Delete", variant="stop", elem_id="delete-vector")

    def show(shelf_now: Any) -> tuple[Any, ...]:
        slug = _selected(shelf_now)
        return _shelf(app, slug), _details(app, slug), _file(app, slug)

    def bring_file(path: str | None, layer_now: str, name_now: str, mixer_now: Any) -> tuple[Any, ...]:
        if not path:
            return html.problem("Drop a vector file first."), *[SKIP] * 4
        try:
            vector = read_any(path, layer=_layer(layer_now), name=(name_now or "").strip() or None)
            entry = app.library.add(vector)
        except SteeringError as error:
            return html.problem(str(error)), *[SKIP] * 4
        text = html.note(f"{entry.vector.name} is on the shelf.")
        if entry.slug not in {e.slug for e in fitting(app)}:
            text += html.note(_misfit(app, entry))
        return (
            text,
            _shelf(app, entry.slug),
            _details(app, entry.slug),
            _file(app, entry.slug),
            _panel(app, mixer_now),
        )

    def delete(shelf_now: Any, mixer_now: Any) -> tuple[Any, ...]:
        slug = _selected(shelf_now)
        try:
            name_of = next((e.vector.name for e in app.library.entries() if e.slug == slug), slug)
            token = app.library.delete(slug)
        except SteeringError as error:
            return html.problem(str(error)), SKIP, SKIP, SKIP, SKIP, SKIP, SKIP
        slug = _first(app)
        return (
            html.note(f"{name_of} was taken off the shelf."),
            _shelf(app, slug),
            _details(app, slug),
            _file(app, slug),
            _panel(app, mixer_now),
            token,
            gr.update(visible=True),
        )

    def restore(token: str | None, mixer_now: Any) -> tuple[Any, ...]:
        try:
            entry = app.library.restore(token or "")
        except SteeringError as error:
            return html.problem(str(error)), SKIP, SKIP, SKIP, SKIP, SKIP, SKIP
        return (
            html.note(f"{entry.vector.name} is back."),
            _shelf(app, entry.slug),
            _details(app, entry.slug),
            _file(app, entry.slug),
            _panel(app, mixer_now),
            None,
            gr.update(visible=False),
        )

    changed = [news, shelf, details, download, play.mixer]
    shelf.select(show, shelf, [shelf, details, download], **hidden)
    bring.click(bring_file, [file, layer, name, play.mixer], changed, **hidden)
    remove.click(delete, [shelf, play.mixer], [*changed, deleted, undo], **hidden)
    undo.click(restore, [deleted, play.mixer], [*changed, deleted, undo], **hidden)
    # Whatever other tabs saved meanwhile is on the shelf when it is looked at.
    gr.on([page.load, play.mixer.change], show, shelf, [shelf, details, download], **hidden)


def _layer(text: str) -> int | None:
    text = (text or "").strip()
    if text and not text.isdecimal():
        raise SteeringError(f"Layer {text!r} is not a number; count the decoder blocks from 0.")
    return int(text) if text else None


def _first(app: AppState) -> str:
    return next((entry.slug for entry in app.library.entries()), "")


def _selected(value: Any) -> str:
    return str(value.get("selected", "")) if isinstance(value, dict) else ""


def _panel(app: AppState, mixer_now: Any) -> dict[str, Any]:
    return mixer_value(app, read_mixer(mixer_now))


def _shelf(app: AppState, selected: str = "") -> dict[str, Any]:
    fits = {entry.slug for entry in fitting(app)}
    items = [
        {
            "slug": entry.slug,
            "name": entry.vector.name,
            "behavior": entry.vector.behavior,
            "tag": "shipped" if entry.shipped else "yours",
            "misfit": "" if entry.slug in fits else "does not fit this model",
        }
        for entry in app.library.entries()
    ]
    known = {item["slug"] for item in items}
    return {"items": items, "selected": selected if selected in known else next(iter(known), "") and items[0]["slug"]}


def _entry(app: AppState, slug: str) -> Entry | None:
    entries = app.library.entries()
    return next((entry for entry in entries if entry.slug == slug), entries[0] if entries else None)


def _file(app: AppState, slug: str) -> str | None:
    entry = _entry(app, slug)
    return str(entry.path) if entry else None


def _misfit(app: AppState, entry: Entry) -> str:
    try:
        entry.vector.check_fits(app.model.hidden_size, app.model.num_layers, app.model.name)
    except SteeringError as error:
        return str(error)
    return ""


def _details(app: AppState, slug: str) -> str:
    """Everything about one vector, for people."""
    entry = _entry(app, slug)
    problems = "".join(html.problem(text) for text in app.library.problems)
    if entry is None:
        return problems + html.note("The shelf is empty: train a vector or bring a file.")
    v = entry.vector
    method, pairs = v.method, v.pairs
    facts = {
        "Behavior": v.behavior,
        "Made for": v.model_id,
        "Added at": f"layer {', '.join(map(str, v.layers))}, every position",
        "Strength": f"norm {v.norm:.1f}" + _share(v.norm, method.get("residual_norm")),
        "Method": f"{method.get('name', 'unknown')}" + (f", {method['steps']} steps" if "steps" in method else ""),
        "Trained on": f"{pairs.get('train', '?')} pairs of {pairs.get('source', '?')}" if pairs else "",
        "Made": v.created[:10],
        "Licence": v.licence,
        "File": Path(entry.path).name,
    }
    rows = "".join(f"<dt>{key}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items() if value)
    held_out = v.metrics.get("held_out") if isinstance(v.metrics.get("held_out"), list) else []
    other = v.model_fingerprint and v.model_fingerprint != app.model.fingerprint
    caution = _misfit(app, entry) or (
        f"It was made for another model ({v.model_id}); it can be added to this one, with effects unknown."
        if other
        else ""
    )
    return (
        f"{problems}<article class='vector'><h2>{escape(v.name)}</h2>"
        + (f"<p>{escape(v.description)}</p>" if v.description else "")
        + (html.problem(caution) if caution else "")
        + f"<dl>{rows}</dl>{html.results_table(held_out, pairs.get('held_out'))}</article>"
    )


def _share(norm: float, residual: Any) -> str:
    if not isinstance(residual, int | float) or residual <= 0:
        return ""
    return f", {100 * norm / residual:.0f} % of the model's own signal there"
