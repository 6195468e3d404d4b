"""The first example's answers, written ahead: shown at once where the page would write the same, and nowhere else."""

from dataclasses import replace

import pytest

from steering.interface.app_state import AppState, Visit
from steering.interface.playground.answers import answer
from steering.interface.playground.controls import Controls
from steering.interface.playground.examples import first_example
from steering.interface.playground.first_answers import NOBODY, first_answers, write
from steering.models.loading import LanguageModel
from steering.vectors.library import Library
from tests.tiny_models import tiny_model


@pytest.fixture
def visit(bundled: LanguageModel, tmp_path) -> Visit:
    return AppState(bundled, Library(own=tmp_path / "own")).visit()


def test_the_page_opens_with_them_and_decodes_nothing(visit: Visit, monkeypatch) -> None:
    example = first_example(visit)
    controls = Controls(example.prompt)
    shown = first_answers(visit, example, controls)
    assert shown is not None, "the vectors or the defaults changed: run `ship`, see first_answers.py"
    assert [card["id"] for card in shown["columns"]] == ["baseline", "setting", "opposite"]
    monkeypatch.setattr(AppState, "decode_server", lambda *_: pytest.fail("something is decoded"))
    *_, last = answer(visit, example.panel, controls, shown, NOBODY, fresh=False)
    assert [card["text"] for card in last["columns"]] == [card["text"] for card in shown["columns"]]
    assert last["strip"]["ended"] and len(last["strip"]["stops"]) == 9


def test_they_are_what_the_page_writes(visit: Visit, tmp_path, monkeypatch) -> None:
    example = first_example(visit)
    shown = first_answers(visit, example, Controls(example.prompt))
    controls = replace(Controls(example.prompt), tokens=16, strip=False)
    *_, fresh = answer(visit, example.panel, controls, None, NOBODY, fresh=True)
    for written, card in zip(fresh["columns"], shown["columns"], strict=True):
        # Another processor may choose otherwise where two tokens are about as likely; hardly among the first words.
        assert card["text"].split()[:3] == written["text"].split()[:3]


def test_another_vector_model_or_setting_shows_none(visit: Visit, tmp_path) -> None:
    example = first_example(visit)
    controls = Controls(example.prompt)
    assert first_answers(visit, example, replace(controls, tokens=40)) is None
    assert first_answers(visit, replace(example, multipliers={"power-seeking": 2.0}), controls) is None
    other = tmp_path / "shipped"
    other.mkdir()
    (visit.library.get("power-seeking") * 1.5).save(other / "power-seeking.safetensors")
    changed = AppState(visit.model, Library(own=tmp_path / "own", shipped=other)).visit()
    assert first_answers(changed, example, controls) is None
    tiny = AppState(tiny_model(), Library(own=tmp_path / "own", shipped=tmp_path / "none")).visit()
    assert first_answers(tiny, first_example(tiny), controls) is None


def test_they_are_written_as_they_are_read(visit: Visit, tmp_path, monkeypatch) -> None:
    tiny = AppState(tiny_model(), Library(own=tmp_path / "own", shipped=tmp_path / "none")).visit()
    write(tiny, tmp_path / "answers.json")
    assert '"columns"' in (tmp_path / "answers.json").read_text(encoding="utf-8")
