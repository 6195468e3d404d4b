"""`python -m steering` is the command line."""

import sys

from steering.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
