"""What a serving process does with memory that requests have freed, and with objects that stay."""

import gc
import subprocess
import sys

from healthguard import memory

# Blocks just above glibc's own bound for mapping, made and freed as a request makes and frees copies of a picture.
CHURN = """
import ctypes, resource, sys
from healthguard import memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "kept":
    memory.keep_freed_blocks()
def churn():
    blocks = [libc.malloc(400_000) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 400_000)
    for block in reversed(blocks):
        libc.free(block)
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return how many pages the kernel had to bring for 50 rounds of four blocks of 98 pages."""
    done = subprocess.run([sys.executable, "-c", CHURN, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_blocks_are_used_again() -> None:
    """Pages are brought once, and not with each request; without it they are, which shows that this test can tell."""
    assert faults("kept") < 500
    assert faults("as usual") > 2000


def test_settle_leaves_out_what_is_there() -> None:
    """Objects that are there are searched no more; those that come later are."""
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        memory.settle()
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold() == memory.GARBAGE_THRESHOLDS
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
