"""
Write a container image archive (OCI layout) without a builder, for images that are one static program.

Buildah could do it, but would need a minute and root for what is a tar in a tar, and its output would not be the same
twice.
"""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """An image's name and how its program starts."""

    name: str
    entrypoint: tuple[str, ...]
    user: str = "65532:65532"


def write_programs(
    target: Path, image: Image, programs: Mapping[str, Path], links: Mapping[str, str] | None = None
) -> None:
    """
    Write *image* to *target*, holding programs and nothing else.

    Args:
        programs: absolute path in the image → file here.
        links: absolute path in the image → what it points to.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, source in sorted(programs.items()):
            _add(tar, path.lstrip("/"), source.read_bytes(), mode=0o755)
        for path, aim in sorted((links or {}).items()):
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.linkname = tarfile.SYMTYPE, aim
            tar.addfile(member)
    write_layer(target, image, layer.getvalue())


def write_layer(target: Path, image: Image, layer: bytes) -> None:
    """Write *image* to *target*, with one uncompressed tar as its only layer."""
    # Level 1: the archive is read once, on this machine, so time counts and size does not.
    packed = gzip.compress(layer, compresslevel=1, mtime=0)
    config = _json(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": list(image.entrypoint),
                "User": image.user,
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(packed, _LAYER)],
        }
    )
    index = _json({"schemaVersion": 2, "manifests": [_named(manifest, image.name)]})
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, mode="w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)
        for blob in (config, manifest, packed):
            _add(tar, "blobs/" + _digest(blob).replace(":", "/"), blob)
    partial.rename(target)


def _named(manifest: bytes, name: str) -> dict[str, object]:
    # containerd reads its own annotation first; the standard one holds only a tag.
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    return {**_descriptor(manifest, "application/vnd.oci.image.manifest.v1+json"), "annotations": annotations}


def _descriptor(blob: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
