"""What other packages add to our registries, through entry points."""

import logging
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Protocol, TypeVar

logger = logging.getLogger(__name__)


class Named(Protocol):
    """Anything that a registry holds."""

    @property
    def name(self) -> str:
        """Return the key under which it is registered."""


Item = TypeVar("Item", bound=Named)


def with_plugins(ours: Iterable[Item], group: str, kind: type[Item]) -> dict[str, Item]:
    """Return our items and those of the entry point `group` by name, ours first.

    What cannot be loaded, is not of this kind or takes a name that is taken is logged and left out.
    """
    known = {item.name: item for item in ours}
    for point in entry_points(group=group):
        try:
            item = point.load()
        except Exception as error:  # noqa: BLE001 - a module of somebody else may fail in any way
            what = f"{kind.__name__} {point.name} ({point.value})"
            logger.warning("%s is left out: %r", what, error, exc_info=True)
            continue
        if not isinstance(item, kind):
            logger.warning("%s is a %s, not a %s; left out", point.value, type(item).__name__, kind.__name__)
        elif item.name in known:
            logger.warning("%s: the name %r is taken; left out", point.value, item.name)
        else:
            known[item.name] = item
    return known
