"""The images that the cluster's own pods and the suite's tests run, as archives in the cache."""

import hashlib
from pathlib import Path

from tests.cluster import oci, tools
from tests.cluster.components import PAUSE_IMAGE
from tests.cluster.folders import CACHE
from tests.images.base import Unavailable, base

PYTHON_IMAGE = "healthguard.test/python:1"
BUSYBOX_IMAGE = "healthguard.test/busybox:1"

_PROGRAMS = {
    PAUSE_IMAGE: ("pause", "65535:65535"),
    "healthguard.test/coredns:1": ("coredns", "65532:65532"),
    "healthguard.test/metrics-server:1": ("metrics-server", "65532:65532"),
    "healthguard.test/traefik:1": ("traefik", "65532:65532"),
}


def addon_archives() -> list[Path]:
    """Return the archives of all images that the cluster's own pods need, made where they are not yet cached."""
    archives = [_program_archive(name, *_PROGRAMS[name]) for name in _PROGRAMS]
    return [*archives, busybox_archive()]


def busybox_archive() -> Path:
    """Return the archive of an image that holds a shell and the few programs that a script needs."""
    image = oci.Image(BUSYBOX_IMAGE, ("/bin/busybox",), user="0:0")
    links = {f"/bin/{name}": "busybox" for name in ("sh", "mkdir", "rm", "sleep", "cat")}
    target = _target(image.name, [tools.BUSYBOX])
    if not target.exists():
        oci.write_programs(target, image, {"/bin/busybox": tools.BUSYBOX}, links=links)
    return target


def python_archive() -> Path:
    """
    Return the archive of a Debian with Python: the same base on which the image suite builds.

    Raises:
        tools.Unavailable: there is none, and none can be made here.
    """
    try:
        rootfs = Path(base())
    except Unavailable as reason:
        raise tools.Unavailable(str(reason)) from reason
    if not rootfs.is_file():
        raise tools.Unavailable(
            "BASE names an image in a registry; the cluster takes only a root file system in a tar file."
        )
    target = _target(PYTHON_IMAGE, [rootfs])
    if not target.exists():
        oci.write_layer(target, oci.Image(PYTHON_IMAGE, ("/usr/bin/python3",)), rootfs.read_bytes())
    return target


def _program_archive(name: str, program: str, user: str) -> Path:
    path = tools.program(program)
    target = _target(name, [path])
    if not target.exists():
        oci.write_programs(target, oci.Image(name, (f"/{program}",), user), {f"/{program}": path})
    return target


def _target(name: str, sources: list[Path]) -> Path:
    # The program's own folder carries its version; size and time tell a distribution's upgrade.
    key = [
        f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in (*sources, Path(oci.__file__), Path(__file__))
    ]
    short = name.rpartition("/")[2].partition(":")[0]
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE / f"{short}-{hashlib.sha256(' '.join(key).encode()).hexdigest()[:12]}.oci.tar"
