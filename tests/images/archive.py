"""Read an image from its OCI archive, without the builder that made it."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from k8s.images.build import layers_of_base

WHITEOUT = ".wh."


@dataclass(frozen=True)
class Archive:
    """An image in a tar file: an OCI layout with one manifest."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the image consists of."""
        index = self._document("index.json")
        return self._document(str(index["manifests"][0]["digest"]))

    @cached_property
    def config(self) -> dict[str, Any]:
        """How the image runs (`config`), and how it was made (`history`)."""
        return self._document(str(self.manifest["config"]["digest"]))

    @cached_property
    def layers(self) -> list[list[tarfile.TarInfo]]:
        """Every layer's entries, the base's first."""
        return [[*self._entries(layer["digest"])] for layer in self.manifest["layers"]]

    @cached_property
    def own(self) -> list[tarfile.TarInfo]:
        """The entries of the layers that our Dockerfile adds."""
        return [entry for layer in self.layers[layers_of_base(self.config["history"]) :] for entry in layer]

    @cached_property
    def tree(self) -> dict[str, tarfile.TarInfo]:
        """What a process in the image sees: path → entry."""
        tree: dict[str, tarfile.TarInfo] = {}
        for layer in self.layers:
            gone = tuple(removed(entry) for entry in layer if is_whiteout(entry))
            if gone:
                tree = {path: entry for path, entry in tree.items() if not _under(path, gone)}
            tree |= {normal(entry): entry for entry in layer if not is_whiteout(entry)}
        return tree

    def content(self, name: str) -> bytes:
        """Return the content of a file of our layers."""
        with tarfile.open(self.path) as outer:
            for layer in reversed(self.manifest["layers"]):
                with tarfile.open(fileobj=outer.extractfile(_blob(layer["digest"]))) as inner:
                    if name in inner.getnames():
                        file = inner.extractfile(name)
                        assert file is not None
                        return file.read()
        raise FileNotFoundError(name)

    def unpack(self, folder: Path) -> None:
        """Lay the image's files out in *folder*, with their owners where root does it; devices are left out."""
        for layer, entries in zip(self.manifest["layers"], self.layers, strict=True):
            for entry in filter(is_whiteout, entries):
                subprocess.run(["rm", "-rf", str(folder / removed(entry))], check=True)
            out = ["tar", "--extract", "--gzip", "--directory", str(folder), "--exclude=.wh.*", "--exclude=./dev/*"]
            with tarfile.open(self.path) as outer:
                blob = outer.extractfile(_blob(layer["digest"]))
                assert blob is not None
                subprocess.run([*out, "--file=-"], input=blob.read(), check=True)

    def _document(self, name: str) -> dict[str, Any]:
        with tarfile.open(self.path) as outer:
            file = outer.extractfile(_blob(name) if name.startswith("sha256:") else name)
            assert file is not None
            document: dict[str, Any] = json.load(file)
            return document

    def _entries(self, digest: str) -> Iterator[tarfile.TarInfo]:
        with tarfile.open(self.path) as outer, tarfile.open(fileobj=outer.extractfile(_blob(digest))) as inner:
            yield from inner


def is_whiteout(entry: tarfile.TarInfo) -> bool:
    """Tell whether *entry* stands for the removal of a file from an earlier layer."""
    return PurePosixPath(entry.name).name.startswith(WHITEOUT)


def removed(entry: tarfile.TarInfo) -> str:
    """Return the path that a whiteout removes."""
    path = PurePosixPath(normal(entry))
    return str(path.with_name(path.name.removeprefix(WHITEOUT)))


def normal(entry: tarfile.TarInfo) -> str:
    """Return the entry's path as `usr/bin/env`, however its tar spells it."""
    return entry.name.removeprefix("./").rstrip("/")


def _under(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
