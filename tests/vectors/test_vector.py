"""Steering vectors: what they may be made of, their algebra, and a file format that survives hostile files."""

import json
import math
import os
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steering
from steering.errors import SteeringError
from steering.vectors import native_file
from steering.vectors.action import check_multiplier
from steering.vectors.text import TEXT_LIMITS, slug_of
from steering.vectors.vector import METADATA_FIELDS, SteeringVector, setting_title

RESULT = {"multiplier": 1.0, "preference_accuracy": 0.75, "preference_margin": 3.25}


def vector(**fields):
    return SteeringVector(
        **{
            "directions": {2: torch.tensor([3.0, 0.0, -4.0]), 0: torch.tensor([0.1, -0.0, 1e-30])},
            "name": "formal",
            "behavior": "speaks formally",
            "description": "Two\nlines.",
            "model_id": "SmolLM2",
            "model_fingerprint": "abc123",
            "method": {"name": "bipo", "layer": 2, "beta": 0.1, "warmup_steps": None, "fast": True},
            "pairs": {"sha256": "d1", "source": "formal.csv", "train": 8, "held_out": 2},
            "metrics": {"held_out": [RESULT], "seconds": 61.5},
            "default_multiplier": 1.5,
            "licence": "CC0-1.0",
            "extra": {"colour": ["red", {"depth": 1}]},
            **fields,
        }
    )


def of(*values, layer=0, **fields):
    return SteeringVector({layer: torch.tensor(values)}, **fields)


def file_with(metadata=None, tensors=None, **changes):
    """Bytes of a vector file whose metadata or tensors are not what they should be."""
    sound = {"format_version": 1, "name": "formal", **changes}
    text = json.dumps(sound) if metadata is None else metadata
    return safetensors.torch.save(
        tensors if tensors is not None else {"layer.1": torch.ones(3)}, metadata={"steering": text}
    )


def refusal(data):
    """What is said about a hostile file."""
    with pytest.raises(SteeringError) as caught:
        SteeringVector.from_bytes(data, "bad.safetensors")
    message = str(caught.value)
    assert message.startswith("bad.safetensors: ")
    assert "\n" not in message and len(message) < 300
    return message


# Multipliers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -100, 100, 1.5, True, np.float32(0.5), "2"])
def test_a_multiplier_is_a_number(value):
    assert check_multiplier(value) == float(value)
    assert type(check_multiplier(value)) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 100.001, 10**400, "x", None, [], "9" * 5000])
def test_or_it_is_refused(value):
    with pytest.raises(SteeringError, match="is not a number between -100 and 100.") as caught:
        check_multiplier(value)
    assert len(str(caught.value)) < 120


# Making one ----------------------------------------------------------------------------------------------------------


def test_the_directions_are_copies_in_order():
    given_directions = {2: torch.ones(3, dtype=torch.float64, requires_grad=True), 0: torch.zeros(6)[::2]}
    made = SteeringVector(given_directions)
    with torch.no_grad():
        given_directions[2].fill_(7)
    assert list(made.directions) == [0, 2]
    assert made.directions[2].tolist() == [1.0, 1.0, 1.0]
    for direction in made.directions.values():
        assert direction.dtype == torch.float32 and direction.is_contiguous() and not direction.requires_grad


def test_it_knows_its_size():
    made = vector()
    assert (made.hidden_size, made.layers) == (3, (0, 2))
    assert made.norms[2] == 5.0
    assert made.norm == pytest.approx(math.sqrt(25.01))
    assert of(1e6, 1e6).norm == pytest.approx(math.sqrt(2) * 1e6)


