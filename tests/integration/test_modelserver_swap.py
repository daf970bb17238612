"""A new version of a real model under load: nothing fails, and memory comes back."""

import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.tfs.protos import PredictRequest
from tests.contract.tfs.harness import QUICK, Server, folder, request, running, wait_until

figures = logging.getLogger("figures")
"""Shown by pytest's --log-cli-level=INFO."""

MODEL = Path(__file__).parents[2] / "models" / "cancer" / "1"
CLIENTS = 4
SWAPS = 4
LEFT_BEHIND_MB = 40
"""What an allocator may keep after several swaps; a version that stayed would be more each time."""


@pytest.fixture(scope="module")
def base_path() -> Iterator[Path]:
    """Make a model's folder with version 1."""
    with folder() as home:
        shutil.copytree(MODEL, home / "cancer" / "1")
        yield home / "cancer"


@dataclass
class Clients:
    """Clients that send one picture after the other, each time another one, and note which version answered."""

    server: Server
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen: list[list[int]] = [[] for _ in range(CLIENTS)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def all_saw(self, version: int) -> bool:
        """Say whether every client's last answer came from *version*."""
        return all(seen[-1] == version for seen in self.seen)

    def stop(self) -> None:
        """Let the last calls end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _send(self, number: int) -> None:
        random = np.random.default_rng(number)
        while not self._stop.is_set():
            try:
                answer = self.server.predict(picture(random))
                self.seen[number].append(int(answer.model_spec.version.value))
            except grpc.RpcError as error:
                self.failed.append(error.code().name)
                return


def picture(random: np.random.Generator) -> PredictRequest:
    """Return a request with a picture of noise."""
    return request({"image": random.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)}, model="cancer")


def test_modelserver_swaps_versions_under_load(base_path: Path) -> None:
    """Several swaps: no request fails, no client ever falls back to an older version, and memory does not climb."""
    with running(f"--model_base_path={base_path}", "--model_name=cancer", *QUICK) as server:
        clients = Clients(server)
        try:
            wait_until(lambda: all(clients.seen))
            before = memory_mb(server, "VmRSS")
            (Path("/proc") / str(server.process.pid) / "clear_refs").write_text("5")
            for version in range(2, 2 + SWAPS):
                swap(server, base_path, version)
                wait_until(partial(clients.all_saw, version))
        finally:
            clients.stop()
        peak, after = memory_mb(server, "VmHWM"), memory_mb(server, "VmRSS")
        states = server.states("cancer")
    figures.info("%d swaps: resident MB before %.0f, peak %.0f, after %.0f", SWAPS, before, peak, after)
    assert clients.failed == []
    assert all(seen == sorted(seen) for seen in clients.seen)
    assert {version for seen in clients.seen for version in seen} == set(range(1, 2 + SWAPS))
    assert states == {**dict.fromkeys(range(1, 1 + SWAPS), ("END", 0)), 1 + SWAPS: ("AVAILABLE", 0)}
    assert after < before + LEFT_BEHIND_MB


def swap(server: Server, base_path: Path, version: int) -> None:
    """Put a version in place by one rename, and wait until it alone is served."""
    staged = base_path / "staged"
    shutil.copytree(MODEL, staged)
    staged.rename(base_path / str(version))
    wait_until(lambda: server.states("cancer").get(version) == ("AVAILABLE", 0))
    wait_until(lambda: server.states("cancer")[version - 1] == ("END", 0))


def memory_mb(server: Server, line: str) -> float:
    """Return a line of the process's status, MB."""
    status = (Path("/proc") / str(server.process.pid) / "status").read_text()
    return next(int(each.split()[1]) for each in status.splitlines() if each.startswith(line)) / 1000
