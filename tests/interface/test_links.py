"""The page's address: whatever stands in it, the page opens."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from steering.interface import links


def test_everything_is_read() -> None:
    link = links.read(
        QueryParams("v=cheerful:1.5,formal:-1&pin=pirate:2&pin=a:1,b:2&p=How%3F&mode=sweep&sys=S&tokens=80&seed=7")
    )
    assert link.given and link.multipliers == {"cheerful": 1.5, "formal": -1.0}
    assert link.pins == [{"pirate": 2.0}, {"a": 1.0, "b": 2.0}]
    assert (link.prompt, link.mode, link.system) == ("How?", "sweep", "S")
    assert link.number("tokens", 8, 512, 40) == 80 and link.number("temperature", 0, 2, 0.5) == 0.5


def test_an_empty_address_says_nothing() -> None:
    assert links.read(QueryParams("")) == links.Link()
    assert links.read(QueryParams("v=")).given  # every slider at 0


def test_numbers_are_kept_in_range() -> None:
    link = links.read(QueryParams("tokens=1e99&penalty=nan&seed=-4&v=a:1e9,b:inf,c:nan"))
    assert link.number("tokens", 8, 512, 40) == 512 and link.number("penalty", 1, 2, 1.1) == 1.1
    assert link.number("seed", 0, 9, 0) == 0 and link.multipliers == {"a": 100.0}


@given(st.dictionaries(st.sampled_from(["v", "pin", "p", "mode", "sys", "tokens", "seed", "x"]), st.text(max_size=40)))
def test_nothing_in_an_address_raises(query: dict[str, str]) -> None:
    link = links.read(QueryParams(query))
    assert all(abs(m) <= 100 for m in link.multipliers.values())


def test_vectors_can_be_downloaded_wherever_the_program_was_started(own_shelf) -> None:
    from steering.interface.page import launch_options

    allowed = launch_options()["allowed_paths"]
    assert str(own_shelf / "vectors") in allowed and any(
        (Path(path) / "cheerful.safetensors").exists() for path in allowed
    )
