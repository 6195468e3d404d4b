"""What the Playground shows of its model: examples that suit it, whether it chats, the making of vectors for it.

`show_model` returns all that depends on the model, for a page that opens and for one whose model was changed.
"""

from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import Visit
from steering.interface.playground.controls import SPECS
from steering.interface.playground.examples import resolved
from steering.interface.playground.layout import Layout, Updates
from steering.interface.playground.sliders import own_entries, panel_value, read_panel
from steering.training.starter_drafts import starter_of
from steering.training.starter_vectors import StarterProgress

SYSTEM_NOT_USED = "Not used: this model has no chat template, it continues plain text."
CONTINUES = "{} is a base model: it continues your text instead of answering it."
PROMPT_LABELS = {True: SPECS["prompt"].label, False: "Text to continue"}
PLACEHOLDERS = {
    True: "What the model is asked. Enter sends it, Shift+Enter starts a new line.",
    False: "The beginning of a text. Enter sends it, Shift+Enter starts a new line.",
}
"""By whether the model chats."""


def show_model(visit: Visit, layout: Layout) -> Updates:
    """Return what depends on the model but for the sliders and the controls' values."""
    chat = visit.model.prompts.chat
    shown = resolved(visit)
    return {
        layout.model_note: "" if chat else html.note(CONTINUES.format(visit.model.name)),
        layout.controls["prompt"]: gr.update(label=PROMPT_LABELS[chat], placeholder=PLACEHOLDERS[chat]),
        layout.controls["system"]: gr.update(info=SPECS["system"].hint if chat else SYSTEM_NOT_USED),
        **{chip: gr.update(visible=place in shown) for place, chip in enumerate(layout.chips)},
        **show_starters(visit, layout),
    }


def show_starters(visit: Visit, layout: Layout) -> Updates:
    """Return the panel that makes vectors for the model: what there is to make, or how far that is."""
    job, text = visit.app.starters, starters_text(visit)
    offer = _offer(visit)
    return {
        layout.starters: gr.update(visible=bool(text)),
        layout.starters_text: text,
        layout.make_starters: gr.update(value=offer or "Make them", visible=bool(offer) and not job.is_running),
        layout.stop_starters: gr.update(visible=job.is_running and not job.is_stopping and not visit.app.is_public),
        layout.starters_timer: gr.Timer(active=job.is_running),
    }


def starters_text(visit: Visit) -> str:
    """Say in HTML that no vector fits, that some are drafts, or how far making them is; empty where all is well."""
    job, name = visit.app.starters, visit.model.name
    trouble = html.problem(job.problem) if job.problem else ""
    if job.is_running:
        note = html.note("Stopping after this step ...") if job.is_stopping else ""
        return _progress(job.progress or StarterProgress("drafting")) + note
    if not own_entries(visit):
        if visit.app.is_public:
            return trouble + html.note(f"There is no vector for {name} here yet; train one on the Train tab.")
        return trouble + html.note(
            f"No vector on the shelf was made for {name} yet. The behaviors that come with the playground can be made "
            "for it: drafts within seconds, so that there are sliders to drag, then trained ones in the background."
        )
    if _drafts(visit) and not visit.app.is_public:
        return trouble + html.note(
            job.note
            or "Sliders marked as drafts come from the mean difference of a few answers; training makes them "
            "stronger, in the background."
        )
    return trouble


def start_starters(visit: Visit, layout: Layout) -> Updates:
    """Begin to make the shipped behaviors for the model; on a public page its owner does, see `launch`."""
    if not visit.app.is_public:
        visit.app.starters.start(visit.model)
    return show_starters(visit, layout)


def stop_starters(visit: Visit, layout: Layout) -> Updates:
    """End it within a training step, which the timer will notice; what was made stays."""
    if not visit.app.is_public:
        visit.app.starters.stop()
    return show_starters(visit, layout)


def tick(visit: Visit, layout: Layout, sliders: Any, saved: int) -> Updates:
    """Show how far the job is; new sliders and examples when a vector was put on the shelf since the last tick.

    Args:
        sliders: the sliders' value.
        saved: `StarterJob.saved` as this page saw it last.
    """
    job = visit.app.starters
    updates = show_starters(visit, layout)
    if job.is_running:  # nothing else of the panel changes meanwhile; less to send
        updates = {layout.starters_text: updates[layout.starters_text]}
    if saved == job.saved:
        return updates
    try:
        panel = panel_value(visit, read_panel(sliders))
    except SteeringError:  # the page will say so when its sliders are used
        return updates
    examples = {chip: gr.update(visible=place in resolved(visit)) for place, chip in enumerate(layout.chips)}
    return {**updates, **examples, layout.sliders: panel, layout.starters_seen: job.saved}


def _progress(progress: StarterProgress) -> str:
    """Render a bar over all behaviors of the stage, and below it which one is at work."""
    share = (progress.finished + progress.share) / progress.total if progress.total else 0.0
    place = f"{min(progress.finished + 1, progress.total)} of {progress.total}"
    left = f", about {html.roughly(progress.seconds_left)} left" if progress.seconds_left else ""
    words = {
        "drafting": f"Drafting {progress.key} ({place}) ..." if progress.key else "Drafting ...",
        "waiting": f"Waiting for another training; then {progress.key} is trained ({place}).",
        "training": f"Training {progress.key} ({place}){left}. Drag the sliders meanwhile; a trained one replaces its "
        "draft.",
        "done": "Done.",
    }
    return html.progress_bar(share, words[progress.stage])


def _drafts(visit: Visit) -> list[str]:
    """List the slugs of drafts made for the model."""
    return [entry.slug for entry in own_entries(visit) if starter_of(entry.vector)[1] == "draft"]


def _offer(visit: Visit) -> str:
    """Return the words on the button that makes vectors; empty where there is nothing to make."""
    if visit.app.is_public:
        return ""
    if not own_entries(visit):
        return "Make the shipped behaviors for this model"
    drafts = len(_drafts(visit))
    return f"Train the {drafts} drafts" if drafts > 1 else "Train the draft" if drafts else ""
