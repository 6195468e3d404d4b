"""Archives, folders and data sets of the Hub: read, or refused in one sentence."""

import gzip
import io
import json
import zipfile
from types import SimpleNamespace

import httpx
import huggingface_hub
import pyarrow as pa
import pytest
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from steering.errors import SteeringError
from steering.limits import Limits
from steering.pairs import readers
from steering.pairs.dataset import parse_pairs, read_pairs
from steering.pairs.hub import is_hub_id
from steering.pairs.preview import preview_pairs

CSV = b"prompt,chosen,rejected\nWhy?,Because.,No idea.\nHow?,Like this.,Dunno.\n"

ROWS = [{"prompt": f"Why {n}?", "chosen": f"So {n}.", "rejected": f"No {n}."} for n in range(3)]


def zipped(files, **options):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", zipped({"a.csv": CSV, "b.csv": CSV}), "holds 2 files of pairs \\('a.csv', 'b.csv'\\)"),
        ("a.zip", zipped({"read.me": b"x"}), "holds no file of pairs \\('read.me'\\)"),
        ("a.zip", zipped({"b.zip": CSV}), "holds no file of pairs"),
        ("a.zip", zipped({"b.csv": gzip.compress(CSV)}), "archive in the archive"),
        ("a.csv", zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "Office document"),
        ("a.zip", zipped({"a.csv": CSV})[:-30], "damaged"),
        ("a.csv.gz", gzip.compress(CSV)[:-9], "damaged"),
        ("a.csv.gz", b"", "nothing in it"),
        ("a.zip", b"hello", "damaged or not zip"),
    ],
)
def test_archive_that_cannot_be_read(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SteeringError, match=message) as error:
        read_pairs(tmp_path / name)
    assert "\n" not in str(error.value) and str(error.value).startswith(name)


def test_an_encrypted_archive_is_refused(tmp_path):
    data = bytearray(zipped({"a.csv": CSV}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both headers
        data[data.find(mark) + place] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SteeringError, match="encrypted"):
        read_pairs(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["bomb.json.gz", "bomb.zip"])
def test_what_unpacks_to_more_than_the_limit_is_not_unpacked(tmp_path, monkeypatch, name):
    for module in (readers.files, readers.archives):
        monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    bomb = b" " * 10_000_000
    (tmp_path / name).write_bytes(gzip.compress(bomb) if name.endswith("gz") else zipped({"bomb.json": bomb}))
    with pytest.raises(SteeringError, match="larger than"):
        read_pairs(tmp_path / name)


def test_hostile_names_in_an_archive_do_no_harm(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"../../etc/pairs.csv": CSV, "__MACOSX/._pairs.csv": b"\0"}))
    assert len(read_pairs(tmp_path / "a.zip")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_a_folder_is_read_file_by_file(tmp_path):
    folder = tmp_path / "my pairs"
    folder.mkdir()
    (folder / "a.csv").write_bytes(CSV + b",,\n")
    (folder / "b.jsonl").write_text(json.dumps({"question": "Who?", "matching": "Me.", "not_matching": "You."}))
    (folder / "notes.md").write_text("not pairs")
    (folder / ".hidden.csv").write_text("nothing")
    (tmp_path / "outside.csv").write_bytes(CSV.replace(b"Why", b"Outside"))
    (folder / "link.csv").symlink_to(tmp_path / "outside.csv")
    pairs = read_pairs(folder)
    assert [pair.prompt for pair in pairs] == ["Why?", "How?", "Who?"]
    assert (pairs.report.read, pairs.report.kept) == (4, 3)
    assert pairs.report.notes == (
        "a.csv: 2 pairs kept, 1 row dropped.",
        "b.jsonl: 1 pair kept, 0 rows dropped.",
    )
    assert pairs.report.dropped[0].reason.endswith("[a.csv]")
    with pytest.raises(SteeringError, match="holds no file of pairs"):
        (tmp_path / "empty").mkdir()
        read_pairs(tmp_path / "empty")


def numbered(first, last):
    return "\n".join(json.dumps({"prompt": f"{n}?", "chosen": "yes", "rejected": "no"}) for n in range(first, last))


def test_a_folder_as_it_is_downloaded(tmp_path):
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name, text in {
        "README.md": "# set",
        "LICENSE.txt": "free",
        "dataset_infos.json": "{}",
        ".cache/x.json": "{}",
        "data/train-00000-of-00002.jsonl": numbered(0, 30),
        "data/train-00001-of-00002.jsonl": numbered(30, 40),
        "data/test-00000-of-00001.jsonl": numbered(90, 99),
    }.items():
        (folder / name).write_text(text)
    pairs = read_pairs(folder)
    assert [pair.prompt for pair in pairs] == [f"{n}?" for n in range(40)]
    assert pairs.report.notes[-1] == "set: files for testing were not read ('data/test-00000-of-00001.jsonl')."
    pairs = read_pairs(folder, max_pairs=35)
    assert len(pairs) == 35 and "set has more than 35 rows; the first 35 were read." in pairs.report.notes
    pairs = read_pairs(folder, max_pairs=20, draw_seed=1)
    drawn = [int(pair.prompt[:-1]) for pair in pairs]
    assert len(drawn) == 20 and drawn == sorted(drawn) and 0 < sum(n >= 30 for n in drawn) < 10
    assert "20 of the 40 rows of set were drawn at random." in pairs.report.notes
    assert drawn == [int(pair.prompt[:-1]) for pair in read_pairs(folder, max_pairs=20, draw_seed=1)]
    assert pairs.report.notes[0].startswith("data/train-00000-of-00002.jsonl: ")


def test_what_lies_beside_the_data_in_an_archive_is_no_data(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"README.txt": b"pairs", "x/LICENSE.txt": b"free", "x/pairs.csv": CSV}))
    assert len(read_pairs(tmp_path / "a.zip")) == 2


