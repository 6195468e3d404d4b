"""The model that a page runs, with what was made for it, until another one takes its place."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from steering.errors import SteeringError
from steering.limits import NO_LIMITS, Limits
from steering.models.loading import LanguageModel

Made = TypeVar("Made")


class ModelInUse:
    """The model that the page runs, with what was made for it.

    Attributes:
        generation: counts the changes of the page's model, from 0.
        source: what `load_model` was given; None where that is not known.
        limits: what one request may ask for.
        replaced_by: name of the model that took its place; empty while it is in use.
    """

    def __init__(
        self,
        model: LanguageModel,
        generation: int = 0,
        source: str | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.model, self.generation, self.source, self.limits = model, generation, source, limits
        self.replaced_by = ""
        self._made: dict[tuple[Callable[..., Any], str], Any] = {}
        self._making = threading.Lock()

    def made(self, kind: Callable[..., Made], weights: str) -> Made:
        """Return `kind(model, weights=weights, limits=limits)`, made at the first call."""
        with self._making:
            if (kind, weights) not in self._made:
                self._made[kind, weights] = kind(self.model, weights=weights, limits=self.limits)
            return self._made[kind, weights]

    def check(self) -> None:
        """Raise `ModelChanged` if another model took its place."""
        if self.replaced_by:
            raise ModelChanged(f"The model was changed to {self.replaced_by}; ask again.")

    def until_changed(self, over: Callable[[], bool]) -> Callable[[], bool]:
        """Return a `should_stop` that says what `over` says, and raises `ModelChanged` once the model was changed."""

        def should_stop() -> bool:
            self.check()
            return over()

        return should_stop


class ModelChanged(SteeringError):
    """The page's model was changed while a visitor's request was under way."""
