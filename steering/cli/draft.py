"""`steering draft`: preference pairs from the description of a behavior."""

import argparse
import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.cli.options import model_options
from steering.cli.output import Bar, ctrl_c_stops, say
from steering.errors import SteeringError

if TYPE_CHECKING:
    from steering.pairs.schema import PreferencePair

STOPPING = "Stopping after this prompt; the pairs so far are kept."


def add_options(draft: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    draft.add_argument("behavior", metavar="BEHAVIOR", help="in a word or a sentence: cheerful, 'talks like a pirate'")
    draft.add_argument("--output", metavar="FILE", required=True, help="CSV file to write")
    draft.add_argument("--opposite", metavar="TEXT", default="", help="the other side (default: its negation)")
    draft.add_argument("--count", metavar="N", type=int, default=24, help="pairs (default: 24)")
    draft.add_argument("--prompts", metavar="FILE", help="text file with a prompt in each line (default: shipped ones)")
    draft.add_argument(
        "--endpoint", metavar="URL", help="OpenAI-compatible server that writes, such as https://host/v1"
    )
    draft.add_argument("--endpoint-model", metavar="NAME", default="", help="the model's name there")
    draft.add_argument("--seed", metavar="N", type=int, default=0, help="decides prompts and answers (default: 0)")
    draft.add_argument("--max-new-tokens", metavar="N", type=int, default=64, help="of an answer (default: 64)")


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Draft the pairs and write them; Ctrl-C keeps those so far."""
    from steering.drafting import draft_pairs
    from steering.models.loading import load_model
    from steering.prompting import Endpoint, contrasting_system_prompts

    output = Path(options.output)
    if output.suffix.lower() != ".csv" or not output.parent.is_dir():
        raise SteeringError(f"--output {options.output}: name a .csv file in a folder that exists.")
    if not 1 <= options.max_new_tokens <= 1000:
        raise SteeringError(f"--max-new-tokens is {options.max_new_tokens}; give 1 to 1000.")
    contrasting_system_prompts(options.behavior, options.opposite)  # refused before a model is loaded
    endpoint = Endpoint(options.endpoint, options.endpoint_model) if options.endpoint else None
    prompts = _prompts(options.prompts) if options.prompts else None
    source = endpoint or load_model(**model_options(options))
    with ctrl_c_stops(lambda: say(STOPPING)) as stopped, Bar("drafting", "pair") as bar:
        for progress in draft_pairs(
            source,
            options.behavior,
            count=options.count,
            opposite=options.opposite,
            prompts=prompts,
            seed=options.seed,
            max_new_tokens=options.max_new_tokens,
            should_stop=stopped.is_set,
        ):
            bar.show(len(progress.pairs), progress.wanted, tokens=f"{progress.tokens:,}")
    if not progress.pairs:
        raise SteeringError("No pair was drafted; describe the behavior in other words, or let another model write.")
    _write(output, progress.pairs)
    say(progress.note)
    answer = {
        "output": str(output),
        "pairs": len(progress.pairs),
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "note": progress.note,
    }
    words = f"{len(progress.pairs)} pairs, {progress.tokens:,} tokens in {progress.seconds:.0f} s"
    return answer, f"{output}: {words}"


def _prompts(file: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SteeringError(f"--prompts {file}: cannot be read as text in UTF-8; check the file.") from error
    if not any(lines):
        raise SteeringError(f"--prompts {file}: there is nothing in it; write one prompt in each line.")
    return [line for line in lines if line]


def _write(output: Path, pairs: "tuple[PreferencePair, ...]") -> None:
    """Write the pairs as a CSV that `read_pairs` reads back equal; either all of them or nothing."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["prompt", "chosen", "rejected"])
    writer.writerows([pair.prompt, pair.chosen, pair.rejected] for pair in pairs)
    partial = output.with_name(output.name + ".partial")
    try:
        partial.write_text(text.getvalue(), encoding="utf-8", newline="")
        os.replace(partial, output)
    except OSError as error:
        raise SteeringError(
            f"--output {output}: cannot be written ({error.strerror}); choose another place."
        ) from error
