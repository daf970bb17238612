"""The folder of an installation, its lock and its state."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from healthguard.local import datadir
from healthguard.local.datadir import DataDir, InUse


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_is_locked_by_one_process(tmp_path: Path) -> None:
    """Whoever comes second is told; when the first has ended, however, the folder is free."""
    data = DataDir(tmp_path / "data")
    data.make()
    assert _mode(data.path) == 0o700
    code = (
        "from healthguard.local.datadir import *; import time\n"
        f"with DataDir(Path({str(data.path)!r})).locked(): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert data.holder() == holder.pid
        with pytest.raises(InUse), data.locked():
            pass
        holder.kill()
    assert data.wait_until_free(5)
    with data.locked():
        assert data.holder() == os.getpid()
    assert data.holder() is None


def test_state_is_none_where_nobody_runs(tmp_path: Path) -> None:
    """A state that a killed supervisor left is not taken for a running one."""
    data = DataDir(tmp_path)
    data.make()
    data.write_state({"ready": True})
    assert data.read_state() is None
    with data.locked():
        assert data.read_state() == {"ready": True}


def test_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state home is used where it is set; a relative one is ignored, as the specification says."""
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert datadir.default() == Path("/state/healthguard")
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert datadir.default() == Path("/home/ada/.local/state/healthguard")
