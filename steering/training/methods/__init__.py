"""The training methods, one file or folder each; `OURS` is what ships."""

from steering.training.methods.bipo import METHOD as BIPO

OURS = (BIPO,)
