"""What a client says beside the image: file name, patient and address; and what of its body is kept."""

import pytest
from starlette.requests import Request

from gateway.problems import Overloaded
from gateway.uploads import UploadBudget, UploadLimits, clean_filename, patient_of, read_upload
from healthguard.problems import ValidationFailed
from tests.pictures import png


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, None),
        ("", None),
        ("left.png", "left.png"),
        ("/home/ada/left.png", "left.png"),
        ("C:\\scans\\left.png", "left.png"),
        ("../../etc/passwd", "passwd"),
        ("a\r\nb\x00\x1b[31m.png", "ab[31m.png"),
        ("gnp.\u202eexe", "gnp.exe"),
        ("x" * 300, "x" * 255),
        (" \t ", None),
    ],
)
def test_filename_is_made_harmless(sent: str | None, kept: str | None) -> None:
    """Only the last part, printable, at most 255 characters."""
    assert clean_filename(sent) == kept


@pytest.mark.parametrize(
    ("sent", "kept"), [(b"", None), (b"  H-1 ", "H-1"), ("Zoë".encode(), "Zoë"), (b"x" * 64, "x" * 64)]
)
def test_patient_is_read(sent: bytes, kept: str | None) -> None:
    """As UTF-8, without the spaces around it."""
    assert patient_of(sent) == kept


@pytest.mark.parametrize("sent", [b"x" * 65, b"\xff", b"a\nb", b"a\x00"])
def test_patient_that_cannot_be_one_is_refused(sent: bytes) -> None:
    """And not repeated."""
    with pytest.raises(ValidationFailed) as refused:
        patient_of(sent)
    assert refused.value.extra == {"errors": [{"location": "patient", "code": "invalid"}]}


def test_budget_is_kept_and_given_back() -> None:
    """Exactly as much as allowed fits."""
    budget = UploadBudget(10)
    budget.take(6)
    with pytest.raises(Overloaded):
        budget.take(5)
    budget.take(4)
    budget.give_back(10)
    assert budget.bytes_taken == 0


def request(*headers: tuple[str, str], body: bytes = b"") -> Request:
    """Return a request of 10.0.0.9."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    sent = [(name.encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "client": ("10.0.0.9", 1), "headers": sent}, receive)


async def test_form_leaves_the_image_alone_in_memory() -> None:
    """The image is the body, cut down in place: what the budget counts is what is there."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    patient = b'\r\n--b\r\nContent-Disposition: form-data; name="patient"\r\n\r\nH-1\r\n--b--\r\n'
    sent = request(("content-type", "multipart/form-data; boundary=b"), body=head + png() + patient)
    budget = UploadBudget(1_000_000)
    async with read_upload(sent, UploadLimits(1_000_000, 1_000_000, 5.0), budget) as upload:
        assert isinstance(upload.image.content, bytearray)
        assert (bytes(upload.image.content), upload.filename, upload.patient) == (png(), "a.png", "H-1")
        assert budget.bytes_taken == len(head + png() + patient)
    assert budget.bytes_taken == 0