def test_it_is_a_key_by_identity():
    first, second = of(1.0), of(1.0)
    assert {first: 1.5, second: 2.0}[first] == 1.5
    assert first != second


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ({}, "no direction at all"),
        ({0: torch.ones(3), 1: torch.ones(4)}, r"unequal widths \[3, 4\]"),
        ({0: torch.ones(2, 3)}, r"\[2, 3\] of float32"),
        ({0: torch.ones(())}, r"\[\] of float32"),
        ({0: torch.ones(0)}, r"\[0\] of float32"),
        ({0: torch.ones(3, dtype=torch.int64)}, "of int64"),
        ({-1: torch.ones(3)}, "Layer -1 does not exist"),
        ({10_000: torch.ones(3)}, "Layer 10000 does not exist"),
        ({True: torch.ones(3)}, "Layer True does not exist"),
        ({"1": torch.ones(3)}, "Layer 1 does not exist"),
        ({4: torch.tensor([1.0, math.nan])}, "Layer 4 holds values that are not finite"),
        ({4: torch.tensor([1.0, -math.inf])}, "not finite"),
        ({4: torch.tensor([1e300], dtype=torch.float64)}, "not finite"),
        ({4: torch.tensor([2e6])}, "beyond 1,000,000"),
    ],
)
def test_unsound_directions_are_refused(directions, message):
    with pytest.raises(SteeringError, match=message):
        SteeringVector(directions)


def test_what_it_cannot_steer_is_refused():
    with pytest.raises(SteeringError, match="'attention'; this program steers 'block_output' only"):
        of(1.0, site="attention")
    with pytest.raises(SteeringError, match="'last'; this program steers 'all' or 'answer' only"):
        of(1.0, token_scope="last")
    with pytest.raises(SteeringError, match="multiplier nan is not a number"):
        of(1.0, default_multiplier=math.nan)


def test_texts_are_fit_for_a_page():
    made = of(1.0, name="a\x00b\n\tc\u202e" + "d" * 200, description="one\n\ntwo\x1b[31m" + "e" * 3000)
    assert made.name == "ab c" + "d" * 76
    assert made.description.startswith("one\n\ntwo[31me") and len(made.description) == 2000
    assert of(1.0, name="👩\u200d🚀 Grüezi 快乐").name == "👩\u200d🚀 Grüezi 快乐"
    made.name = "late\r\nname"
    assert made.metadata()["name"] == "late name"


def test_date_and_versions_are_filled_in():
    made = of(1.0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made.created)
    assert set(made.versions) == {"steering", "torch", "transformers"}
    assert made.versions["steering"] == steering.__version__


def test_it_describes_itself():
    assert vector().describe() == ("formal: layers 0, 2, hidden size 3, norm 5.00, by bipo from 8 pairs, for SmolLM2")
    assert repr(of(3.0, 4.0)) == "<SteeringVector unnamed: layer 0, hidden size 2, norm 5.00>"
    assert "layers 0, 1, 2, 3, 4, 5, 6, 7, ...," in SteeringVector({k: torch.ones(1) for k in range(9)}).describe()


def test_it_fits_or_says_why_not():
    made = vector()
    made.check_fits(3, 3, "Tiny")
    with pytest.raises(SteeringError) as caught:
        made.check_fits(576, 30, "SmolLM2-135M")
    assert str(caught.value) == (
        "Vector 'formal' has hidden size 3 but the model SmolLM2-135M has 576; "
        "train it anew for this model or load the model it was made for (SmolLM2)."
    )
    with pytest.raises(SteeringError, match=r"steers layer 2 but the model Tiny has only layers 0 to 1; .* made for\."):
        vector(model_id="").check_fits(3, 2, "Tiny")


# Algebra -------------------------------------------------------------------------------------------------------------


def test_sums_take_the_union_of_layers():
    first, second = of(1.0, 2.0, layer=0, name="a"), of(10.0, 20.0, layer=0) + of(5.0, 6.0, layer=3)
    total = first + second
    assert {k: d.tolist() for k, d in total.directions.items()} == {0: [11.0, 22.0], 3: [5.0, 6.0]}
    difference = first - second
    assert {k: d.tolist() for k, d in difference.directions.items()} == {0: [-9.0, -18.0], 3: [-5.0, -6.0]}
    assert first.directions[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("combine", "values"),
    [
        (lambda v: -v, [-1.0, 2.0]),
        (lambda v: v * 2.0, [2.0, -4.0]),
        (lambda v: 3 * v, [3.0, -6.0]),
        (lambda v: np.float64(2) * v, [2.0, -4.0]),
        (lambda v: v * np.float32(2), [2.0, -4.0]),
        (lambda v: v - v, [0.0, 0.0]),
    ],
)
def test_scaling(combine, values):
    made = combine(of(1.0, -2.0, name="a"))
    assert isinstance(made, SteeringVector)
    assert made.directions[0].tolist() == values


