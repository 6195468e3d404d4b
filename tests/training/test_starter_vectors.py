"""The shipped behaviors for a model that no vector fits: drafts, then trained vectors in their place."""

import threading

import pytest
import torch

from steering.evaluation.preference import evaluate
from steering.pairs.dataset import Pairs, PreferencePair
from steering.training import starter_drafts, starter_vectors
from steering.training.starter_drafts import Starter, draft_vector, starter_of, starters
from steering.training.starter_vectors import make_starters
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector

PAIRS = Pairs.of(
    PreferencePair(f"Question {i}?", f"Yes, gladly, {i} times over", f"No{', no' * (i % 3)}, not {i}")
    for i in range(12)
)


@pytest.fixture
def library(tmp_path):
    return Library(own=tmp_path / "shelf", shipped=tmp_path / "none")


@pytest.fixture(autouse=True)
def two_small_sets(monkeypatch):
    monkeypatch.setattr(starter_vectors, "starters", lambda: [Starter("glad", "says yes"), Starter("calm", "is calm")])
    for module in (starter_drafts, starter_vectors):
        monkeypatch.setattr(module, "read_pairs", lambda path: PAIRS)
    monkeypatch.setattr(starter_vectors, "BETWEEN_SECONDS", 0)


def stages(library):
    return {entry.slug: starter_of(entry.vector) for entry in library.entries()}


def test_every_example_set_is_a_behavior_with_its_words():
    made = {starter.key: starter for starter in starters()}
    assert len(made) >= 5 and all(starter.pairs_file.is_file() and starter.behavior for starter in made.values())


def test_a_draft_has_a_dose_of_its_own_and_says_that_it_is_one(tiny):
    vector = draft_vector(tiny, Starter("glad", "says yes"))
    assert vector.layers == (3,) and vector.model_fingerprint == tiny.fingerprint
    assert vector.norm == pytest.approx(starter_drafts.DRAFT_DOSE * vector.method["pair_norm"], rel=1e-4)
    assert vector.name == "glad (tiny-llama)" and vector.behavior == "draft: says yes"
    assert starter_of(vector) == ("glad", "draft")
    assert starter_of(SteeringVector.from_bytes(vector.to_bytes(), "a file")) == ("glad", "draft")
    assert draft_vector(tiny, Starter("glad", ""), should_stop=lambda: True) is None


def test_drafts_come_first_and_are_replaced_in_place(tiny, library):
    lock = threading.Lock()
    seen = []
    for report in make_starters(tiny, library, lock=lock):
        seen.append((report.stage, report.key))
        assert lock.locked() == (report.stage == "training")
        if report.stage == "training" and report.share == 0 and not report.saved and report.finished == 0:
            assert set(stages(library).values()) == {("glad", "draft"), ("calm", "draft")}
    assert seen[0] == ("drafting", "glad") and seen[-1] == ("done", "")
    assert list(dict.fromkeys(stage for stage, _ in seen)) == ["drafting", "training", "done"]
    slugs = {"calm-tiny-llama", "glad-tiny-llama"}
    assert set(stages(library)) == slugs
    trained = [entry.vector for entry in library.entries() if starter_of(entry.vector)[1] == "trained"]
    assert all(vector.method["name"] == "bipo" and vector.metrics["held_out"] for vector in trained)
    again = [report.stage for report in make_starters(tiny, library)]
    assert "drafting" not in again  # nothing is made twice


def test_a_stop_keeps_the_drafts_and_the_next_run_goes_on(tiny, library):
    stopped = threading.Event()
    for report in make_starters(tiny, library, should_stop=stopped.is_set):
        if report.stage == "training" and report.share:
            stopped.set()
    assert {stage for _, stage in stages(library).values()} == {"draft"}
    assert [r.stage for r in make_starters(tiny, library)][0] == "training"


def test_a_vector_that_does_not_move_the_held_out_pairs_leaves_the_draft(tiny, library, monkeypatch):
    monkeypatch.setattr(starter_vectors, "_moves", lambda vector: False)
    notes = [report.note for report in make_starters(tiny, library) if report.note]
    assert len(notes) == 2 and "draft of glad stays" in notes[0]
    assert {stage for _, stage in stages(library).values()} == {"draft"}


def test_a_draft_that_was_deleted_is_not_brought_back(tiny, library):
    for report in make_starters(tiny, library):
        if report.stage == "training" and report.key == "glad" and "glad-tiny-llama" in stages(library):
            library.delete("glad-tiny-llama")
    assert "glad-tiny-llama" not in stages(library)


@pytest.mark.parametrize("noted", [None, "draft", 3, ["glad"], {"behavior": 3}])
def test_a_strangers_metadata_is_no_starter(noted):
    vector = SteeringVector({0: torch.ones(4)}, extra={"starter": noted})
    assert starter_of(vector)[1] == ""


def test_a_trained_vector_is_no_weaker_than_the_draft_it_replaces(tiny):
    draft = draft_vector(tiny, Starter("glad", "says yes"))
    weak = draft * 0.1
    weak.metrics = {"held_out": [r.as_dict() for r in evaluate(tiny, weak, PAIRS, (-1.0, 1.0))]}
    scaled = starter_vectors._as_strong_as(draft, weak, tiny, PAIRS)  # noqa: SLF001
    assert scaled.method["scale"] == pytest.approx(10, rel=0.2) and scaled.norm <= draft.norm * 1.001
    margin = {r["multiplier"]: r["preference_margin"] for r in scaled.metrics["held_out"]}
    assert margin[1.0] > 5 * weak.metrics["held_out"][1]["preference_margin"]
    strong = draft * 2
    strong.metrics = {"held_out": [r.as_dict() for r in evaluate(tiny, strong, PAIRS, (-1.0, 1.0))]}
    assert starter_vectors._as_strong_as(draft, strong, tiny, PAIRS) is strong  # noqa: SLF001
