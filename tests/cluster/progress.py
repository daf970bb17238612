"""Say on standard error what takes long, and how long it is likely to take."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY_S = 30


def say(text: str) -> None:
    """Write one line."""
    sys.stderr.write(f"cluster: {text}\n")
    sys.stderr.flush()


@contextmanager
def step(text: str, *, estimate_s: int) -> Iterator[None]:
    """Announce a step with its estimate, repeat every half minute that it still runs, and say how long it took."""
    started, over = time.monotonic(), threading.Event()

    def remind() -> None:
        while not over.wait(_EVERY_S):
            say(f"{text}: {time.monotonic() - started:.0f} s of about {estimate_s} s")

    say(f"{text} … (about {estimate_s} s)")
    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        say(f"{text}: {time.monotonic() - started:.0f} s")
