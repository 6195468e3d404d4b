"""Steering Playground: train steering vectors from preference pairs, apply them, measure them.

The names below load what they need when first used, so that `steering --help` does not wait for torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "configure_cpu": "steering.runtime.cpu_environment",
    "SteeringError": "steering.errors",
    "load_model": "steering.models",
    "LanguageModel": "steering.models",
    "read_pairs": "steering.pairs",
    "parse_pairs": "steering.pairs",
    "Pairs": "steering.pairs",
    "PreferencePair": "steering.pairs",
    "draft_pairs": "steering.drafting",
    "SteeringVector": "steering.vectors",
    "train": "steering.training",
    "training_run": "steering.training",
    "evaluate": "steering.evaluation",
    "generate": "steering.generation",
    "stream": "steering.generation",
    "Sampling": "steering.generation",
    "Library": "steering.vectors",
    "play": "steering.interface",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'steering' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
