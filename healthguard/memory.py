"""How a serving process keeps its memory: what requests free stays at hand, and what lives for ever is not searched."""

import ctypes
import gc

# glibc's names for mallopt, which no header tells Python. Source: mallopt(3), malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

MAPPED_BYTES_MIN = 4 * 1024 * 1024
"""Blocks above this are mapped and given back one by one: a large picture does not stay in memory for ever."""
KEPT_BYTES_MAX = 16 * 1024 * 1024
"""Freed memory at the end of a heap that is kept for the next request."""

GARBAGE_THRESHOLDS = (10_000, 20, 20)
"""Objects made before the youngest are searched for cycles, and rounds before older ones are: Python's own are for
scripts, and search at every second request."""


def keep_freed_blocks() -> None:
    """
    Have malloc keep what is freed, instead of giving it back to the kernel with each request.

    A picture as pixels is 150 KB, just above where glibc maps each block anew: its pages are then zeroed and mapped at
    first touch, for every copy of every request. Another allocator would do it too, but is one more library to ship.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Other C libraries have none; there is nothing to be done then.
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)


def settle() -> None:
    """Leave out of all later searches for garbage what is there now; to be called once the process is ready."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
