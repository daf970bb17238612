"""The installation's secrets: made once, at random, kept in one file that only its owner can read."""

import base64
import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from healthguard.private_files import write_private

KEY_BYTES = 32
_FILE_BYTES_MAX = 16 * 1024


class KeysLost(RuntimeError):
    """The data is there and the secrets that open it are not."""


def _password() -> str:
    return secrets.token_urlsafe(KEY_BYTES)


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


@dataclass(frozen=True, slots=True)
class Keys:
    """Every secret of one installation; none has a default value, each instance is a new draw."""

    postgres_password: str = field(default_factory=_password, repr=False)
    auth_password: str = field(default_factory=_password, repr=False)
    records_password: str = field(default_factory=_password, repr=False)
    gateway_secret: str = field(default_factory=_password, repr=False)
    """By which records knows the gateway."""
    key_encryption_key: str = field(default_factory=_key, repr=False)
    pseudonym_key: str = field(default_factory=_key, repr=False)
    image_hmac_key: str = field(default_factory=_key, repr=False)


def load_or_make(path: Path, *, data_exists: bool) -> Keys:
    """
    Return the secrets in *path*; make those that are not there yet.

    Args:
        data_exists: whether something is already locked with them.

    Raises:
        KeysLost: there is data, and the file is missing or cannot be read.
    """
    try:
        known = json.loads(path.read_bytes()[:_FILE_BYTES_MAX])
        names = {entry.name for entry in fields(Keys)}
        keys = Keys(**{name: value for name, value in known.items() if name in names and isinstance(value, str)})
    except FileNotFoundError:
        if data_exists:
            raise KeysLost(f"{path} is missing, and the data cannot be opened without it: restore it.") from None
        keys = Keys()
        known = {}
    except (ValueError, AttributeError) as exc:
        raise KeysLost(f"{path} cannot be read, and the data cannot be opened without it: restore it.") from exc
    if known != asdict(keys):
        write_private(path, json.dumps(asdict(keys), indent=1) + "\n")
    return keys
