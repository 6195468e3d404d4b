"""Opens the Steering Playground: `python app.py`. This is also what a Hugging Face Space runs."""

import sys

from steering.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["play", *sys.argv[1:]]))
