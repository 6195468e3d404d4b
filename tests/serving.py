"""The page, served in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from steering.models.loading import LanguageModel
from steering.vectors.library import Library

if TYPE_CHECKING:
    from steering.interface.public_visitors import Visitors


@contextmanager
def served(model: LanguageModel, shelf: "Library | Visitors", **options: Any) -> Iterator[str]:
    """The address of the page, served with the model; `options` are those of `build`."""
    from steering.interface.app import build, launch_options  # gradio takes seconds to import
    from steering.interface.app_state import AppState

    app = AppState(model, shelf)
    page = build(app, **options)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **launch_options(app))
    yield url
    page.close()
