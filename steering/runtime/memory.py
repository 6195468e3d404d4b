"""Memory of a long-running server."""

import ctypes
import logging
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""The parameters' numbers in glibc's malloc.h."""
SETTINGS = {
    # Heaps that threads share. By default glibc makes up to eight for each core, and what one thread freed in its own
    # is of no use to another.
    M_ARENA_MAX: 2,
    # Bytes from which a block is a mapping of its own, given back when it is freed; by default this grows to 32 MB, and
    # keys and values of all sizes leave holes in the heaps.
    M_MMAP_THRESHOLD: 4 * 1024**2,
    # Free bytes at a heap's end that are kept; must be set with the one above, else they would be given back at once.
    M_TRIM_THRESHOLD: 64 * 1024**2,
}
"""With twelve visitors on two cores a page grew by 120 MB a minute without these (tests/benchmarks/soak.py)."""

logger = logging.getLogger(__name__)


def keep_memory_flat() -> None:
    """Set up the C library's heaps for many threads; call it before they are started. Nothing happens without glibc."""
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        refused = [number for number, value in SETTINGS.items() if not libc.mallopt(number, value)]
    except (OSError, AttributeError):  # another C library
        refused = list(SETTINGS)
    if refused:
        logger.info("the C library's heaps cannot be set up (%s); memory may grow with the visitors", refused)
