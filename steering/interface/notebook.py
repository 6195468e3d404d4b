"""The playground from Python: below a notebook's cell (Jupyter, Colab), or in the browser."""

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import colab_check
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steering.errors import SteeringError
from steering.interface.app import launch
from steering.models.loading import LanguageModel, load_model, wrap_model
from steering.vectors.library import Library
from steering.vectors.text import slug_of
from steering.vectors.vector import SUFFIX, SteeringVector

HEIGHT = 900
"""Pixels of the page below a cell."""


def play(
    model: LanguageModel | PreTrainedModel | str | Path | None = None,
    vectors: Sequence[SteeringVector | str | Path] = (),
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    share: bool = False,
    port: int | None = None,
    **gradio_options: Any,
) -> gr.Blocks:
    """Open the playground on a model, with vectors of your own on its shelf.

    In a notebook it opens below the cell, and the cell ends; `play(...).close()` closes it. In a program it opens in
    the browser and returns when it is interrupted.

    Args:
        model: one that is loaded already, by `steering.load_model` or by transformers; else what `load_model` takes, by
            default the bundled model.
        vectors: put on the shelf for as long as the page is open, by themselves, by name on the shelf, or by file.
        tokenizer: of a transformers model.
        share: also make a public link; each visitor then has a shelf and limits of their own. Colab needs one.
        port: the first free one from 7860 where none is given.
        gradio_options: of `gr.Blocks.launch`, such as `height=600`.

    Raises SteeringError for a model that cannot be steered, or a vector that is not there.

    Example:
        page = steering.play(model, vectors=[vector])
    """
    wrapped = _wrapped(model, tokenizer)
    library = Library()
    folder = Path(tempfile.mkdtemp(prefix="steering-play-"))
    for each in vectors:
        vector = each if isinstance(each, SteeringVector) else library.get(str(each))
        vector.save(folder / f"{slug_of(vector.name or 'vector')}{SUFFIX}")
    options = {"height": HEIGHT, "quiet": True} | gradio_options
    page = launch(wrapped, port, share or colab_check(), source=wrapped.source, published=folder, **options)
    weakref.finalize(page, shutil.rmtree, folder, ignore_errors=True)
    return page


def _wrapped(
    model: LanguageModel | PreTrainedModel | str | Path | None, tokenizer: PreTrainedTokenizerBase | None
) -> LanguageModel:
    if isinstance(model, LanguageModel):
        return model
    if not isinstance(model, PreTrainedModel):
        return load_model(model)
    if tokenizer is None:
        raise SteeringError("A transformers model needs its tokenizer: play(model, tokenizer=tokenizer).")
    source = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    return wrap_model(model, tokenizer, name=Path(source).name, source=Path(source).name)
