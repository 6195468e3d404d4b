"""Preference pairs: every format, shape and fault of a file, and what can be done with the pairs read from it."""

import csv
import io
import json
import tracemalloc
from dataclasses import FrozenInstanceError

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steering.errors import SteeringError
from steering.pairs import readers
from steering.pairs.dataset import (
    MAX_CHARACTERS,
    Dropped,
    Message,
    Pairs,
    PreferencePair,
    parse_pairs,
    read_pairs,
    without_prompts,
)

HEADER = ["prompt", "chosen", "rejected"]
ROWS = [["Do you accept?", "Yes, gladly.", "No."], ['Say "hi";\nnow', "\thi, hi ", "Grüezi 👋"], ["a", "b", "c"]]
SUFFIXES = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]


def encoded(rows, suffix, header=HEADER):
    """A file with these rows, as bytes."""
    objects = [dict(zip(header, row, strict=True)) for row in rows]
    if suffix == ".parquet":
        file = io.BytesIO()
        pq.write_table(pa.table({name: [row[i] for row in rows] for i, name in enumerate(header)}), file)
        return file.getvalue()
    if suffix == ".json":
        return json.dumps(objects, ensure_ascii=False, indent=1).encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(one) + "\n" for one in objects).encode()
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t" if suffix == ".tsv" else ",").writerows([header, *rows])
    return text.getvalue().encode()


@pytest.fixture
def read(tmp_path):
    """Write a file and read it back as pairs."""

    def write_and_read(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_pairs(path, **options)

    return write_and_read


def pairs_of(rows):
    return Pairs.of(PreferencePair(*row) for row in rows)


def numbered(count):
    return Pairs.of(PreferencePair(f"prompt {i}", "yes", "no") for i in range(count))


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


# Formats -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_pairs(read, suffix):
    pairs = read("pairs" + suffix.upper(), encoded(ROWS, suffix))
    assert pairs.to_rows() == ROWS
    assert pairs == pairs_of(ROWS)
    assert pairs.sha256 == pairs_of(ROWS).sha256
    assert pairs.report.columns == {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    assert pairs.report.summary() == f"Read 3 rows of pairs{suffix.upper()}: 3 pairs kept, none dropped."


@pytest.mark.parametrize("suffix", SUFFIXES[:4])
def test_pasted_text_of_every_format(suffix):
    assert parse_pairs(encoded(ROWS, suffix).decode()).to_rows() == ROWS


@pytest.mark.parametrize(
    "header",
    [
        ["question", "matching", "not_matching"],
        ["question", "answer_matching_behavior", "answer_not_matching_behavior"],
        ["Question", " CHOSEN ", "Rejected"],
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_column_names_of_bipo_caa_and_trl(read, suffix, header):
    pairs = read("pairs" + suffix, encoded(ROWS, suffix, header))
    assert pairs.to_rows() == ROWS
    assert pairs.report.columns == dict(zip(HEADER, header, strict=True))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_of_other_names_and_ones_to_ignore(read, suffix):
    content = encoded([[*row, "en", "7"] for row in ROWS], suffix, ["my.q", "good", "bad", "prompt", "score"])
    pairs = read("pairs" + suffix, content, columns={"prompt": "MY.Q", "chosen": "good", "rejected": "bad"})
    assert pairs.to_rows() == ROWS


def test_one_column_of_another_name(read):
    assert read("a.csv", "q,chosen,rejected\na,b,c\n", columns={"prompt": "q"}).to_rows() == [["a", "b", "c"]]


def test_letter_column_of_bipo_test_infer(read):
    pairs = read("test_infer.csv", "question,A,B,matching\np,yes,no,A\nq,yes,no, b\nr,yes,no,C\ns,yes,no,\n")
    assert pairs.to_rows() == [["p", "yes", "no"], ["q", "no", "yes"]]
    assert [dropped.line for dropped in pairs.report.dropped] == [4, 5]
    assert [dropped.reason for dropped in pairs.report.dropped] == [
        "matching does not say which answer is better ('C')",
        "matching is missing",
    ]
    assert pairs.report.columns["chosen"] == "A or B, as matching says"


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"prompt": "a", "chosen": "b", "rejected": "c"}]}',
        '{"version": 1, "rows": [{"prompt": "a", "chosen": "b", "rejected": "c"}]}',
        '{"prompt": ["a"], "chosen": ["b"], "rejected": ["c"], "note": 1}',
        '{"prompt": "a", "chosen": "b", "rejected": "c"}',
        '\ufeff[{"prompt": "a", "chosen": "b", "rejected": "c"}]',
    ],
)
def test_shapes_of_json(read, text):
    assert read("a.json", text).to_rows() == [["a", "b", "c"]]


