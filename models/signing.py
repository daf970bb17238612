"""
Sign version folders with OpenSSF Model Signing, by key, so that its own `model_signing` command can verify them, too.

The signature lies beside the folder: `2.signature.json` beside `2/`. It names the SHA-256 of each file.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from healthguard import dsse
from models import artifact

BYTES_MAX = 16 * 1024 * 1024


class SignatureRefused(Exception):
    """A folder is not what was signed, or not signed by such a key; the text names files where it can."""


class SigningNotInstalled(Exception):
    """The package `model-signing` is not here."""


def beside(version_folder: Path) -> Path:
    """Return where the signature of a version lies."""
    return version_folder.with_name(f"{version_folder.name}.signature.json")


def sign(version_folder: Path, private_key: Path, password: str | None = None) -> Path:
    """
    Sign a folder and return the file of the signature.

    Raises:
        SigningNotInstalled: the package is not here.
        artifact.TamperedError: the folder holds what no version may hold.
        dsse.KeyRefused: the key cannot be used.
    """
    library = _library()
    artifact.files(version_folder)
    path = beside(version_folder)
    scratch = path.with_name(f".{path.name}")
    # A password is bytes for cryptography, which the library's annotation does not say.
    secret: Any = None if password is None else password.encode()
    dsse.private_key(private_key.read_bytes(), secret)
    config = library.signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
    config.set_hashing_config(_everything(library)).sign(version_folder, scratch)
    scratch.replace(path)
    return path


def verify(version_folder: Path, public_keys: Sequence[Path]) -> Path:
    """
    Check the signature of a folder, and return the key that made it.

    Raises:
        SigningNotInstalled: the package is not here.
        SignatureRefused: there is none, by none of the keys, or a file was changed, removed or added.
        dsse.KeyRefused: a key is none that we know.
    """
    library = _library()
    signature = beside(version_folder)
    if not signature.is_file():
        raise SignatureRefused(f"there is no signature {signature.name}")
    if signature.stat().st_size > BYTES_MAX:
        raise SignatureRefused(f"{signature.name} is larger than {BYTES_MAX} bytes")
    reasons = []
    for key in public_keys:
        dsse.public_key(key.read_bytes())
        config = library.verifying.Config().use_elliptic_key_verifier(public_key=key)
        try:
            with _quiet():
                config.set_hashing_config(_everything(library)).verify(version_folder, signature)
        # It lets pass what its parsers meet, and cryptography's InvalidSignature, which has no text.
        except Exception as error:
            reasons.append(_reason(error))
        else:
            return key
    # Of several keys, the one that fits says which file differs; the others only that they do not fit.
    telling = [reason for reason in reasons if reason.startswith("Signature mismatch")]
    raise SignatureRefused((telling or reasons or ["no key was given"])[0])


def _reason(error: Exception) -> str:
    text = str(error)
    if text.startswith("Signature mismatch"):
        return text
    return "the signature is not by this key"


def _everything(library: Any) -> Any:
    """Return how files are counted: all of them, by SHA-256. The library would pass over what looks like git's."""
    return library.hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library, which prints warnings, off standard output, where our own results go."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _library() -> Any:
    try:
        import model_signing  # noqa: PLC0415 - two seconds that only signing needs
    except ModuleNotFoundError as error:
        raise SigningNotInstalled(
            "Signatures need the package model-signing: `make test-deps` installs it, and docs/importing.md says how to "
            "have it alone"
        ) from error
    return model_signing
