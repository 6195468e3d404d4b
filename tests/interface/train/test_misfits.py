"""Pairs that do not fit: listed the worst first, flipped and dropped."""

from steering.evaluation.pair_margins import PairMargin
from steering.interface.train.misfits import MOST_SHOWN, dropped, flipped, shown
from steering.pairs.dataset import Pairs, PreferencePair


def pairs(count=10):
    return Pairs.of(PreferencePair(f"Prompt <{i}>", f"yes {i}", f"no {i}") for i in range(count))


def margins(count=10):
    """The pair of line 4 moves the wrong way, all others the right one."""
    return [PairMargin(i, i + 1, -2.0 if i == 3 else 1.0 + i, 1.5 if i == 3 else -1.0) for i in range(count)]


def test_the_worst_come_first_and_are_escaped():
    update = shown(margins(), pairs())
    assert update["misfits"]["visible"] and len(update["misfit"]["choices"]) == MOST_SHOWN
    assert update["misfit"]["value"] == 4 and update["misfit"]["choices"][0][1] == 4
    assert "1 of 10 held-out pairs move the wrong way" in update["misfits_list"]
    assert "Prompt &lt;3&gt;" in update["misfits_list"] and "<3>" not in update["misfits_list"]


def test_nothing_measured_shows_nothing():
    assert shown((), pairs())["misfits"]["visible"] is False


def test_a_pair_is_flipped():
    update = flipped(4, pairs())
    assert update["pairs"][3] == PreferencePair("Prompt <3>", "no 3", "yes 3")
    assert update["table"][3] == ["Prompt <3>", "no 3", "yes 3"] and len(update["pairs"]) == 10
    assert "Row 4 was flipped. Train again" in update["misfit_done"]
    assert flipped(4, update["pairs"])["pairs"] == pairs()


def test_a_pair_is_dropped_and_reported():
    update = dropped(4, pairs())
    assert len(update["pairs"]) == 9 and "dropped by hand: 1" in update["report"]
    again = dropped(4, update["pairs"])
    assert list(again) == ["misfit_done"] and "not among the pairs any more" in again["misfit_done"]
    assert list(flipped(None, None)) == ["misfit_done"]


def test_the_only_pair_stays():
    assert "problem" in dropped(1, pairs(1))["misfit_done"]