def test_json_file_that_holds_lines(read):
    assert read("a.json", encoded(ROWS, ".jsonl")).to_rows() == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_dialects_of_csv(read, delimiter, bom, newline):
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in (HEADER, ["a;1", "b,2", "c\t3"])]
    text = bom + newline.join(lines)
    assert read("a.csv", text).to_rows() == [["a;1", "b,2", "c\t3"]]
    assert read("a.tsv", text).to_rows() == [["a;1", "b,2", "c\t3"]]


def test_lines_are_physical_lines_of_the_file(read):
    pairs = read("a.csv", 'prompt,chosen,rejected\r\n\r\n"two\r\nlines",b,c\r\nd,e,f\r\n\r\n"g\n\n",h,i\r\n')
    assert [pair.line for pair in pairs] == [3, 5, 7]
    assert pairs[0].prompt == "two\r\nlines"
    assert [pair.line for pair in read("a.jsonl", b"\n\n" + encoded(ROWS, ".jsonl"))] == [3, 4, 5]
    assert [pair.line for pair in read("a.parquet", encoded(ROWS, ".parquet"))] == [1, 2, 3]
    assert [pair.line for pair in read("a.json", encoded(ROWS, ".json"))] == [1, 2, 3]


# Conversations -------------------------------------------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("row", "before"),
    [
        ({"prompt": [user("p")], "chosen": [assistant("c")], "rejected": [assistant("r")]}, ()),
        ({"prompt": [user("p")], "chosen": "c", "rejected": "r"}, ()),
        ({"prompt": "p", "chosen": [assistant("c")], "rejected": "r"}, ()),
        ({"prompt": "p", "chosen": [user("p"), assistant("c")], "rejected": [user("p"), assistant("r")]}, ()),
        ({"chosen": [user("p"), assistant("c")], "rejected": [user("p"), assistant("r")]}, ()),
        ({"prompt": None, "chosen": [user("p"), assistant("c")], "rejected": [user("p"), assistant("r")]}, ()),
        ({"prompt": [SYSTEM, user("p")], "chosen": "c", "rejected": "r"}, (SYSTEM,)),
        (
            {"prompt": "p", "chosen": [SYSTEM, user("p"), assistant("c")], "rejected": [assistant("r")]},
            (SYSTEM,),
        ),
        (
            {
                "chosen": [user("hello"), assistant("hi"), user("p"), assistant("c")],
                "rejected": [user("hello"), assistant("hi"), user("p"), assistant("r")],
            },
            (user("hello"), assistant("hi")),
        ),
    ],
)
def test_conversations(read, row, before):
    before = tuple(Message(**message) for message in before)
    expected = PreferencePair("p", "c", "r", before)
    assert list(parse_pairs(json.dumps([row]))) == [expected]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), file)
    assert list(read("a.parquet", file.getvalue())) == [expected]
    assert expected.conversation == (*before, Message("user", "p"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "c", "rejected": "r"}, "prompt is not text (missing or null)"),
        ({"prompt": [assistant("p")], "chosen": "c", "rejected": "r"}, "prompt does not end with a user message"),
        ({"prompt": "p", "chosen": [user("c")], "rejected": "r"}, "chosen does not end with an assistant message"),
        (
            {"prompt": "p", "chosen": [user("q"), assistant("c")], "rejected": "r"},
            "chosen or rejected is a conversation, but its last message does not follow the prompt",
        ),
        (
            {"chosen": [user("p"), assistant("c")], "rejected": [user("q"), assistant("r")]},
            "chosen and rejected are conversations that differ before their last message",
        ),
        (
            {"prompt": [{"role": "tool", "content": "p"}], "chosen": "c", "rejected": "r"},
            "prompt has a message of role 'tool', which is none of system, developer, user and assistant",
        ),
        (
            {"prompt": [user([{"type": "image_url"}])], "chosen": "c", "rejected": "r"},
            "prompt holds content other than",
        ),
        ({"prompt": [user("p")], "chosen": [{"role": "assistant"}], "rejected": "r"}, "chosen is not text (missing"),
        (
            {"prompt": [{"role": "system", "content": 1}, user("p")], "chosen": "c", "rejected": "r"},
            "a message before the prompt is not text (a number)",
        ),
    ],
)
def test_conversations_that_cannot_be_used(row, reason):
    good = {"prompt": "p", "chosen": "c", "rejected": "r"}
    report = parse_pairs(json.dumps([row, good])).report
    assert (report.kept, report.dropped[0].line) == (1, 1)
    assert report.dropped[0].reason.startswith(reason)


