"""
Patients' pseudonyms: a hospital's patient number goes in, and only a keyed hash of it is ever stored beside findings.

The number itself is kept encrypted, in a table of its own; who holds the database without the key learns neither.
"""

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from records.keys import derive

NONCE_BYTES = 12
PSEUDONYM_BYTES = 20


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient as the database knows them."""

    pseudonym: str
    site: str
    number_encrypted: bytes


class UnreadableNumber(Exception):
    """The stored number was encrypted with another key, was changed, or was moved to another patient's row."""


class Pseudonyms:
    """Makes and opens patients' pseudonyms with the keys of one installation."""

    def __init__(self, root: bytes) -> None:
        self._hash_key = derive(root, "pseudonym")
        self._cipher = AESGCM(derive(root, "patient-number"))

    def pseudonym(self, site: str, number: str) -> str:
        """
        Return the pseudonym of patient *number* at *site*: always the same one, 40 hexadecimal digits.

        It is a keyed hash: the numbers of a hospital are so few that a plain hash is undone by trying them all.
        160 of its bits make an accidental equality of two patients practically impossible.

        Source: HMAC-SHA-256, RFC 2104, cut as its §5 allows.
        """
        # The length before the site keeps ("1", "23") and ("12", "3") apart.
        message = f"{len(site)}:{site}{number}".encode()
        return hmac.digest(self._hash_key, message, sha256)[:PSEUDONYM_BYTES].hex()

    def seal(self, site: str, number: str) -> Patient:
        """
        Return the patient with the number encrypted, bound to the pseudonym: it opens in no other row.

        Source: AES-256-GCM with a random 96-bit nonce, NIST SP 800-38D §8.2.2 (at most 2^32 patients a key).
        """
        pseudonym = self.pseudonym(site, number)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Patient(pseudonym, site, nonce + self._cipher.encrypt(nonce, number.encode(), pseudonym.encode()))

    def open(self, patient: Patient) -> str:
        """
        Return the patient number.

        Raises:
            UnreadableNumber: it was not sealed under this key for this patient.
        """
        nonce, sealed = patient.number_encrypted[:NONCE_BYTES], patient.number_encrypted[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, sealed, patient.pseudonym.encode()).decode()
        except (InvalidTag, ValueError) as exc:
            raise UnreadableNumber from exc
