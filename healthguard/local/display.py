"""What `healthguard up` shows: a live table on a terminal, plain lines elsewhere, JSON lines on request."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from healthguard.local.lifecycle import Phase
from healthguard.local.logs import serious
from healthguard.local.supervisor import Report

LINE_CHARS_MAX = 160
"""Where no terminal says how wide it is."""

_TOLD = frozenset({Phase.READY, Phase.DONE, Phase.BACKOFF, Phase.FAILED, Phase.STOPPED})


_IDENTIFIERS = (
    "model",
    "version",
    "upstream",
    "check",
    "status",
    "problem",
    "code",
    "reason",
    "exception",
    "request_id",
)


def brief(name: str, line: str, width: int) -> str:
    """
    Return a line that a service wrote as a person reads it at a glance; all of it stands in the service's log file.

    Args:
        width: characters that the result may have.
    """
    text = f"{name} | {_event(line) or _printable(line)}"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _event(line: str) -> str | None:
    """Return level, message and the few identifiers of a JSON log line; none where it is no such line."""
    try:
        event = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    if not isinstance(event, dict) or "message" not in event:
        return None
    known = [f"{key}={event[key]}" for key in _IDENTIFIERS if event.get(key) is not None]
    return _printable(" ".join([f"{event.get('level', 'info')}: {event['message']}", *known]))


def _printable(text: str) -> str:
    """Return *text* as one line, without what moves a terminal's cursor or changes its colours."""
    return "".join(char if char.isprintable() else " " for char in text)


class Display(Protocol):
    """Where the supervisor's news go."""

    def change(self, report: Report) -> None:
        """Show how a service stands."""

    def line(self, name: str, line: str) -> None:
        """Show a line that a service wrote, if it matters."""

    def ready(self, facts: dict[str, Any], text: Sequence[str]) -> None:
        """Show that everything answers: the facts for machines, the text for people."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def make(*, as_json: bool, verbose: bool) -> Display:
    """Return the display for where our output goes."""
    if as_json:
        return JsonLines(sys.stdout, verbose)
    if sys.stdout.isatty():
        from healthguard.local.live import LiveTable  # noqa: PLC0415 - rich takes a tenth of a second to import

        return LiveTable(verbose)
    return PlainLines(sys.stdout, verbose)


@dataclass
class JsonLines:
    """One JSON object a line."""

    out: TextIO
    verbose: bool

    def _print(self, event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}), file=self.out, flush=True)

    def change(self, report: Report) -> None:
        """Print every change."""
        state = report.state
        self._print("service", name=report.name, phase=state.phase, pid=report.pid, restarts=state.restarts)

    def line(self, name: str, line: str) -> None:
        """Print the line as a field."""
        if self.verbose or serious(line):
            self._print("log", name=name, line=line)

    def ready(self, facts: dict[str, Any], text: Sequence[str]) -> None:
        """Print the facts."""
        self._print("ready", **facts)

    def close(self) -> None:
        """Do nothing."""


@dataclass
class PlainLines:
    """One line for each change that a person wants to know."""

    out: TextIO
    verbose: bool
    started_at: float = field(default_factory=time.monotonic)
    _shown: dict[str, Phase] = field(default_factory=dict)

    def _print(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def change(self, report: Report) -> None:
        """Print a change of phase."""
        phase = report.state.phase
        if phase in _TOLD and self._shown.get(report.name) is not phase:
            self._print(f"{time.monotonic() - self.started_at:6.1f} s  {report.name:<15} {phase}")
        self._shown[report.name] = phase

    def line(self, name: str, line: str) -> None:
        """Print the line behind the service's name."""
        if self.verbose or serious(line):
            self._print(brief(name, line, LINE_CHARS_MAX))

    def ready(self, facts: dict[str, Any], text: Sequence[str]) -> None:
        """Print the text."""
        for line in text:
            self._print(line)

    def close(self) -> None:
        """Do nothing."""