@pytest.mark.parametrize("data", [CSV, json.dumps(ROWS[:2]).encode(), numbered(0, 2).encode()])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".txt"])
def test_a_suffix_that_lies_is_not_believed(tmp_path, data, suffix):
    for packed in (data, gzip.compress(data), zipped({f"pairs{suffix}": data})):
        (tmp_path / f"a{suffix}").write_bytes(packed)
        assert len(read_pairs(tmp_path / f"a{suffix}")) == 2


def test_zstandard(tmp_path):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(CSV)
    (tmp_path / "a.csv.zst").write_bytes(out.getvalue())
    assert len(read_pairs(tmp_path / "a.csv.zst")) == 2
    (tmp_path / "a.csv.zst").write_bytes(out.getvalue().to_pybytes()[:-9])
    with pytest.raises(SteeringError, match="damaged"):
        read_pairs(tmp_path / "a.csv.zst")


def test_encodings_are_told(tmp_path):
    (tmp_path / "a.csv").write_bytes("prompt,chosen,rejected\nWo ist das Café?,Drüben.,Weg.\n".encode("cp1252"))
    pairs = read_pairs(tmp_path / "a.csv")
    assert pairs.to_rows() == [["Wo ist das Café?", "Drüben.", "Weg."]]
    assert pairs.report.notes == ("a.csv is not in UTF-8; it was read as CP1252 (it reads 'Café?,Drüben.,Weg.').",)
    russian = "prompt,chosen,rejected\nКак дела сегодня утром?,Спасибо, очень хорошо,Плохо и грустно\n".replace(
        ", о", " о"
    )
    (tmp_path / "a.csv").write_bytes(russian.encode("cp1251"))
    assert read_pairs(tmp_path / "a.csv")[0].prompt == "Как дела сегодня утром?"


