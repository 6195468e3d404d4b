"""Texts of a vector: cleaned for display, limited in length, and turned into file names."""

import hashlib
import re
import unicodedata

TEXT_LIMITS = {"name": 80, "behavior": 200, "description": 2000} | dict.fromkeys(
    ("model_id", "model_fingerprint", "site", "token_scope", "operator", "licence", "created"), 300
)
"""Text field of a vector's metadata -> the most characters it may have. Chosen for the page: a name fits beside a
slider, a behavior into one line, a description into a paragraph; Hub ids and dates stay well below 300."""

MAX_SLUG_LENGTH = 60
"""Characters of a slug; with suffix, number and folder far below the 255 bytes that file systems allow a name."""

DIGEST_LENGTH = 6
"""Hex digits that keep two names in other scripts apart: 16 million values, for a shelf of at most hundreds."""

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
"""File names that Windows reserves for devices (Microsoft, "Naming Files, Paths, and Namespaces")."""

LAYOUT_CHARACTERS = "\n\t\u200c\u200d"
"""Control and format characters that belong to sound text: line feed, tab, and the two joiners that emoji and Indic
scripts are written with."""


def printable(text: str) -> str:
    """Remove control characters, lone surrogates and marks that reorder a line (Unicode Cc, Cs, Cf); keep joiners."""
    return "".join(c for c in text if c in LAYOUT_CHARACTERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def display_text(text: str, field: str) -> str:
    """Clean a text field for display: printable, cut to its limit, and in one line unless it is the description.

    Args:
        text: what a file or a person gave.
        field: its name, a key of `TEXT_LIMITS`.
    """
    text = printable(text)
    text = text if field == "description" else " ".join(text.split())
    return text[: TEXT_LIMITS[field]].strip()


def slug_of(name: str) -> str:
    """Make a file name that is safe everywhere: a-z, 0-9 and single hyphens, at most 60 characters, never empty.

    Accents are dropped (ü becomes u); where other scripts or emoji are, a digest of the name keeps two names apart.

    Example:
        >>> slug_of("Power seeking, v2")
        'power-seeking-v2'
    """
    letters = unicodedata.normalize("NFKD", name.casefold())
    slug = re.sub(r"[^a-z0-9]+", "-", "".join(c for c in letters if not unicodedata.combining(c))).strip("-")
    loses_characters = any(not c.isascii() and not c.isspace() and not unicodedata.combining(c) for c in letters)
    if name and (loses_characters or not slug):
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:DIGEST_LENGTH]
        room = MAX_SLUG_LENGTH - DIGEST_LENGTH - 1  # for the hyphen between them
        slug = f"{slug[:room].strip('-') or 'vector'}-{digest}"
    slug = slug[:MAX_SLUG_LENGTH].strip("-") or "vector"
    return f"{slug}-vector" if slug in RESERVED else slug
