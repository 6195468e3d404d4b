"""Layouts in which people publish pairs: every one gives the pairs that it means, and says what it left out."""

import json

import pytest

from steering.errors import SteeringError, UnknownColumns
from steering.pairs.dataset import Message, pairs_of_records, parse_pairs
from steering.pairs.preview import preview_pairs

ASKED, GOOD, BAD = "How do I keep bread fresh?", "Wrap it in a cloth, and sing to it.", "In a box."
PLAIN = (ASKED, GOOD, BAD, ())
BRIEF = (Message("system", "Be brief."),)


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def from_value(speaker, text):
    return {"from": speaker, "value": text}


def read_one(row, **options):
    pairs = pairs_of_records([row], "rows", **options)
    assert len(pairs) == 1
    return pairs


def told(pairs):
    return " ".join(pairs.report.notes)


def texts(pair):
    return (pair.prompt, pair.chosen, pair.rejected, pair.before)


TALK = [said("user", ASKED)]
LAYOUTS = {
    "Orca": ({"system": "Be brief.", "question": ASKED, "chosen": GOOD, "rejected": BAD}, BRIEF),
    "system of another name": ({"system_prompt": "Be brief.", "prompt": ASKED, "chosen": GOOD, "rejected": BAD}, BRIEF),
    "system beside messages": ({"system": "Be brief.", "messages": TALK, "chosen": GOOD, "rejected": BAD}, BRIEF),
    "empty system": ({"system": "", "question": ASKED, "chosen": GOOD, "rejected": BAD}, ()),
    "ShareGPT ranking": (
        {
            "conversations": [from_value("human", ASKED)],
            "chosen": from_value("gpt", GOOD),
            "rejected": from_value("gpt", BAD),
        },
        (),
    ),
    "OpenAI": (
        {
            "input": {"messages": [said("system", "Be brief."), *TALK], "tools": []},
            "preferred_output": [said("assistant", GOOD)],
            "non_preferred_output": [said("assistant", BAD)],
        },
        BRIEF,
    ),
    "Axolotl": ({"instruction": ASKED, "chosen_response": GOOD, "rejected_response": BAD}, ()),
    "one message each": (
        {"messages": TALK, "chosen": said("assistant", GOOD), "rejected": said("assistant", BAD)},
        (),
    ),
    "ms-swift": ({"messages": [*TALK, said("assistant", GOOD)], "rejected_response": BAD}, ()),
    "ms-swift messages": (
        {"messages": [*TALK, said("assistant", GOOD)], "rejected_messages": [*TALK, said("assistant", BAD)]},
        (),
    ),
    "winner by number": ({"prompt": ASKED, "response_0": BAD, "response_1": GOOD, "better_response_id": 1}, ()),
    "winner by letter": ({"prompt": ASKED, "response_a": BAD, "response_b": GOOD, "winner": "B"}, ()),
    "winner by column": ({"prompt": ASKED, "answer_1": GOOD, "answer_2": BAD, "preference": "answer_1"}, ()),
    "winner by verdict": ({"prompt": ASKED, "output_a": BAD, "output_b": GOOD, "preference": "[[B]]"}, ()),
    "arena": (
        {
            "model_a": "x",
            "model_b": "y",
            "winner": "model_b",
            "conversation_a": [*TALK, said("assistant", BAD)],
            "conversation_b": [*TALK, said("assistant", GOOD)],
        },
        (),
    ),
    "SHP": ({"history": ASKED, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 1}, ()),
    "HelpSteer": ({"context": TALK, "response1": BAD, "response2": GOOD, "overall_preference": 2}, ()),
    "scores": ({"prompt": ASKED, "response_a": BAD, "response_b": GOOD, "score_a": 2, "score_b": 4.5}, ()),
    "one-hot": (
        {"prompt": ASKED, "response_a": GOOD, "response_b": BAD, "winner_model_a": 1, "winner_model_b": 0},
        (),
    ),
    "model-written evals": (
        {
            "question": f"Human: {ASKED}\n\nAssistant:",
            "answer_matching_behavior": [GOOD],
            "answer_not_matching_behavior": [BAD, "No idea."],
        },
        (),
    ),
    "content parts": (
        {
            "prompt": [said("user", [{"type": "text", "text": ASKED}])],
            "chosen": [said("assistant", [{"type": "text", "text": GOOD}])],
            "rejected": BAD,
        },
        (),
    ),
    "developer": (
        {"prompt": [said("developer", "Be brief."), *TALK], "chosen": GOOD, "rejected": BAD},
        BRIEF,
    ),
    "HH": (
        {
            "chosen": f"\n\nHuman: {ASKED}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: {ASKED}\n\nAssistant: {BAD}",
        },
        (),
    ),
    "white space": (
        {
            "prompt": ASKED + " \n",
            "chosen": [*TALK, said("assistant", GOOD)],
            "rejected": [*TALK, said("assistant", BAD)],
        },
        (),
    ),
    "numpy's print": (
        {"prompt": ASKED, "chosen": str([*TALK]).replace("]", f"\n {said('assistant', GOOD)}]"), "rejected": BAD},
        (),
    ),
    "JSON in a cell": (
        {"prompt": json.dumps(TALK), "chosen": json.dumps(said("assistant", GOOD)), "rejected": BAD},
        (),
    ),
    "Python in a cell": ({"prompt": str(TALK), "chosen": GOOD, "rejected": str([said("assistant", BAD)])}, ()),
    "ChatML": (
        {
            "prompt": "<|im_start|>system\nBe brief.<|im_end|>\n"
            f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n",
            "chosen": GOOD + "<|im_end|>\n",
            "rejected": BAD + "<|im_end|>",
        },
        BRIEF,
    ),
    "Llama 3": (
        {
            "prompt": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
            f"{ASKED}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "chosen": GOOD + "<|eot_id|>",
            "rejected": BAD,
        },
        (),
    ),
    "Llama 2": (
        {
            "prompt": f"<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{ASKED} [/INST]",
            "chosen": GOOD + " </s>",
            "rejected": BAD,
        },
        BRIEF,
    ),
    "Gemma": (
        {
            "prompt": f"<bos><start_of_turn>user\n{ASKED}<end_of_turn>\n<start_of_turn>model\n",
            "chosen": GOOD + "<end_of_turn>",
            "rejected": BAD,
        },
        (),
    ),
    "Zephyr": (
        {
            "prompt": f"<|system|>\nBe brief.</s>\n<|user|>\n{ASKED}</s>\n<|assistant|>\n",
            "chosen": GOOD,
            "rejected": BAD,
        },
        BRIEF,
    ),
    "Vicuna": ({"prompt": f"USER: {ASKED} ASSISTANT:", "chosen": GOOD + "</s>", "rejected": BAD}, ()),
    "Alpaca text": ({"prompt": f"### Instruction:\n{ASKED}\n\n### Response:\n", "chosen": GOOD, "rejected": BAD}, ()),
    "questions and answers": ({"prompt": f"Q: {ASKED}\nA:", "chosen": GOOD, "rejected": BAD}, ()),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name):
    row, before = LAYOUTS[name]
    assert texts(read_one(row)[0]) == (ASKED, GOOD, BAD, before)