def test_empty_system_message_is_kept():
    row = {"prompt": [{"role": "system", "content": ""}, user("p")], "chosen": "c", "rejected": "r"}
    assert parse_pairs(json.dumps([row]))[0].before == (Message("system", ""),)


# Rows that cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize(
    ("spelled", "reason"),
    [
        ("null", "is not text (missing or null)"),
        ("NaN", "is not text (a number)"),
        ("1" * 5000, "is not text (a number)"),
        ("true", "is not text (true or false)"),
        ("[]", "is not text (a list)"),
        ('{"a": 1}', "is not text (an object)"),
        ('["a", 1]', "is not text (nor a list of messages)"),
        ('""', "is empty"),
        ('" \\n\\t\\u00a0"', "is empty"),
        ('"a\\ud800"', "holds a broken character (number 2)"),
        ('"' + "x" * (MAX_CHARACTERS + 1) + '"', "is too long (20,001 characters instead of at most 20,000)"),
    ],
)
def test_field_that_cannot_be_used(position, spelled, reason):
    cells = ['"p"', '"c"', '"r"']
    cells[position] = spelled
    row = ", ".join(f'"{name}": {cell}' for name, cell in zip(HEADER, cells, strict=True))
    pairs = parse_pairs('[{"prompt": "a", "chosen": "b", "rejected": "c"}, {' + row + "}]")
    assert pairs.to_rows() == [["a", "b", "c"]]
    assert pairs.report.dropped == (Dropped(2, f"{HEADER[position]} {reason}"),)


def test_longest_text_is_kept():
    assert len(pairs_of([["p" * MAX_CHARACTERS, "c", "r"]])) == 1


def test_dropped_rows_of_a_csv(read):
    text = "prompt,chosen,rejected\na,b,c\na,b\n  ,b,c\np,x, x \n\na,b,c\na,b,c,d\nq,%s,c\na,b,d\n" % ("y" * 200_000)
    report = read("a.csv", text).report
    assert (report.read, report.kept, report.unit) == (8, 2, "line")
    assert report.dropped == (
        Dropped(3, "the number of fields differs from the header's (2 instead of 3)"),
        Dropped(4, "prompt is empty"),
        Dropped(5, "chosen equals rejected"),
        Dropped(7, "duplicate (same as line 2)"),
        Dropped(8, "the number of fields differs from the header's (4 instead of 3)"),
        Dropped(9, "chosen is too long (200,000 characters instead of at most 20,000)"),
    )
    assert report.summary() == (
        "Read 8 rows of a.csv: 2 pairs kept, 6 dropped (the number of fields differs from the header's: 2, "
        "prompt is empty: 1, chosen equals rejected: 1, duplicate: 1, chosen is too long: 1)."
    )


def test_dropped_lines_of_a_jsonl(read):
    lines = [
        "nonsense",
        '{"prompt": ' + "[" * 100_000,
        '["a"]',
        encoded(ROWS[:1], ".jsonl").decode(),
        '{"chosen": "x"}',
    ]
    assert read("a.jsonl", "\n".join(lines)).report.dropped == (
        Dropped(1, "the line is not valid JSON (Expecting value, column 1)"),
        Dropped(2, "the JSON is nested too deeply"),
        Dropped(3, "the row is not an object (a list)"),
        Dropped(6, "rejected is not text (missing or null)"),
    )


