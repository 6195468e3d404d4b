"""Where the pairs of step 1 come from: an uploaded file, a pasted text or a data set of the Hugging Face Hub."""

import logging
import re
from dataclasses import dataclass
from typing import Literal

from steering.errors import SteeringError
from steering.limits import NO_LIMITS, Limits
from steering.pairs.dataset import MAX_ROWS, Pairs, parse_pairs, read_pairs
from steering.pairs.preview import PairsPreview, preview_pairs

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.][\w. -]*)+")
"""`owner/name`, perhaps with a file of the data set behind it."""
HUB_ADDRESS = re.compile(r"^(https?://)?(www\.)?huggingface\.co/(datasets/)?|^hf://(datasets/)?")
"""What people copy from the browser stands before the id."""
DRAW_SEED = 0
"""Of drawn rows, so that the same file gives the same pairs again."""

Columns = dict[str, str]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadLimit:
    """How many pairs to read at most.

    Attributes:
        pairs: None for as many as are read at all, `MAX_ROWS`.
        drawn: take them from all over the source instead of its beginning.
    """

    pairs: int | None = None
    drawn: bool = False

    @classmethod
    def of(cls, text: str | None, which: str | None = "first") -> "ReadLimit":
        """Read the field "Read at most" (empty for no limit) and the choice beside it, `first` or `drawn`.

        Raises SteeringError for a text that is not a number of pairs.
        """
        digits = re.sub(r"[\s,.'_]", "", text or "")
        if not digits:
            return cls()
        if not re.fullmatch(r"[0-9]{1,9}", digits) or not 1 <= int(digits) <= MAX_ROWS:
            raise SteeringError(
                f"Read at most: {(text or '').strip()[:40]!r} is not a number of pairs from 1 to {MAX_ROWS:,}; "
                "write one such as 2000."
            )
        return cls(int(digits), which == "drawn")


@dataclass(frozen=True)
class PairsSource:
    """What was brought last; it can be read again with other columns.

    Attributes:
        kind: what `value` is: the path of an uploaded file, a pasted text, or the id of a data set of the Hub.
        limits: of who brought it.
    """

    kind: Literal["file", "text", "hub"]
    value: str
    limits: Limits = NO_LIMITS

    @classmethod
    def of_hub(cls, text: str, limits: Limits = NO_LIMITS) -> "PairsSource":
        """Make the source of a data set's id or address; SteeringError for anything else, such as a path.

        The page must not open files of the server by their path, so an id always goes on as `hf://owner/name`.
        """
        id_ = HUB_ADDRESS.sub("", text.strip()).rstrip("/")
        id_ = re.sub(r"/(blob|resolve|tree)/[^/]+", "", id_, count=1).removesuffix("/viewer")
        if len(id_) > 300 or not HUB_ID.fullmatch(id_) or ".." in id_:
            raise SteeringError(
                f"{text.strip()[:60]!r} is no data set of the Hugging Face Hub; write owner/name, as on its page."
            )
        return cls("hub", f"hf://{id_}", limits)

    def read(self, columns: Columns | None, limit: ReadLimit) -> Pairs:
        """Read the pairs; `columns` maps fields to columns where they are not known by their names."""
        if self.kind == "text":
            return parse_pairs(self.value, columns=columns, max_pairs=limit.pairs, limits=self.limits)
        draw_seed = DRAW_SEED if limit.drawn else None
        return read_pairs(self.value, columns=columns, max_pairs=limit.pairs, draw_seed=draw_seed, limits=self.limits)

    def preview(self, columns: Columns | None = None) -> PairsPreview:
        """Find the columns, and the first pair as it would be read; what is wrong is its `problem`."""
        try:
            source = self.value.encode("utf-8", "replace") if self.kind == "text" else self.value
            return preview_pairs(source, columns=columns, limits=self.limits)
        except Exception as error:  # only a help: whatever is wrong with the source, reading it says so
            if not isinstance(error, SteeringError):
                logger.exception("no preview of %s", self.kind)
            return PairsPreview(paths={}, mapping=dict(columns or {}), layout="", pair=None, problem=str(error))
