"""Whose folder is whose on a public page, and how long it is kept."""

import pytest

from steering.errors import SteeringError
from steering.interface.public_visitors import Visitors
from steering.limits import LimitExceeded, Limits
from tests.generation.test_stream import vector


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def visitors(tmp_path, clock) -> Visitors:
    return Visitors(
        tmp_path / "visitors",
        Limits(visitor_hours=24, visitors=2, disk_bytes=100_000),
        published=tmp_path / "published",
        shipped=tmp_path / "none",
        uploads=tmp_path / "uploads",
        clock=clock,
    )


def test_a_secret_opens_the_same_shelf_again_and_after_a_restart(visitors, tmp_path) -> None:
    secret = visitors.enter("", "tab 1")
    visitors.of_session("tab 1").library.add(vector(1, name="mine"))
    assert visitors.enter(secret, "tab 2") == secret
    assert visitors.of_session("tab 2") is visitors.of_session("tab 1")
    again = Visitors(tmp_path / "visitors", Limits(), published=tmp_path / "published", shipped=tmp_path / "none")
    with pytest.raises(SteeringError, match="reload it"):
        again.of_session("tab 1")
    again.enter(secret, "tab 1")
    assert [entry.slug for entry in again.of_session("tab 1").library.entries()] == ["mine"]
    assert secret not in str(list((tmp_path / "visitors").rglob("*")))


def test_every_browser_without_a_secret_is_another_visitor(visitors) -> None:
    secrets = {visitors.enter(sent, f"tab {place}") for place, sent in enumerate(["", None, "short", 3, ["x"]])}
    assert len(secrets) == 5 and len({visitors.of_session(f"tab {place}").id for place in range(5)}) == 5


def test_an_account_has_one_shelf_in_every_browser_and_takes_along_what_was_made_before(visitors) -> None:
    secret = visitors.enter("", "tab 1")
    before = visitors.of_session("tab 1")
    before.library.add(vector(1, name="made before"))
    visitors.enter(secret, "tab 2", account="12345")
    account = visitors.of_session("tab 2")
    assert account is not before and [entry.slug for entry in account.library.entries()] == ["made-before"]
    assert before.library.entries() == []
    visitors.enter("", "another browser", account="12345")
    assert visitors.of_session("another browser") is account
    visitors.enter(secret, "tab 3")  # logged out again
    assert visitors.of_session("tab 3") is before


def test_what_a_visitor_left_is_deleted_after_the_hours_and_not_before(visitors, clock) -> None:
    kept, left = visitors.enter("", "kept"), visitors.enter("", "left")
    for session in ("kept", "left"):
        visitor = visitors.of_session(session)
        visitor.library.add(vector(1, name=session))
        visitor.checkpoints.mkdir()
        (visitor.checkpoints / "run.safetensors").write_bytes(b"x")
        visitor.library.drafts.keep(visitor.library.drafts.begin("draft"), vector(1))
    clock.now += 61
    visitors.of_session("left")
    clock.now += 23.5 * 3600
    visitors.of_session("kept")
    visitors.sweep()
    assert len(list(visitors.folder.iterdir())) == 2
    clock.now += 3600
    visitors.sweep()
    assert [folder.name for folder in visitors.folder.iterdir()] == [visitors.of_session("kept").id]
    visitors.enter(left, "left again")
    assert visitors.of_session("left again").library.entries() == []
    visitors.enter(kept, "kept again")
    assert len(visitors.of_session("kept again").library.entries()) == 1


def test_no_more_visitors_keep_something_than_may(visitors) -> None:
    for session in ("a", "b", "c"):
        visitors.enter("", session)
        visitors.of_session(session).library.add(vector(1, name=session))
    visitors.enter("", "d")
    with pytest.raises(LimitExceeded, match="As many visitors keep something here as may"):
        visitors.of_session("d").library.add(vector(1, name="d"))
    assert not visitors.of_session("d").folder.exists()


def test_a_full_disk_refuses_and_is_looked_at_again(visitors, clock, tmp_path) -> None:
    visitors.enter("", "a")
    library = visitors.of_session("a").library
    library.add(vector(1, name="one"))
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "large").write_bytes(b"x" * 100_001)
    clock.now += 60
    with pytest.raises(LimitExceeded, match="disk that visitors share here is full"):
        library.add(vector(1, name="two"))
    (tmp_path / "uploads" / "large").unlink()
    clock.now += 60
    library.add(vector(1, name="two"))


def test_all_see_what_is_published_as_the_same_object(visitors) -> None:
    visitors.owner.add(vector(1, name="for all"))
    visitors.enter("", "a")
    visitors.enter("", "b")
    first, second = (visitors.of_session(session).library for session in ("a", "b"))
    assert first.get("for all") is second.get("for all")
    with pytest.raises(SteeringError, match="published by the owner"):
        first.delete("for-all")
    assert first.add(vector(1, name="for all")).slug == "for-all-2"
    assert [entry.section for entry in first.entries()] == ["published", "own"]
    assert first.setting({"for-all": 1.0}) == {second.get("for all"): 1.0}


def test_tickets_are_of_one_visitor_and_one_server(visitors, tmp_path) -> None:
    visitors.enter("", "a")
    visitors.enter("", "b")
    first, second = visitors.of_session("a"), visitors.of_session("b")
    assert visitors.of_ticket(first.ticket) is first
    forged = f"{second.id}.{first.ticket.partition('.')[2]}"
    for ticket in (forged, first.id, "", None, 3, "é", first.ticket[:-1]):
        with pytest.raises(SteeringError, match="reload it"):
            visitors.of_ticket(ticket)
    with pytest.raises(SteeringError, match="reload it"):
        Visitors(tmp_path / "visitors", Limits()).of_ticket(first.ticket)
