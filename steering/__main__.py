"""`python -m steering` is the command line."""

import sys

from steering.cli import main

if __name__ == "__main__":
    sys.exit(main())
