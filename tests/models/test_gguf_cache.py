"""GGUF files are converted once, and nothing half done is ever taken for a conversion."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from steering.errors import LoadingCancelled, SteeringError
from steering.models import bundled, gguf_cache
from steering.models.catalog import describe_model
from steering.models.gguf_cache import cached_conversion, conversion_of
from steering.models.loading import load_model
from steering.paths import cache_dir

SAID: list[str] = []


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """The bundled model's own file, under another name: it is converted like a stranger's."""
    bundled.bundled_checkpoint()
    path = tmp_path_factory.mktemp("gguf") / "mine.gguf"
    shutil.copy(cache_dir() / "models" / bundled.GGUF, path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERING_CACHE_DIR", str(tmp_path))
    SAID.clear()
    return tmp_path / "gguf"


def quick_conversion(gguf: Path, target: Path) -> None:
    """Stands in for transformers; runs in a process of its own."""
    source = Path(gguf.read_text().split()[0])
    shutil.copytree(source, target)


@pytest.fixture
def quick(monkeypatch, cache, tmp_path):
    """A conversion that takes no time, and files for it."""
    monkeypatch.setattr(gguf_cache, "convert_checkpoint", quick_conversion)
    monkeypatch.setattr(gguf_cache, "_weights_of", lambda gguf: 1000)
    real = tmp_path / "real"
    real.mkdir()
    from tests.tiny_models import tiny_network, tokenizer

    tiny_network("llama").save_pretrained(real)
    tokenizer().save_pretrained(real)

    def file(name, text=""):
        path = tmp_path / name
        path.write_text(f"{real} {text}")
        return path

    return file


@pytest.fixture
def original(request):
    """The bundled model and its size, before `cache` leads to an empty folder, where it would be fetched again."""
    return request.getfixturevalue("bundled"), describe_model(None).memory_bytes


def test_the_conversion_is_the_file_and_the_second_start_reads_it(gguf, original, cache):
    model, memory_bytes = original
    first = load_model(gguf, on_progress=SAID.append)
    assert any("Converting mine for transformers, once" in text for text in SAID)
    assert first.name == "mine" and first.fingerprint == model.fingerprint  # the same weights, by another way
    assert first.tokenizer("Hello world")["input_ids"] == model.tokenizer("Hello world")["input_ids"]
    SAID.clear()
    before = describe_model(gguf)
    assert load_model(gguf, on_progress=SAID.append).fingerprint == first.fingerprint
    assert not any("Converting" in text for text in SAID)
    assert before.memory_bytes == memory_bytes


def test_a_changed_file_is_converted_again_and_a_copy_is_not(quick, cache):
    file = quick("a.gguf")
    first = cached_conversion(file, SAID.append)
    assert conversion_of(file) == first == cached_conversion(file, SAID.append) and len(SAID) == 1
    copy = file.with_name("copy.gguf")
    shutil.copy(file, copy)
    assert conversion_of(copy) is None and cached_conversion(copy, SAID.append) == first and len(SAID) == 1
    file.write_text(file.read_text() + "changed")
    assert conversion_of(file) is None
    assert cached_conversion(file, SAID.append) != first and len(SAID) == 2


def test_a_conversion_can_be_given_up_and_leaves_nothing(quick, cache, monkeypatch):
    monkeypatch.setattr(gguf_cache, "CONVERT", "import time; time.sleep(60) #{module}{function}")
    asked = iter([False, False, False, True])
    with pytest.raises(LoadingCancelled):
        cached_conversion(quick("a.gguf"), SAID.append, lambda: next(asked, True))
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_conversion_that_was_killed_heals(quick, cache):
    file = quick("a.gguf")
    folder = cached_conversion(file, SAID.append)
    (folder / "model.safetensors").write_bytes(b"half")
    assert conversion_of(file) is None
    assert cached_conversion(file, SAID.append) == folder == conversion_of(file)


def test_conversions_used_longest_agomake_room(quick, cache, monkeypatch):
    first, second = (cached_conversion(quick(f"{name}.gguf", name), SAID.append) for name in "ab")
    size = sum(file.stat().st_size for file in first.rglob("*"))
    monkeypatch.setenv("STEERING_GGUF_CACHE_GB", str((size + 4000) / 1e9))
    third = cached_conversion(quick("c.gguf", "c"), SAID.append)
    assert third.is_dir() and second.is_dir() and not first.exists()


def test_a_conversion_that_another_start_makes_is_not_deleted(quick, cache, monkeypatch):
    file = quick("a.gguf")
    digest = cached_conversion(file, SAID.append).name
    shutil.rmtree(cache / digest)
    partial = cache / f"partial-{digest}-x"
    partial.mkdir()
    (partial / "weights").write_bytes(bytes(5000))
    monkeypatch.setenv("STEERING_GGUF_CACHE_GB", "0.000001")
    with FileLock(cache / f"{digest}.lock"):
        gguf_cache.make_room(cache, 0)
        assert partial.is_dir()
    gguf_cache.make_room(cache, 0)  # nobody works there any more
    assert not partial.exists()


def test_what_a_killed_start_left_goes_with_the_next_conversion(quick, cache):
    file = quick("a.gguf")
    folder = cached_conversion(file, SAID.append)
    folder.rename(cache / f"partial-{folder.name}-x")
    assert cached_conversion(file, SAID.append) == folder
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


def test_a_file_larger_than_the_cache_is_read_as_it_is(quick, cache, monkeypatch):
    monkeypatch.setenv("STEERING_GGUF_CACHE_GB", "0.000001")
    assert cached_conversion(quick("a.gguf"), SAID.append) is None


def test_what_transformers_cannot_convert_is_said_in_its_words(tmp_path, cache):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(SteeringError, match="a.gguf.* cannot be loaded: the file is damaged or not GGUF"):
        load_model(tmp_path / "a.gguf")
