"""A cluster as tests and people see it: start one, reach it, load images into it, stop it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from tests.cluster import images, network, progress, runs, tools
from tests.cluster.components import CONTAINERD_SOCKET
from tests.cluster.runs import Run, wait_until

PEOPLE = Run("default")
"""The run that `make cluster` starts and the suites reuse while it is there."""

_ROOT = Path(__file__).parents[2]
_MANIFESTS = Path(__file__).parent / "addons"
ADDONS = ("coredns", "metrics-server", "policies", "storage", "traefik")
"""What a node has beside Kubernetes: a manifest each in addons/, and for most a pod."""
_START_S = 180
_COMMAND_S = 300


class CommandFailed(Exception):
    """A program that the tests ran against the cluster failed; the message is what it wrote."""


class DidNotStart(Exception):
    """A cluster did not come up on a machine that has all it needs; the message holds its last logs."""


@dataclass
class Cluster:
    """A running cluster: our own node, or whatever KUBECONFIG names."""

    kubeconfig: Path
    run: Run | None = None
    """None where the cluster is somebody else's."""
    _owner: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = _COMMAND_S) -> str:
        """
        Run kubectl and return what it wrote.

        Raises:
            CommandFailed: it ended with an error.
        """
        return self.command(tools.program("kubectl"), *arguments, stdin=stdin, timeout_s=timeout_s)

    def helm(self, version: int, *arguments: str, timeout_s: float = _COMMAND_S) -> str:
        """
        Run Helm 3 or 4 and return what it wrote.

        Raises:
            CommandFailed: it ended with an error.
        """
        return self.command(tools.program("helm", module=f"helm{version}"), *arguments, timeout_s=timeout_s)

    def command(self, program: Path, *arguments: str, stdin: str | None = None, timeout_s: float = _COMMAND_S) -> str:
        """
        Run *program* with this cluster as its KUBECONFIG, and return its standard output.

        Raises:
            CommandFailed: it ended with an error.
        """
        run = subprocess.run(
            [str(program), *arguments],
            # An empty input, not ours: a program that asks must fail, not hang.
            input=stdin or "",
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if run.returncode:
            raise CommandFailed(f"{program.name} {' '.join(arguments)}: {run.stderr.strip() or run.stdout.strip()}")
        return run.stdout

    def environment(self) -> dict[str, str]:
        """Return the environment in which kubectl and helm reach this cluster."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def get(self, *arguments: str) -> dict[str, object]:
        """Return what `kubectl get` finds, as JSON."""
        found: dict[str, object] = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def apply(self, manifest: str, *arguments: str) -> str:
        """Apply *manifest* (YAML or JSON) on the server's side, refusing fields that it does not know."""
        strict = ("--server-side", "--validate=strict", "--filename=-")
        return self.kubectl("apply", *strict, *arguments, stdin=manifest)

    def load_image(self, archive: Path) -> None:
        """
        Load an OCI archive into the node, so that pods with `imagePullPolicy: Never` find it.

        Raises:
            CommandFailed: the archive is none.
            tools.Unavailable: the cluster is somebody else's.
        """
        if self.run is None:
            raise tools.Unavailable("Images are loaded only into the suite's own node; unset KUBECONFIG to use it.")
        self.enter("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "images", "import", str(archive))

    def enter(self, *command: str, timeout_s: float = _COMMAND_S) -> str:
        """
        Run a command inside the node's namespaces, as root of the node.

        Raises:
            CommandFailed: it ended with an error.
            tools.Unavailable: the cluster is somebody else's, or gone.
        """
        record = self.run.read() if self.run else None
        if record is None or record.node is None:
            raise tools.Unavailable("Only the suite's own node can be entered; unset KUBECONFIG to use it.")
        where = ("--target", str(record.node.pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--")
        return self.command(tools.program("nsenter"), *where, *command, timeout_s=timeout_s)

    @contextmanager
    def node_port(self, port: int) -> Iterator[int]:
        """Reach a NodePort of the node: yield the port of 127.0.0.1 that is carried to it meanwhile."""
        record = self.run.read() if self.run else None
        if record is None or record.node is None:
            raise tools.Unavailable("Node ports are reached only on the suite's own node; unset KUBECONFIG to use it.")
        with _helper("forward", str(record.node.pid), network.NODE_ADDRESS, str(port)) as carried:
            yield int(carried)

    @property
    def http_port(self) -> int:
        """The port of 127.0.0.1 behind which the ingress controller speaks HTTP."""
        return self._port("HEALTHGUARD_INGRESS_HTTP_PORT", "http_port")

    @property
    def https_port(self) -> int:
        """The port of 127.0.0.1 behind which the ingress controller speaks HTTPS."""
        return self._port("HEALTHGUARD_INGRESS_HTTPS_PORT", "https_port")

    @property
    def audit_log(self) -> Path | None:
        """The API server's audit log, where the cluster is ours."""
        return self.run.folder / "audit.log" if self.run else None

    def set_gpus(self, count: int) -> None:
        """Give the node *count* GPUs to hand out; they are numbers only, no device is behind them."""
        # The kubelet would derive what it hands out from what it has, but only with its next report; the scheduler
        # would place pods on GPUs that are gone meanwhile.
        fields = ("capacity", "allocatable")
        patch = [{"op": "add", "path": f"/status/{name}/nvidia.com~1gpu", "value": str(count)} for name in fields]
        arguments = ("--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")
        self.kubectl("patch", "node", network.NODE, *arguments)

    def stop(self) -> None:
        """End the cluster, where it is ours, and return when nothing of it is left."""
        if self.run:
            stop(self.run)
        if self._owner and self._owner.stdin:
            self._owner.stdin.close()
            self._owner.wait(_START_S)

    @property
    def keeper_ended(self) -> bool:
        """Tell whether the process that looks after our node is over."""
        return self._owner is not None and self._owner.poll() is not None

    def _port(self, variable: str, name: str) -> int:
        record = self.run.read() if self.run else None
        if record:
            return int(getattr(record, name))
        given = os.environ.get(variable)
        if given is None:
            raise tools.Unavailable(f"Set {variable} to the port of 127.0.0.1 at which the cluster's ingress answers.")
        return int(given)


def start(run: Run, *, attached: bool, addons: Sequence[str] = ADDONS) -> Cluster:
    """
    Bring up *run* and return when its node and its own pods are ready.

    Args:
        attached: the cluster ends with this process, however this process ends.
        addons: some of ADDONS; a test that starts a cluster only to end it needs no door and no metrics.

    Raises:
        tools.Unavailable: this machine cannot run it.
        DidNotStart: it can, and the cluster did not come up.
    """
    tools.check_machine()
    tools.build_all()
    archives = images.addon_archives(addons)
    runs.clear_crashed()
    run.folder.mkdir(parents=True, mode=0o700)
    cluster = Cluster(run.kubeconfig, run, _keeper(run, attached=attached))
    try:
        with progress.step(f"starting the cluster {run.name}", estimate_s=40):
            _bring_up(cluster, archives, addons)
    except (TimeoutError, CommandFailed) as error:
        told = _last_words(run)
        cluster.stop()
        raise DidNotStart(f"{error}\n{told}") from error
    except BaseException:
        cluster.stop()
        raise
    return cluster


def stop(run: Run) -> None:
    """End *run*, if it is there, and return when nothing of it is left."""
    record = run.read()
    if record and record.keeper.alive:
        record.keeper.end(signal.SIGTERM)
    runs.clear_crashed()


def _keeper(run: Run, *, attached: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.cluster", "keep", run.name, *(["--attached"] if attached else [])]
    with (run.folder / "keeper.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in a terminal reaches the test run only; the keeper learns of its end by the pipe.
            start_new_session=True,
        )


def _bring_up(cluster: Cluster, archives: Sequence[Path], addons: Sequence[str]) -> None:
    run = cluster.run
    assert run is not None
    wait_until(lambda: _ports(run) > 0 or cluster.keeper_ended, "the node's first process", _START_S)
    if cluster.keeper_ended:
        raise CommandFailed("the process that looks after the node ended at once")
    wait_until(lambda: _answers(cluster, "ctr"), "containerd", _START_S)
    for archive in archives:
        cluster.load_image(archive)
    wait_until(lambda: _answers(cluster, "kubectl"), "the API server", _START_S)
    if "traefik" in addons:
        cluster.apply("\n---\n".join(path.read_text() for path in tools.manifests("gateway-api")))
    for addon in addons:
        cluster.apply(_filled(_MANIFESTS / f"{addon}.yaml", run))
    wait_until(lambda: _answers(cluster, "node"), "the node to register", _START_S)
    cluster.kubectl("wait", "node", network.NODE, "--for=condition=Ready", f"--timeout={_START_S}s")
    arguments = ("--all", "--all-namespaces", "--for=condition=Available", f"--timeout={_START_S}s")
    cluster.kubectl("wait", "deployment", *arguments)


def _ports(run: Run) -> int:
    record = run.read()
    return record.api_port if record else 0


_QUESTIONS = {
    "ctr": ("ctr", "--address", CONTAINERD_SOCKET, "version"),
    "kubectl": ("get", "--raw", "/readyz"),
    "node": ("get", "node", network.NODE),
}


def _answers(cluster: Cluster, what: str) -> bool:
    try:
        (cluster.enter if what == "ctr" else cluster.kubectl)(*_QUESTIONS[what], timeout_s=10)
    except (CommandFailed, subprocess.TimeoutExpired):
        return False
    return True


def _filled(manifest: Path, run: Run) -> str:
    return Template(manifest.read_text()).substitute(
        DNS_SERVICE=network.DNS_SERVICE,
        NODE_ADDRESS=network.NODE_ADDRESS,
        INGRESS_HTTP=network.INGRESS_HTTP,
        INGRESS_HTTPS=network.INGRESS_HTTPS,
    )


def _last_words(run: Run) -> str:
    # The pods' own logs are where the kubelet writes them, seen from outside of the node.
    pods = sorted(run.folder.glob("overlay/var-log/upper/pods/*/*/*.log"))
    logs = [run.folder / "keeper.log", *sorted((run.folder / "logs").glob("*.log")), *pods]
    return "\n".join(
        f"--- {log.relative_to(run.folder)}\n{log.read_bytes()[-1500:].decode(errors='replace')}"
        for log in logs
        if log.exists()
    )


@contextmanager
def _helper(*arguments: str) -> Iterator[str]:
    """Run a subcommand of this package meanwhile, and yield the first line that it writes."""
    command = [sys.executable, "-m", "tests.cluster", *arguments]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.terminate()
