"""Fixtures of the command line's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from steering.cli import main as cli
from steering.models.bundled import bundled_checkpoint
from tests.cli.command import Done, vector_of, write_pairs


@pytest.fixture
def steering(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session", autouse=True)
def fetched() -> None:
    """The bundled model is on this machine, so that no command says on stderr that it fetches it."""
    bundled_checkpoint(say=lambda line: None)


@pytest.fixture(scope="session")
def model_folder(tiny, tmp_path_factory) -> Path:
    """The tiny Llama as a folder that --model takes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.network.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def pairs_file(tmp_path) -> Path:
    return write_pairs(tmp_path / "pairs.csv", range(10))


@pytest.fixture
def vector_file(tmp_path) -> Path:
    return vector_of("bold").save(tmp_path / "bold.safetensors")