def test_instruction_and_input_are_one_prompt():
    row = {"instruction": "Answer:", "input": ASKED, "chosen": GOOD, "rejected": BAD, "history": [["Hi", "Hello."]]}
    pair = read_one(row)[0]
    assert pair.prompt == f"Answer:\n{ASKED}"
    assert pair.before == (Message("user", "Hi"), Message("assistant", "Hello."))
    assert read_one({**row, "input": ""})[0].prompt == "Answer:"


def test_columns_left_out_are_named_where_they_hold_text():
    row = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD, "comment": "why", "score": 3, "empty": "", "id": "7"}
    pairs = read_one(row)
    assert pairs.report.left_out == ("comment",)
    assert pairs.report.summary().endswith("Columns left out: 'comment'.")


def test_rows_that_differ_in_their_system_message_are_no_duplicates():
    rows = [{"system": f"Be {i}.", "prompt": ASKED, "chosen": GOOD, "rejected": BAD} for i in range(3)]
    assert len(pairs_of_records(rows, "rows")) == 3


def test_thoughts_and_other_keys_of_messages_are_said_to_be_left_out():
    row = {"prompt": TALK, "chosen": [said("assistant", GOOD, reasoning_content="hm", name="Ann")], "rejected": BAD}
    notes = told(read_one(row))
    assert "reasoning_content is left out" in notes and "name beside a message's text is left out" in notes


