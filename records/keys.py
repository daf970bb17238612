"""The keys of an installation, each derived from one root for one purpose, so that none can be used for another."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEY_BYTES = 32


def derive(root: bytes, purpose: str) -> bytes:
    """
    Return the key for *purpose*, 32 bytes.

    The root is random and uniform already, so only the expanding half of HKDF is needed.

    Source: RFC 5869 §2.3 and §3.3.
    """
    return HKDFExpand(SHA256(), KEY_BYTES, b"healthguard/records/v1/" + purpose.encode()).derive(root)