def test_a_sum_remembers_what_it_is_made_of():
    a = of(1.0, name="a", method={"name": "bipo"}, pairs={"sha256": "1"}, metrics={"held_out": [RESULT]})
    b = of(1.0, name="b", method={"name": "mean"})
    made = (a * 2 - (a + b) * 0.25) * 4
    assert made.method["name"] == "sum"
    assert [(part["name"], part["multiplier"]) for part in made.method["of"]] == [("a", 8.0), ("a", -1.0), ("b", -1.0)]
    assert made.method["of"][0]["method"] == {"name": "bipo"} and made.method["of"][0]["pairs"] == {"sha256": "1"}
    assert made.metrics == {} and made.directions[0].tolist() == [6.0]
    assert (a + b).name == "a + b" and (a - b).name == "a - b" and (a * 2).name == "a x 2"


def test_a_long_sum_can_be_saved():
    total = sum((of(1.0, name=f"v{i}") for i in range(50)), start=of(0.0))
    again = SteeringVector.from_bytes(total.to_bytes(), "sum")
    assert len(again.method["of"]) == 51 and again.directions[0].tolist() == [50.0]


def test_a_sum_keeps_what_its_terms_agree_on():
    same = vector() + vector(name="other")
    assert (same.model_id, same.model_fingerprint, same.licence) == ("SmolLM2", "abc123", "CC0-1.0")
    differing = vector() + vector(model_id="Qwen", model_fingerprint="zzz")
    assert (differing.model_id, differing.model_fingerprint) == ("", "")


def test_what_cannot_be_combined():
    with pytest.raises(SteeringError, match="'a' and 'b' cannot be added, their hidden sizes are 1 and 2"):
        of(1.0, name="a") + of(1.0, 2.0, name="b")
    with pytest.raises(SteeringError, match="not finite"):
        of(1.0) * math.nan
    for nonsense in (lambda v: v + 1, lambda v: v * "2", lambda v: v - None, lambda v: v / 2, lambda v: v * v):
        with pytest.raises(TypeError):
            nonsense(of(1.0))


# The file: round trips -----------------------------------------------------------------------------------------------


def test_the_round_trip_is_exact(tmp_path):
    made = vector()
    path = made.save(tmp_path / "new folder" / "formal.safetensors")
    again = SteeringVector.load(path)
    for layer, direction in made.directions.items():
        assert again.directions[layer].numpy().tobytes() == direction.numpy().tobytes()
    for name in METADATA_FIELDS:
        assert getattr(again, name) == getattr(made, name), name
    assert again.extra == made.extra
    assert again.to_bytes() == path.read_bytes()


def test_equal_content_gives_equal_bytes():
    first = vector(created="2026-01-01", method={"name": "bipo", "a": 1}, extra={"y": 1, "x": 2})
    second = vector(created="2026-01-01", method={"a": 1, "name": "bipo"}, extra={"x": 2, "y": 1})
    second.directions = dict(reversed(second.directions.items()))
    assert first.to_bytes() == second.to_bytes()


