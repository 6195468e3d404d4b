"""The training methods, one file or folder each."""

OURS = tuple(
    f"steering.training.methods.{name}"
    for name in ("bipo", "dpo", "simpo", "reps", "split", "reft", "caa", "freeform", "pca", "probe", "mass_mean")
)
"""Modules that hold a `METHOD`, in the order in which menus show them."""
