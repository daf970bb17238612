"""The images that the cluster's own pods and the suite's tests run, as archives in the cache."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import oci, tools
from tests.cluster.components import PAUSE_IMAGE
from tests.cluster.folders import CACHE, keep_newest
from tests.images.base import rootfs

PYTHON_IMAGE = "healthguard.test/python:1"
BUSYBOX_IMAGE = "healthguard.test/busybox:1"

_PROGRAMS = {
    PAUSE_IMAGE: ("pause", "65535:65535"),
    "healthguard.test/coredns:1": ("coredns", "65532:65532"),
    "healthguard.test/metrics-server:1": ("metrics-server", "65532:65532"),
    "healthguard.test/traefik:1": ("traefik", "65532:65532"),
}


def addon_archives(addons: Sequence[str]) -> list[Path]:
    """Return the archives of the images that a node with *addons* needs, made where they are not yet cached."""
    wanted = [name for name in _PROGRAMS if name == PAUSE_IMAGE or _short(name) in addons]
    return [*(_program_archive(name, *_PROGRAMS[name]) for name in wanted), busybox_archive()]


def busybox_archive() -> Path:
    """Return the archive of an image that holds a shell and the few programs that a script needs."""
    image = oci.Image(BUSYBOX_IMAGE, ("/bin/busybox",), user="0:0")
    links = {f"/bin/{name}": "busybox" for name in ("sh", "mkdir", "rm", "sleep", "cat")}
    programs = {"/bin/busybox": tools.BUSYBOX}
    return archive(image.name, [tools.BUSYBOX], lambda target: oci.write_programs(target, image, programs, links=links))


def python_archive() -> Path:
    """
    Return the archive of a Debian with Python: the same base on which the image suite builds.

    Raises:
        tools.Unavailable: there is none, and none can be made here.
    """
    debian = rootfs()
    image = oci.Image(PYTHON_IMAGE, ("/usr/bin/python3",))
    return archive(image.name, [debian], lambda target: oci.write_layer(target, image, debian.read_bytes()))


def _program_archive(name: str, program: str, user: str) -> Path:
    path = tools.program(program)
    image = oci.Image(name, (f"/{program}",), user)
    return archive(name, [path], lambda target: oci.write_programs(target, image, {f"/{program}": path}))


def archive(name: str, sources: Sequence[Path], write: Callable[[Path], None]) -> Path:
    """
    Return the cached archive of the image *name*; where its sources have changed, have it written first.

    Args:
        sources: what the image is made of: programs, root file systems, the modules that put them together.
    """
    target = CACHE / f"{_short(name)}-{_key(sources)}.oci.tar"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        write(target)
        keep_newest(CACHE, _short(name), ".oci.tar")
    return target


def _short(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[0]


def _key(sources: Sequence[Path]) -> str:
    digest = hashlib.sha256(Path(oci.__file__).read_bytes() + Path(__file__).read_bytes())
    for path in sources:
        # A program's own folder carries its version; size and time tell a distribution's upgrade.
        digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:12]