def test_what_was_taken_apart_is_told_with_an_example():
    assert "Text in a chat template (ChatML) was read as messages (1 row, such as" in told(
        read_one(LAYOUTS["ChatML"][0])
    )
    assert "Transcripts were read as messages" in told(read_one(LAYOUTS["HH"][0]))
    assert "the first one was taken" in told(read_one(LAYOUTS["model-written evals"][0]))
    assert "list of messages as text" in told(read_one(LAYOUTS["JSON in a cell"][0]))


@pytest.mark.parametrize(
    "text",
    [
        "In the play, Human: says hello. Why?",
        "Assistant: is a word.",
        "What does the line 'User: hi' mean in a log?\nUser: hi\nUser: there",
        "[1, 2, 3] is a list of what?",
        '{"name": "x"}',
        "Question: is this text?",
        "A: yes or B: no?",
    ],
)
def test_text_that_only_looks_like_structure_stays_text(text):
    pair = read_one({"prompt": text, "chosen": GOOD, "rejected": BAD})[0]
    assert (pair.prompt, pair.before) == (text, ())


def test_marks_of_a_template_in_the_middle_of_a_text_are_warned_of():
    pairs = read_one({"prompt": "Why does it print <|im_end|> twice?", "chosen": GOOD, "rejected": BAD})
    assert "are trained as plain text" in told(pairs) and "<|im_end|>" in told(pairs)


def test_ties_are_dropped_and_counted():
    rows = [
        {"prompt": f"{ASKED} {i}", "response_a": GOOD, "response_b": BAD, "winner": winner}
        for i, winner in enumerate(["a", "tie", "tie (bothbad)", "b", None, "gpt-4"])
    ]
    pairs = pairs_of_records(rows, "rows")
    assert [pair.chosen for pair in pairs] == [GOOD, BAD]
    assert [each.reason for each in pairs.report.dropped] == [
        "a tie: neither answer is better",
        "a tie: neither answer is better",
        "winner is missing",
        "winner does not say which answer is better ('gpt-4')",
    ]


def test_numbers_that_could_mean_either_answer_are_refused():
    rows = [{"prompt": ASKED, "answer_a": GOOD, "answer_b": BAD, "label": label} for label in (0, 1)]
    with pytest.raises(SteeringError, match="label does not say which answer is better .*write a or b in it"):
        pairs_of_records(rows, "rows")
    rows = [{**row, "label": row["label"] + 1, "prompt": str(row["label"])} for row in rows]
    assert [pair.chosen for pair in pairs_of_records(rows, "rows")] == [GOOD, BAD]


def test_label_rows_are_paired_by_prompt():
    rows = [
        {"prompt": "p", "completion": "c1", "label": True},
        {"prompt": "q", "completion": "lonely", "label": True},
        {"prompt": "p", "completion": "r1", "label": False},
        {"prompt": "p", "completion": "r2", "label": False},
        {"prompt": "p", "completion": "c2", "label": True},
    ]
    pairs = pairs_of_records(rows, "rows")
    assert pairs.to_rows() == [["p", "c1", "r1"], ["p", "c2", "r2"]]
    assert (pairs.report.read, pairs.report.kept) == (5, 2)
    assert "without a partner" in pairs.report.dropped[0].reason
    with pytest.raises(SteeringError, match="a pair needs a good and a bad answer"):
        pairs_of_records(rows[:2], "rows")


