"""Runs that nobody saved."""

from pathlib import Path

import pytest
import torch

from steering.errors import SteeringError
from steering.vectors.drafts import MOST_DRAFTS, Drafts
from steering.vectors.vector import SteeringVector


def vector(value: float = 1.0) -> SteeringVector:
    return SteeringVector({2: torch.full((4,), float(value))})


def test_a_draft_is_kept_renewed_opened_and_discarded(tmp_path: Path) -> None:
    drafts = Drafts(tmp_path)
    token = drafts.begin("My Pairs")
    assert drafts.labels() == []
    drafts.keep(token, vector(1))
    drafts.keep(token, vector(2))
    [(found, label)] = drafts.labels()
    assert found == token and label.startswith("my pairs, ")
    assert torch.equal(drafts.open(token).directions[2], torch.full((4,), 2.0))
    drafts.discard(token)
    assert drafts.labels() == []
    with pytest.raises(SteeringError, match="no longer there"):
        drafts.open(token)


def test_only_the_newest_drafts_stay(tmp_path: Path) -> None:
    drafts = Drafts(tmp_path)
    tokens = [drafts.begin(f"run {i}") for i in range(MOST_DRAFTS + 3)]
    for token in tokens:
        drafts.keep(token, vector())
    assert [token for token, _ in drafts.labels()] == tokens[:2:-1]


@pytest.mark.parametrize("token", ["", "../secret", "/etc/passwd", "..", "a/b"])
def test_a_token_never_leaves_the_folder(tmp_path: Path, token: str) -> None:
    vector().save(tmp_path / "secret.safetensors")
    with pytest.raises(SteeringError):
        Drafts(tmp_path / "drafts").open(token)
