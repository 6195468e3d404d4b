"""The fields that a person can map columns to. Interim: the table of layouts comes here."""

from typing import NamedTuple


class MappingField(NamedTuple):
    """A field of a pair that `columns` can name.

    Attributes:
        name: as in `columns`; `label` and `help`: for people.
    """

    name: str
    label: str
    help: str


MAPPING_FIELDS = (
    MappingField("prompt", "Prompt", "what the user asks"),
    MappingField("chosen", "Chosen", "the answer that shows the behavior"),
    MappingField("rejected", "Rejected", "the answer that shows its opposite"),
)