def test_quotes_that_are_letters_swallow_no_lines(tmp_path):
    lines = ["prompt\tchosen\trejected", 'Size?\t5" wide\t6"', '"Hi\tYes\tNo', 'c\td"\te', 'f\t"g\th']
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    pairs = read_pairs(tmp_path / "a.tsv")
    assert pairs.to_rows() == [line.split("\t") for line in lines[1:]]
    assert "Quotes in it are part of the texts" in pairs.report.notes[0]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".tsv", "\t"), (".txt", "|"), (".csv", "\t")])
def test_quotes_that_are_letters_join_no_rows_even_where_they_close(tmp_path, suffix, delimiter):
    rows = [["a", '"b', "c"], ["d", 'e"', "f"], ["g", "h"], ["j", "k", "l"]]
    lines = [delimiter.join(row) for row in (["prompt", "chosen", "rejected"], *rows)]
    path = tmp_path / f"a{suffix}"
    path.write_text("\n".join(lines))
    pairs = read_pairs(path)
    assert pairs.to_rows() == [row for row in rows if len(row) == 3]
    assert [each.line for each in pairs.report.dropped] == [4]
    assert "Quotes in it are part of the texts" in pairs.report.notes[0]


def test_quotes_around_cells_of_a_tsv_stay_quotes(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('prompt\tchosen\trejected\na\t"b\nx"\t"c\ty"\nd\te\t"f ""q"" r"\n')
    assert read_pairs(path).to_rows() == [["a", "b\nx", "c\ty"], ["d", "e", 'f "q" r']]
    path.write_text('"prompt"\t"chosen"\t"rejected"\n"a"\t"b\t"c"\n"d"\t"e"\t"f"\n')  # one is damaged
    with pytest.raises(SteeringError, match="a.tsv, line 2: .*quote"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("line", "delimiter"),
    [("sep=;\r\n", ";"), ('"sep=|"\n', "|"), ("SEP=\t\r", "\t"), ("sep=\n", ","), ("sep=;\n", ","), ("sep=,;;\n", ",")],
)
def test_the_line_that_names_the_separator(tmp_path, line, delimiter):
    newline = line.lstrip('"sepSEP=;|\t,')
    text = CSV.decode().replace(",", delimiter).replace("\n", newline)
    (tmp_path / "a.csv").write_bytes((line + text).encode())
    pairs = read_pairs(tmp_path / "a.csv")
    assert pairs.to_rows() == [["Why?", "Because.", "No idea."], ["How?", "Like this.", "Dunno."]]
    assert [pair.line for pair in pairs] == [3, 4]


# JSON ----------------------------------------------------------------------------------------------------------------

PREFERRED = {f"{name}_output": [{"role": "assistant", "content": name}] for name in ("preferred", "non_preferred")}


def spelled(rows):
    return json.dumps(rows)[:-2] + ",},]"


@pytest.mark.parametrize(
    "text",
    [
        spelled(ROWS),
        json.dumps(ROWS, indent=1).replace('"\n', '",\n'),
        json.dumps({"my list": ROWS}),
        json.dumps({"conversations": ROWS, "license": "mine", "tags": ["a", "b"]}),
        json.dumps({"default": {"train": ROWS}}),
        json.dumps({"first": ROWS[0], "second": ROWS[1], "third": ROWS[2]}),
        json.dumps({"rows": [{"row": row} for row in ROWS]}),
        json.dumps({name: {f"row {n}": row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}),
        json.dumps({"index": [0, 1, 2], "columns": list(ROWS[0]), "data": [list(row.values()) for row in ROWS]}),
        json.dumps({"schema": {"fields": [{"name": "prompt"}]}, "data": ROWS}),
        json.dumps({"train_prefs": {name: [row[name] for row in ROWS] for name in ROWS[0]}}),
    ],
)
def test_rows_are_found_whatever_is_around_them(text):
    assert parse_pairs(text).to_rows() == [list(row.values()) for row in ROWS]


@pytest.mark.parametrize(
    "row",
    [
        {**ROWS[0], "data": {"source": "a book"}, "examples": [{"prompt": "another"}], "train": [1]},
        {"input": {"messages": [{"role": "user", "content": "Why 0?"}]}, **PREFERRED},
        {"prompt": "p", "chosen": [{"role": "assistant", "content": "c"}], "rejected": "r", "tools": []},
    ],
)
def test_one_row_stays_one_row(row):
    assert len(parse_pairs(json.dumps(row))) == 1


def test_the_parts_of_a_data_set_that_were_not_read_are_named():
    for parts, read in ((("validation", "test"), "validation"), (("test_sft", "train_sft"), "train_sft")):
        pairs = parse_pairs(json.dumps({part: ROWS[: 1 + (part == read)] for part in parts}))
        assert len(pairs) == 2
        assert f"'{read}' was read" in pairs.report.notes[0]


def test_a_page_of_a_data_set_is_no_whole_one():
    page = {"rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)], "num_rows_total": 5000}
    assert parse_pairs(json.dumps(page)).report.notes == (
        "pasted text is a page of a data set: it holds 3 of 5,000 rows.",
    )


def test_several_lists_of_pairs_are_not_chosen_among():
    with pytest.raises(SteeringError, match="several lists of rows \\('mine', 'yours'\\); give one"):
        parse_pairs(json.dumps({"mine": ROWS, "yours": ROWS}))
    with pytest.raises(SteeringError, match="cannot tell which columns|nested too deeply"):
        parse_pairs('{"data": ' * 900 + "[]" + "}" * 900)


# The Hub -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "is_id"),
    [
        ("hf://a/b", True),
        ("someone/pairs", True),
        ("folder/pairs.csv", False),
        ("a/b/c", False),
        ("./a/b", False),
        ("https://huggingface.co/datasets/a/b", True),
    ],
)
def test_what_counts_as_a_data_set(source, is_id):
    assert is_hub_id(source) == is_id


class Hub:
    """Stands in for the Hub: (branch, path) -> bytes."""

    def __init__(self, files, folder):
        self.files, self.folder, self.downloads, self.tokens = files, folder, [], []

    def dataset_info(self, name, *, revision, files_metadata, timeout):
        assert (name, files_metadata) == ("someone/pairs", True)
        if revision and not any(branch == revision for branch, _ in self.files):
            request = httpx.Request("GET", "http://x")
            raise RevisionNotFoundError("?", response=httpx.Response(404, request=request))
        siblings = [
            SimpleNamespace(rfilename=path, size=len(data) if isinstance(data, bytes) else data)
            for (branch, path), data in self.files.items()
            if branch == revision
        ]
        return SimpleNamespace(siblings=siblings)

    def download(self, name, file, *, repo_type, revision, token, cache_dir):
        self.asked = (token, cache_dir)
        self.downloads.append((file, revision))
        path = self.folder / file.replace("/", "-")
        path.write_bytes(self.files[revision, file])
        return str(path)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    def with_files(files):
        stand_in = Hub(files, tmp_path)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: stand_in.tokens.append(token) or stand_in)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", stand_in.download)
        return stand_in

    return with_files


def test_strangers_read_without_the_owners_login_and_within_their_limits(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path / "cache"))
    stand_in = hub({(None, "train.csv"): CSV, (None, "large.csv"): 6_000_000})
    assert len(read_pairs("hf://someone/pairs/train.csv", limits=Limits.public())) == 2
    assert preview_pairs("hf://someone/pairs/train.csv", limits=Limits.public()).pair
    token, cache = stand_in.asked
    assert set(stand_in.tokens) == {False} and token is False and cache.is_relative_to(tmp_path / "cache")
    with pytest.raises(SteeringError, match="6.0 MB; 5 MB are the most"):
        read_pairs("hf://someone/pairs/large.csv", limits=Limits.public())
    assert "5 MB are the most" in preview_pairs("hf://someone/pairs/large.csv", limits=Limits.public()).problem
    read_pairs("hf://someone/pairs/train.csv", limits=Limits(upload_bytes=10))  # a file of one's own, not of the Hub
    assert stand_in.tokens[-1] is None and stand_in.asked == (None, None)


