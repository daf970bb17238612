"""The services' own log lines: each to a bounded file of its own, and what matters to the terminal."""

import contextlib
import json
import os
from collections import deque
from io import FileIO
from pathlib import Path

LOG_BYTES_MAX = 5 * 1024 * 1024
"""One file's bound; one older file is kept, so a service has at most twice this."""
LAST_LINES = 20
LINE_BYTES_MAX = 16 * 1024

_SERIOUS = frozenset({"warning", "error", "critical"})
_SERIOUS_STARTS = ("FATAL", "PANIC", "ERROR", "Traceback")
# FATAL is also PostgreSQL's word for refusing a client while it starts or stops.
_EXPECTED = ("the database system is", "terminating connection due to administrator command")


class LogFile:
    """
    A service's log: append a line, and the oldest half goes when it grows too long.

    Where a line cannot be written, as on a full disk, it is dropped and counted: whoever writes must go on reading, or
    the service would block on its full pipe.
    """

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        self.path = path
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.dropped = 0
        """Lines that could not be written since the last one that could."""
        self._bytes_max = bytes_max
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._open()

    def _open(self) -> FileIO:
        # Without a buffer, in which a line that could not be written would stay and fail again.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def write(self, line: str) -> None:
        """Append one line, at most `LINE_BYTES_MAX` of it."""
        self.last.append(line)
        try:
            if self.dropped:
                self._append(f"({self.dropped} lines could not be written here)")
            self._append(line)
        except OSError:
            self.dropped += 1
        else:
            self.dropped = 0

    def _append(self, line: str) -> None:
        data = line.encode(errors="replace")[:LINE_BYTES_MAX] + b"\n"
        if self._file.tell() + len(data) > self._bytes_max:
            self._rotate()
        self._file.write(data)

    def _rotate(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # an earlier try came only so far
            self.path.replace(self.path.with_suffix(".log.1"))
        fresh = self._open()
        self._file.close()
        self._file = fresh

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
