"""
Check an OpenSSF Model Signing signature, made with a key, of the files of a version: which files, and their SHA-256.

The package `model-signing` makes such signatures and checks them, too (`models/signing.py`); it brings clients of
transparency logs and more, of which a check by key needs none. A test has it sign what is checked here.

Source: the OpenSSF Model Signing specification, v1.0: a Sigstore bundle with an in-toto statement.
"""

import json
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from healthguard import dsse

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
BYTES_MAX = 16 * 1024 * 1024


class SignatureRefused(Exception):
    """Files are not what was signed, or not signed by a trusted key; the text names a file where it can."""


def verify(bundle: bytes, files: Mapping[str, str], trusted: Sequence[ec.EllipticCurvePublicKey]) -> None:
    """
    Check that a trusted key has signed exactly these files.

    Args:
        bundle: what lies beside the version.
        files: the SHA-256 of each file in hexadecimal, by its path in the version folder.

    Raises:
        SignatureRefused: it has not.
    """
    signed = _signed(bundle, trusted)
    for name in sorted(signed.keys() | files.keys()):
        if signed.get(name) != files.get(name):
            raise SignatureRefused(f"{name} is not as it was signed")


def _signed(bundle: bytes, trusted: Sequence[ec.EllipticCurvePublicKey]) -> dict[str, str]:
    """
    Return the files that a trusted key has signed.

    Raises:
        SignatureRefused: there are none.
    """
    if len(bundle) > BYTES_MAX:
        raise SignatureRefused(f"the signature is larger than {BYTES_MAX} bytes")
    try:
        statement = json.loads(dsse.opened(json.loads(bundle)["dsseEnvelope"], trusted))
        return _files(statement)
    except dsse.NoEnvelope as error:
        raise SignatureRefused("the signature is no bundle of OpenSSF Model Signing") from error
    except dsse.NotSigned as error:
        raise SignatureRefused("the version is not signed by a trusted key") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SignatureRefused("the signature is no bundle of OpenSSF Model Signing") from error


def _files(statement: object) -> dict[str, str]:
    """
    Return what a statement says of files.

    Raises:
        ValueError: it is another statement, or one file is in it twice.
    """
    if not isinstance(statement, dict) or statement["predicateType"] != PREDICATE_TYPE:
        raise ValueError("another statement")
    predicate = statement["predicate"]
    # Other ways of counting (parts of files, other hashes) say nothing about whole files.
    if predicate["serialization"]["method"] != "files" or predicate["serialization"]["hash_type"] != "sha256":
        raise ValueError("another way of counting")
    found = {str(each["name"]): str(each["digest"]) for each in predicate["resources"]}
    if len(found) != len(predicate["resources"]) or {each["algorithm"] for each in predicate["resources"]} - {"sha256"}:
        raise ValueError("not one SHA-256 a file")
    return found
