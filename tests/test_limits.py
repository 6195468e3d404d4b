"""What a visitor may ask for: read from the environment, checked by the calls that do the work."""

from dataclasses import fields, replace

import pytest

from steering.drafting import draft_pairs
from steering.errors import SteeringError
from steering.generation.next_token import Preview
from steering.generation.server import DecodeServer
from steering.limits import LimitExceeded, Limits, is_public
from steering.pairs.dataset import Message, Pairs, PreferencePair, parse_pairs, read_pairs
from steering.training.pipeline import run, training_run
from steering.training.registry import method_named
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector
from tests.generation.test_stream import vector


def test_every_field_is_an_environment_variable() -> None:
    for field in fields(Limits):
        name = f"STEERING_LIMIT_{field.name.upper()}"
        text, value = {
            "refused_efforts": ("paper, standard", ("paper", "standard")),
            "owner_login": ("no", False),
        }.get(field.name, ("7", 7))
        assert getattr(Limits.public().from_environment({name: text}), field.name) == value, name
        assert Limits(**{field.name: getattr(Limits.public().from_environment({name: "none"}), field.name)}) == Limits()
    assert Limits.public().from_environment({}) == Limits.public()


@pytest.mark.parametrize("text", ["many", "-1", "1e400", "nan", "1.5"])
def test_an_unsound_value_is_refused_by_name(text: str) -> None:
    with pytest.raises(SteeringError, match="STEERING_LIMIT_PAIRS is .*; give a number, or none"):
        Limits.public().from_environment({"STEERING_LIMIT_PAIRS": text})


@pytest.mark.parametrize(
    ("environment", "share", "public"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"SYSTEM": "spaces"}, False, True),
        ({"STEERING_PUBLIC": "1"}, False, True),
        ({"STEERING_PUBLIC": "0", "SYSTEM": "spaces"}, False, False),
        ({"STEERING_PUBLIC": "no"}, True, False),
    ],
)
def test_where_a_page_is_public(environment, share, public, monkeypatch) -> None:
    for name in ("SYSTEM", "STEERING_PUBLIC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_public(share=share) is public


def test_on_a_space_the_sentence_says_how_to_have_one_alone(monkeypatch) -> None:
    assert str(LimitExceeded("Too much.")) == "Too much."
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "me/steer")
    assert "https://huggingface.co/spaces/me/steer?duplicate=true" in str(LimitExceeded("Too much."))


def test_answers(tiny) -> None:
    server = DecodeServer(tiny, limits=Limits(new_tokens=4, columns=2, prompt_characters=10))
    last = [shot for shot in server.stream("Hi", [{}, {}], max_new_tokens=4, system="") if not isinstance(shot, int)][
        -1
    ]
    assert [column.tokens for column in last] == [4, 4]
    for arguments, says in (
        ({"max_new_tokens": 5}, "5 new tokens were asked for; 4 are the most"),
        ({"columns": [{}] * 3}, "3 columns were asked for; 2 are the most"),
        ({"prompt": "x" * 11}, "The prompt has 11 characters; 10 are the most"),
        ({"system": "x" * 11}, "The system prompt has 11 characters"),
        ({"before": [("user", "x" * 41), ("assistant", "y" * 40)]}, "The conversation has 81 characters; 80 are"),
    ):
        with pytest.raises(LimitExceeded, match=says):
            server.stream(**{"prompt": "Hi", "columns": [{}], "system": "", "max_new_tokens": 2} | arguments)
    with pytest.raises(LimitExceeded, match="The prompt has 11"):
        Preview(tiny, limits=Limits(prompt_characters=10)).next_token("x" * 11, {}, system="")


