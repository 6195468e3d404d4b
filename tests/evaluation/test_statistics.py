"""Intervals and paired tests."""

import math

import numpy as np
import pytest

from steering.evaluation.statistics import Estimate, estimate, paired


def test_a_mean_lies_in_its_interval_and_missing_values_do_not_count():
    found = estimate([0.0, 1.0, None, 1.0, float("nan"), 0.0])
    assert found.count == 4 and found.mean == 0.5 and found.low < 0.5 < found.high
    assert estimate([0.3] * 5).low == pytest.approx(0.3) == estimate([0.3] * 5).high


def test_nothing_has_no_mean():
    nothing = estimate([None])
    assert nothing.count == 0 and math.isnan(nothing.mean)
    assert Estimate.from_json(nothing.as_json()).count == 0 and nothing.as_json()["mean"] is None


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    covered = [(e := estimate(list(draw.normal(size=30)), seed=n)).low < 0 < e.high for n in range(200)]
    assert 0.88 < np.mean(covered) < 0.99


def test_a_difference_is_told_apart_and_chance_is_not():
    draw = np.random.default_rng(0)
    first = draw.normal(size=20)
    assert paired(list(first + 0.5), list(first + draw.normal(scale=0.1, size=20))).is_clear
    false_alarms = [paired(list(draw.normal(size=20)), list(draw.normal(size=20)), seed=n).is_clear for n in range(100)]
    assert np.mean(false_alarms) < 0.12


def test_only_prompts_that_both_have_are_compared():
    difference = paired([1.0, None, 3.0, 9.0], [0.0, 5.0, 2.0, None])
    assert difference.gap.count == 2 and difference.gap.mean == 1.0
    assert paired([None], [1.0]).p_value == 1.0
