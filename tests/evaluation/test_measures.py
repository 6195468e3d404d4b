"""The registry of measures: ours share one computation, and other packages add theirs."""

import logging

import pytest
import torch

import steering
from steering import plugins
from steering.errors import SteeringError
from steering.evaluation.measures import Measure, MeasureContext, measure, measure_named, measures
from steering.pairs.dataset import Pairs
from steering.pairs.schema import PreferencePair
from steering.vectors.vector import SteeringVector
from tests.tiny_models import HIDDEN

NORM = Measure(
    "weight", "Weight", "Norm of what is added.", "", lambda c: [abs(m) * c.vector.norm for m in c.multipliers]
)
OURS = ["preference_accuracy", "preference_margin", "preference_details", "behavior", "fluency", "relevance"]
OURS += ["composite", "kl", "dose", "utility"]
EXTREMES = Measure(
    "extremes",
    "Extremes",
    "Least and greatest.",
    "",
    lambda c: [{"least": m - 1, "greatest": m + 1} for m in c.multipliers],
)


@pytest.fixture
def context(tiny):
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0))
    pairs = Pairs.of(PreferencePair(f"Say {word}.", f"Yes: {word}", f"No {word}") for word in ("hi", "oh", "ah"))
    return MeasureContext(tiny, SteeringVector({1: direction}), pairs, [-1.0, 0.0, 2.0])


@pytest.fixture
def installed(monkeypatch):
    """Make the registry see these entry points, as if their packages were installed."""

    class EntryPoint:
        name, value = "theirs", "their_package:MEASURE"

        def __init__(self, loaded):
            self.loaded = loaded

        def load(self):
            if isinstance(self.loaded, Exception):
                raise self.loaded
            return self.loaded

    def install(*loaded):
        monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint(each) for each in loaded])
        measures.cache_clear()

    yield install
    monkeypatch.undo()
    measures.cache_clear()


def test_ours_are_what_evaluate_gives(context):
    results = steering.evaluate(context.model, context.vector, context.pairs, context.multipliers)
    keys = ("multiplier", "preference_accuracy", "preference_margin")
    assert measure(context) == [{key: getattr(result, key) for key in keys} for result in results]
    assert measure(context)[1]["preference_margin"] == 0.0


def test_both_preference_measures_take_one_computation(context):
    batches = []
    shared = MeasureContext(
        context.model,
        context.vector,
        context.pairs,
        [1.0],
        on_progress=lambda done, total: batches.append((done, total)),
    )
    measure(shared, ["preference_margin", "preference_accuracy"])
    assert batches == [(1, 1)]


def test_one_measure_alone(context):
    assert [row.keys() for row in measure(context, ["preference_margin"])] == [{"multiplier", "preference_margin"}] * 3


def test_measures_of_another_package(context, installed):
    installed(NORM, EXTREMES)
    assert list(measures()) == [*OURS, "weight", "extremes"]
    rows = measure(context, ["weight", "extremes", "weight"])
    norm = context.vector.norm
    assert rows[2] == {"multiplier": 2.0, "weight": 2 * norm, "least": 1.0, "greatest": 3.0}


def test_two_measures_that_give_one_name(context, installed):
    installed(NORM, Measure("other", "Other", "", "", lambda c: [{"weight": 1.0}] * len(c.multipliers)))
    with pytest.raises(SteeringError, match="Measure 'other' gives 'weight', which another one gives already."):
        measure(context, ["weight", "other"])


def test_an_unknown_measure():
    with pytest.raises(
        SteeringError, match="There is no measure 'x'; choose one of: preference_accuracy, preference_ma"
    ):
        measure_named("x")


def test_a_multiplier_out_of_range(context):
    with pytest.raises(SteeringError, match="multiplier 1000"):
        measure(MeasureContext(context.model, context.vector, context.pairs, [1000.0]))


@pytest.mark.parametrize("broken", [ImportError("no module named their_package"), "not a measure", NORM])
def test_a_broken_entry_point_is_logged_and_left_out(installed, caplog, broken):
    installed(NORM, broken)
    with caplog.at_level(logging.WARNING):
        assert list(measures()) == [*OURS, "weight"]
    assert "their_package:MEASURE" in caplog.text and "left out" in caplog.text
