"""The first example's answers, written ahead and shipped, so that a page shows something the moment it opens.

They are shown only where this page would write the same: same model, same vector files, same prompt and settings. To
write them anew, into `assets/`:

    python -c "from steering.interface.playground.first_answers import ship; ship()"
"""

import hashlib
import json
import logging
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from steering import paths
from steering.interface.app_state import AppState, Visit
from steering.interface.playground.answers import answer, with_keys_of
from steering.interface.playground.controls import Controls
from steering.interface.playground.examples import Example, first_example
from steering.interface.runs import Run

WRITTEN_AHEAD = "These first answers were written ahead; Generate writes them here."
NOBODY = Run(superseded=lambda: False, stopped=lambda: False)

logger = logging.getLogger(__name__)


def first_answers(visit: Visit, example: Example, controls: Controls) -> dict[str, Any] | None:
    """Return the columns panel's value with the shipped answers; None where they are not what this page would write."""
    shipped = _shipped()
    if shipped is None or shipped["of"] != _facts(visit, example, controls):
        return None
    return with_keys_of(visit, example.panel, controls, shipped["panel"], NOBODY)


def write(visit: Visit, path: Path) -> None:
    """Decode the first example's answers with the page's defaults, and ship them."""
    example = first_example(visit)
    controls = Controls(example.prompt)
    with closing(answer(visit, example.panel, controls, None, NOBODY, fresh=True)) as panels:
        *_, panel = panels
    record = {"of": _facts(visit, example, controls), "panel": panel}
    path.write_text(json.dumps(record, ensure_ascii=False, indent=None, sort_keys=True) + "\n", encoding="utf-8")


def ship() -> None:
    """Write the shipped file with the bundled model and the shipped vectors."""
    from steering.models.loading import load_model
    from steering.vectors.library import Library

    write(AppState(load_model(), Library()).visit(), _path())


@cache
def _shipped() -> dict[str, Any] | None:
    try:
        return json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("the page opens without answers written ahead: %s", error)
        return None


def _facts(visit: Visit, example: Example, controls: Controls) -> dict[str, Any]:
    """Return all that the answers depend on, in JSON's types."""
    files = {slug: visit.library.entry(slug).path.read_bytes() for slug in example.multipliers}
    asked = {name: value for name, value in vars(controls).items() if name != "new_seed"}
    return {
        "model": visit.model.fingerprint,
        "vectors": {slug: hashlib.sha256(data).hexdigest() for slug, data in files.items()},
        "multipliers": dict(example.multipliers),
        "controls": asked,
    }


def _path() -> Path:
    return paths.shipped("assets") / "first-answers.json"
