"""Reading and writing vector files of any format, also of other packages."""

import json
import logging

import pytest
import torch

from steering import plugins
from steering.cli.main import main
from steering.errors import SteeringError
from steering.vectors.formats import Format, format_named, formats, read_any, suffixes, write
from steering.vectors.vector import SteeringVector


def read_text(path, *, layer, name):
    number, *values = path.read_text().split()
    return SteeringVector({int(number): torch.tensor([float(v) for v in values])}, name=name or path.stem)


def write_text(vector, path):
    (layer,) = vector.layers
    path.write_text(" ".join(map(str, [layer, *vector.directions[layer].tolist()])))


TEXT = Format("text", "Numbers in a text file", (".txt", ".vec"), read_text, write_text)


class EntryPoint:
    """What `importlib.metadata` hands out for a package's entry point."""

    def __init__(self, loaded):
        self.name, self.value, self.loaded = "theirs", "their_package:FORMAT", loaded

    def load(self):
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture
def installed(monkeypatch):
    """Make the registry see these entry points, as if their packages were installed."""

    def install(*loaded):
        monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint(each) for each in loaded])
        formats.cache_clear()

    yield install
    monkeypatch.undo()
    formats.cache_clear()


def test_the_suffix_decides(tmp_path):
    made = SteeringVector({2: torch.ones(3)}, name="formal")
    path = made.save(tmp_path / "a.safetensors")
    assert read_any(str(path)).name == "formal"
    assert read_any(path.rename(tmp_path / "a.SAFETENSORS"), name="mine").name == "mine"
    torch.save(torch.ones(3), tmp_path / "b.PT")
    assert read_any(tmp_path / "b.PT", layer=4).layers == (4,)


def test_a_nameless_file_is_called_by_its_file_name(tmp_path):
    path = SteeringVector({2: torch.ones(3)}).save(tmp_path / "plain.safetensors")
    assert read_any(path).name == "plain"


def test_a_layer_that_the_file_contradicts(tmp_path):
    path = SteeringVector({2: torch.ones(3)}).save(tmp_path / "a.safetensors")
    assert read_any(path, layer=2).layers == (2,)
    with pytest.raises(
        SteeringError, match="a.safetensors: the file itself says that it steers layer 2; leave the layer"
    ):
        read_any(path, layer=3)


@pytest.mark.parametrize("name", ["a.bin", "a", ".safetensors", "a.csv"])
def test_other_kinds_of_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(SteeringError, match="this kind of file; a vector file ends in one of .safetensors, .pt, .pth"):
        read_any(tmp_path / name)


def test_no_such_file(tmp_path):
    with pytest.raises(SteeringError, match="a.safetensors: there is no such file"):
        read_any(tmp_path / "a.safetensors")


@pytest.mark.parametrize("format", [f for f in formats().values() if f.read and f.write], ids=lambda f: f.name)
def test_what_is_written_can_be_read(tmp_path, format):
    path = write(SteeringVector({2: torch.ones(3)}, name="formal"), tmp_path / f"a{format.suffixes[0]}", format.name)
    assert read_any(path).directions[2].tolist() == [1.0, 1.0, 1.0]


def test_an_unknown_format(tmp_path):
    with pytest.raises(SteeringError, match="There is no format 'gguf2'; choose one of: safetensors"):
        write(SteeringVector({2: torch.ones(3)}), tmp_path / "a.gguf", "gguf2")


def test_ours_come_first():
    assert list(formats())[:2] == ["safetensors", "bipo"] and format_named("bipo").says_layer is False
    assert suffixes(readable=True)[:3] == (".safetensors", ".pt", ".pth")
    assert ".pt" not in suffixes(writable=True) and set(suffixes()) >= set(suffixes(readable=True))


def test_a_format_that_can_only_be_read(tmp_path):
    with pytest.raises(SteeringError, match="Format 'bipo' can be read, not written; choose one of: safetensors"):
        write(SteeringVector({2: torch.ones(3)}), tmp_path / "a.pt", "bipo")
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_than_the_formats(tmp_path, installed):
    installed(TEXT)
    message = "a.csv: in format 'text' a vector file ends in .txt or .vec; name it a.txt."
    with pytest.raises(SteeringError, match=message):
        write(SteeringVector({2: torch.ones(3)}), tmp_path / "a.csv", "text")


def test_a_format_that_cannot_say_how_a_vector_acts_refuses_to_write_it(tmp_path, installed):
    installed(TEXT)
    ablating = SteeringVector({2: torch.ones(3)}, operator="ablate")
    with pytest.raises(SteeringError, match="Format 'text' cannot say that the vector acts by 'ablate'"):
        write(ablating, tmp_path / "v.txt", "text")
    assert not (tmp_path / "v.txt").exists()
    assert read_any(write(ablating, tmp_path / "v.safetensors")).operator == "ablate"


def test_a_format_of_another_package(tmp_path, installed):
    installed(TEXT)
    assert list(formats()) == ["safetensors", "bipo", "text"]
    assert suffixes(readable=True) == (".safetensors", ".pt", ".pth", ".txt", ".vec")
    path = write(SteeringVector({2: torch.tensor([0.5, -1.0])}, name="formal"), tmp_path / "a.vec", "text")
    assert path.read_text() == "2 0.5 -1.0"
    assert read_any(path).directions[2].tolist() == [0.5, -1.0] and read_any(path, name="mine").name == "mine"
    with pytest.raises(SteeringError, match="ends in one of .safetensors, .pt, .pth, .txt, .vec"):
        read_any(tmp_path / "a.bin")
    for lost in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(SteeringError, match="cannot be (read|written)|cannot read this kind"):
            read_any(lost)
    with pytest.raises(SteeringError, match="a.txt: cannot be written"):
        write(SteeringVector({2: torch.ones(3)}), tmp_path / "no such folder" / "a.txt", "text")


def test_a_format_of_another_package_on_the_command_line(tmp_path, installed, own_shelf, capsys):
    installed(TEXT)
    source = SteeringVector({2: torch.tensor([0.5, -1.0])}, name="formal").save(tmp_path / "formal.safetensors")
    assert main(["export", str(source), "--format", "text", "--output", str(tmp_path / "out.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path / "out.txt"), "format": "text"}
    assert main(["import", str(tmp_path / "out.txt"), "--name", "theirs", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["slug"] == "theirs" and read_any(entry["path"]).directions[2].tolist() == [0.5, -1.0]


@pytest.mark.parametrize("broken", [ImportError("no module named their_package"), "not a format", TEXT])
def test_a_broken_entry_point_is_logged_and_left_out(installed, caplog, broken):
    installed(TEXT, broken)  # the second of two formats with one name is left out, too
    with caplog.at_level(logging.WARNING):
        assert list(formats()) == ["safetensors", "bipo", "text"]
    assert "their_package:FORMAT" in caplog.text and "left out" in caplog.text
