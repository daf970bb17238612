"""The operator as a process of this machine, beside the cluster: to be killed, doubled, starved and measured."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.cluster.bad_days import Proxy
from tests.cluster.forward import listen
from tests.cluster.runs import wait_until

_ROOT = Path(__file__).parents[2]
_START_S = 60.0
_STOP_S = 30.0


@dataclass
class OperatorProcess:
    """One operator that reaches the cluster through *proxy* and looks after *namespaces*."""

    proxy: Proxy
    namespaces: list[str]
    folder: Path
    mutant: str = ""
    """Python that is run first in its process: what makes another program of it."""
    settings: dict[str, str] = field(default_factory=dict)
    starts: int = 0
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it may be started again after its end."""
        listener = listen()
        self.port = listener.getsockname()[1]
        listener.close()
        self.folder.mkdir(exist_ok=True)
        (self.folder / "kubeconfig").write_text(self.proxy.kubeconfig)
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"{self.mutant}\nfrom serving.operator.__main__ import main\nmain()"],
                cwd=_ROOT,
                env={**_environment(), **self._settings(), **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _settings(self) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "OPERATOR_HOST": "127.0.0.1",
            "OPERATOR_PORT": str(self.port),
            "OPERATOR_NAMESPACES": json.dumps(self.namespaces),
            "OPERATOR_IMAGE": "operator.test/operator:1",
            "OPERATOR_MODELSERVER_IMAGE": "operator.test/modelserver:1",
            "OPERATOR_TENSORFLOW_SERVING_IMAGE": "operator.test/serving:1",
            "OPERATOR_TENSORFLOW_SERVING_GPU_IMAGE": "operator.test/serving:1-gpu",
            "OPERATOR_DRAIN_PODS_S": "1",
        }

    @property
    def log(self) -> Path:
        """What it wrote, over all of its starts."""
        return self.folder / "operator.log"

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def memory_mebibytes(self) -> float:
        """The most memory that it ever had in use."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    @property
    def processor_s(self) -> float:
        """The processor time that it has used."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it as a power cut would: kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)

    def keep_running(self) -> None:
        """Start it again where it is no more, as the kubelet would."""
        if not self.running:
            self.start()

    def answers(self, path: str) -> int:
        """Return the status that its health port answers; 0 where it does not."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5, trust_env=False).status_code
        except httpx.HTTPError:
            return 0

    def wait_until_ready(self) -> None:
        """Return when it has looked at the cluster."""
        wait_until(lambda: self.answers("/readyz") == 200, f"the operator to be ready (see {self.log})", _START_S)

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_S)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("OPERATOR_")}


@contextmanager
def operating(proxy: Proxy, namespaces: list[str], folder: Path, mutant: str = "") -> Iterator[OperatorProcess]:
    """Run an operator meanwhile; it is ready when this yields."""
    operator = OperatorProcess(proxy, namespaces, folder, mutant)
    operator.start()
    try:
        operator.wait_until_ready()
        yield operator
    finally:
        operator.stop()
