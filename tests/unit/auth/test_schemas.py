"""What counts as an e-mail address."""

import pytest
from pydantic import TypeAdapter, ValidationError

from auth.schemas import Email
from auth.store import fold_email

ADDRESS: TypeAdapter[str] = TypeAdapter(Email)


@pytest.mark.parametrize(
    "text", ["ada@example.org", "a.b+tag@sub.example.org", "o'neil@example.ie", "müller@bücher.example", "x@localhost"]
)
def test_email_taken(text: str) -> None:
    """Addresses that exist in the world pass as they are."""
    assert ADDRESS.validate_python(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@@example.org",
        "a b@example.org",
        "ada@example..org",
        "ada@.org",
        "ada\n@example.org",
        "ada@example.org\x00",
        "ada\u202e@example.org",
        "x" * 65 + "@example.org",
        "ada@" + "x." * 130 + "org",
    ],
)
def test_email_refused(text: str) -> None:
    """What cannot be an address, or hides characters, or is too long, is refused."""
    with pytest.raises(ValidationError):
        ADDRESS.validate_python(text)


def test_email_is_compared_without_case_and_by_its_letters() -> None:
    """Case and the spelling of an accent make no other person; another letter does."""
    assert fold_email("Ada@Example.ORG") == fold_email("ada@example.org")
    assert fold_email("re\u0301ne@x.org") == fold_email("r\u00e9ne@x.org")
    assert fold_email("\N{FULLWIDTH LATIN SMALL LETTER R}ene@x.org") != fold_email("rene@x.org")