def test_trainings(tiny, pairs) -> None:
    for limits, settings, says in (
        (Limits(pairs=7), {}, "There are 8 pairs; 7 are the most"),
        (Limits(pair_characters=20), {}, "A pair has .* characters; 20 are the most"),
        (Limits(batch_size=2), {"batch_size": 3}, "batch_size is 3; 2 is the most"),
    ):
        with pytest.raises(LimitExceeded, match=says):
            list(training_run(tiny, pairs[:6], pairs[6:], limits=limits, **settings))
    with pytest.raises(LimitExceeded, match="'paper' takes too long"):
        method_named("bipo").preset_settings("paper", Limits.public())
    assert method_named("bipo").preset_settings("standard", Limits.public())


@pytest.mark.parametrize("method", ["bipo", "caa"])
def test_after_the_time_the_best_so_far_is_kept(tiny, pairs, method) -> None:
    settings = {"epochs": 1000} if method == "bipo" else {}
    saved: list[SteeringVector] = []
    limits = Limits(training_seconds=0.5 if method == "bipo" else 1e9)
    *_, last = run(tiny, pairs[:6], pairs[6:], method, save=saved.append, limits=limits, **settings)
    if method == "bipo":
        assert last.stopped == "time" and "time limit of 0 seconds was reached; the best" in last.note
        assert 0 < last.step < last.total_steps and last.seconds < 5
    assert last.stage == "done" and saved[-1].norm > 0


def test_a_time_that_ends_before_the_first_step_says_so(tiny, pairs) -> None:
    with pytest.raises(SteeringError, match="time limit of 0 seconds was reached before the first step"):
        list(run(tiny, pairs[:6], pairs[6:], limits=Limits(training_seconds=0)))


def test_what_is_brought(tmp_path) -> None:
    rows = "".join(f"p{n},yes {n},no {n}\n" for n in range(9))
    text = f"prompt,chosen,rejected\n{rows}"
    file = tmp_path / "pairs.csv"
    file.write_text(text, encoding="utf-8")
    assert len(read_pairs(file, limits=Limits(pairs=5))) == 5 and len(parse_pairs(text, limits=Limits(pairs=5))) == 5
    assert len(read_pairs(file, max_pairs=3, limits=Limits(pairs=5))) == 3
    for read in (lambda limits: read_pairs(file, limits=limits), lambda limits: parse_pairs(text, limits=limits)):
        with pytest.raises(LimitExceeded, match="The file has 0.0 MB; 5e-05 MB are the most"):
            read(Limits(upload_bytes=50))


def test_drafts(tiny) -> None:
    with pytest.raises(LimitExceeded, match="There are 9 pairs; 8 are the most"):
        next(draft_pairs(tiny, "cheerful", count=9, limits=Limits(pairs=8)))
    *_, last = draft_pairs(tiny, "cheerful", count=24, limits=Limits(training_seconds=0))
    assert last.done and len(last.pairs) == 0


def test_the_shelf(tmp_path) -> None:
    library = Library(tmp_path / "own", tmp_path / "none", check_count=Limits(vectors=2).check_vectors)
    first = library.add(vector(1, name="one"))
    library.add(vector(1, name="two"))
    for add in (lambda: library.add(vector(1, name="three")),):
        with pytest.raises(LimitExceeded, match="holds 2 vectors, the most here"):
            add()
    token = library.delete(first.slug)
    library.add(vector(1, name="three"))
    library.delete("three")
    assert library.restore(token).slug == "one"


def test_the_words_name_what_a_visitor_may_meet() -> None:
    words = Limits.public().words()
    for part in ("128 tokens", "5 columns", "200 pairs", "120 seconds", "20 vectors"):
        assert part in words
    assert Limits().words() == "" and "pairs" not in replace(Limits.public(), pairs=None).words()


def test_a_pair_is_measured_with_its_earlier_turns(tiny) -> None:
    pairs = Pairs.of(
        [PreferencePair("p", "yes", "no", before=(Message("user", "x" * 50),), line=1), PreferencePair("q", "a", "b")]
    )
    with pytest.raises(LimitExceeded, match="A pair has 56 characters; 50 are"):
        list(training_run(tiny, pairs, pairs[:0], limits=Limits(pair_characters=50)))
