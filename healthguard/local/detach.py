"""`healthguard up --detach`: the same supervisor without a terminal; this one waits until it has something to tell."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ANNOUNCE_S_MAX = 180.0
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
        NotStarted: it ended before that.
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
        status = child.wait(ANNOUNCE_S_MAX)
        raise NotStarted(log.read_text(errors="replace").strip().splitlines()[-1:][0], status)
    found: dict[str, Any] = json.loads(answer)
    return found


def announce(descriptor: int, facts: dict[str, Any]) -> None:
    """Tell the one who started us that everything is ready."""
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(json.dumps(facts).encode())
