"""The shipped behaviors made for the page's model in the background; every page shows how far that is."""

import logging
import threading

from steering.errors import SteeringError
from steering.models.loading import LanguageModel
from steering.training.starter_vectors import MachineLock, StarterProgress, make_starters
from steering.vectors.library import Library

END_SECONDS = 60.0
"""How long `stop` waits for the job to end: longer than one step of a training takes on a slow machine."""

logger = logging.getLogger(__name__)


class StarterJob:
    """Runs `make_starters` in a thread, at most one at a time, whoever asked for it and whichever pages are open.

    Attributes:
        progress: the latest report; None before the first one, and once a job has ended.
        saved: vectors put on the shelf so far, over all jobs: pages that saw fewer fetch the sliders anew.
        problem: why the last job broke off, in a sentence; empty if it did not.
        note: the last report's note, kept until the next job.
    """

    def __init__(self, library: Library, training: MachineLock) -> None:
        self._library, self._training = library, training
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self.progress: StarterProgress | None = None
        self.saved, self.problem, self.note = 0, "", ""

    @property
    def is_stopping(self) -> bool:
        """Whether a job is at work that was told to end."""
        return self.is_running and self._stopping.is_set()

    @property
    def is_running(self) -> bool:
        """Whether a job is at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, model: LanguageModel) -> None:
        """Begin a job for this model, unless one is at work."""
        with self._starting:
            if self.is_running:
                return
            self._stopping.clear()
            self.problem, self.note, self.progress = "", "", StarterProgress("drafting")
            self._thread = threading.Thread(target=self._run, args=(model,), name="steering-starters", daemon=True)
            self._thread.start()

    def stop(self, *, wait: bool = False) -> None:
        """End the job within one training step; with `wait`, return once it has ended."""
        self._stopping.set()
        if wait and self._thread is not None:
            self._thread.join(END_SECONDS)

    def _run(self, model: LanguageModel) -> None:
        try:
            reports = make_starters(model, self._library, lock=self._training, should_stop=self._stopping.is_set)
            for report in reports:
                self.saved += report.saved is not None
                self.note = report.note or self.note
                self.progress = report
        except SteeringError as error:
            self.problem = str(error)
        except Exception:  # a model may fail in any way
            logger.exception("the shipped behaviors could not be made for %s", model.name)
            self.problem = "The behaviors could not be made; the server's log says why."
        finally:
            self.progress = None