def test_the_training_part_of_a_data_set_is_read(hub):
    stand_in = hub({(None, "README.md"): b"", (None, "test.csv"): CSV * 9, (None, "data/train.csv"): CSV})
    pairs = read_pairs("someone/pairs")
    assert len(pairs) == 2 and pairs.report.source == "someone/pairs"
    assert pairs.report.notes == (
        "Of the data set someone/pairs, data/train.csv was read; name another file as hf://someone/pairs/FILE "
        "('test.csv').",
    )
    assert stand_in.downloads == [("data/train.csv", None)]
    read_pairs("hf://someone/pairs/test.csv")
    assert stand_in.downloads[-1] == ("test.csv", None)
    with pytest.raises(SteeringError, match="no file 'x.csv'; choose among 'data/train.csv', 'test.csv'"):
        read_pairs("hf://someone/pairs/x.csv")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["data/train_gen-0.csv", "data/train_prefs-0.csv", "data/test_prefs-0.csv"], "data/train_prefs-0.csv"),
        (["base/train.csv.gz", "online/train.csv.gz", "base/test.csv.gz"], "base/train.csv.gz"),
        (["all.csv", "test.csv", "dataset_infos.json", "README.txt"], "all.csv"),
        (["test.csv", "validation.csv"], "validation.csv"),
        (["pairs.zip"], "pairs.zip"),
    ],
)
def test_which_file_of_a_data_set_is_read(hub, files, chosen):
    packed = {".gz": gzip.compress(CSV), ".zip": zipped({"a.csv": CSV})}
    stand_in = hub({(None, file): packed.get(file[file.rindex(".") :], CSV) for file in files})
    assert len(read_pairs("someone/pairs")) == 2
    assert stand_in.downloads == [(chosen, None)]


