"""The playground in the browser: one file a tab, thin handlers; all the work is done below this package."""

from steering.interface.app import build, launch
from steering.interface.notebook import play

__all__ = ["build", "launch", "play"]
