"""Opens the Steering Playground: `python app.py`. This is also what a Hugging Face Space runs."""

import os
import sys

if os.environ.get("SPACES_ZERO_GPU"):  # on a ZeroGPU Space: it takes CUDA's place, so it comes before torch
    import spaces  # noqa: F401

from steering.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["play", *sys.argv[1:]]))
