"""The page's address: whatever stands in it, the page opens."""

from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from steering.interface.playground import url_state
from steering.interface.playground.controls import SPECS, Controls

USUAL = Controls("first prompt")


def test_everything_is_read() -> None:
    link = url_state.read(
        QueryParams(
            "v=cheerful:1.5,formal:-1&active=formal&pin=pirate:2;Arr&pin=a:1,b:2&p=How%3F&mode=sweep&sys=S&tokens=88"
            "&seed=7&marks=0&new_seed=1&hide=opposite&model=M"
        )
    )
    assert link.given and link.multipliers == {"cheerful": 1.5, "formal": -1.0} and link.active == "formal"
    assert link.pins == [url_state.Pin({"pirate": 2.0}, "Arr"), url_state.Pin({"a": 1.0, "b": 2.0})]
    assert link.hidden == ["opposite"] and link.model == "M"
    assert link.over(USUAL) == Controls("How?", "sweep", "S", tokens=88, seed=7, marks=False, new_seed=True)


def test_an_empty_address_says_nothing() -> None:
    assert url_state.read(QueryParams("")) == url_state.UrlState()
    assert url_state.UrlState().over(USUAL) == USUAL
    assert url_state.read(QueryParams("v=")).given  # every slider at 0


def test_numbers_are_clamped_to_their_range() -> None:
    link = url_state.read(QueryParams("tokens=1e99&penalty=nan&seed=-4&mode=x&v=a:1e9,b:inf,c:nan"))
    now = link.over(USUAL)
    assert (now.tokens, now.penalty, now.seed, now.mode) == (512, USUAL.penalty, 0, "compare")
    assert link.multipliers == {"a": 100.0}


@given(
    st.dictionaries(
        st.sampled_from(["v", "pin", "active", *(spec.url_name for spec in SPECS.values())]), st.text(max_size=40)
    )
)
def test_nothing_in_an_address_raises(query: dict[str, str]) -> None:
    link = url_state.read(QueryParams(query))
    assert all(abs(m) <= 100 for m in link.multipliers.values())
    now = link.over(USUAL)
    assert Controls.read(vars(now)) == now  # what a link says, a control can hold
