"""With which weights answers are generated, and what that costs: for the page, the command line and records."""

from dataclasses import dataclass

from steering.generation.engine.decoder import WEIGHTS, decoder_of
from steering.models.loading import LanguageModel

__all__ = ["WEIGHTS", "PrecisionReport", "precision_report"]


@dataclass(frozen=True)
class PrecisionReport:
    """How a model generates at present.

    Attributes:
        kl: mean KL divergence in nats of the next tokens as generated from the model's own, measured over a sentence;
            0 for the model's own weights.
        why_full: why full-precision weights are used although others were asked for; empty if they are not.
        way: "written-out Llama step, float16", "transformers' forward, float16 weights" or "transformers' forward".
    """

    kl: float
    why_full: str
    way: str

    @property
    def summary(self) -> str:
        """Say the way in plain words: `fast decoding, float16 weights`, or `plain decoding, ...`."""
        speed = "plain" if "transformers" in self.way else "fast"
        return f"{speed} decoding, {'float16' if 'float16' in self.way else 'full-precision'} weights"


def precision_report(model: LanguageModel, weights: str = "float16") -> PrecisionReport:
    """Say how the model generates with these weights, one of `WEIGHTS`; tries it out if nobody has generated yet.

    Raises SteeringError for other weights.
    """
    decoder = decoder_of(model, weights)
    return PrecisionReport(decoder.kl, decoder.why_full, decoder.engine.name)
