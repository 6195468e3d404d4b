"""What is said of a model before it is loaded, and the models loaded of late."""

import json
import struct
from types import SimpleNamespace

import huggingface_hub
import pytest

from steering.errors import SteeringError
from steering.models import catalog
from steering.models.catalog import describe_model, free_memory, recent_models, remember_model
from steering.models.loading import load_model
from tests.tiny_models import tiny_network, tokenizer

LONG = "/" + 5000 * "a"


def header(text):
    """Return a safetensors file that is nothing but a header."""
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.fixture
def folder(tmp_path):
    tiny_network("llama").save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_folder_is_weighed_by_its_headers(folder):
    info = describe_model(folder)
    parameters = sum(p.numel() for p in tiny_network("llama").parameters())
    assert (info.kind, info.name, info.problem, info.fits) == ("folder", "tiny", "", True)
    assert info.memory_bytes == 4 * parameters
    assert info.file_bytes == (folder / "model.safetensors").stat().st_size


def test_the_bundled_model_fits():
    info = describe_model(None)
    assert (info.kind, info.fits, info.problem) == ("bundled", True, "") and info.memory_bytes == 538_060_032


def test_what_does_not_fit_is_said_not_to(folder, monkeypatch):
    monkeypatch.setattr(catalog, "free_memory", lambda: 100)
    assert not describe_model(folder).fits


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text(json.dumps({"is_encoder_decoder": True})), "encoder-decoder"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights;"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no weights in safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"nothing"), "damaged or not safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(header("[" * 100_000)), "damaged or not safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(header('{"x": {"shape": ["a"]}}')), "damaged or not safe"),
        (lambda f: (f / "model.safetensors").write_bytes(header('{"x": {"shape": 5}}')), "damaged or not safetensors"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "no config.json"),
        (lambda f: [each.unlink() for each in f.glob("tokenizer*")], "no tokenizer"),
    ],
)
def test_a_folder_that_holds_no_model_is_refused_before_loading(folder, damage, problem):
    damage(folder)
    info = describe_model(folder)
    assert problem in info.problem and "\n" not in info.problem


NOWHERE = ["/no/such/folder", "./none", "a/b/c", "no such file.gguf", "some words", LONG, f"{LONG}.gguf"]


@pytest.mark.parametrize("source", NOWHERE)
def test_what_is_not_there(source):
    info = describe_model(source)
    assert "there is no such" in info.problem and len(info.problem) < 200
    if " " not in source:
        with pytest.raises(SteeringError, match="there is no such"):
            load_model(source)


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    assert "damaged or not GGUF" in describe_model(tmp_path / "a.gguf").problem


def test_a_model_of_the_hub_is_weighed_before_it_is_downloaded(monkeypatch):
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in (("a.safetensors", 500), ("b.bin", 900))]
    found = SimpleNamespace(siblings=files, safetensors=SimpleNamespace(total=250))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=lambda name, **_: found))
    info = describe_model("someone/small")
    assert (info.kind, info.file_bytes, info.memory_bytes, info.problem) == ("hub", 500, 1000, "")
    found.siblings = files[1:]
    assert "no weights in safetensors" in describe_model("someone/small").problem

    def no_network(name, **_):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=no_network))
    assert "the Hub cannot be reached" in describe_model("someone/small").problem


def test_a_container_has_less_memory_than_its_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "CGROUP", tmp_path)
    whole = free_memory()
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert free_memory() == 600 < whole
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 600


def test_recent_models_are_kept_the_latest_first(monkeypatch, tmp_path):
    monkeypatch.setenv("STEERING_DATA_DIR", str(tmp_path))
    assert recent_models() == []
    for source in [*"abcdefghijkl", "c"]:
        remember_model(source)
    assert recent_models() == list("clkjihgfed")
    for damage in ("{", "3", '[1, "a"]', "[" * 100_000):
        (tmp_path / "recent_models.json").write_text(damage)
        assert set(recent_models()) <= {"a"}
    remember_model("b")
    assert recent_models()[0] == "b"
