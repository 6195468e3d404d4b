"""Options that several commands share, and what their values mean."""

import argparse
from typing import Any

from steering.errors import SteeringError


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model is loaded, and how."""
    parser.add_argument(
        "--model",
        metavar="M",
        help="Hub id, folder, LoRA adapter or GGUF file (default: the bundled SmolLM2-135M-Instruct)",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: CUDA where there is one)")
    parser.add_argument("--dtype", metavar="T", help="float32, bfloat16, float16 or auto (default: float32 on the CPU)")
    parser.add_argument("--device-map", metavar="M", help="auto or balanced: spread a model too large for one device")
    parser.add_argument("--quantization", metavar="Q", help="8bit or 4bit: smaller weights, through bitsandbytes")


def model_options(options: argparse.Namespace, device: str | None = None) -> dict[str, Any]:
    """Return the arguments of `load_model`; `device` is where the model goes if the options do not say."""
    where = options.device or (None if options.device_map else device)
    names = ("dtype", "device_map", "quantization")
    return {"source": options.model, "device": where, **{name: getattr(options, name) for name in names}}


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add -v."""
    parser.add_argument("-v", "--verbose", action="store_true", help="say on stderr which way is taken, and why")


def add_vector(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument VECTOR."""
    parser.add_argument("vector", metavar="VECTOR", help="name on the shelf, or a file")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add what says how pairs are read: --columns, see `column_map`, and --max-pairs."""
    parser.add_argument(
        "--columns", metavar="MAP", help="column names or paths: prompt=A,chosen=B.0.text,rejected=C,system=D"
    )
    parser.add_argument(
        "--max-pairs",
        metavar="N",
        type=_number_of_pairs,
        help="read the first N rows (default, and most: 50,000)",
    )


def _number_of_pairs(text: str) -> int:
    from steering.pairs.readers import MAX_ROWS

    if not text.isdecimal() or not 1 <= int(text) <= MAX_ROWS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pairs from 1 to {MAX_ROWS:,}; give one")
    return int(text)


def column_map(text: str | None) -> dict[str, str] | None:
    """Read `prompt=A,chosen=B,rejected=C` as a mapping of roles to columns."""
    if not text:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if any(not equals for _, equals, _ in parts):
        raise SteeringError(f"--columns {text!r}: write it as prompt=A,chosen=B,rejected=C.")
    return {role.strip(): column.strip() for role, _, column in parts}


def multiplier(text: str, option: str) -> float:
    """Read a multiplier; SteeringError, naming the option, for text that is none."""
    from steering.vectors.action import check_multiplier

    try:
        return check_multiplier(text.strip() or "''")  # type: ignore[arg-type]
    except SteeringError as error:
        raise SteeringError(f"{option}: {error}") from error