def test_the_file_is_what_the_documentation_says(tmp_path):
    path = vector().save(tmp_path / "formal.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        assert sorted(file.keys()) == ["layer.0", "layer.2"]
        assert list(file.metadata()) == ["steering"]
        metadata = json.loads(file.metadata()["steering"])
        assert file.get_tensor("layer.2").tolist() == [3.0, 0.0, -4.0]
    assert metadata["format_version"] == 1 and metadata["hidden_size"] == 3 and metadata["colour"][0] == "red"
    assert set(METADATA_FIELDS) - {"operator", "targets"} <= set(metadata)


def test_the_checked_fields_are_all_the_fields():
    assert set(METADATA_FIELDS) == {*TEXT_LIMITS, *native_file.OBJECTS, "targets", "default_multiplier"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100)
@given(
    texts=st.fixed_dictionaries(
        {"name": st.text(), "behavior": st.text(), "description": st.text(), "licence": st.text()}
    ),
    settings_=st.dictionaries(st.text(), json_values, max_size=4),
    extra=st.dictionaries(st.text(), json_values, max_size=4),
    multiplier=st.floats(-100, 100),
)
def test_any_metadata_survives_saving(texts, settings_, extra, multiplier):
    """Cleaned once, it stays as it is: what was read writes the same bytes again."""
    made = of(1.0, **texts, method=settings_ | {"name": "bipo"}, extra=extra, default_multiplier=multiplier)
    data = made.to_bytes()
    again = SteeringVector.from_bytes(data, "x")
    assert again.to_bytes() == data
    assert again.metadata() == made.metadata()
    assert again.default_multiplier == multiplier and again.name == made.name


@settings(max_examples=50)
@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_any_values_survive_saving(values):
    direction = torch.tensor(values, dtype=torch.float32)
    again = SteeringVector.from_bytes(SteeringVector({5: direction}).to_bytes(), "x")
    assert again.directions[5].numpy().tobytes() == direction.numpy().tobytes()


def test_a_measure_that_is_no_number_stays_one():
    made = vector(metrics={"held_out": [RESULT | {"preference_margin": math.nan}, {"multiplier": 2}]})
    assert made.metadata()["metrics"]["held_out"][0]["preference_margin"] is None
    first, second = SteeringVector.from_bytes(made.to_bytes(), "x").metrics["held_out"]
    assert math.isnan(first["preference_margin"]) and first["preference_accuracy"] == 0.75
    assert second["multiplier"] == 2 and math.isnan(second["preference_accuracy"])


def test_known_keys_cannot_be_forged_through_extra():
    made = vector(extra={"name": "forged", "format_version": 7, "hidden_size": 9, "kept": 1})
    again = SteeringVector.from_bytes(made.to_bytes(), "x")
    assert again.name == "formal" and again.extra == {"kept": 1}


def test_numbers_of_other_libraries_are_kept():
    made = vector(method={"name": "m", "k": np.int64(3), "rate": np.float32(0.5), "betas": (0.9, 0.99)})
    assert SteeringVector.from_bytes(made.to_bytes(), "x").method == {
        "name": "m",
        "k": 3,
        "rate": 0.5,
        "betas": [0.9, 0.99],
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_widths_are_read(dtype):
    data = file_with(tensors={"layer.1": torch.tensor([0.5, -2.0], dtype=dtype)})
    direction = SteeringVector.from_bytes(data, "x").directions[1]
    assert direction.dtype == torch.float32 and direction.tolist() == [0.5, -2.0]


def test_a_file_that_says_little_is_read():
    made = SteeringVector.from_bytes(file_with('{"format_version": 1}'), "x")
    assert (made.name, made.created, made.versions, made.default_multiplier) == ("", "", {}, 1.0)


# The file: saving ----------------------------------------------------------------------------------------------------


def test_saving_needs_the_suffix(tmp_path):
    with pytest.raises(
        SteeringError, match=r"formal.pt: a vector file ends in .safetensors; name it formal.safetensors"
    ):
        vector().save(tmp_path / "formal.pt")


def test_a_failed_save_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = of(1.0, name="old").save(tmp_path / "a.safetensors")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(SteeringError, match=r"a.safetensors: cannot be written \(No space left on device\)"):
            of(2.0, name="new").save(path)
    assert SteeringVector.load(path).name == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    of(2.0, name="new").save(path)
    assert SteeringVector.load(path).name == "new"


@pytest.mark.parametrize("name", ["a\0b.safetensors", "a" * 300 + ".safetensors", "file/x.safetensors"])
def test_a_place_that_cannot_be(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SteeringError, match="cannot be written"):
        vector().save(tmp_path / name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"method": {"name": "x", "callback": print}},
            "holds a builtin_function_or_method, which a vector file cannot",
        ),
        ({"method": {"name": 3}}, "'formal': its method field 'name' is not text"),
        ({"pairs": {"train": 1.5}}, "'train' is not a whole number"),
        ({"extra": {"x": "y" * 600_000}}, "larger than 500 kB"),
        ({"extra": {"x": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}, "nested deeper than 16 levels"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, fields, message):
    with pytest.raises(SteeringError, match=message):
        vector(**fields).save(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


# The file: hostile ones ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3}, "its format version 3 is newer than 2, known here; update this program"),
        ({"format_version": 10**1000}, "is newer than 2"),
        ({"format_version": None}, "gives no `format_version`"),
        ({"format_version": True}, "gives no `format_version`"),
        ({"format_version": "1"}, "gives no `format_version`"),
        ({"format_version": 0}, "gives no `format_version`"),
        ({"name": ["a"]}, "metadata field 'name' is not text"),
        ({"description": 3}, "'description' is not text"),
        ({"created": None}, "'created' is not text"),
        ({"method": "bipo"}, "'method' is not an object"),
        ({"method": {"name": {}}}, "method field 'name' is not text"),
        ({"pairs": {"train": "8"}}, "pairs field 'train' is not a whole number"),
        ({"pairs": {"source": 8}}, "'source' is not text"),
        ({"versions": {"torch": 2}}, "versions field 'torch' is not text"),
        ({"metrics": {"held_out": {"multiplier": 1}}}, "'held_out' is not a list"),
        ({"metrics": {"held_out": [3]}}, "metrics.held_out field '0' is not an object"),
        ({"metrics": {"held_out": [{"multiplier": "1"}]}}, "held_out.0 field 'multiplier' is not a number"),
        ({"default_multiplier": "1"}, "'default_multiplier' is not a number"),
        ({"default_multiplier": True}, "'default_multiplier' is not a number"),
        ({"default_multiplier": 1e9}, "multiplier 1000000000.0 is not a number between"),
        ({"default_multiplier": 10**400}, "is not a number between"),
        ({"hidden_size": 4}, "its metadata says hidden size 4, its tensors say 3"),
        ({"hidden_size": "3"}, "'hidden_size' is not a whole number"),
        ({"site": "attention"}, "'attention'; this program steers 'block_output' only"),
        ({"token_scope": "last"}, "steers 'all' or 'answer' only"),
    ],
)
def test_metadata_of_wrong_types_is_refused(changes, message):
    assert message in refusal(file_with(**changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not sound JSON"),
        ("{", "not sound JSON"),
        ("[" * 100_000, "not sound JSON"),
        ('{"format_version": 1, "x": ' + "[" * 50 + "]" * 50 + "}", "nested deeper"),
        ('{"format_version": 1, "x": ' + "9" * 5000 + "}", "not sound JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"format_version": 1, "default_multiplier": NaN}', "'default_multiplier' is not a number"),
        ('{"format_version": 1, "default_multiplier": 1e999}', "'default_multiplier' is not a number"),
    ],
)
def test_metadata_that_is_no_sound_json_is_refused(text, message):
    assert message in refusal(file_with(text))


def test_text_that_would_disturb_a_terminal_or_page_is_cleaned():
    text = (
        '{"format_version": 1, "name": "a\\ud800\\u001b[2Jb", "behavior": "' + "c" * 9000 + '", "x\\u0000": "\\udfff"}'
    )
    made = SteeringVector.from_bytes(file_with(text), "x")
    assert made.name == "a[2Jb" and len(made.behavior) == 200 and made.extra == {"x": ""}
    made.to_bytes()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "no direction at all"),
        ({"layer.1": torch.ones(3), "lm_head": torch.ones(3)}, "tensor 'lm_head' is not `layer.<number>`"),
        ({"layer.01": torch.ones(3)}, "'layer.01' is not"),
        ({"layer.-1": torch.ones(3)}, "'layer.-1' is not"),
        ({"layer.١": torch.ones(3)}, "is not `layer.<number>`"),
        ({"layer.99999": torch.ones(3)}, "'layer.99999' is not"),
        ({"layer.1": torch.ones(3), "layer.2": torch.ones(4)}, "unequal widths [3, 4]"),
        ({"layer.1": torch.ones(1, 3)}, "[1, 3] of float32"),
        ({"layer.1": torch.ones(0)}, "[0] of float32"),
        ({"layer.1": torch.ones(3, dtype=torch.int32)}, "of int32"),
        ({"layer.1": torch.ones(3).to(torch.float8_e4m3fn)}, "of float8_e4m3fn"),
        ({"layer.1": torch.tensor([math.nan])}, "not finite"),
        ({"layer.1": torch.tensor([math.inf])}, "not finite"),
        ({"layer.1": torch.tensor([1e300], dtype=torch.float64)}, "not finite"),
    ],
)
def test_wrong_tensors_are_refused(tensors, message):
    assert message in refusal(file_with(tensors=tensors))


