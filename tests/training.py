"""The training environment, where TensorFlow is: `make test-deps` makes it; tests reach it through subprocesses."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-train" / "bin" / "python"

needs_training = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(not PYTHON.exists(), reason="the training environment is not there: run `make test-deps`"),
    pytest.mark.timeout(900),
]
"""Marks of a test that runs there; where it is missing the test is named among those that did not run."""
