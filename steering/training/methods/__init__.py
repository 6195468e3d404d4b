"""The training methods, one file or folder each."""

OURS = ("steering.training.methods.bipo", "steering.training.methods.caa")
"""Modules that hold a `METHOD`, in the order in which menus show them."""
