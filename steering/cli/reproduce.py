"""`steering reproduce`: the paper's experiments, and further ones, on the model at hand."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

from steering.cli.options import model_options
from steering.cli.output import Bar, ctrl_c_stops
from steering.errors import SteeringError


def add_options(reproduce: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    reproduce.add_argument("name", metavar="NAME", nargs="?", help="of the experiment; without one they are listed")
    reproduce.add_argument(
        "--report", metavar="FOLDER", help="keep everything there; an interrupted experiment goes on from it"
    )
    reproduce.add_argument("--vectors", metavar="LIST", help="shipped behaviors, such as pirate,poetic")
    reproduce.add_argument("--prompt-count", metavar="N", type=int, default=20, help="prompts of a set (default: 20)")
    reproduce.add_argument("--max-new-tokens", metavar="N", type=int, default=40, help="of an answer (default: 40)")
    reproduce.add_argument("--epochs", metavar="E", type=int, help="of trainings (default: the method's)")
    reproduce.add_argument("--other-model", metavar="M", help="another checkpoint of the same width, for `transfer`")
    reproduce.add_argument("--judge", metavar="J", default="offline", help="offline (default), refusal, length, ...")
    reproduce.add_argument("--seed", metavar="N", type=int, default=0)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Run the experiment, or list those that there are."""
    from steering.experiments import Bench, experiment_named, experiments, reproduce
    from steering.experiments.picture import write_page
    from steering.models.loading import load_model

    if not options.name:
        listed = {name: each.question for name, each in experiments().items()}
        lines = [f"{name:14} {each.question} (about {each.minutes:g} min)" for name, each in experiments().items()]
        return {"experiments": listed}, "\n".join(lines)
    experiment = experiment_named(options.name)
    if not 2 <= options.prompt_count <= 1000:
        raise SteeringError(f"--prompt-count is {options.prompt_count}; give a number from 2 to 1000.")
    if options.epochs is not None and not 1 <= options.epochs <= 1000:
        raise SteeringError(f"--epochs is {options.epochs}; give a number from 1 to 1000.")
    folder = Path(options.report) if options.report else None
    chosen = tuple(name.strip() for name in (options.vectors or "").split(",") if name.strip())
    model = load_model(**model_options(options))
    with Bar("experiment", "step") as bar, ctrl_c_stops(lambda: None) as stop:
        bench = Bench(
            model,
            folder,
            prompt_count=options.prompt_count,
            tokens=options.max_new_tokens,
            epochs=options.epochs,
            vectors=chosen,
            other_model=options.other_model or "",
            judge_name=options.judge,
            seed=options.seed,
            should_stop=stop.is_set,
        )
        with closing(reproduce(experiment, bench)) as reports:
            for count, progress in enumerate(reports, start=1):
                bar.show(count, None, doing=progress.doing)
    if progress.stopped or progress.result is None:
        again = f"; the same command goes on from what is in {folder}" if folder else ""
        raise SteeringError(f"Stopped{again}.")
    answer = {"experiment": experiment.name, "paper": experiment.paper, **progress.result.as_json()}
    text = f"{experiment.title}\nIn the paper: {experiment.paper}\n\n{progress.result.as_text()}"
    if folder:
        page = write_page(experiment, progress.result, model.name, folder)
        answer["report"] = str(page)
        text += f"\nReport: {page}"
    return answer | {"seconds": round(progress.seconds, 1)}, text
