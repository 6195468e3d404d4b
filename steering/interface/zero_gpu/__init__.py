"""Hugging Face ZeroGPU: the work that touches a GPU runs in forked workers (`workers`), asked by the page (`page`)."""
