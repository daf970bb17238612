"""Run other people's clients in the environment that is theirs: their locks and ours do not agree."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = Path(__file__).parents[1] / ".venv-clients/bin/python"


def run_client(script: Path, **arguments: Any) -> dict[str, Any]:
    """
    Run *script* with *arguments* as JSON on its standard input, and return the JSON that it writes last.

    Raises:
        AssertionError: it failed.
    """
    if not PYTHON.exists():
        pytest.skip("the clients' environment is missing: make test-deps makes it")
    done = subprocess.run(
        [PYTHON, script],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
