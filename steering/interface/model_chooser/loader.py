"""Put another model in the place of the page's: checked before, watched while it loads, undone if it fails."""

import contextlib
import gc
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import Future

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.models import bundled
from steering.models.catalog import ModelInfo, describe_model, remember_model
from steering.models.loading import LanguageModel, load_model

TRAINING_SECONDS = 6.0
"""How long loading waits for `AppState.training`: longer than an estimate of a training's time holds it."""
RELEASE_SECONDS = 10.0
"""How long the old model may take to leave memory: a decoding thread keeps it for 5 s after its last request."""
POLL_SECONDS = 0.25
"""Between two looks for news of the loading thread, and at Cancel."""
CANCELLED = "Cancelled; the model was not changed."

logger = logging.getLogger(__name__)


class ModelLoader:
    """Loads models for the page, one at a time."""

    def __init__(self, app: AppState) -> None:
        self.app = app
        self._busy = threading.Lock()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Give up the model that is being loaded; the present one stays in use."""
        self._cancelled.set()

    def load(self, source: str) -> Iterator[str]:
        """Load a model and put it in use; yield a sentence for each stage, the last one says that it is in use.

        Args:
            source: Hub id, folder, GGUF file or name of the bundled model, as a person wrote it.

        Raises SteeringError, one sentence, if it cannot be loaded or was cancelled; the old model is in use then. While
        a training runs, no other model is loaded.
        """
        source = cleaned(source)
        if not self._busy.acquire(blocking=False):
            raise SteeringError("Another model is being loaded; wait until it is ready, or cancel it.")
        self._cancelled.clear()
        try:
            yield "Looking at its size ..."
            info = describe_model(source)
            if info.problem:
                raise SteeringError(info.problem)
            first = self._released_first(info)
            if self.app.starters.is_running:
                yield "Stopping the making of vectors for the old model ..."
                self.app.starters.stop(wait=True)
            if not self.app.training.acquire(timeout=TRAINING_SECONDS):
                how_far = self.app.training.how_far
                raise SteeringError(f"A training runs{how_far}; stop it or let it end, then change the model.")
            try:
                old_name, old_source = self.app.model.name, source_of(self.app)
                if first:
                    yield f"There is no memory for both models, so {old_name} is unloaded first ..."
                    _wait_for_release(self.app.release_model(info.name))
                try:
                    model = yield from self._loaded(source)
                except SteeringError:
                    if first:
                        yield f"{info.name} could not be loaded, so {old_name} is loaded again ..."
                        self.app.use_model(load_model(old_source, **self.app.load_options), old_source)
                    raise
                self.app.use_model(model, source)
            finally:
                self.app.training.release()
            gc.collect()  # the old model, whose parts refer to one another
            remember_model(source)
            yield f"{model.name} is in use."
        finally:
            self._busy.release()

    def _loaded(self, source: str) -> Generator[str, None, LanguageModel]:
        """Load in a thread; yield what the loading says and for how long, return the model.

        Raises SteeringError if it cannot be loaded or was cancelled. Closing the generator cancels, too.
        """
        said: queue.SimpleQueue[str] = queue.SimpleQueue()
        future: Future[LanguageModel] = Future()

        def work() -> None:
            try:
                options = self.app.load_options
                future.set_result(
                    load_model(source, on_progress=said.put, should_stop=self._cancelled.is_set, **options)
                )
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits
                future.set_exception(error)

        threading.Thread(target=work, name="steering-load-model", daemon=True).start()
        began = time.monotonic()
        latest = "Loading ..."
        try:
            while not future.done():
                with contextlib.suppress(queue.Empty):
                    latest = said.get(timeout=POLL_SECONDS)
                stage = "Cancelling ..." if self._cancelled.is_set() else latest
                yield f"{stage} ({html.duration(time.monotonic() - began)})"
            if self._cancelled.is_set():
                raise SteeringError(CANCELLED)
            return future.result()
        except SteeringError as error:
            raise (SteeringError(CANCELLED) if self._cancelled.is_set() else error) from None
        except GeneratorExit:
            self._cancelled.set()
            raise
        except Exception as error:
            logger.warning("%s could not be loaded", source, exc_info=True)
            raise SteeringError("The model could not be loaded; the server's log says why.") from error

    def _released_first(self, info: ModelInfo) -> bool:
        """Tell whether the present model has to go before the new one comes.

        Raises SteeringError if even that is not enough.
        """
        if info.fits or info.memory_bytes is None:
            return False
        if info.memory_bytes > info.free_bytes + memory_of(self.app.model):
            raise SteeringError(
                f"{info.name} needs {size(info.memory_bytes)} of memory and {size(info.free_bytes)} are free; close "
                "other programs, or choose a smaller model."
            )
        return True


def cleaned(source: str) -> str:
    """Return what a person wrote without spaces and quotes around it, its `~` written out.

    Raises SteeringError for an empty text.
    """
    text = (source or "").strip().strip("\"'").strip()
    if not text:
        raise SteeringError("Write a Hub id, or the path of a folder or a GGUF file.")
    return os.path.expanduser(text) if text.startswith("~") else text


def source_of(app: AppState) -> str:
    """Return what `load_model` takes to load the page's model again."""
    return app.in_use.source or (bundled.NAME if app.model.name == bundled.NAME else app.model.source)


def memory_of(model: LanguageModel) -> int:
    """Return the bytes of the model's weights, which are free once it is unloaded."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.network.parameters())


def size(count: int) -> str:
    """Write a number of bytes for people: `98 MB`, `2.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def _wait_for_release(gone: "weakref.ref[LanguageModel]") -> None:
    """Wait until the model has left memory, or give up after `RELEASE_SECONDS`."""
    began = time.monotonic()
    while gone() is not None and time.monotonic() - began < RELEASE_SECONDS:
        gc.collect()
        time.sleep(0.2)