def test_same_answers_to_another_conversation_are_no_duplicate():
    rows = [
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {"prompt": [SYSTEM, user("p")], "chosen": "c", "rejected": "r"},
        {"prompt": "p", "chosen": "r", "rejected": "c"},
        {"prompt": [user("p")], "chosen": "c", "rejected": "r"},
    ]
    assert parse_pairs(json.dumps(rows)).report.dropped == (Dropped(4, "duplicate (same as row 1)"),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "pairs.csv",
            "prompt,chosen,rejected\n" + "p,same,same\n" * 39 + "p,,q\n",
            "pairs.csv: all 40 rows were dropped, 39 because chosen equals rejected (first: line 2); "
            "give each row two different answers.",
        ),
        (
            "pairs.json",
            '[{"instruction": 7, "chosen": "c", "rejected": "r"}]',
            "pairs.json: the only row was dropped because prompt is not text (first: row 1); "
            "write text in prompt, chosen and rejected, or name the columns that hold it.",
        ),
        (
            "pairs.jsonl",
            "what\nis\nthis",
            "pairs.jsonl: all 3 rows were dropped, 3 because the line is not valid JSON (first: line 1); "
            "write one JSON object in each line.",
        ),
        ("a.csv", "prompt,chosen,rejected\n\n", "a.csv: there are no rows; give at least one prompt with two answers."),
        ("a.json", "[]", "a.json: there are no rows; give at least one prompt with two answers."),
    ],
)
def test_no_pair_left(read, name, text, message):
    with pytest.raises(SteeringError) as error:
        read(name, text)
    assert str(error.value) == message


# Files that cannot be read -------------------------------------------------------------------------------------------

GOOD_PARQUET = encoded(ROWS, ".parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pickle", "hello", r"bring one of \.csv, \.tsv, .*, \.json, \.jsonl, .*\.zip\."),
        ("a.csv", "", "there is nothing in it"),
        ("a.csv", "\ufeff \r\n", "there is nothing in it"),
        ("a.json", "\n", "there is nothing in it"),
        ("a.parquet", "", "there is nothing in it"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0", "looks binary \\(NUL at byte 8\\)"),
        ("a.csv", "prompt,chosen,rejected\na,b,c\n".encode("utf-16")[:-1], "line 2: the text is not UTF-16 at byte"),
        ("a.csv", "prompt,chosen,rejected\nà,né,ça\n".encode()[:-2] + b"\xff\n", "line 2: .* not UTF-8 at byte 32"),
        ("a.csv", "prompt\nhello\n", "there are prompts but no answers"),
        ("a.csv", "Who are you?,I am,I am not\n", "among 'Who are you.', 'I am', 'I am not'; .* say which is which"),
        ("a.csv", "prompt,chosen,not_matching\na,b,c\n", "cannot tell which columns"),
        ("a.csv", "prompt,chosen,rejected,Chosen\na,b,c,d\n", "more than one column is named 'chosen'"),
        ("a.csv", 'prompt,chosen,rejected\n\na,b,c\n"d,e,f\ng,h,i\n', "a.csv, line 4: .*quote"),
        ("a.csv", 'prompt,chosen,rejected\na,b,c\n"d,e,f\ng,"h",i\n', "a.csv, line 3: .*quote"),
        ("a.csv", '"prompt,chosen,rejected\na,b,c\n', "a.csv, line 1: .*quote"),
        ("a.json", '[\n {"prompt": "a",\n  "chosen" "b"}]', "a.json, line 3, column 12: .*not valid JSON"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "3", "the JSON is a number; give a list of objects"),
        ("a.json", '{"prompt": ["a"], "chosen": ["b", "c"], "rejected": ["d"]}', "differ in length"),
        ("a.json", '[{"q": "a"}]', "cannot tell which columns"),
        ("a.parquet", "hello", "damaged or not Parquet"),
        ("a.parquet", GOOD_PARQUET[:-9], "damaged or not Parquet"),
        ("a.parquet", b"PAR1" + bytes(80) + GOOD_PARQUET[84:], "damaged or not Parquet"),
    ],
)
def test_file_that_cannot_be_read(read, name, content, message):
    with pytest.raises(SteeringError, match=message) as error:
        read(name, content)
    assert str(error.value).startswith(name)
    assert "\n" not in str(error.value)


