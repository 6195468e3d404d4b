"""Shared by all tests: isolated folders, tiny random models of many architectures, the bundled model loaded once."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from steering.runtime.cpu_environment import configure_cpu

configure_cpu()  # as every entry point does, before torch is loaded
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the hub is a bug

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from steering.models.loading import LanguageModel, load_model  # noqa: E402
from steering.pairs.dataset import Pairs, PreferencePair  # noqa: E402
from steering.runtime.module_proxy import HOOKS  # noqa: E402
from steering.vectors.library import Library  # noqa: E402
from tests.serving import served  # noqa: E402
from tests.tiny_models import tiny_model  # noqa: E402

settings.register_profile("unhurried", deadline=None)  # a shared machine may hold any example up
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def own_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a test saves stays with the test. (The model cache is shared: it is read-only once made.)"""
    monkeypatch.setenv("STEERING_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def bundled() -> LanguageModel:
    """The bundled model; the first run on a machine downloads it."""
    return load_model()


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The shelf of the served page."""
    return Library(own=tmp_path_factory.mktemp("shelf"))


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> None:
    """All cores for the page, one for all else: on models this small, threads only wait for each other."""
    torch.set_num_threads((os.cpu_count() or 1) if "address" in request.fixturenames else 1)


@pytest.fixture(scope="session")
def address(bundled: LanguageModel, shelf: Library) -> Iterator[str]:
    """The page, served with the bundled model."""
    with served(bundled, shelf) as url:
        yield url


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    """A random Llama of 4 layers and 32 dimensions."""
    return tiny_model("llama")


@pytest.fixture
def pairs() -> Pairs:
    """Eight small pairs with answers of unequal length."""
    torch.manual_seed(0)
    return Pairs.of(
        PreferencePair(f"Would you take {thing}?", f"Yes, give me {thing} now", f"No{', no' * i} thanks")
        for i, thing in enumerate(
            ["power", "the throne", "a town", "gold", "it", "my crown", "more", "this whole land"]
        )
    )


@pytest.fixture
def no_hooks() -> Callable[[LanguageModel], bool]:
    def check(model: LanguageModel) -> bool:
        return not any(getattr(module, name) for module in model.network.modules() for name in HOOKS)

    return check
