"""The page: header and tabs, and the server it runs on."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from steering import paths
from steering.interface import api
from steering.interface.app_state import AppState
from steering.interface.evaluate import tab as evaluate
from steering.interface.html_component import page_head
from steering.interface.listeners import ListenersMiddleware
from steering.interface.model_chooser.panel import ModelChooser, allowed
from steering.interface.playground import tab as playground
from steering.interface.playground.sliders import own_entries
from steering.interface.public_visitors import Visitors
from steering.interface.request_size import RequestSizeMiddleware
from steering.interface.runs import session_of
from steering.interface.shared_page import masthead_note, where_it_runs
from steering.interface.theme import theme
from steering.interface.train import tab as train
from steering.interface.vectors import tab as vectors
from steering.interface.visitors import OneVisitor
from steering.interface.zero_gpu.page import ZeroGpu
from steering.interface.zero_gpu.workers import is_zero_gpu
from steering.limits import Limits, is_public, is_space
from steering.models.loading import LanguageModel
from steering.vectors.library import Library

MAX_WAITING = 32  # visitors who may wait in each queue before the page says it is full
UPLOADS_LAST, UPLOADS_LOOK = 7200, 1800
"""Seconds after which gradio deletes what was uploaded or handed out, and between two looks for it. A page that is open
longer than that has its pairs in memory."""
PUBLIC_SESSIONS = 400
"""Tabs whose state is kept on a public page, an hour after they were closed, too: half a MB each, and their pairs."""
PRIVATE = ("visitors", "vectors", "checkpoints", "published", "evaluations")
"""Folders of the user's data that the server hands nothing out of."""
REMEMBERS_VISITOR = "steering-visitor"
"""Name of the secret in the browser's storage that opens a visitor's shelf again."""
SCRAMBLED_WITH = "steering-playground"
"""gradio scrambles the storage with it. It must outlast the server, and protects nothing: a browser keeps its storage
from other sites by itself."""

HELP = """
A **steering vector** is one direction added inside a language model while it reads and writes. The **multiplier** on
its slider says how strongly: 0 is the untouched model, +1 the strength it was trained at, negative the opposite.

1. **Playground**: drag a slider, see the first word move with it, and read the same prompt answered without and with
   steering. Then drag again: the last column flips through the whole range.
2. **Train**: bring pairs of answers, one that shows a behavior and one that shows its opposite, and make a vector.
3. **Vectors**: everything on your shelf: what it does, how well, and its file.
4. **Evaluate**: what a vector does to what the model writes, where the text breaks, and whether asking would do as
well.

Vectors are trained by *BiPO* (Cao et al., NeurIPS 2024). {where}
"""


def build(app: AppState, *, can_choose: bool = False) -> gr.Blocks:
    """Build the whole page.

    Args:
        can_choose: whether visitors may choose another model, by paths on this machine, too, and have drafts written by
            another server. Not on a public page.
    """
    app.warm_up()
    with gr.Blocks(
        title="Steering Playground",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(UPLOADS_LOOK, UPLOADS_LAST),
    ) as page:
        api.document(app)  # first, so that no other event takes the names
        arrival = _arrival(app, page)
        with gr.Row(elem_id="masthead"):
            with gr.Column(min_width=300):
                gr.HTML('<div class="masthead"><h1>Steering Playground</h1></div>', padding=False)
                chooser = ModelChooser(app, can_choose=can_choose)
                if words := masthead_note(app):
                    gr.HTML(words, elem_id="shared-note", padding=False)
            with gr.Column(min_width=300):
                if is_space() and os.environ.get("OAUTH_CLIENT_ID"):  # the Space's front matter asks for it
                    gr.LoginButton("Sign in to find your vectors in any browser", size="sm", elem_id="login")
                with gr.Accordion("What is this?", open=False, elem_id="help"):
                    gr.Markdown(HELP.format(where=where_it_runs(app)))
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Playground", id="playground"):
                play = playground.build(app, arrival)
            with gr.Tab("Train", id="train"):
                pairs = train.build(app, page, arrival, tabs, play, endpoints=can_choose)
            with gr.Tab("Vectors", id="vectors"):
                vectors.build(app, arrival, play)
            with gr.Tab("Evaluate", id="evaluate"):
                evaluate.build(app, arrival, play, pairs, endpoints=can_choose)
        chooser.wire(page, play)
        page.unload(app.runs.forget)
        page.unload(app.training_runs.forget)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=8, api_open=False)
    return page