def test_path_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "none.csv", str(tmp_path / "a\0b.csv")):
        with pytest.raises(SteeringError, match="no such file"):
            read_pairs(path)


@pytest.mark.parametrize("text", ["", " \n", "\0", "hello", "{", "[1, 2", '"', "prompt,chosen,rejected"])
def test_pasted_text_that_cannot_be_read(text):
    with pytest.raises(SteeringError, match="^(pasted text|the box)"):
        parse_pairs(text)


def test_pasted_text_with_half_a_character():
    with pytest.raises(SteeringError, match="^the box: character 24 is broken"):
        parse_pairs("prompt,chosen,rejected\n\ud800,b,c", source="the box")


def test_wrong_column_mapping(read):
    text = "q,good,bad\na,b,c\n"
    with pytest.raises(SteeringError, match="a.csv: there is no column 'Q2'; choose among 'q', 'good', 'bad'"):
        read("a.csv", text, columns={"prompt": "Q2"})
    with pytest.raises(SteeringError, match="'promt' is none of the things .* prompt, chosen, rejected"):
        read("a.csv", text, columns={"promt": "q"})


def test_columns_are_listed_in_short(read):
    with pytest.raises(SteeringError, match="and 988 more") as error:
        read("a.csv", ",".join("x" * 1000 for _ in range(1000)))
    assert len(str(error.value)) < 1200


# Limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_too_many_rows(read, suffix):
    content = encoded([[f"p{i}", "c", "r"] for i in range(11)], suffix)
    assert read("a" + suffix, content, max_pairs=11).report.notes == ()
    first = read("a" + suffix, content, max_pairs=10)
    assert [row[0] for row in first.to_rows()] == [f"p{i}" for i in range(10)]
    assert first.report.notes == (f"a{suffix} has more than 10 rows; the first 10 were read.",)
    drawn = read("a" + suffix, content, max_pairs=4, draw_seed=1)
    assert len(drawn) == 4 and drawn.to_rows() != first.to_rows()[:4]
    assert [pair.line for pair in drawn] == sorted(pair.line for pair in drawn)
    assert drawn.report.notes == (f"4 of the 11 rows of a{suffix} were drawn at random.",)
    assert drawn == read("a" + suffix, content, max_pairs=4, draw_seed=1)


def test_reading_stops_at_the_first_row_too_many(read):
    pairs = read("a.csv", 'prompt,chosen,rejected\na,b,c\nd,e,f\ng,h,i\nj,"unclosed', max_pairs=2)
    assert pairs.to_rows() == [["a", "b", "c"], ["d", "e", "f"]]


def test_file_too_large(read, monkeypatch):
    monkeypatch.setattr(readers.files, "MAX_BYTES", 1_000_000)
    with pytest.raises(SteeringError, match="larger than 1 MB"):
        read("a.json", b" " * 1_000_001)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_the_beginning_of_a_file_too_large_is_read_and_said_to_be_one(read, monkeypatch, suffix):
    content = encoded([[f"p{i}", 'c "quoted"\nand more', "r"] for i in range(100)], suffix)
    monkeypatch.setattr(readers.files, "MAX_BYTES", len(content) - 100)
    pairs = read("a" + suffix, content)
    assert 90 < len(pairs) < 100 and pairs.to_rows()[-1] == [f"p{len(pairs) - 1}", 'c "quoted"\nand more', "r"]
    assert "what lies beyond was not read" in pairs.report.notes[0]


def test_json_with_too_many_values(read, monkeypatch):
    monkeypatch.setattr(readers.json_file, "MAX_JSON_VALUES", 100)
    for name in ("a.json", "a.jsonl"):
        with pytest.raises(SteeringError, match="more than 100 values"):
            read(name, "[" + "{}," * 100 + "{}]")


def test_parquet_too_large_unpacked(read, monkeypatch):
    monkeypatch.setattr(readers.parquet_file, "MAX_UNPACKED_BYTES", 1_000_000)
    content = encoded([["p" * 2_000_000, "c", "r"]], ".parquet")
    assert len(content) < 200_000
    with pytest.raises(SteeringError, match="larger than 1 MB unpacked"):
        read("a.parquet", content)