def test_files_of_other_kinds_are_refused():
    assert "no `steering` metadata" in refusal(safetensors.torch.save({"layer.1": torch.ones(3)}))
    assert "no `steering` metadata" in refusal(safetensors.torch.save({"layer.1": torch.ones(3)}, {"other": "1"}))
    assert "not a safetensors file" in refusal(b"")
    assert "not a safetensors file" in refusal(b"PK\x03\x04 and so on")
    assert "header is larger" in refusal((2_000_001).to_bytes(8, "little") + b" " * 2_000_001)
    for header in (b"[]", b"null", b'{"layer.1": 3}', b'{"__metadata__": {"steering": 3}}', b"{" * 5000):
        assert "damaged or cut short" in refusal(len(header).to_bytes(8, "little") + header)


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole: a terabyte that takes no room
    with pytest.raises(SteeringError, match="model.safetensors: larger than 64 MB, so it is no vector file"):
        SteeringVector.load(path)


def test_no_such_file(tmp_path):
    for name in ("none.safetensors", "", "a\0.safetensors", "a" * 300 + ".safetensors"):
        with pytest.raises(SteeringError, match="no such file|cannot be read"):
            SteeringVector.load(tmp_path / name)


SOUND = vector(created="2026-01-01").to_bytes()


@pytest.mark.parametrize("length", range(0, len(SOUND), 7))
def test_a_truncated_file_is_refused(length):
    refusal(SOUND[:length])


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    refusal(data)
    refusal(len(data).to_bytes(8, "little") + data)


