"""Versions are built in a process of its own, with bounds: what a file breaks or asks for, it breaks there."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.importing import importer, litert_edit
from models.importing.request import CannotImport
from tests.training import ROOT
from tests.unit.models.test_import_litert import network, put

HUNGRY = """
import resource
from models.importing import worker
worker.confine(0)
try:
    bytearray(worker.MEMORY_BYTES_MIN)
except MemoryError:
    print("no memory")
print(resource.getrlimit(resource.RLIMIT_FSIZE)[1] <= worker.FILE_BYTES_MAX)
"""


def test_worker_gets_no_more_memory_than_its_file_explains() -> None:
    """Memory beyond the bound is refused by the system, and so is a file that fills the disk."""
    done = subprocess.run([sys.executable, "-c", HUNGRY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["no memory", "True", ""]


def test_file_that_asks_for_terabytes_is_refused(tmp_path: Path) -> None:
    """A tensor of a few bytes in the file, and of gigabytes when it is run: the command goes on, and says so."""
    model = litert_edit.parse(network(rows=1))
    model.subgraphs[0].tensors[2].shape = [2_130_706_433, 3]
    with pytest.raises(CannotImport):
        put(tmp_path, litert_edit.pack(model))
    assert not (tmp_path / "out" / "m").exists()


@pytest.mark.parametrize(
    ("code", "named"),
    [("import os; os.abort()", "ended early"), ("import time; time.sleep(600)", "ended after")],
    ids=["crash", "endless"],
)
def test_worker_that_breaks_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, named: str
) -> None:
    """A crash of what reads the file, or no end of it, is a sentence, and leaves nothing behind."""
    monkeypatch.setattr(importer, "BUILD_S_MAX", 1.0 if "sleep" in code else 60.0)
    real = subprocess.Popen

    def other(_command: list[Any], **wishes: Any) -> Any:
        return real([sys.executable, "-c", f"import sys; sys.stdin.read(); {code}"], **wishes)

    monkeypatch.setattr(subprocess, "Popen", other)
    with pytest.raises(CannotImport, match=named):
        put(tmp_path, network())
    assert not (tmp_path / "out" / "m").exists()