@pytest.mark.parametrize("path", ["", "/", "/viewer/default/train", "/blob/main/a.csv", "/tree/main"])
def test_the_address_of_a_page(hub, path):
    hub({(None, "a.csv"): CSV})
    assert len(read_pairs(f"https://huggingface.co/datasets/someone/pairs{path}")) == 2


def test_a_data_set_of_other_files_is_no_missing_one(hub):
    hub({(None, "a.png"): b""})
    with pytest.raises(SteeringError, match="someone/pairs: the data set has no file that can be read"):
        read_pairs("someone/pairs")


def test_a_data_set_without_readable_files_is_read_as_the_hubs_parquet(hub):
    branch = "refs/convert/parquet"
    stand_in = hub(
        {(None, "pairs.py"): b"", (branch, "default/train/0.parquet"): b"", (branch, "default/test/0.parquet"): b""}
    )
    with pytest.raises(SteeringError, match="nothing in it"):
        read_pairs("someone/pairs")
    assert stand_in.downloads == [("default/train/0.parquet", branch)]


def test_a_data_set_too_large_is_not_downloaded(hub):
    stand_in = hub({(None, "train.parquet"): 3 * 10**9})
    with pytest.raises(SteeringError, match="train.parquet has 3.0 GB, more than 1 GB"):
        read_pairs("someone/pairs")
    assert stand_in.downloads == []


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OSError("no route"), "the Hub cannot be reached \\(no route\\)"),
        (
            HfHubHTTPError("?", response=httpx.Response(401, request=httpx.Request("GET", "http://x"))),
            "private or gated",
        ),
        (HfHubHTTPError("?", response=httpx.Response(503, request=httpx.Request("GET", "http://x"))), "answers 503"),
    ],
)
def test_a_hub_that_fails_says_so_in_one_sentence(hub, failure, message):
    def fail(*_, **__):
        raise failure

    hub({}).dataset_info = fail
    with pytest.raises(SteeringError, match=f"^someone/pairs: .*{message}"):
        read_pairs("someone/pairs")
