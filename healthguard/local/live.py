"""The table that `healthguard up` shows on a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from healthguard.local.display import brief
from healthguard.local.lifecycle import Phase
from healthguard.local.logs import serious
from healthguard.local.supervisor import Report

_COLOURS = {
    Phase.READY: "green",
    Phase.DONE: "green",
    Phase.FAILED: "red",
    Phase.BACKOFF: "yellow",
    Phase.STARTING: "cyan",
    Phase.STOPPED: "dim",
}


class LiveTable:
    """A table that stays at the bottom of the terminal, a row a service."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._reports: dict[str, Report] = {}
        self._live = Live(auto_refresh=False)
        self._live.start()

    def _show(self) -> None:
        table = Table("service", "state", "pid", "restarts", box=None, pad_edge=False)
        for name, report in self._reports.items():
            phase = report.state.phase
            colour = _COLOURS.get(phase, "default")
            pid = "" if report.pid is None else str(report.pid)
            # No markup: printing a line without markup above the table draws the table without it too.
            table.add_row(name, Text(str(phase), style=colour), pid, str(report.state.restarts or ""))
        self._live.update(table, refresh=True)

    def change(self, report: Report) -> None:
        """Change the service's row."""
        self._reports[report.name] = report
        self._show()

    def line(self, name: str, line: str) -> None:
        """Print the line above the table."""
        if self._verbose or serious(line):
            # Cut by us, and never wrapped: the whole line stands in the service's log file.
            text = brief(name, line, self._live.console.width)
            self._live.console.print(Text(text), highlight=False, soft_wrap=True)

    def ready(self, facts: dict[str, Any], text: Sequence[str]) -> None:
        """Print the text above the table."""
        for line in text:
            # Soft-wrapped: a line to paste must stay one line.
            self._live.console.print(Text(line), highlight=False, soft_wrap=True)
        self._show()

    def close(self) -> None:
        """Leave the table as it stands."""
        self._live.stop()
