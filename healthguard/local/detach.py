"""`healthguard up --detach`: the same supervisor without a terminal; this one waits until it has something to tell."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from healthguard.terminal import EXIT_FAILED

END_S_MAX = 60.0
TAIL_LINES = 12
_TAIL_BYTES_MAX = 16 * 1024
_ANSWER_BYTES_MAX = 64 * 1024


class NotStarted(RuntimeError):
    """The supervisor in the background ended before it was ready; the text is its last words."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def start(arguments: list[str], log: Path) -> dict[str, Any]:
    """
    Start a supervisor in a session of its own, and return the facts that it announces.

    They come through a pipe, not through a file: the demo user's password is among them at the first start.

    Args:
        arguments: of `healthguard up`, without `--detach`.
        log: where its messages go.

    Raises:
        NotStarted: it ended before that, or did not come so far in time.
    """
    reading, writing = os.pipe()
    with log.open("wb") as out:
        child = subprocess.Popen(  # noqa: S603 - our own command line, no shell
            [sys.executable, "-m", "healthguard", "up", *arguments, f"--announce={writing}"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read(_ANSWER_BYTES_MAX)
    if not answer:
        raise ended(child, log)
    found: dict[str, Any] = json.loads(answer)
    return found


def ended(child: "subprocess.Popen[bytes]", log: Path, wait_s: float = END_S_MAX) -> NotStarted:
    """Return what is to be told of a supervisor that announced nothing; one that does not end is killed."""
    try:
        status = child.wait(wait_s)
    except subprocess.TimeoutExpired:
        child.kill()  # the kernel ends its services with it
        child.wait()
        return NotStarted(f"It neither started nor ended, and was killed. {_last_words(log)}", EXIT_FAILED)
    return NotStarted(_last_words(log), status)


def _last_words(log: Path) -> str:
    """Return the end of what a supervisor wrote: a reason may have several lines."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES_MAX))
        lines = file.read(_TAIL_BYTES_MAX).decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-TAIL_LINES:]) or f"It ended without a word: see the logs in {log.parent}."


def announce(descriptor: int, facts: dict[str, Any]) -> None:
    """Tell the one who started us that everything is ready."""
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(json.dumps(facts).encode())
