"""Bring a version's files from where they are stored into a folder, never more of them than was agreed."""

import errno
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec  # type: ignore[import-untyped]

from serving.operator.artifact import FILES_MAX, NotAFolderOfFiles, files
from serving.operator.storage import CLAIMS, Address

_CHUNK_BYTES = 1024 * 1024
_CONNECT_S, _READ_S = 10, 60


class CannotFetch(Exception):
    """
    A version could not be brought here; the text says what to look at.

    NotFound: there is nothing at the address. TooLarge: there is more than was agreed. Malformed: it is no version.
    """

    reason = "FetchFailed"


class NotFound(CannotFetch):
    """There is nothing at the address."""

    reason = "NotFound"


class TooLarge(CannotFetch):
    """There is more at the address than was agreed."""

    reason = "TooLarge"


class Malformed(CannotFetch):
    """What lies at the address cannot be a version."""

    reason = "Malformed"


@dataclass
class Budget:
    """What may still be written."""

    bytes_left: int
    files_left: int = FILES_MAX

    def copy(self, source: IO[bytes], target: Path) -> None:
        """
        Write all of *source* to a new file.

        Raises:
            TooLarge: it is more than may still be written.
        """
        self.files_left -= 1
        if self.files_left < 0:
            raise TooLarge(f"the version has more than {FILES_MAX} files")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                # Counted as they come: sizes that a store or an archive states are only a claim.
                self.bytes_left -= len(chunk)
                if self.bytes_left < 0:
                    raise TooLarge("the version is larger than spec.storage.maxMebibytes")
                file.write(chunk)


def fetch(address: Address, into: Path, budget: Budget, *, claims: Path = Path(CLAIMS)) -> None:
    """
    Copy the version at *address* into the new folder *into*.

    Raises:
        CannotFetch: it is not there, not reachable, too large, or no version.
    """
    into.mkdir()
    match address.scheme:
        case "pvc":
            _from_folder(claims / address.place / address.path, into, budget)
        case "file":
            _from_folder(Path("/", address.path), into, budget)
        case "http" | "https":
            _from_archive(address, into, budget)
        case _:
            _from_store(address, into, budget)


def read_beside(address: Address, suffix: str, *, bytes_max: int, claims: Path = Path(CLAIMS)) -> bytes:
    """
    Return the small file whose address is that of a version and *suffix*, up to one byte more than *bytes_max*.

    Raises:
        CannotFetch: it is not there, or not reachable.
    """
    if address.scheme == "oci":
        raise NotFound("an image has nothing beside it")
    if address.scheme in ("pvc", "file"):
        root = claims / address.place if address.scheme == "pvc" else Path("/")
        return _start_of(root / f"{address.path}{suffix}", bytes_max)
    if address.scheme in ("http", "https"):
        store = fsspec.filesystem(address.scheme, skip_instance_cache=True)
        with _asked(), store.open(address.uri + suffix, "rb", block_size=0, size=1) as stream:
            return bytes(stream.read(bytes_max + 1))
    with _asked(), _store(address.scheme).open(f"{address.place}/{address.path}{suffix}", "rb") as stream:
        return bytes(stream.read(bytes_max + 1))


def _start_of(path: Path, bytes_max: int) -> bytes:
    # A link could lead out of the claim, and a pipe would never end.
    if path.is_symlink() or not path.is_file():
        raise NotFound("there is no such file")
    with path.open("rb") as file:
        return file.read(bytes_max + 1)


def _from_folder(source: Path, into: Path, budget: Budget) -> None:
    try:
        found = files(source)
    except NotAFolderOfFiles as error:
        raise NotFound(f"the folder that storageUri names cannot be used: {error}") from error
    for path in found:
        with path.open("rb") as file:
            budget.copy(file, into / path.relative_to(source))


def _from_archive(address: Address, into: Path, budget: Budget) -> None:
    """Read a tar archive as it comes, compressed or not; nothing but plain files is taken from it."""
    store = fsspec.filesystem(address.scheme, skip_instance_cache=True)
    # No cache and no ranges: the archive is read once, front to back. A size, any, keeps the store from asking for one
    # first: it would take every error of that question for "not found".
    with _asked(), store.open(address.uri, "rb", block_size=0, size=1) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for member, content in _plain_files(archive):
                    budget.copy(content, _inside(into, member.name))
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise Malformed("what storageUri names is no whole tar archive") from error


def _plain_files(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    for member in archive:
        content = archive.extractfile(member) if member.isreg() else None
        if content is not None:
            yield member, content
        elif not member.isdir():
            raise Malformed("the archive holds a link or a special file")


def _from_store(address: Address, into: Path, budget: Budget) -> None:
    """Copy every object below a prefix."""
    with _asked():
        store, root = _store(address.scheme), f"{address.place}/{address.path}"
        found = sorted(path for path, entry in store.find(root, detail=True).items() if entry["type"] == "file")
        if not found:
            raise NotFound("there is nothing below the prefix that storageUri names")
        for path in found:
            with store.open(path, "rb") as file:
                budget.copy(file, _inside(into, path.removeprefix(root).lstrip("/")))


def _store(scheme: str) -> Any:
    if scheme == "s3":
        timeouts = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"max_attempts": 3}}
        return fsspec.filesystem("s3", config_kwargs=timeouts, skip_instance_cache=True, use_listings_cache=False)
    return fsspec.filesystem("gs", timeout=_READ_S, skip_instance_cache=True, use_listings_cache=False)


@contextmanager
def _asked() -> Iterator[None]:
    """
    Ask a store; what its library raises becomes ours, without its text, which quotes addresses and keys.

    Raises:
        CannotFetch: it has no such thing, refuses, or does not answer.
    """
    try:
        yield
    except CannotFetch:
        raise
    except FileNotFoundError as error:
        raise NotFound("there is nothing at the address that storageUri names") from error
    except PermissionError as error:
        raise CannotFetch("the store refuses access: look at spec.storage.secretName") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise TooLarge("the node has no room for the version") from error
        raise CannotFetch(f"the store does not answer as expected ({type(error).__name__})") from error


def _inside(into: Path, name: str) -> Path:
    """
    Return where a file of the given name goes.

    Raises:
        Malformed: the name leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise Malformed("a file's name leads out of the version folder")
    return into.joinpath(*parts)
