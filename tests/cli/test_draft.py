"""`steering draft` from the command line."""

import json

from steering.drafting import draft as module
from steering.drafting.draft import _Written
from steering.pairs.dataset import read_pairs


def stand_in(monkeypatch):
    def write(model, prompt, systems, seed, max_new_tokens, should_stop):
        return _Written(f'I love "{prompt}",\nI do.', f"I do not: {prompt}", 9)

    monkeypatch.setattr(module, "_by_model", write)


def test_it_writes_a_file_that_is_read_back(steering, model_folder, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    output, prompts = tmp_path / "pairs.csv", tmp_path / "prompts.txt"
    prompts.write_text("First?\n\nSecond?\n")
    options = ["--output", output, "--model", model_folder, "--prompts", prompts, "--json"]
    answer = steering("draft", "cheerful", *options).answer
    assert list(answer) == ["output", "pairs", "tokens", "seconds", "note"]
    assert (answer["output"], answer["pairs"], answer["tokens"]) == (str(output), 2, 18)
    assert read_pairs(output).to_rows() == [
        [p, f'I love "{p}",\nI do.', f"I do not: {p}"] for p in ("First?", "Second?")
    ]
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_shipped_prompts_are_the_default(steering, model_folder, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    output = tmp_path / "pairs.csv"
    done = steering("draft", "cheerful", "--output", output, "--model", model_folder, "--count", 5)
    assert done.status == 0 and "5 pairs, 45 tokens" in done.out and "drafts are weak" in done.err
    assert len(read_pairs(output)) == 5


def test_what_cannot_be_drafted_is_refused_before_a_model_is_loaded(steering, tmp_path):
    output, missing = tmp_path / "a.csv", tmp_path / "no" / "a.csv"
    (tmp_path / "empty.txt").write_text("\n")
    for arguments, message in [
        ([" ", "--output", output], "The behavior is empty"),
        (["cheerful", "--output", tmp_path / "a.json"], "name a .csv file"),
        (["cheerful", "--output", missing], "in a folder that exists"),
        (["cheerful", "--output", output, "--max-new-tokens", 0], "give 1 to 1000"),
        (["cheerful", "--output", output, "--prompts", tmp_path / "empty.txt"], "nothing in it"),
        (["cheerful", "--output", output, "--prompts", tmp_path / "none.txt"], "cannot be read"),
        (["cheerful", "--output", output, "--endpoint", "nowhere"], "no web address"),
    ]:
        steering("draft", *arguments, "--model", "/no/such/model").assert_refused(message)


def test_json_is_one_object(steering, model_folder, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    done = steering(
        "draft", "cheerful", "--output", tmp_path / "a.csv", "--model", model_folder, "--count", 1, "--json"
    )
    assert json.loads(done.out)["pairs"] == 1
