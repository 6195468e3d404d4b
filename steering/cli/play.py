"""`steering play`: the playground in a browser."""

import argparse
import os
from typing import Any

from steering.cli.options import add_verbose, model_options
from steering.cli.output import say
from steering.errors import SteeringError
from steering.limits import LOCAL_ADDRESSES, is_public, is_space

PORT_TAKEN = "empty port"
"""Words in gradio's OSError for a port, or a range of ports, that is occupied (gradio/http_server.py, 6.31)."""


def add_options(play: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    play.add_argument("--port", type=_port, metavar="P", help="default: the first free one from 7860")
    play.add_argument("--share", action="store_true", help="also make a public link through gradio's relay")
    play.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        help="ask visitors for a name and a password (STEERING_AUTH does the same, and hides it from other users)",
    )
    play.add_argument(
        "--publish",
        metavar="VECTOR",
        nargs="+",
        default=[],
        help="on a public page: vectors that every visitor finds on the shelf, besides those that ship with it",
    )
    add_verbose(play)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Serve the page until Ctrl-C."""
    from steering.interface import launch
    from steering.interface.zero_gpu.workers import is_zero_gpu
    from steering.models.loading import load_model
    from steering.runtime.memory import keep_memory_flat

    keep_memory_flat()
    try:
        chosen = _with_environment(model_options(options))
        auth = _auth(options.auth or os.environ.get("STEERING_AUTH"))
        _publish(options.publish)
        _say_who_comes_by(options.share, auth is not None)
        writes_on_gpu = is_zero_gpu() and chosen["device"] == "cuda"
        if is_zero_gpu():  # loaded on the CPU, and moved: loading threads do not see the CUDA that is emulated there
            chosen |= {"device": "cpu", "dtype": chosen["dtype"] or ("auto" if writes_on_gpu else None)}
        kept = {name: value for name, value in chosen.items() if name != "source"}
        launch(
            load_model(**chosen),
            port=options.port,
            share=options.share,
            source=chosen["source"],
            load_options=kept,
            writes_on_gpu=writes_on_gpu,
            auth=auth,
        )
    except OSError as error:
        if PORT_TAKEN not in str(error):
            raise SteeringError(f"The playground cannot be opened: {error}.") from error
        taken = f"Port {options.port} is" if options.port else "All ports that were tried are"
        raise SteeringError(f"{taken} taken; give a free one with --port.") from error
    return {}, ""


def _with_environment(chosen: dict[str, Any]) -> dict[str, Any]:
    """Fill in what the options leave open from STEERING_MODEL, STEERING_DEVICE and STEERING_DTYPE, as a Space sets."""
    variables = {"source": "STEERING_MODEL", "device": "STEERING_DEVICE", "dtype": "STEERING_DTYPE"}
    set_there = {name: os.environ.get(variable, "").strip() for name, variable in variables.items()}
    return {**chosen, **{name: value for name, value in set_there.items() if value and not chosen[name]}}


def _say_who_comes_by(share: bool, has_auth: bool) -> None:
    """Say on stderr whose shelf others will see, where that may surprise."""
    address = os.environ.get("GRADIO_SERVER_NAME", "")
    if is_public(share=share):
        if not is_space():
            say("Visitors have shelves of their own; yours stays yours. To show vectors to all: --publish NAME ...")
    elif address not in LOCAL_ADDRESSES and not has_auth:
        say(f"Whoever reaches {address} shares your shelf; set STEERING_PUBLIC=1, or give --auth USER:PASSWORD.")


def _auth(text: str | None) -> tuple[str, str] | None:
    """Read USER:PASSWORD; the password may hold colons."""
    if not text:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise SteeringError("--auth: write it as USER:PASSWORD, neither of them empty.")
    return user, password


def _publish(names: list[str]) -> None:
    """Put copies of the user's vectors where visitors of a public page find them."""
    if not names:
        return
    from steering.interface.visitors import published_folder
    from steering.vectors.library import Library
    from steering.vectors.text import slug_of
    from steering.vectors.vector import SUFFIX

    library, folder = Library(), published_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        vector = library.get(name)
        vector.save(folder / f"{slug_of(vector.name)}{SUFFIX}")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)
