"""
The stager: `python -m serving.operator.stager --uri=… --digest=… --target=…` puts a verified version in place.

It fetches into a folder that no server looks at, checks every byte against the digest, asks for the approval of those
bytes where one is wanted, and moves the folder in place by one rename. Whatever goes wrong, the target is not there,
and the termination message says why; where an approval let it in, the message at a good end says until when.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import structlog

from healthguard.logging import configure_logging
from serving.operator import approving, certificates, expiry
from serving.operator.approving import NOTHING, Demand, NotApproved
from serving.operator.artifact import NotAFolderOfFiles, digest
from serving.operator.failures import Failure
from serving.operator.sources import Budget, CannotFetch, fetch
from serving.operator.storage import BadAddress, parse

log = structlog.get_logger()

_STAGING = ".staging"
"""Not a number, so a model server does not take it for a version."""


class CannotStage(Exception):
    """A version is not in place; `failure` says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason, message)


class _Late(BaseException):
    """The time is up: not an Exception, since no library on the way may take it for a failure of its own."""


def stage(uri: str, expected: str, target: Path, *, bytes_max: int, demand: Demand = NOTHING) -> datetime | None:
    """
    Put the version at *uri* in place as the folder *target*, if its digest is *expected* and it may be used.

    Returns:
        Until when it may be used; None: no approval says until when.

    Raises:
        CannotStage: it is not there now, and why.
    """
    try:
        address = parse(uri)
        if address.scheme == "oci":
            # Mounted where the server reads it, and read-only: what is checked is what is served.
            _check(target, expected)
            return approving.verify(address, target, expected, demand, now=datetime.now(UTC))
        staging = target.parent / _STAGING
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        fetch(address, staging, Budget(bytes_max))
        _check(staging, expected)
        expires = approving.verify(address, staging, expected, demand, now=datetime.now(UTC))
        staging.rename(target)
    except NotApproved as error:
        raise CannotStage(error.failure.reason, error.failure.message) from error
    except BadAddress as error:
        raise CannotStage("BadAddress", str(error)) from error
    except CannotFetch as error:
        raise CannotStage(error.reason, str(error)) from error
    except OSError as error:
        raise CannotStage("StorageFailed", f"a file could not be read or written: {error.strerror}") from error
    return expires


def _check(folder: Path, expected: str) -> None:
    try:
        found = digest(folder)
    except NotAFolderOfFiles as error:
        raise CannotStage("Malformed", f"this is no version folder: {error}") from error
    if found != expected:
        raise CannotStage(
            "DigestMismatch",
            f"the files have the digest {found}, and not {expected}: they were changed, or the ServedModel names the "
            "wrong digest",
        )


def give_certificate(folder: Path, target: Path) -> None:
    """
    Write the server's certificate and key to *target*, in the form that it reads.

    Raises:
        CannotStage: the Secret that is mounted as *folder* holds none.
    """
    try:
        text = certificates.ssl_config(folder)
    except certificates.Unusable as error:
        raise CannotStage("CertificateUnusable", str(error)) from error
    target.touch(mode=0o600)
    target.write_text(text)


@contextmanager
def deadline(timeout_s: float) -> Iterator[None]:
    """
    End what runs inside after *timeout_s* seconds, wherever it hangs.

    Raises:
        CannotStage: it took longer.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    except _Late:
        message = "fetching and checking took longer than spec.storage.timeoutSeconds"
        raise CannotStage("TimedOut", message) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def arguments() -> argparse.ArgumentParser:
    """Return what may be said to this command."""
    parser = argparse.ArgumentParser(prog="python -m serving.operator.stager", description=__doc__)
    parser.add_argument("--model", required=True, help="as what it is served, which an approval has to name")
    parser.add_argument("--version", required=True, type=int)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--target", required=True, type=Path)
    parser.add_argument("--trusted-key", action="append", default=[], help="whose word counts; PEM, may be repeated")
    parser.add_argument("--approval-required", action="store_true")
    parser.add_argument("--signature-required", action="store_true")
    parser.add_argument("--ssl-config", type=Path, help="where the server reads its certificate; none: it has none")
    parser.add_argument("--certificate", type=Path, default=Path(certificates.SECRET))
    parser.add_argument("--mebibytes-max", type=int, default=2048)
    parser.add_argument("--timeout-s", type=float, default=600)
    return parser


def demand_of(options: argparse.Namespace) -> Demand:
    """Return what a version needs before it is served."""
    return Demand(
        options.model,
        options.version,
        tuple(options.trusted_key),
        approval=options.approval_required,
        signature=options.signature_required,
    )


def main(argv: list[str]) -> int:
    """Stage one version; return 0 if it is in place, else 1 with a termination message."""
    options = arguments().parse_args(argv)
    configure_logging("stager")
    try:
        if options.ssl_config:
            give_certificate(options.certificate, options.ssl_config)
        with deadline(options.timeout_s):
            bytes_max = options.mebibytes_max * 1024 * 1024
            demand = demand_of(options)
            expires = stage(options.uri, options.digest, options.target, bytes_max=bytes_max, demand=demand)
    except CannotStage as error:
        log.warning("version_refused", reason=error.failure.reason, detail=error.failure.message)
        error.failure.write()
        return 1
    if expires is not None:
        expiry.write(expires)
    log.info("version_staged", digest=options.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
