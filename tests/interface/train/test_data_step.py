"""The components of step 1."""

import gradio as gr

from steering.interface.app_state import AppState
from steering.interface.train.data_step import DataStep
from steering.pairs.readers import SUFFIXES


def test_the_file_picker_offers_what_can_be_read(app: AppState) -> None:
    with gr.Blocks():
        assert DataStep.build(app).file.file_types == list(SUFFIXES)


def test_another_server_is_asked_only_where_the_page_allows_it(app: AppState) -> None:
    with gr.Blocks():
        assert not DataStep.build(app).draft.endpoints
        assert DataStep.build(app, endpoints=True).draft.endpoints
