"""The `Method` that is made of an extraction method's `fit`: what each file in `methods/` of that kind calls."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from steering.training.extraction_config import ExtractionConfig, Fit, Prepare
from steering.training.registry import Method, RunContext

if TYPE_CHECKING:  # listing the methods must not wait for torch
    from torch import Tensor

    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.training.progress import Progress


def extraction_method(
    name: str,
    *,
    label: str,
    description: str,
    fit: Fit,
    config_class: type[ExtractionConfig] = ExtractionConfig,
    prepare: Prepare | None = None,
) -> Method:
    """Make the method whose directions `fit` makes; see `extraction.extract` for what a run does.

    Args:
        name, label, description: as `Method` has them.
        prepare: changes what the model reads, such as into questions with letters to choose from.
    """

    def run(
        model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: ExtractionConfig, context: RunContext
    ) -> "Generator[Progress, None, None]":
        from steering.training.extraction import extract  # loads torch

        def fitted(chosen: "Tensor", rejected: "Tensor") -> "Tensor":
            return fit(chosen, rejected, config)

        return extract(name, fitted, model, pairs, held_out, config, context, prepare=prepare)

    def estimate(model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: ExtractionConfig) -> float:
        from steering.training.extraction import estimate

        return estimate(model, pairs, config, prepare=prepare)

    return Method(name, label, description, config_class, run, estimate=estimate)
