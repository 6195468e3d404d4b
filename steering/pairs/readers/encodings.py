"""From bytes to text: UTF-8, UTF-16, UTF-32, and the Windows code pages of older programs."""

import codecs
import re

from steering.errors import SteeringError
from steering.pairs.readers.code_pages import code_page

MARKED = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks; those of UTF-32 first, because UTF-16's is the beginning of one of them."""
LEAST_ZEROS = 0.02
"""Share of zero bytes below which a text is not in UTF-16: spaces and line ends alone are more, in any language."""
SAMPLE_BYTES = 200_000
"""Of a file, to tell its encoding."""


def to_utf8(data: bytes, name: str) -> tuple[bytes, str]:
    """Return (the text in UTF-8 without byte order mark, a sentence where it was in another encoding).

    Raises:
        SteeringError: binary, damaged, or in an encoding that cannot be told.
    """
    marked = next((encoding for mark, encoding in MARKED if data.startswith(mark)), None)
    encoding = marked or _by_zeros(data)
    if encoding is None:
        if (nul := data.find(0)) >= 0:
            raise SteeringError(f"{name}: the file looks binary (NUL at byte {nul:,}); bring a text file in UTF-8.")
        encoding = _utf8_or_code_page(data, name)
    if encoding == "utf-8":
        return data, ""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _damaged(data, name, encoding.removesuffix("-sig"), error) from error
    if encoding == "utf-8-sig":
        encoded = text.encode()
        if (nul := encoded.find(0)) >= 0:
            raise SteeringError(f"{name}: the file looks binary (NUL at byte {nul:,}); bring a text file in UTF-8.")
        return encoded, ""
    words = [word for word in re.findall(r"\S+", text[:SAMPLE_BYTES]) if not word.isascii()]
    word = next((word for word in words if any(c.isalpha() and not c.isascii() for c in word)), *words[:1] or [""])
    example = f" (it reads {word[:30]!r})" if word else ""
    return text.encode("utf-8", "surrogatepass"), f"{name} is not in UTF-8; it was read as {encoding.upper()}{example}."


def _by_zeros(data: bytes) -> str | None:
    """Recognise UTF-16 and UTF-32 without byte order mark: ASCII letters have zero bytes there."""
    if data.count(0) < len(data) * LEAST_ZEROS:
        return None
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        plain = sum(character.isprintable() or character in "\r\n\t\u200d\u200f" for character in text[:SAMPLE_BYTES])
        if "\0" not in text and plain >= 0.99 * len(text[:SAMPLE_BYTES]):
            return encoding
    return None


def _utf8_or_code_page(data: bytes, name: str) -> str:
    try:
        data.decode()
        return "utf-8"
    except UnicodeDecodeError as error:
        # One letter in UTF-8 beyond ASCII is proof: other encodings hardly ever make one by chance.
        if re.search(rb"[\xc3-\xf4][\x80-\xbf]{1,3}(?![\x80-\xbf])", data) and _mostly_utf8(data):
            raise _damaged(data, name, "UTF-8", error) from error
        if (encoding := code_page(data)) is None:
            raise _damaged(data, name, "UTF-8", error) from error
        return encoding


def _mostly_utf8(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    return broken <= sum(not character.isascii() for character in text) - broken


def _damaged(data: bytes, name: str, encoding: str, error: UnicodeDecodeError) -> SteeringError:
    line = data.count(b"\n", 0, error.start) + 1
    return SteeringError(
        f"{name}, line {line:,}: the text is not {encoding.upper()} at byte {error.start:,}; save it as UTF-8 "
        "(in Excel: 'CSV UTF-8')."
    )
