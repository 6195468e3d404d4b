"""The one place where steering vectors enter the residual stream."""

from steering.intervention.additions import Additions, Setting, added, additions_for, placed
from steering.intervention.hooks import observed, steered

__all__ = ["Additions", "Setting", "added", "additions_for", "observed", "placed", "steered"]
