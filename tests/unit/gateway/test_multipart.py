"""Cutting forms: whatever a client may send is read, and whatever is unclear is refused."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.multipart import PARTS_MAX, Part, boundary_of, parts_of
from healthguard.problems import InvalidRequest


def cut(body: bytes, boundary: bytes = b"b") -> list[Part]:
    """Return all parts."""
    return list(parts_of(body, boundary))


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    """Return a body with these parts, each of headers, a blank line and content."""
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\ncontent'


@given(st.dictionaries(st.text("abcxyz", min_size=1, max_size=8), st.binary(max_size=300), min_size=1, max_size=5))
def test_what_a_client_library_writes_comes_back(fields: dict[str, bytes]) -> None:
    """Fields of any content, as httpx writes them."""
    request = httpx.Request("POST", "http://x", files={name: (f"{name}.bin", value) for name, value in fields.items()})
    body = request.read()
    parts = cut(body, boundary_of(request.headers["Content-Type"]))
    assert {part.name: body[part.span] for part in parts} == fields
    assert [part.filename for part in parts] == [f"{name}.bin" for name in fields]


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        (b'form-data; name="file"; filename="a.png"', "file", "a.png"),
        (b"form-data; name=file; filename=a.png", "file", "a.png"),
        (b'form-data; filename="a.png"; name="file"', "file", "a.png"),
        (b'form-data; name="file"; filename="say %22a%22.png"', "file", 'say "a".png'),
        (b'form-data; name="file"; filename="say \\"a\\".png"', "file", 'say "a".png'),
        (b'form-data; name="file"; filename="a; name=other.png"', "file", "a; name=other.png"),
        ('form-data; name="file"; filename="Röntgen.png"'.encode(), "file", "Röntgen.png"),
        (b'form-data; name="file"', "file", None),
        (b'form-data; name="file"; filename=""', "file", ""),
    ],
)
def test_names_are_read_in_every_spelling(disposition: bytes, name: str, filename: str | None) -> None:
    """Quoted, bare, escaped two ways, in any order."""
    (part,) = cut(form(b"content-disposition: " + disposition + b"\r\n\r\nx"))
    assert (part.name, part.filename) == (name, filename)


def test_content_may_hold_anything_but_the_delimiter() -> None:
    """Line ends, dashes and the boundary itself inside a line."""
    content = b"\r\n--\r\n --b\r\n-b--b\r\n\r\n"
    body = form(b'Content-Disposition: form-data; name="file"\r\n\r\n' + content)
    (part,) = cut(body)
    assert body[part.span] == content


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b--"[:4],
        b"preamble\r\n" + form(FILE),
        form(FILE, end=b""),
        form(FILE, end=b"--b"),
        form(FILE, end=b"--bx--\r\n"),
        form(b"Content-Disposition: form-data; name=file"),
        form(b"Content-Type: image/png\r\n\r\nno name"),
        form(b"X: " + b"y" * 5000 + b"\r\n" + FILE),
        b"--c\r\n" + FILE + b"\r\n--c--",
    ],
    ids=[
        "nothing",
        "only a boundary",
        "half an end",
        "text before the first part",
        "no end",
        "end without its dashes",
        "another boundary that begins the same",
        "no blank line",
        "no name",
        "headers too long",
        "another boundary",
    ],
)
def test_unclear_form_is_refused(body: bytes) -> None:
    """A picture cut at the wrong place would still be a picture."""
    with pytest.raises(InvalidRequest):
        cut(body)


def test_number_of_parts_is_bounded() -> None:
    """As many as allowed, and not one more."""
    assert len(cut(form(*[FILE] * PARTS_MAX))) == PARTS_MAX
    with pytest.raises(InvalidRequest):
        cut(form(*[FILE] * (PARTS_MAX + 1)))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b:c"', b"a b:c"),
        ("multipart/form-data;BOUNDARY=abc; charset=x", b"abc"),
    ],
)
def test_boundary_is_read(content_type: str, boundary: bytes) -> None:
    """Quoted or not, anywhere among the parameters."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=", "x; boundary=" + "a" * 71]
)
def test_missing_boundary_is_refused(content_type: str) -> None:
    """Source: RFC 2046 §5.1.1: 1 to 70 characters."""
    with pytest.raises(InvalidRequest):
        boundary_of(content_type)


@given(st.binary(max_size=200))
def test_any_body_is_cut_or_refused(body: bytes) -> None:
    """Nothing else is ever raised."""
    for candidate in (body, b"--b\r\n" + body, b"--b\r\n" + body + b"\r\n--b--"):
        try:
            cut(candidate)
        except InvalidRequest:
            continue
