"""The page, served in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from steering.models.loading import LanguageModel
from steering.vectors.library import Library


@contextmanager
def served(model: LanguageModel, shelf: Library, **options: Any) -> Iterator[str]:
    """The address of the page, served with the model; `options` are those of `build`."""
    from steering.interface.app import build, launch_options  # gradio takes seconds to import

    page = build(model, shelf, **options)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **launch_options())
    yield url
    page.close()
