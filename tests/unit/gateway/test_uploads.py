"""What a client says beside the image: file name and patient."""

import pytest

from gateway.limits import source_of
from gateway.problems import Overloaded
from gateway.uploads import UploadBudget, clean_filename, patient_of
from healthguard.problems import ValidationFailed


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


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("unknown", "unknown", True),
    ],
)
def test_anonymous_callers_are_told_apart_by_network(one: str, other: str, same: bool) -> None:
    """An IPv6 subscriber has a whole /64 and could otherwise be as many callers as they like."""
    assert (source_of(one) == source_of(other)) is same
