"""Where a version is stored: the addresses that a ServedModel may name, and what each needs from the pod."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

CLAIMS = "/mnt/claims"
"""Where the stager finds a claim: one folder per claim."""

_REMOTE = frozenset({"s3", "gs", "https", "http"})
_LOCAL = frozenset({"pvc", "file"})

URI_PATTERN = r"^(pvc|s3|gs|https|oci)://[A-Za-z0-9._@:/+~-]+$"
"""What the API server admits: no query, user name or escape, so that an address can be shown as it is."""


_PLACE = re.compile(r"[^@:]+")
_HOST = re.compile(r"[^@:]+(?::([0-9]{1,5}))?")
"""What the pattern above cannot tell of an image's reference: who is to log in, and a port that is none."""


class BadAddress(Exception):
    """An address that no version can have; the text says why, and holds nothing of it."""


@dataclass(frozen=True)
class Address:
    """A parsed storageUri: `pvc://claim/path`, `s3://bucket/prefix`, `https://host/archive.tar`, `oci://image`."""

    scheme: str
    place: str
    """The claim, bucket, host or image."""
    path: str
    """Inside that place, without leading slash; empty for an image."""

    @property
    def remote(self) -> bool:
        """Whether the stager has to leave the node for it."""
        return self.scheme in _REMOTE

    @property
    def uri(self) -> str:
        """The address as it was written."""
        return f"{self.scheme}://{self.place}/{self.path}" if self.path else f"{self.scheme}://{self.place}"


def parse(uri: str) -> Address:
    """
    Take a storageUri apart.

    Raises:
        BadAddress: an unknown scheme, no place or one that cannot be, or a path that leads out of its place.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in _REMOTE | _LOCAL | {"oci"}:
        raise BadAddress("storageUri begins with pvc://, s3://, gs://, https:// or oci://")
    if scheme == "oci":
        return _image(rest)
    place, _, path = rest.partition("/")
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        raise BadAddress("storageUri leads out of its place")
    if scheme == "file":
        return Address(scheme, "", path)
    if not place or not parts:
        raise BadAddress(f"storageUri names a place and a path in it: {scheme}://place/path")
    _check_place(scheme, place)
    return Address(scheme, place, "/".join(parts))


def _check_place(scheme: str, place: str) -> None:
    """
    Check what a storageUri names as its place.

    Raises:
        BadAddress: it holds a user name, or a port that is none or where there is none.
    """
    if scheme not in ("https", "http"):
        if not _PLACE.fullmatch(place):
            raise BadAddress(f"storageUri names a place without user name and port: {scheme}://place/path")
        return
    host = _HOST.fullmatch(place)
    if host is None or not 0 < int(host[1] or 443) < 65536:
        raise BadAddress(f"storageUri names a host without user name, and a port up to 65535: {scheme}://host:443/path")


def _image(reference: str) -> Address:
    """
    Check an image's reference.

    Raises:
        BadAddress: there is none.
    """
    if not reference or reference.startswith("/"):
        raise BadAddress("storageUri names an image: oci://registry/repository@sha256:…")
    return Address("oci", reference, "")


def port_of(address: Address) -> int:
    """Return the TCP port under which a remote place answers, as far as its address says."""
    return urlsplit(f"//{address.place}").port or (80 if address.scheme == "http" else 443)
