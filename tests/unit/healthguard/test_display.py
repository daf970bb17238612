"""What `healthguard up` shows: for people without a terminal, for machines, and on a terminal."""

import io
import json
import os
import pty
import subprocess
import sys

from healthguard.local.display import JsonLines, PlainLines, brief
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
    display.line("auth", '{"level": "warning", "message": "refresh_token_reused"}')
    shown = out.getvalue().splitlines()
    assert [line.split()[-1] for line in shown] == ["ready", "restarting", "ready", "refresh_token_reused"]


def test_verbose_shows_every_line() -> None:
    """With --verbose the harmless lines are shown too."""
    out = io.StringIO()
    PlainLines(out, verbose=True).line("auth", '{"level": "info", "message": "listening"}')
    assert out.getvalue() == "auth | info: listening\n"


def test_log_line_is_shown_short() -> None:
    """Service, level, message and what it is about; never wrapped, and nothing that moves the cursor."""
    event = {"level": "warning", "message": "upstream_call_failed", "upstream": "auth", "frames": ["x" * 500]}
    assert brief("gateway", json.dumps(event), 100) == "gateway | warning: upstream_call_failed upstream=auth"
    assert brief("auth", "Traceback " + "x" * 500, 40) == "auth | Traceback " + "x" * 22 + "…"
    assert brief("auth", '{"level": "warning"', 40) == 'auth | {"level": "warning"'
    assert brief("auth", "ERROR \x1b[2Jgone", 40) == "auth | ERROR  [2Jgone"


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
        "shown.line('auth', 'ERROR [/] ' + 'y' * 300)\n"
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
    assert "[green]" not in text
    assert "auth | ERROR [/] yyy" in text
    assert "y" * 100 not in text
