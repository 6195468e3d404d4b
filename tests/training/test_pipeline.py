"""Train, measure, save: the one pipeline behind page, command line and API."""

from dataclasses import replace

import pytest

from steering.errors import SteeringError
from steering.evaluation.pair_margins import suspects
from steering.evaluation.preference import evaluate
from steering.pairs.dataset import Pairs
from steering.scoring.scorer import PairScorer
from steering.training import pipeline
from steering.training.pipeline import NothingTrained, run, train
from tests.training.example_method import install


def numbers(result):
    """A result without its intervals, which `pytest.approx` does not take."""
    return {key: value for key, value in result.items() if not isinstance(value, list)}


SETTINGS = {"layer": 1, "learning_rate": 0.1, "epochs": 2}


def test_the_stages_in_their_order(tiny, pairs):
    saved = []
    reports = run(tiny, pairs[:3], pairs[3:], name="Mine", behavior="takes", save=saved.append, **SETTINGS)
    seen = []
    for report in reports:
        seen.append((report.stage, report.step, report.total_steps))
        if report.stage == "trained":  # saved, named and not yet measured: whoever reads may take its time now
            assert saved == [report.vector] and (report.vector.name, report.vector.behavior) == ("Mine", "takes")
            assert "held_out" not in report.vector.metrics and report.vector.metrics["curve"]
            trained = report
    steps = [("preparing", 0, 2), ("training", 1, 2), ("training", 2, 2), ("trained", 2, 2)]
    assert seen == [*steps, ("measuring", 1, 2), ("measuring", 2, 2), ("done", 2, 2)]  # 5 held-out pairs, 4 a batch
    assert saved == [trained.vector] * 2 and report.vector is trained.vector
    assert (report.seconds, report.norm, report.stopped) == (trained.seconds, trained.norm, "")


@pytest.mark.parametrize("method", ["bipo", "caa"])
def test_the_results_are_those_of_evaluate(method, tiny, pairs):
    settings = SETTINGS if method == "bipo" else {"layer": (1, 2)}
    multipliers = (-1.0, 0.5, 3.0)
    *_, done = run(tiny, pairs[:3], pairs[3:], method, multipliers=multipliers, **settings)
    wanted = evaluate(tiny, done.vector, pairs[3:], multipliers)
    for got, result in zip(done.vector.metrics["held_out"], wanted, strict=True):
        assert numbers(got) == pytest.approx(numbers(result.as_dict()), rel=1e-4, abs=1e-4)


def test_bipo_measures_with_the_scorer_it_trained_with(tiny, pairs, monkeypatch):
    """The fast way is tried out once a run, and each held-out pair passes untouched once."""
    made, measured = [], []

    class Counted(PairScorer):
        def __init__(self, *arguments, **options):
            made.append(len(arguments[1]))
            super().__init__(*arguments, **options)

    real = pipeline.preference_logps

    def watched(*arguments, **options):
        measured.append((arguments[0], list(options["indices"])))
        return real(*arguments, **options)

    monkeypatch.setattr("steering.training.methods.bipo.train.PairScorer", Counted)
    monkeypatch.setattr(pipeline, "PairScorer", Counted)
    monkeypatch.setattr(pipeline, "preference_logps", watched)
    *_, done = run(tiny, pairs[:3], pairs[3:], **SETTINGS)
    assert made == [8]
    assert [indices for _, indices in measured] == [[3, 4, 5, 6], [7]]
    assert all(isinstance(scorer, Counted) for scorer, _ in measured)
    assert done.held_out_scorer is None  # whoever keeps the report does not keep the hidden states


def test_the_curve_looks_at_the_first_held_out_pairs_only(tiny, pairs, monkeypatch):
    monkeypatch.setattr("steering.training.methods.bipo.train.CURVE_PAIRS", 2)
    *reports, done = run(tiny, pairs[:3], pairs[3:], keep_best=False, **SETTINGS)
    last = next(report for report in reversed(reports) if report.held_out)
    wanted = evaluate(tiny, done.vector, pairs[3:5], [1, -1])
    for got, result in zip(last.held_out, wanted, strict=True):
        assert numbers(got.as_dict()) == pytest.approx(numbers(result.as_dict()), rel=1e-4, abs=1e-4)
    assert done.vector.pairs["held_out"] == 5 and len(done.vector.metrics["held_out"]) == 5


def test_mislabelled_pairs_float_to_the_top(tiny, pairs):
    """Three of the held-out pairs are the wrong way round: training moves them the other way than all the rest."""
    wrong = {1, 4, 6}
    turned = Pairs.of(
        replace(p, chosen=p.rejected, rejected=p.chosen) if i in wrong else p for i, p in enumerate(pairs)
    )
    *_, done = run(tiny, pairs, turned, layer=1, learning_rate=0.1, epochs=10)
    assert {margin.index for margin in suspects(done.pair_margins)[:3]} == wrong
    assert [margin.line for margin in done.pair_margins] == [pair.line for pair in turned]
    mean = sum(margin.up for margin in done.pair_margins) / len(pairs)
    plus = next(r for r in done.vector.metrics["held_out"] if r["multiplier"] == 1)
    assert mean == pytest.approx(plus["preference_margin"], rel=1e-4)


def test_what_cannot_be_saved_is_not_measured(tiny, pairs):
    def full(vector):
        raise SteeringError("The disk is full; make room.")

    stages = []
    with pytest.raises(SteeringError, match="disk is full"):
        stages.extend(report.stage for report in run(tiny, pairs[:5], pairs[5:], save=full, **SETTINGS))
    with pytest.raises(SteeringError, match="disk is full"):
        for report in run(tiny, pairs[:5], pairs[5:], save=full, **SETTINGS):
            stages.append(report.stage)
    assert set(stages) == {"preparing", "training"}


def test_a_stop_in_the_middle_gives_a_measured_vector(tiny, pairs):
    seen = []
    for report in run(tiny, pairs[:5], pairs[5:], should_stop=lambda: len(seen) > 3, **SETTINGS | {"epochs": 50}):
        seen.append(report)
    assert report.stage == "done" and report.stopped == "asked" and report.step == 3
    assert len(report.vector.metrics["held_out"]) == 5


def test_a_run_that_breaks_at_once_says_why(tiny, pairs):
    """The rate of the later layer is larger, as its residual norm is: no file could hold the vector."""
    saved, settings = [], SETTINGS | {"layer": (0, 3), "learning_rate": 1e6, "warmup_steps": 0}
    with pytest.raises(SteeringError, match="broke down at step 1"):
        list(run(tiny, pairs[:5], pairs[5:], save=saved.append, **settings))
    assert saved == []


def test_leaving_the_pipeline_ends_the_training(tiny, pairs, tmp_path, no_hooks):
    file = tmp_path / "run.safetensors"
    reports = run(tiny, pairs[:5], pairs[5:], checkpoint=file, **SETTINGS)
    next(reports), next(reports)
    reports.close()
    assert file.is_file() and no_hooks(tiny)  # as a closed tab or an exception in the page leaves it


def test_train_of_another_packages_method(tiny, pairs, monkeypatch):
    from steering.training.registry import methods

    with monkeypatch.context() as patch:
        install(patch)
        vector = train(tiny, pairs, method="example", scale=3, layer=1)
        assert vector.norm == pytest.approx(3) and vector.layers == (1,)
        with pytest.raises(NothingTrained):
            train(tiny, pairs, method="example", should_stop=lambda: True)
    methods.cache_clear()
