"""Where the cluster keeps what it builds (kept) and what it runs on (removed)."""

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "healthguard" / "cluster"
RUNS = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "healthguard" / "cluster"