def test_what_has_no_answers_is_told_to_have_them_drafted():
    persona = {
        "instruction": [{"pos": "Love figs.", "neg": "Hate figs."}],
        "questions": ["Why?"],
        "eval_prompt": "Rate.",
    }
    for row in (persona, {"prompt": ASKED}):
        with pytest.raises(SteeringError, match="no answers.*drafted"):
            parse_pairs(json.dumps(row))
    with pytest.raises(UnknownColumns, match="there is one answer in a row, and a pair needs two"):
        parse_pairs(json.dumps([{"prompt": ASKED, "response": GOOD}]))


def test_roles_that_no_chat_has_are_named():
    with pytest.raises(SteeringError, match="message of role 'tool', which is none of system, developer"):
        read_one({"prompt": [*TALK, said("tool", "4")], "chosen": GOOD, "rejected": BAD})


def test_conversations_that_part_early_end_where_they_part():
    start = f"\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: {ASKED}\n\nAssistant: "
    row = {"chosen": f"{start}{GOOD}\n\nHuman: Thanks\n\nAssistant: Sure.", "rejected": start + BAD}
    pairs = read_one(row)
    assert texts(pairs[0]) == (ASKED, GOOD, BAD, (Message("user", "Hi"), Message("assistant", "Hello.")))
    assert "part before their last message" in told(pairs)


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (
            {"meta": {"ask": {"text": ASKED}}, "a": [{"t": GOOD}], "b": [{"t": BAD}]},
            {"prompt": "meta.ask.text", "chosen": "a.0.t", "rejected": "b.0.t"},
        ),
        ({"x": json.dumps({"ask": ASKED}), "y": GOOD, "z": BAD}, {"prompt": "x.ask", "chosen": "y", "rejected": "z"}),
        (
            {"ask": ASKED, "one": BAD, "two": GOOD, "which": "second"},
            {"prompt": "ask", "chosen": "one", "rejected": "two", "label": "which"},
        ),
    ],
)
def test_any_layout_can_be_said_by_hand(row, columns):
    assert texts(read_one(row, columns=columns)[0]) == PLAIN


def test_system_input_and_history_can_be_named_too():
    row = {"q": "Answer:", "more": ASKED, "rules": "Be brief.", "past": [["Hi", "Yo"]], "y": GOOD, "n": BAD}
    columns = {"prompt": "q", "input": "more", "system": "rules", "history": "past", "chosen": "y", "rejected": "n"}
    pair = read_one(row, columns=columns)[0]
    assert pair.prompt == f"Answer:\n{ASKED}"
    assert pair.before == (*BRIEF, Message("user", "Hi"), Message("assistant", "Yo"))


def test_preview_shows_the_first_pair_and_all_paths(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(LAYOUTS["OpenAI"][0]))
    seen = preview_pairs(path)
    assert (seen.layout, seen.problem) == ("OpenAI", "")
    assert texts(seen.pair) == (ASKED, GOOD, BAD, BRIEF)
    assert seen.mapping == {"prompt": "input", "chosen": "preferred_output", "rejected": "non_preferred_output"}
    assert "input.messages" in seen.paths


def test_preview_of_unknown_columns_lists_them_so_that_they_can_be_named(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("ask;yes;no\nWhy?;Because.;Dunno.\n")
    seen = preview_pairs(path)
    assert (seen.layout, seen.pair) == ("", None) and "cannot tell which columns" in seen.problem
    assert seen.paths == {"ask": "Why?", "yes": "Because.", "no": "Dunno."}
    named = preview_pairs(path, columns={"prompt": "ask", "chosen": "yes", "rejected": "no"})
    assert texts(named.pair) == ("Why?", "Because.", "Dunno.", ())
    assert preview_pairs(b"prompt\tchosen\trejected\na\tb\tc").pair is not None
    assert preview_pairs(tmp_path / "none.csv").problem
