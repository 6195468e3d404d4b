"""What a vector does to log-probabilities of given answers: accuracy, margin, and what lies behind them."""

from collections.abc import Sequence

from steering.evaluation.measures.registry import Measure, MeasureContext


def _details(context: MeasureContext) -> Sequence[dict[str, float]]:
    names = ("pairs_moved", "margin_per_token", "chosen_logps", "rejected_logps")
    return [{name: getattr(result, name) for name in names} for result in context.preference]


MEASURES = (
    Measure(
        name="preference_accuracy",
        label="Preference accuracy",
        description="Share of held-out pairs whose chosen answer is likelier than the rejected one.",
        unit="",
        run=lambda context: [result.preference_accuracy for result in context.preference],
    ),
    Measure(
        name="preference_margin",
        label="Preference margin",
        description="Mean over held-out pairs of log p(chosen) - log p(rejected), steered minus unsteered.",
        unit="nats",
        run=lambda context: [result.preference_margin for result in context.preference],
    ),
    Measure(
        name="preference_details",
        label="Behind the margin",
        description="Share of pairs that moved the right way, the margin per token of the answers, and the mean "
        "log-probabilities of chosen and rejected answers, so that it is seen when both became unlikely.",
        unit="nats",
        run=_details,
    ),
)
