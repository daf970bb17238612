"""What `healthguard up` shows: for people without a terminal, for machines, and on a terminal."""

import io
import json
import os
import pty
import subprocess
import sys

from healthguard.local.display import JsonLines, PlainLines
from healthguard.local.lifecycle import Phase, State
from healthguard.local.supervisor import Report

STARTING = Report("auth", State(Phase.STARTING), 41)
READY = Report("auth", State(Phase.READY), 41)
BACK = Report("auth", State(Phase.BACKOFF, restarts=1), None)


def test_plain_lines_tell_each_change_once() -> None:
    """One line when a service is ready, one when it is restarted; nothing for what is on its way."""
    out = io.StringIO()
    display = PlainLines(out, verbose=False)
    for report in (STARTING, READY, READY, BACK, STARTING, READY):
        display.change(report)
    display.line("auth", '{"level": "info"}')
    display.line("auth", '{"level": "warning"}')
    shown = out.getvalue().splitlines()
    assert [line.split()[-1] for line in shown] == ["ready", "restarting", "ready", '"warning"}']


def test_verbose_shows_every_line() -> None:
    """With --verbose the harmless lines are shown too."""
    out = io.StringIO()
    PlainLines(out, verbose=True).line("auth", '{"level": "info"}')
    assert '{"level": "info"}' in out.getvalue()


def test_json_lines_are_objects_one_a_line() -> None:
    """Every change and the final facts can be read by a program."""
    out = io.StringIO()
    display = JsonLines(out, verbose=False)
    display.change(READY)
    display.line("auth", '{"level": "error"}')
    display.ready({"url": "http://127.0.0.1:1"}, ["for people"])
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert events == [
        {"event": "service", "name": "auth", "phase": "ready", "pid": 41, "restarts": 0},
        {"event": "log", "name": "auth", "line": '{"level": "error"}'},
        {"event": "ready", "url": "http://127.0.0.1:1"},
    ]


def test_terminal_shows_a_table_and_whole_lines() -> None:
    """On a terminal the services stand in a table; a line to paste is not broken, however long it is."""
    code = (
        "from healthguard.local import display, lifecycle, supervisor\n"
        "shown = display.make(as_json=False, verbose=False)\n"
        "shown.change(supervisor.Report('auth', lifecycle.State(lifecycle.Phase.READY), 41))\n"
        "shown.ready({}, ['healthguard predict ' + 'x' * 200])\n"
        "shown.close()\n"
    )
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", code], stdout=theirs, check=True, timeout=60, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert "auth" in text
    assert "ready" in text
    assert "healthguard predict " + "x" * 200 in text
