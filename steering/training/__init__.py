"""Training steering vectors: the methods, their settings, and one pipeline that trains, measures and saves.

A method is one file or folder in `methods/`; `registry.py` says what it must offer. The names below load what they need
when first used, so that listing methods and their settings does not wait for torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Progress": "steering.training.progress",
    "default_checkpoint": "steering.training.pipeline",
    "method_named": "steering.training.registry",
    "train": "steering.training.pipeline",
    "training_run": "steering.training.pipeline",
}
__all__ = ["Progress", "default_checkpoint", "method_named", "train", "training_run"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
