"""The notebook in docs/ runs from top to bottom, and `play` opens the page on a model that is loaded already."""

import json
import os
from pathlib import Path

import httpx
import nbformat
import pytest
from nbclient import NotebookClient
from transformers import PreTrainedModel

from steering.errors import SteeringError
from steering.interface.notebook import play
from steering.models.loading import LanguageModel
from tests.generation.test_stream import vector

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def test_the_quickstart_runs_from_top_to_bottom(tmp_path, monkeypatch, bundled) -> None:
    monkeypatch.setenv("STEERING_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "the notebook is kept without outputs"
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [json.dumps(cell.get("outputs", [])) for cell in book.cells]
    told = "".join(shown)
    assert "10 pairs kept" in told and "my cheer +1.5: " in told and "files (" in told
    assert any("<iframe" in text and "http://127.0.0.1" in text for text in shown), (
        "the page did not open below the cell"
    )
    assert (tmp_path / "my-cheer.safetensors").stat().st_size > 1_000
    assert (tmp_path / "data" / "vectors" / "my-cheer.safetensors").is_file()


def config_of(page) -> str:
    return httpx.get(f"{page.local_url}config", timeout=30).text


def test_a_transformers_model_that_is_loaded_already_is_played_on(tiny: LanguageModel, monkeypatch) -> None:
    monkeypatch.setenv("CI", "1")
    network = tiny.network
    assert isinstance(network, PreTrainedModel)
    page = play(network, [vector(1, name="From A Cell")], tokenizer=tiny.tokenizer, prevent_thread_lock=True)
    try:
        config = config_of(page)
        assert "From A Cell" in config and "Shared page" not in config
    finally:
        page.close()
    with pytest.raises(SteeringError, match="needs its tokenizer"):
        play(network)
    with pytest.raises(SteeringError, match="There is no vector 'nobody'"):
        play(tiny, ["nobody"])