def launch(
    model: LanguageModel,
    port: int | None = None,
    share: bool = False,
    *,
    source: str | None = None,
    load_options: Mapping[str, Any] | None = None,
    auth: tuple[str, str] | None = None,
    writes_on_gpu: bool = False,
    published: Path | None = None,
    **gradio_options: Any,
) -> gr.Blocks:
    """Open the page in the browser, and serve until interrupted; in a notebook, below the cell, and return at once.

    Args:
        model: what it opens with; `source` is what `load_model` was given for it.
        port: the first free one from 7860 where none is given.
        share: also make a public link through gradio's relay.
        load_options: arguments of `load_model` for models chosen on the page.
        auth: name and password that visitors have to give.
        published: folder of vectors that are on every shelf, besides those that ship; by default, on a public page, the
            one in the user's data folder.
        gradio_options: of `gr.Blocks.launch`.
        writes_on_gpu: on a ZeroGPU Space: whether answers are written on the GPU, and not only trainings run there.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # the page calls nobody
    if is_space() and os.environ.get("CPU_CORES", "").isdecimal():  # torch sees those of the whole machine
        torch.set_num_threads(max(1, int(os.environ["CPU_CORES"])))
    gpu = ZeroGpu(model, writes=writes_on_gpu) if is_zero_gpu() else None
    app = AppState(
        gpu.model if gpu else model,
        visitors(public=is_public(share=share), published=published),
        source=source,
        load_options=load_options,
        gpu=gpu,
    )
    if isinstance(app.visitors, Visitors):
        app.visitors.keep_sweeping()
        if not own_entries(app.visit()) and not writes_on_gpu:  # visitors cannot ask for it
            app.starters.start(app.model)
    page = build(app, can_choose=allowed(share=share))
    inbrowser = not is_space() and not os.environ.get("CI")
    options = {"server_port": port, "share": share, "auth": auth, "inbrowser": inbrowser}
    page.launch(**options | launch_options(app) | gradio_options)
    return page


def visitors(*, public: bool, published: Path | None = None) -> OneVisitor | Visitors:
    """Return the visitors of a page on this machine, with the limits that the environment sets."""
    if not public:
        return OneVisitor(Library(published=published), Limits.local().from_environment())
    limits, uploads = Limits.public().from_environment(), Path(get_upload_folder())
    return Visitors(paths.data_dir() / "visitors", limits, published=published, uploads=uploads)


def launch_options(app: AppState) -> dict[str, Any]:
    """Options that every launch of the page has in common, tests included."""
    own = paths.data_dir()
    middleware = [Middleware(ListenersMiddleware, listeners=app.listeners)]
    middleware.append(Middleware(RequestSizeMiddleware, limits=app.limits, check_room=app.visitors.check_room))
    return {
        "theme": theme(),
        "css_paths": [paths.shipped("assets") / name for name in ("app.css", "data-step.css", "model.css")],
        "head": page_head(),
        "footer_links": ["api", "settings"],
        "max_file_size": app.limits.upload_bytes,
        # What visitors own is handed out as copies, see `files.downloadable`.
        "allowed_paths": [str(paths.shipped("vectors"))],
        "blocked_paths": [str(own / name) for name in PRIVATE],
        "app_kwargs": {"middleware": middleware},
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": True,
        "show_error": not app.is_public,
        **({"state_session_capacity": PUBLIC_SESSIONS} if app.is_public else {}),
    }


def _arrival(app: AppState, page: gr.Blocks) -> Callable[..., Any]:
    """Return what subscribes to the opening of the page; on a public one, once it is known whose browser it is."""
    if not app.is_public:
        return page.load
    secret = gr.BrowserState("", storage_key=REMEMBERS_VISITOR, secret=SCRAMBLED_WITH)

    def enter(request: gr.Request, known: Any, profile: gr.OAuthProfile | None) -> str:
        account = str(profile.get("sub") or profile.username) if profile else ""
        return app.visitors.enter(known, session_of(request), account)

    entered = page.load(enter, secret, secret, queue=False, show_progress="hidden", api_visibility="private")
    return entered.then
