"""Formats of vector files: one module a format, and the registry that reads and writes them."""

from steering.vectors.formats.registry import Format, format_named, formats, read_any, suffixes, write

__all__ = ["Format", "format_named", "formats", "read_any", "suffixes", "write"]
