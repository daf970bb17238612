"""Read an uploaded image: multipart field `file`, or the raw body; never more than allowed, never for longer."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from gateway.images import USUAL, EncodedImage, Kind, check
from gateway.multipart import boundary_of, parts_of
from gateway.problems import Overloaded, UploadTooSlow
from healthguard.problems import InvalidRequest, PayloadTooLarge, UnsupportedMedia, ValidationFailed

FRAMING_BYTES_MAX = 64 * 1024
"""What a multipart body may have beside the image: boundaries, headers, small fields."""
FILENAME_CHARS_MAX = 255
PATIENT_CHARS_MAX = 64

RAW_TYPES = frozenset({"image/jpeg", "image/jpg", "image/png", "image/webp", "image/tiff", "application/octet-stream"})
FORM_TYPE = "multipart/form-data"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffd]")


@dataclass(frozen=True)
class Upload:
    """An image as it came, with what the client said about it."""

    image: EncodedImage
    filename: str | None
    patient: str | None
    read_s: float


@dataclass
class UploadBudget:
    """How many bytes of bodies may be in memory at once, over all requests."""

    bytes_max: int
    bytes_taken: int = 0

    def take(self, count: int) -> None:
        """
        Account for *count* bytes more.

        Raises:
            Overloaded: they would be too many.
        """
        if self.bytes_taken + count > self.bytes_max:
            raise Overloaded
        self.bytes_taken += count

    def give_back(self, count: int) -> None:
        """Account for *count* bytes fewer."""
        self.bytes_taken -= count


@dataclass(frozen=True)
class UploadLimits:
    """What one upload may be."""

    image_bytes_max: int
    image_pixels_max: int
    timeout_s: float
    kinds: frozenset[Kind] = USUAL


@asynccontextmanager
async def read_upload(request: Request, limits: UploadLimits, budget: UploadBudget) -> AsyncIterator[Upload]:
    """
    Read the image of *request* and check its header; its bytes count against *budget* until the block ends.

    Raises:
        UnsupportedMedia: the body is neither a form nor an image.
        PayloadTooLarge: it is longer than allowed; noticed by its announced length, or else as soon as it is too long.
        Overloaded: too much of other bodies is in memory.
        UploadTooSlow: it did not arrive in time.
        InvalidRequest: the form cannot be read.
        ValidationFailed: there is no image, or it is empty.
        UnsupportedImage, BrokenImage, TooManyPixels, SeveralPictures: see `images.check`.
    """
    started = time.perf_counter()
    content_type = request.headers.get("content-type", "")
    form = _is_form(content_type)
    async with read_body(request, limits, budget, framing_bytes=FRAMING_BYTES_MAX if form else 0) as body:
        filename, patient = _cut(body, content_type) if form else (None, None)
        if not body:
            raise ValidationFailed(errors=[{"location": "body.file", "code": "empty"}])
        if len(body) > limits.image_bytes_max:
            raise PayloadTooLarge(limit_bytes=limits.image_bytes_max)
        image = check(body, pixels_max=limits.image_pixels_max, kinds=limits.kinds)
        yield Upload(image, filename, patient, time.perf_counter() - started)


@asynccontextmanager
async def read_body(
    request: Request, limits: UploadLimits, budget: UploadBudget, *, framing_bytes: int = 0
) -> AsyncIterator[bytearray]:
    """
    Read the body of *request*, up to the image's limit and *framing_bytes*.

    Raises:
        PayloadTooLarge, Overloaded, UploadTooSlow, InvalidRequest: as `read_upload` says.
    """
    bytes_max = limits.image_bytes_max + framing_bytes
    if int(request.headers.get("content-length", "0")) > bytes_max:
        raise PayloadTooLarge(limit_bytes=limits.image_bytes_max)
    held = _Held(budget)
    try:
        yield await _collect(request, held, limits, bytes_max)
    finally:
        budget.give_back(held.bytes_held)


@dataclass
class _Held:
    """What one request has taken of the budget."""

    budget: UploadBudget
    bytes_held: int = 0

    def take(self, count: int) -> None:
        self.budget.take(count)
        self.bytes_held += count


async def _collect(request: Request, held: _Held, limits: UploadLimits, bytes_max: int) -> bytearray:
    """
    Take the body chunk by chunk until its end.

    Raises:
        PayloadTooLarge, Overloaded, UploadTooSlow, InvalidRequest: as `read_upload` says.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for chunk in request.stream():
                held.take(len(chunk))
                if held.bytes_held > bytes_max:
                    raise PayloadTooLarge(limit_bytes=limits.image_bytes_max)
                body += chunk
    except TimeoutError as exc:
        # The connection ends with the answer: the rest of the body would go on trickling in.
        raise UploadTooSlow(headers={"Connection": "close"}) from exc
    except ClientDisconnect as exc:
        raise InvalidRequest("The client left before its body had arrived.") from exc
    return body


def _is_form(content_type: str) -> bool:
    """
    Tell a form from a raw image by the media type.

    Raises:
        UnsupportedMedia: it is neither.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != FORM_TYPE and media_type not in RAW_TYPES:
        raise UnsupportedMedia("Send multipart/form-data with a field named file, or the image itself as the body.")
    return media_type == FORM_TYPE


def _cut(body: bytearray, content_type: str) -> tuple[str | None, str | None]:
    """
    Return the file name and the patient of a form, and leave of *body* the image alone: one copy is in memory.

    Raises:
        InvalidRequest: the form cannot be read, or has a field twice.
        ValidationFailed: it has no field `file`.
    """
    fields = {}
    for part in parts_of(body, boundary_of(content_type)):
        if part.name in fields:
            raise InvalidRequest("A field of the form is there twice.")
        fields[part.name] = part
    if "file" not in fields:
        raise ValidationFailed(errors=[{"location": "body.file", "code": "missing"}])
    file, patient = fields["file"], fields.get("patient")
    named = patient_of(bytes(body[patient.span])) if patient else None
    del body[file.span.stop :]
    del body[: file.span.start]
    return clean_filename(file.filename), named


def clean_filename(name: str | None) -> str | None:
    """Return the last part of a file name, printable, at most 255 characters; None where nothing is left."""
    if name is None:
        return None
    last = re.split(r"[/\\]", name)[-1]
    return _CONTROL.sub("", last).strip()[:FILENAME_CHARS_MAX] or None


def patient_of(value: bytes) -> str | None:
    """
    Return the patient that a field or header names; None where it is empty.

    Raises:
        ValidationFailed: it is too long, not UTF-8, or holds control characters.
    """
    try:
        patient = value.decode("utf-8").strip()
    except UnicodeDecodeError:
        patient = "\0"
    if len(patient) > PATIENT_CHARS_MAX or _CONTROL.search(patient):
        raise ValidationFailed(errors=[{"location": "patient", "code": "invalid"}])
    return patient or None