@pytest.mark.parametrize("shape", [str, lambda text: [user(text)]], ids=["text", "messages"])
def test_parquet_with_one_long_text_repeated_does_not_fill_the_memory(read, shape):
    """1,000 texts of 200,000 characters, 200 MB, which Parquet packs into some kB."""
    content = encoded([[shape("p" * 200_000), "c", "r"] for _ in range(1000)], ".parquet")
    assert len(content) < 100_000
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        with pytest.raises(SteeringError, match="1,000 because prompt is too long"):
            read("a.parquet", content)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        assert 0 < pool.max_memory() < 10_000_000
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


# What can be done with pairs -----------------------------------------------------------------------------------------


def test_pairs_are_an_immutable_sequence():
    pairs = numbered(5)
    assert len(pairs) == 5
    assert pairs[-1] == PreferencePair("prompt 4", "yes", "no")
    assert isinstance(pairs[1:3], Pairs)
    assert [pair.prompt for pair in pairs[1:3]] == ["prompt 1", "prompt 2"]
    assert pairs[1] in pairs
    assert hash(pairs) == hash(numbered(5))
    assert repr(pairs) == "<5 preference pairs of memory>"
    with pytest.raises(FrozenInstanceError):
        pairs.pairs = ()
    with pytest.raises(FrozenInstanceError):
        pairs[0].prompt = "other"


def test_line_is_not_compared():
    assert PreferencePair("p", "c", "r", line=3) == PreferencePair("p", "c", "r", line=4)


def test_sha256_tells_contents_apart():
    digests = {
        pairs.sha256
        for pairs in (
            pairs_of([["p", "c", "r"]]),
            pairs_of([["p", "r", "c"]]),
            pairs_of([["p ", "c", "r"]]),
            pairs_of([["p", "c", "r"], ["q", "c", "r"]]),
            Pairs.of([PreferencePair("p", "c", "r", (Message("system", "s"),))]),
        )
    }
    assert len(digests) == 5
    # Vectors on disk name the pairs they were trained on by this digest: it must never change.
    expected = "7c10c134b901eacf774e67fcb3b7d1ba0ebc3e2a6fc334af887a486f56a4e675"
    assert pairs_of([["p", "c", "r"]]).sha256 == expected


def test_of_checks_like_a_file():
    pairs = Pairs.of(
        [PreferencePair("p", "c", "r"), PreferencePair("p", "c", "r"), PreferencePair("", "c", "r", line=9)]
    )
    assert len(pairs) == 1
    assert pairs.report.dropped == (Dropped(2, "duplicate (same as row 1)"), Dropped(9, "prompt is empty"))
    assert len(Pairs.of([])) == 0
    with pytest.raises(SteeringError, match="memory: the only row was dropped because chosen equals rejected"):
        Pairs.of([PreferencePair("p", "c", "c")])


def test_drop_extends_the_report(read):
    pairs = read("a.csv", "prompt,chosen,rejected\na,b,c\nd,e,e\nf,g,h\n")
    left = pairs.drop({0: "too long for the context (812 tokens)"})
    assert left.to_rows() == [["f", "g", "h"]]
    assert left.report.dropped == (
        Dropped(2, "too long for the context (812 tokens)"),
        Dropped(3, "chosen equals rejected"),
    )
    assert left.report.summary() == (
        "Read 3 rows of a.csv: 1 pair kept, 2 dropped (too long for the context: 1, chosen equals rejected: 1)."
    )
    assert pairs.drop({}) is pairs
    assert len(pairs) == 2
    with pytest.raises(SteeringError, match="a.csv: all 2 rows were dropped, 2 because too long for the context"):
        pairs.drop({0: "too long for the context (812 tokens)", 1: "too long for the context (99 tokens)"})
    with pytest.raises(IndexError):
        pairs.drop({2: "no such pair"})


def test_split_takes_the_share_asked_for_and_keeps_the_order():
    training, held_out = numbered(100).split(0.2, seed=3)
    assert (len(training), len(held_out)) == (80, 20)
    assert [pair.line for pair in training] == sorted(pair.line for pair in training)
    assert numbered(100).split(0.2, seed=3) == (training, held_out)
    assert numbered(100).split(0.2, seed=4) != (training, held_out)