@settings(max_examples=300)
@given(position=st.integers(0, len(SOUND) - 1), byte=st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused(position, byte):
    """Never anything but a sound vector or a SteeringError."""
    data = SOUND[:position] + bytes([byte]) + SOUND[position + 1 :]
    try:
        made = SteeringVector.from_bytes(data, "damaged.safetensors")
    except SteeringError:
        return
    made.to_bytes()
    made.describe()


@settings(max_examples=200)
@given(metadata=st.dictionaries(st.sampled_from([*METADATA_FIELDS, "hidden_size", "x"]), json_values))
def test_any_json_is_read_or_refused(metadata):
    try:
        made = SteeringVector.from_bytes(file_with(json.dumps(metadata | {"format_version": 1})), "x.safetensors")
    except SteeringError:
        return
    made.to_bytes()
    made.describe()


# Slugs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Power Seeking!", "power-seeking"),
        ("grüezi  Straße", "gruezi-strasse"),
        ("../../etc/passwd", "etc-passwd"),
        ("CON", "con-vector"),
        ("com¹", "com1-vector"),
        ("", "vector"),
        ("a" * 200, "a" * 60),
    ],
)
def test_slugs(name, slug):
    assert slug_of(name) == slug


@given(name=st.text())
def test_a_slug_is_always_a_safe_file_name(name):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug_of(name)) and len(slug_of(name)) <= 60


def test_names_in_other_scripts_keep_apart():
    assert len({slug_of(name) for name in ("快乐", "悲伤", "🙂", "🙁", "!!!", "???", "快乐 a", "a")}) == 8


def test_the_title_of_a_setting():
    assert setting_title([]) == setting_title([("cheerful", 0.0)]) == "baseline"
    assert setting_title([("cheerful", 1.5), ("", -1), ("formal", 0)]) == "cheerful +1.5, unnamed -1"


def test_which_models_a_vector_fits():
    made = SteeringVector({1: torch.ones(4), 3: torch.ones(4)})
    assert made.fits(4, 4) and not made.fits(4, 3) and not made.fits(5, 4)
