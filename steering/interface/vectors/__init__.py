"""The Vectors tab: the shelf."""
