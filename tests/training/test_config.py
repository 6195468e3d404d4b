"""Declaring settings: what a field says of itself, and what is refused."""

from typing import Literal, Self

import numpy as np
import pytest
from pydantic import ValidationError, model_validator

from steering.errors import SteeringError
from steering.training.config import MethodConfig, SettingSpec, one_or_all, setting, steered_layers
from steering.training.methods.bipo.config import BiPOConfig
from steering.vectors.action import TOKEN_SCOPES


class Config(MethodConfig):
    """A setting of each kind, and a rule over two of them."""

    count: int = setting(3, label="Count", help="how many", unit="pairs", group="Here", ge=1, le=9)
    rate: float | None = setting(None, label="Rate", help="how fast", gt=0, le=1e6)
    share: float = setting(0.5, label="Share", help="of all", ge=0, le=0.5)
    kind: Literal["a", "b"] = setting("a", label="Kind", help="which", choice_labels={"a": "the first"})
    loud: bool = setting(False, label="Loud", help="or not")

    @model_validator(mode="after")
    def _b_is_slow(self) -> Self:
        if self.kind == "b" and self.rate is not None:
            raise ValueError("kind b takes no rate; leave it out.")
        return self


def test_a_spec_says_all_that_was_declared():
    specs = {spec.name: spec for spec in Config.specs()}
    assert list(specs) == ["layer", "count", "rate", "share", "kind", "loud", "seed"]
    assert specs["count"] == SettingSpec(
        "count", "Count", "how many", "pairs", "Here", "integer", 3, optional=False, low=1, high=9
    )
    assert (specs["rate"].kind, specs["rate"].optional, specs["rate"].low, specs["rate"].above) == (
        *("number", True),
        *(0, True),
    )
    assert specs["kind"].choices == (("a", "the first"), ("b", "b"))
    assert [specs[name].kind for name in ("layer", "kind", "loud")] == ["layers", "choice", "flag"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"count": 0}, "count is 0; give a whole number from 1 to 9."),
        ({"count": 1.5}, "count is 1.5; give a whole number from 1 to 9."),
        ({"count": True}, "count is True; give a whole number from 1 to 9."),
        ({"count": None}, "count is None; give a whole number from 1 to 9."),
        ({"rate": 0}, "rate is 0; give a number above 0 and at most 1,000,000."),
        ({"rate": float("nan")}, "rate is nan; give a number above 0 and at most 1,000,000."),
        ({"share": 0.6}, "share is 0.6; give a number from 0 and at most 0.5."),
        ({"kind": "c"}, "kind is 'c'; choose one of: a, b."),
        ({"loud": "yes"}, "loud is 'yes'; give true or false."),
        ({"layer": 1.5}, "layer is 1.5; give a whole number, several of them, 'sweep' or 'late'."),
        ({"layer": [1, "x"]}, "layer is [1, 'x']; give a whole number, several of them, 'sweep' or 'late'."),
        ({"kind": "b", "rate": 0.1}, "kind b takes no rate; leave it out."),
        ({"size": 3}, "mine has no setting 'size'; it has: count, kind, layer, loud, rate, seed, share."),
    ],
)
def test_what_is_unsound_is_refused_in_one_sentence(settings, says):
    with pytest.raises(SteeringError) as error:
        Config.checked("mine", settings)
    assert str(error.value) == says


def test_numbers_of_numpy_and_lists_of_layers_are_taken():
    config = Config.checked("mine", {"count": np.int64(4), "rate": np.float32(0.5), "layer": [np.int64(2), 1]})
    assert (config.count, config.rate, config.layer) == (4, 0.5, (2, 1))
    assert config.as_json()["layer"] == [2, 1]


def test_a_config_does_not_change():
    with pytest.raises(ValidationError):
        Config().count = 4


def test_a_type_that_has_no_control_is_a_mistake_of_the_programmer():
    class Wrong(MethodConfig):
        names: list[str] = setting([], label="Names", help="some")

    with pytest.raises(TypeError, match="no control"):
        Wrong.specs()


def test_the_layers_that_are_steered(tiny):
    assert steered_layers(tiny, None) == steered_layers(tiny, "sweep") == [2]
    assert steered_layers(tiny, 3) == [3] and steered_layers(tiny, (3, 1, 1)) == [1, 3]
    for asked, says in ((4, "Layer 4"), ((), "at least one")):
        with pytest.raises(SteeringError, match=says):
            steered_layers(tiny, asked)
    assert one_or_all([1]) == 1 and one_or_all([1, 3]) == [1, 3]


def test_the_scopes_of_bipo_are_those_of_vectors():
    """They are written out there, because importing them would load torch."""
    (scope,) = (spec for spec in BiPOConfig.specs() if spec.name == "token_scope")
    assert tuple(value for value, _ in scope.choices) == tuple(TOKEN_SCOPES)
