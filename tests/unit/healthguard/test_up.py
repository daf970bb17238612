"""What a person reads when everything is ready."""

import json
from pathlib import Path

from healthguard.local import stack, up
from healthguard.local.datadir import DataDir
from healthguard.local.demo import Demo, NewDemo
from healthguard.local.keys import Keys
from healthguard.local.ports import Ports
from healthguard.local.stack import ROOT, Stack

MODELS = ROOT / "models"


def test_greeting_shows_the_password_on_the_first_start_only(tmp_path: Path) -> None:
    """Once is once, and the line to paste never holds it."""
    running = Stack(DataDir(tmp_path), Keys(), Ports(), stack.verified(MODELS))
    who = Demo("doctor@healthguard.example", "hg_key")
    first = up.facts_of(running, who, NewDemo(who, "the-password"), 1.0)
    later = up.facts_of(running, who, None, 1.0)
    assert sum("the-password" in line for line in up.greeting(first)) == 1
    assert not any("the-password" in line or "hg_key" in line for line in up.greeting(later))
    assert any(who.email in line and "exec" in line and str(tmp_path) in line for line in up.greeting(later))
    assert "the-password" not in first["try"]
    assert "hg_key" not in json.dumps([first, later])
