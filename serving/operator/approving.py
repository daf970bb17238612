"""
Ask whether trusted people vouch for a version: what they signed lies beside it, in the same store.

An approval names the digest of the version's files, a signature each of its files, so both are as good wherever they
come from; only who signed them counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from healthguard import approval, dsse, model_signature
from serving.operator.artifact import sums
from serving.operator.failures import Failure
from serving.operator.sources import NotFound, read_beside
from serving.operator.storage import Address

APPROVAL, SIGNATURE = ".approval.json", ".signature.json"
"""What their addresses have more than that of the version."""

_REASONS: tuple[tuple[type[approval.ApprovalRefused], str], ...] = (
    (approval.Unsigned, "SignatureMissing"),
    (approval.NotTrusted, "SignatureInvalid"),
    (approval.Expired, "ApprovalExpired"),
    (approval.ApprovalRefused, "ApprovalInvalid"),
)


class NotApproved(Exception):
    """A version may not be used; `failure` says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason, message)


@dataclass(frozen=True)
class Demand:
    """What a version needs before it is served; what is not required must hold all the same where it is there."""

    model: str = ""
    version: int = 0
    """As what it is served, which an approval has to name; by default nothing that one could."""
    keys: tuple[str, ...] = ()
    """Public keys of those whose word counts, PEM; without any, what is not required is not looked at."""
    approval: bool = False
    """Whether a version without an approval is refused."""
    signature: bool = False
    """Whether a version without an OpenSSF signature of its files is refused."""


NOTHING = Demand()
"""The digest alone decides."""


def verify(address: Address, folder: Path, digest: str, demand: Demand, *, now: datetime) -> datetime | None:
    """
    Return until when the version at *address* may be used, which it may now; None: no approval says until when.

    Args:
        folder: where its files are now.
        digest: theirs, which was checked.

    Raises:
        NotApproved: it may not, and why.
        CannotFetch: the store does not answer.
    """
    if not demand.keys and not demand.approval and not demand.signature:
        return None
    try:
        # It is the key's fault, not the version's; pods would only find out one after the other.
        trusted = [dsse.public_key(key.encode()[: dsse.KEY_BYTES_MAX]) for key in demand.keys]
    except dsse.KeyRefused as error:
        raise NotApproved("KeyUnusable", f"a key in spec.approval.trustedKeys cannot be used: {error}") from error
    _verify_signature(address, folder, trusted, required=demand.signature)
    return _verify_approval(address, digest, trusted, demand, now=now)


def _verify_signature(
    address: Address, folder: Path, trusted: Sequence[ec.EllipticCurvePublicKey], *, required: bool
) -> None:
    """
    Check the signature of the version's files, where there is one.

    Raises:
        NotApproved: it does not hold, or is missing and *required*.
        CannotFetch: the store does not answer.
    """
    try:
        bundle = read_beside(address, SIGNATURE, bytes_max=model_signature.BYTES_MAX)
    except NotFound as error:
        if required:
            raise NotApproved("SignatureMissing", _missing("signature", SIGNATURE)) from error
        return
    try:
        model_signature.verify(bundle, sums(folder), trusted)
    except model_signature.SignatureRefused as refused:
        told = f"{refused}; sign the version again, or serve another one"
        raise NotApproved("SignatureInvalid", told) from refused


def _verify_approval(
    address: Address, digest: str, trusted: Sequence[ec.EllipticCurvePublicKey], demand: Demand, *, now: datetime
) -> datetime | None:
    """
    Return until when the version is approved; None: nobody asks for an approval, and there is none.

    Raises:
        NotApproved: the approval does not hold, or is missing and demanded.
        CannotFetch: the store does not answer.
    """
    try:
        envelope = read_beside(address, APPROVAL, bytes_max=approval.BYTES_MAX)
    except NotFound as error:
        if demand.approval:
            raise NotApproved("ApprovalMissing", _missing("approval", APPROVAL)) from error
        return None
    try:
        found = approval.verify(envelope, digest, trusted, now=now, named=(demand.model, demand.version))
    except approval.ApprovalRefused as refused:
        reason = next(reason for kind, reason in _REASONS if isinstance(refused, kind))
        raise NotApproved(reason, f"{refused}; approve the version again, or serve another one") from refused
    return found.expires


def _missing(what: str, suffix: str) -> str:
    return f"spec.approval demands a {what}, and there is none beside the version, under its address and {suffix}"