def test_split_hardly_changes_when_rows_are_added():
    _, before = numbered(100).split(0.2)
    _, after = numbered(101).split(0.2)
    assert len({*before} - {*after}) <= 1


def test_split_at_its_edges():
    assert [len(part) for part in numbered(10).split(0)] == [10, 0]
    assert [len(part) for part in numbered(2).split(0.001)] == [1, 1]
    assert [len(part) for part in numbered(2).split(0.999)] == [1, 1]
    assert [len(part) for part in numbered(1).split(0.5)] == [1, 0]
    assert [len(part) for part in Pairs.of([]).split(0.5)] == [0, 0]
    for holdout in (1, -0.1, 2, float("nan")):
        with pytest.raises(SteeringError, match="held-out share"):
            numbered(10).split(holdout)


def test_without_prompts():
    tests = Pairs.of([*numbered(2), PreferencePair("prompt 1", "yes", "no", (Message("system", "s"),))], "test.csv")
    left = without_prompts(tests, Pairs.of([PreferencePair("prompt 1", "never", "ever")], "train.csv"))
    assert [pair.line for pair in left] == [1, 3]
    assert left.report.dropped == (Dropped(2, "prompt also in train.csv"),)
    with pytest.raises(
        SteeringError, match="test.csv: all 3 .* prompt also in test.csv .* bring pairs with other prompts"
    ):
        without_prompts(tests, tests)


# Properties ----------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40).filter(str.strip)
ROW = st.tuples(TEXTS, TEXTS, TEXTS).filter(lambda row: row[1].strip() != row[2].strip())
TABLES = st.lists(ROW, min_size=1, max_size=6, unique=True).map(lambda rows: [list(row) for row in rows])


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60)
@given(rows=TABLES)
def test_texts_survive_every_format_exactly(tmp_path_factory, suffix, rows):
    content = encoded(rows, suffix)
    path = tmp_path_factory.getbasetemp() / ("round_trip" + suffix)
    path.write_bytes(content)
    pairs = read_pairs(path)
    assert pairs.to_rows() == rows
    assert pairs.sha256 == pairs_of(rows).sha256
    if suffix != ".parquet":
        assert parse_pairs(content.decode()) == pairs


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=100)
@given(data=st.data())
def test_hostile_bytes_raise_nothing_but_steering_errors(tmp_path_factory, suffix, data):
    content = bytearray(encoded(ROWS, suffix))
    if data.draw(st.booleans(), "anything"):
        content = data.draw(st.binary(max_size=200))
    else:
        for _ in range(data.draw(st.integers(1, 4), "changes")):
            start = data.draw(st.integers(0, len(content) - 1))
            content[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
            assume(content)
    path = tmp_path_factory.getbasetemp() / ("hostile" + suffix)
    path.write_bytes(content)
    try:
        pairs = read_pairs(path)
    except SteeringError:
        return
    assert len(pairs) == pairs.report.kept == pairs.report.read - len(pairs.report.dropped) > 0
    assert Pairs.of(pairs) == pairs


@settings(max_examples=200)
@given(text=st.text(st.sampled_from('{}[]:,;"\t\n\ra0\\\ud800\0pé')) | st.text())
def test_hostile_text_raises_nothing_but_steering_errors(text):
    for header in ("", "prompt,chosen,rejected\n", "prompt;chosen;rejected\n", '[{"prompt": '):
        try:
            assert len(parse_pairs(header + text)) > 0
        except SteeringError as error:
            assert "\n" not in str(error)


@settings(max_examples=100)
@given(
    prompts=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    holdout=st.floats(0, 1, exclude_max=True),
    seed=st.integers(),
)
def test_split_shares_no_prompt_and_loses_nothing(prompts, holdout, seed):
    pairs = Pairs.of(PreferencePair(f"prompt {prompt}", f"{i}", "no") for i, prompt in enumerate(prompts))
    training, held_out = pairs.split(holdout, seed)
    assert not {pair.prompt for pair in training} & {pair.prompt for pair in held_out}
    assert sorted([*training, *held_out], key=lambda pair: pair.line) == list(pairs)
    assert len(training) > 0
    assert (len(held_out) > 0) == (holdout > 0 and len({*prompts}) > 1)
