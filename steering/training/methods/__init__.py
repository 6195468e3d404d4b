"""The training methods, one file or folder each."""
