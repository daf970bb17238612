"""The services' own log lines: each to a bounded file of its own, and what matters to the terminal."""

import json
import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

LOG_BYTES_MAX = 5 * 1024 * 1024
"""One file's bound; one older file is kept, so a service has at most twice this."""
LAST_LINES = 20
LINE_BYTES_MAX = 16 * 1024

_SERIOUS = frozenset({"warning", "error", "critical"})
_SERIOUS_STARTS = ("FATAL", "PANIC", "ERROR", "Traceback")
# FATAL is also PostgreSQL's word for refusing a client while it starts or stops.
_EXPECTED = ("the database system is", "terminating connection due to administrator command")


class LogFile:
    """A service's log: append a line, and the oldest half goes when it grows too long."""

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.path = path
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._bytes_max = bytes_max
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._open()

    def _open(self) -> BinaryIO:
        return os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")

    def write(self, line: str) -> None:
        """Append one line, at most `LINE_BYTES_MAX` of it."""
        data = line.encode(errors="replace")[:LINE_BYTES_MAX] + b"\n"
        if self._file.tell() + len(data) > self._bytes_max:
            self._rotate()
        self._file.write(data)
        self._file.flush()
        self.last.append(line)

    def _rotate(self) -> None:
        self._file.close()
        self.path.replace(self.path.with_suffix(".log.1"))
        self._file = self._open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def serious(line: str) -> bool:
    """Tell whether a person should see this line at once: a warning or worse, of ours or of PostgreSQL."""
    if line.startswith("{"):
        try:
            event = json.loads(line)
        except ValueError:
            return False
        return event.get("level") in _SERIOUS
    text = line.removeprefix("postgres: ")
    return text.startswith(_SERIOUS_STARTS) and not any(word in text for word in _EXPECTED)
