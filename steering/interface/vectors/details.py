"""One vector in HTML: what it is, where it acts, what it was trained on, how well it works."""

from html import escape
from typing import Any

from steering.interface import html
from steering.interface.app_state import Visit
from steering.interface.playground.sliders import made_for
from steering.interface.vectors.shelf import entry_or_first, misfit
from steering.vectors.entry import Entry
from steering.vectors.vector import SteeringVector

POSITIONS = {"all": "every position", "answer": "answer tokens only"}
"""Words for a vector's token scope."""


def details(visit: Visit, slug: str) -> str:
    """Describe the vector with this slug, else the first one; problems of reading the shelf stand above."""
    entry = entry_or_first(visit, slug)
    problems = "".join(html.problem(text) for text in visit.library.problems)
    if entry is None:
        return problems + html.note("The shelf is empty: train a vector or bring a file.")
    vector = entry.vector
    caution = misfit(visit, entry) or _caution_about_model(visit, vector)
    return (
        f"{problems}<article class='vector'><h2>{escape(vector.name)}</h2>"
        + (f"<p>{escape(vector.description)}</p>" if vector.description else "")
        + (html.problem(caution) if caution else "")
        + f"<dl>{_rows(facts(entry) | written_facts(vector))}</dl>{_results(vector)}</article>"
    )


def facts(entry: Entry) -> dict[str, str]:
    """Return what is known of a vector, label -> words; empty words where nothing is known."""
    vector, method, pairs = entry.vector, entry.vector.method, entry.vector.pairs
    layers = f"layer{'s' * (len(vector.layers) > 1)} {', '.join(map(str, vector.layers))}"
    return {
        "Behavior": vector.behavior,
        "Made for": vector.model_id,
        "Added at": f"{layers}, {POSITIONS[vector.token_scope]}",
        "Strength": f"norm {vector.norm:.1f}{_share_of_residual(vector.norm, method.get('residual_norm'))}",
        "Method": f"{method.get('name', 'unknown')}" + (f", {method['steps']} steps" if "steps" in method else ""),
        "Trained on": f"{pairs.get('train', '?')} pairs of {pairs.get('source', '?')}" if pairs else "",
        "Made": vector.created[:10],
        "Licence": vector.licence,
        "File": entry.path.name,
    }


def written_facts(vector: SteeringVector) -> dict[str, str]:
    """Return what was measured on generated text, label -> words; files of strangers may hold anything there."""
    found = vector.metrics
    try:
        low, high = (float(end) for end in found["useful_range"])
        judge, accuracy = str(found["judge"]["name"]), found["judge"].get("accuracy")
        points = {float(p["multiplier"]): p for p in found["curve"]}
        scores = ", ".join(
            f"{float(points[m]['behavior']):.2f} at {html.signed(m)}" for m in (low, 0.0, high) if m in points
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    known = f", right on {accuracy:.0%} of answers it had not seen" if isinstance(accuracy, int | float) else ""
    rank, words = found.get("random_rank"), ""
    if isinstance(rank, list) and len(rank) == 2:
        words = f"better than {rank[0]} of {rank[1]} random directions"
    return {
        "Useful range": f"{html.signed(low)} to {html.signed(high)}, best at {html.signed(vector.default_multiplier)}",
        "Behavior in what is written": f"{scores} (0 to 1, by the judge {judge}{known})" if scores else "",
        "Against chance": words,
    }


def _rows(labelled: dict[str, str]) -> str:
    return "".join(f"<dt>{label}</dt><dd>{escape(words)}</dd>" for label, words in labelled.items() if words)


def _results(vector: SteeringVector) -> str:
    held_out = vector.metrics.get("held_out")
    return html.results_table(held_out if isinstance(held_out, list) else [], vector.pairs.get("held_out"))


def _caution_about_model(visit: Visit, vector: SteeringVector) -> str:
    if made_for(vector, visit.model):
        return ""
    return f"It was made for another model ({vector.model_id}); it can be added to this one, with effects unknown."


def _share_of_residual(norm: float, residual: Any) -> str:
    """Compare the norm with the mean norm of the residual stream at the vector's layer, as measured in training."""
    if not isinstance(residual, int | float) or residual <= 0:
        return ""
    return f", {100 * norm / residual:.0f} % of the model's own signal there"
