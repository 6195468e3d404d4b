"""`steering play`: the playground in a browser."""

import argparse
from typing import Any

from steering.cli.options import add_verbose, model_options
from steering.errors import SteeringError

PORT_TAKEN = "empty port"
"""Words in gradio's OSError for a port, or a range of ports, that is occupied (gradio/http_server.py, 6.31)."""


def add_options(play: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    play.add_argument("--port", type=_port, metavar="P", help="default: the first free one from 7860")
    play.add_argument("--share", action="store_true", help="also make a public link through gradio's relay")
    add_verbose(play)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Serve the page until Ctrl-C."""
    from steering.interface import launch
    from steering.models.loading import load_model

    try:
        chosen = model_options(options)
        kept = {name: value for name, value in chosen.items() if name != "source"}
        launch(
            load_model(**chosen),
            port=options.port,
            share=options.share,
            source=chosen["source"],
            load_options=kept,
        )
    except OSError as error:
        if PORT_TAKEN not in str(error):
            raise SteeringError(f"The playground cannot be opened: {error}.") from error
        taken = f"Port {options.port} is" if options.port else "All ports that were tried are"
        raise SteeringError(f"{taken} taken; give a free one with --port.") from error
    return {}, ""


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)
