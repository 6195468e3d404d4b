"""What every training method promises: one parametrised test of each promise over all that there are."""

from importlib.metadata import EntryPoint

import pytest
import torch

import steering
from steering.errors import SteeringError
from steering.generation.stream import generate
from steering.training import registry
from steering.training.config import MethodConfig
from steering.training.methods import OURS
from steering.training.pipeline import NothingTrained, default_checkpoint, run, training_run
from steering.training.registry import Method, method_named, methods
from steering.vectors.vector import SteeringVector
from tests.training.example_method import METHOD, install

NAMES = ["bipo", "dpo", "simpo", "reps", "split", "reft", "caa", "freeform", "pca", "probe", "mass-mean"]
TRAINED = NAMES[:6]
METHODS = [*methods().values(), METHOD]
SETTINGS = {name: {"epochs": 1, "learning_rate": 0.1} for name in TRAINED}
"""What makes a run of the tests short, or its effect large enough to be seen."""


@pytest.fixture(autouse=True)
def example(monkeypatch):
    """The method `example` of another package is there, too."""
    with monkeypatch.context() as patch:
        install(patch)
        yield
    methods.cache_clear()


def one_sentence(error) -> bool:
    text = str(error.value)
    return text.endswith(".") and "\n" not in text


def test_ours_come_first_then_those_of_other_packages():
    assert list(methods()) == [*NAMES, "example"] and len(OURS) == len(NAMES)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_it_trains_saves_loads_and_steers(method: Method, tiny, pairs, tmp_path, no_hooks):
    saved = []
    settings = SETTINGS.get(method.name, {})
    *reports, trained, _, done = run(
        tiny, pairs[:5], pairs[5:], method.name, name="Mine", behavior="takes", save=saved.append, **settings
    )
    assert reports[0].stage == "preparing" and {report.stage for report in reports} <= {"preparing", "training"}
    assert (trained.stage, done.stage) == ("trained", "done")
    vector = done.vector
    assert saved == [vector, vector] and no_hooks(tiny)
    assert vector.method["name"] == method.name and len(vector.layers) == 1
    assert (vector.pairs["train"], vector.pairs["held_out"]) == (5, 3)
    loaded = SteeringVector.load(vector.save(tmp_path / "mine.safetensors"))
    assert (loaded.name, loaded.behavior, loaded.method) == ("Mine", "takes", vector.method)
    assert [row["multiplier"] for row in loaded.metrics["held_out"]] == [-2, -1, 0, 1, 2]
    columns = generate(tiny, "Would you?", [{}, {vector: 40.0}, {loaded: 40.0}], max_new_tokens=6)
    assert columns[0].text != columns[1].text == columns[2].text


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_the_same_seed_gives_the_same_vector(method: Method, tiny, pairs):
    one, other = (steering.train(tiny, pairs, method=method.name, seed=3, layer=1) for _ in range(2))
    assert torch.equal(one.directions[1], other.directions[1]) and one.method == other.method


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_it_trains_without_held_out_pairs(method: Method, tiny, pairs):
    saved = []
    *_, trained, done = run(tiny, pairs, pairs[:0], method.name, save=saved.append, **SETTINGS.get(method.name, {}))
    assert (trained.stage, done.stage) == ("trained", "done") and saved == [done.vector]
    assert "held_out" not in done.vector.metrics


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_stopped_at_once_there_is_no_vector(method: Method, tiny, pairs):
    saved = []
    with pytest.raises(NothingTrained) as error:
        list(run(tiny, pairs[:5], pairs[5:], method.name, save=saved.append, should_stop=lambda: True))
    assert error.value.stopped == "asked" and one_sentence(error) and saved == []


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_its_specs_are_complete(method: Method):
    specs = method.config_class.specs()
    assert [specs[0].name, specs[-1].name] == ["layer", "seed"]
    assert {spec.name for spec in specs} == set(method.config_class.model_fields)
    for spec in specs:
        assert spec.label and spec.help and not spec.help.endswith(".")
        if spec.kind in ("integer", "number"):
            assert spec.low < spec.high
        if spec.kind == "choice":
            assert spec.default in [value for value, _ in spec.choices] and all(label for _, label in spec.choices)
        assert (spec.default is None) <= spec.optional


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_its_config_goes_round_by_json(method: Method):
    for settings in ({}, {"layer": (1, 2), "seed": 7}, *(preset.settings for preset in method.presets.values())):
        config = method.config(settings)
        assert isinstance(config, MethodConfig) and method.config(config.as_json()) == config


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_what_it_cannot_take_is_refused_in_one_sentence(method: Method, tiny, pairs):
    for settings, says in (
        ({"no_such": 1}, f"{method.name} has no setting 'no_such'; it has: .*layer"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 to "),
        ({"seed": "1"}, "seed is '1'; give a whole number"),
        ({"seed": None}, "seed is None; give a whole number"),
        ({"layer": "best"}, "layer is 'best'; give a whole number, several of them, 'sweep' or 'late'"),
    ):
        with pytest.raises(SteeringError, match=says) as error:
            training_run(tiny, pairs, pairs, method.name, **settings)
        assert one_sentence(error)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_checkpoint_is_for_those_that_resume(method: Method, tiny, pairs):
    assert (default_checkpoint(tiny, pairs[:5], pairs[5:], method.name) is not None) == method.resumes


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_presets(method: Method):
    assert method.preset_settings(None) == {}
    assert method.default_preset == next(iter(method.presets), None)
    for effort in method.presets:
        assert method.preset_settings(effort) == method.presets[effort].settings
    with pytest.raises(SteeringError, match=f"no effort 'heroic' of {method.name}") as error:
        method.preset_settings("heroic")
    assert one_sentence(error)


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(SteeringError, match="'magic'.*bipo, .*caa, .*example") as error:
        method_named("magic")
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("no_such_package:METHOD", "ModuleNotFoundError"),
        ("tests.training.example_method:Config", "not a Method"),
        ("steering.training.methods.bipo:METHOD", "the name 'bipo' is taken"),
    ],
)
def test_an_unsound_entry_point_is_logged_and_left_out(value, says, monkeypatch, caplog):
    install(monkeypatch, EntryPoint("mine", value, registry.ENTRY_POINTS))
    assert list(methods()) == NAMES
    (record,) = caplog.records
    assert record.levelname == "WARNING" and says in record.getMessage() and value in record.getMessage()
