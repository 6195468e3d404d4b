"""A record of a run: it reads back, runs again to the same answers, and no text in it breaks out of its quotes."""

import ast
import dataclasses
import json
import re
import shlex
import subprocess
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from steering import generate
from steering.cli import main as cli
from steering.cli.generate import read_setting
from steering.errors import SteeringError
from steering.evaluation.fluency import Fluency, fluency
from steering.generation.sampling import Sampling
from steering.run_record import Record, RecordedColumn, as_command, as_json, as_markdown, as_python, from_json
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector

HOSTILE = [
    "it's \"quoted\" \\ and 'again'",
    "two\nlines\r\nand\ttabs",
    "$(touch owned) `touch owned` ${HOME} $HOME !! *",
    "\"\"\"''' \\",
    "# heading\n```\n## not a heading\n``````\n~~~",
    "--help",
    "-1 or 1?",
    "\u202eevil\u2028\u00e9\u0301 \U0001f600",
    "{x} %s \x1b[31m",
    "</pre><script>alert(1)</script>",
]
texts = some.sampled_from(HOSTILE) | some.text(max_size=30)
names = some.sampled_from(["cheerful", "power-seeking", "my files/it's $(here).safetensors", "a=b/c.safetensors", "-x"])
multipliers = some.floats(-100, 100)
judged = some.builds(
    Fluency, some.floats(1, 1e12), some.floats(0, 1), some.floats(0, 1), some.sampled_from(["", "repeats itself"])
)
turns = some.tuples(some.sampled_from(["system", "user", "assistant"]), texts)
columns = some.builds(
    RecordedColumn,
    setting=some.dictionaries(names, multipliers, max_size=3),
    title=texts,
    history=some.lists(turns, max_size=2).map(tuple),
    text=texts,
    tokens=some.integers(0, 4096),
    finished=some.booleans(),
    fluency=some.none() | judged,
)
samplings = some.builds(
    Sampling,
    max_new_tokens=some.integers(1, 4096),
    temperature=some.floats(0, 10),
    top_p=some.floats(0.01, 1),
    top_k=some.integers(0, 1000),
    repetition_penalty=some.floats(0.5, 5),
    seed=some.integers(0, 2**63 - 1),
)
records = some.builds(
    Record,
    prompt=texts.filter(str.strip),
    columns=some.lists(columns, min_size=1, max_size=3).map(tuple),
    system=texts,
    sampling=samplings,
    model=some.sampled_from(["", "SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "my model's folder"]),
    weights=some.sampled_from(["full", "float16"]),
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def record(**changes) -> Record:
    column = RecordedColumn({"cheerful": 1.5}, "cheerful +1.5", text="Hello!", tokens=3, fluency=Fluency(4.0, 0.0, 1.0))
    return dataclasses.replace(Record("Hi", (RecordedColumn({}, "baseline"), column)), **changes)


# JSON ----------------------------------------------------------------------------------------------------------------


@quick
@given(records)
def test_json_reads_back(run):
    assert from_json(as_json(run)) == run
    assert from_json(as_json(run).encode()) == run


def changed(path: str, value: object) -> str:
    data = json.loads(as_json(record()))
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = data
    for step in way:
        place = place[step]
    place[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "some other JSON"),
        ("{}", "some other JSON"),
        (changed("version", 2), "version 2; this program reads version 1"),
        (changed("version", None), "'version' is missing or not a whole number"),
        (changed("prompt", 1), "'prompt' is missing or not text"),
        (changed("columns", []), "0 columns"),
        (changed("columns", [{}] * 17), "17 columns"),
        (changed("columns", [5]), "'setting' is missing"),
        (changed("columns.0.finished", 1), "'finished' is missing or not true or false"),
        (changed("columns.0.tokens", True), "'tokens' is missing or not a whole number"),
        (changed("columns.1.setting.cheerful", "1"), "'cheerful' is missing or not a number"),
        (changed("columns.1.setting.cheerful", 101), "multiplier 101.0"),
        (changed("columns.1.setting.cheerful", 10**400), "'cheerful' is missing or not a number"),
        (changed("columns.1.setting.cheerful", float("nan")), "'cheerful' is missing or not a number"),
        (changed("columns.1.fluency", "fine"), "'perplexity' is missing"),
        (changed("columns.0.history", [["robot", "beep"]]), r"'history' is not \[role, text\]"),
        (changed("columns.0.history", [[["user"], "beep"]]), r"'history' is not \[role, text\]"),
        (changed("sampling.temperature", 11), "temperature is 11"),
        (changed("sampling.seed", 0.5), "'seed' is missing or not a whole number"),
        (changed("weights", "int3"), "'weights' are not known"),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(text, said):
    with pytest.raises(SteeringError, match=said) as error:
        from_json(text)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_keys_of_later_programs_are_passed_over():
    assert from_json(changed("mood", "good")) == record()


# Python --------------------------------------------------------------------------------------------------------------


def heard(run: Record) -> dict:
    """What the Python lines ask for, with substitutes for the model and the vectors."""
    said = {}

    def listen(model, prompt, columns, **options):
        said.update(model=model, prompt=prompt, columns=columns, **options)
        return []

    steering = SimpleNamespace(
        load_model=lambda source="": source, Library=lambda: SimpleNamespace(get=lambda name: name), generate=listen
    )
    assert as_python(run).startswith("import steering\n")
    exec(as_python(run).removeprefix("import steering"), {"steering": steering})
    return said


@quick
@given(records)
def test_python_says_all_that_decides_a_run(run):
    ast.parse(as_python(run))
    said = heard(run)
    assert (said.pop("model") or "SmolLM2-135M-Instruct") == (run.model or "SmolLM2-135M-Instruct")
    assert (said.pop("prompt"), said.pop("weights", "full")) == (run.prompt, run.weights)
    assert said.pop("system", Record("", ()).system) == run.system
    assert said.pop("columns") == [column.setting for column in run.columns]
    histories = said.pop("histories", [[] for _ in run.columns])
    assert histories == [list(column.history) for column in run.columns]
    assert Sampling(**said) == run.sampling


def test_python_looks_as_one_would_write_it():
    assert as_python(record(sampling=Sampling(max_new_tokens=64, temperature=0.8))) == (
        "import steering\n\nmodel = steering.load_model()\nvector = steering.Library().get\n"
        'columns = steering.generate(\n    model,\n    "Hi",\n    columns=[{}, {vector("cheerful"): 1.5}],\n'
        "    max_new_tokens=64,\n    temperature=0.8,\n)\n"
        'for column in columns:\n    print(f"[{column.title}]\\n{column.text}\\n")\n'
    )


def test_a_record_runs_again_to_the_same_answers(tiny, monkeypatch, capsys):
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    vector = SteeringVector({1: 3 * direction}, name="Bold")
    slug = Library().add(vector).slug
    sampling = Sampling(max_new_tokens=12, temperature=0.9, top_p=0.9, top_k=50, repetition_penalty=1.2, seed=4)
    prompt, system = HOSTILE[0] + HOSTILE[2], "Be\n'brief'."
    histories = [[], [("user", "Hi"), ("assistant", "Yes `$(no)`.")]]
    answers = generate(
        tiny, prompt, [{}, {vector: 1.5}], histories=histories, system=system, sampling=sampling, trace=True
    )
    taken = [
        RecordedColumn.of(answer, {vector: slug}, history, fluency(answer, answers[0]))
        for answer, history in zip(answers, histories, strict=True)
    ]
    run = Record(prompt, tuple(taken), system, sampling)
    assert from_json(as_json(run)) == run

    for place in ("steering.models", "steering.models.loading"):  # what Python and what the command line call
        monkeypatch.setattr(f"{place}.load_model", lambda *source, **options: tiny)
    done = {}
    exec(as_python(run), done)
    assert [column.text for column in done["columns"]] == [column.text for column in run.columns]
    assert [column.title for column in done["columns"]] == ["baseline", "Bold +1.5"]

    again = dataclasses.replace(run, columns=(run.columns[0], dataclasses.replace(run.columns[1], history=())))
    capsys.readouterr()
    assert cli.main([*shlex.split(as_command(again))[1:], "--json"]) == 0
    exec(as_python(again), done)
    printed = json.loads(capsys.readouterr().out.split("\n", 1)[0])["columns"]
    assert [column["text"] for column in printed] == [column.text for column in done["columns"]]


def test_a_record_of_the_bundled_model_runs_again_to_the_same_answers(bundled, monkeypatch, capsys):
    sampling = Sampling(max_new_tokens=12, repetition_penalty=1.1)
    vector = Library().get("cheerful")
    answers = generate(bundled, "How was your day?", [{}, {vector: 1.5}], sampling=sampling)
    run = Record(
        "How was your day?", tuple(RecordedColumn.of(a, {vector: "cheerful"}) for a in answers), sampling=sampling
    )
    monkeypatch.setattr("steering.models.load_model", lambda: bundled)
    exec(as_python(run), {})
    assert capsys.readouterr().out == "".join(f"[{column.title}]\n{column.text}\n\n" for column in run.columns)


# The command line ----------------------------------------------------------------------------------------------------


def asked(arguments: list[str]) -> tuple:
    """Prompt, system, columns, sampling, weights and model as the real command line understands them."""
    program, *rest = arguments
    assert program == "steering"
    options = cli.build_parser().parse_args(rest)
    known = SimpleNamespace(get=lambda name: name)
    columns = [read_setting(known, text) for text in options.column]
    sampling = Sampling(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Sampling)})
    return options.prompt, options.system, columns, sampling, options.weights, options.model


def expected(run: Record) -> tuple:
    system = None if run.system == Record("", ()).system else run.system
    model = None if run.model in ("", "SmolLM2-135M-Instruct") else run.model
    said = [column.setting for column in run.columns]
    return run.prompt, system, said, run.sampling, run.weights, model


@quick
@given(records)
def test_the_command_line_says_all_but_histories(run):
    run = dataclasses.replace(run, prompt=run.prompt.replace("\0", "0"), system=run.system.replace("\0", "0"))
    *notes, command = as_command(run).split("steering generate ", 1)
    assert asked(["steering", "generate", *shlex.split(command)]) == expected(run)
    assert ("turns before the prompt" in "".join(notes)) == any(column.history for column in run.columns)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_real_shell_passes_it_on_and_does_nothing_else(hostile, tmp_path):
    run = record(prompt=hostile, system=hostile)
    script = as_command(run).replace("steering generate", "printf '%s\\0' steering generate", 1)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert asked(done.stdout.decode().split("\0")[:-1]) == expected(run)
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_line_cannot_say_it_tells_in_a_comment():
    odd = RecordedColumn({"a,b.safetensors": 1.0}, "odd", history=(("user", "Hi"), ("assistant", "Yes")))
    lines = as_command(record(prompt="nul\0nul", columns=(odd,))).splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["Left", "This", "Left"] and "\0" not in lines[-1]
    assert as_command(record()) == "steering generate --prompt Hi --column '' --column cheerful=1.5\n"


# Markdown ------------------------------------------------------------------------------------------------------------


def outside_fences(markdown: str) -> tuple[list[str], list[str]]:
    """Lines that Markdown reads as Markdown, and the blocks between."""
    open_fence, outside, blocks = "", [], []
    for line in re.split(r"\r\n|\n|\r", markdown):  # what CommonMark calls a line ending
        fence = re.match(r" {0,3}(`{3,})[^`]*$", line)
        if open_fence:
            if fence and len(fence[1]) >= len(open_fence) and line.strip() == fence[1]:
                open_fence = ""
            else:
                blocks[-1] += line + "\n"
        elif fence:
            open_fence = fence[1]
            blocks.append("")
        else:
            outside.append(line)
    assert not open_fence
    return outside, blocks


@quick
@given(records)
def test_nothing_breaks_out_of_markdown(run):
    outside, blocks = outside_fences(as_markdown(run))
    assert [line for line in outside if line.startswith("# ")] == ["# Steering run"]
    assert len([line for line in outside if line.startswith("## ")]) == len(run.columns) + 1
    assert not any(re.search(r"(?<!\\)[<`]", line) for line in outside)
    turns_before = sum(len(column.history) for column in run.columns)
    assert len(blocks) == bool(run.system) + 1 + len(run.columns) + turns_before + 1


def test_markdown_tells_how_an_answer_reads():
    broken = RecordedColumn(
        {}, "x", text="a a", tokens=2, finished=False, fluency=Fluency(9.87, 0, 0, "repeats itself")
    )
    text = as_markdown(record(columns=(broken,)))
    assert "2 tokens when it was stopped, perplexity 9.9, broken down: repeats itself" in text
