"""Bad input of every kind: a clear 4xx problem, which repeats nothing that was sent, and a model that was not asked."""

import asyncio
import io
import struct
import time
import zlib
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import Building, Door
from tests.issuer import Issuer
from tests.pictures import jpeg, png

SECRET_NAME = "Erika-Mustermann-1964.png"
PATH = "/api/v1/models/cancer/predictions"


def huge_png(side: int = 20_000) -> bytes:
    """Return a whole, valid PNG of *side* by *side* black pixels, in under 100 KB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compressobj(9)
    rows = b"".join(pixels.compress(bytes(1 + side // 8)) for _ in range(side)) + pixels.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def form(content: bytes, name: str = "file") -> dict[str, Any]:
    """Return httpx arguments that send *content* as a form field."""
    return {"files": {name: (SECRET_NAME, content, "image/png")}}


CASES = {
    "no file": (form(jpeg(), name="picture"), 422, "validation-failed"),
    "empty file": (form(b""), 422, "validation-failed"),
    "text named .png": (form(b"Dear doctor, this is no image."), 415, "unsupported-image"),
    "truncated JPEG": (form(jpeg()[:-500]), 422, "broken-image"),
    "truncated PNG": (form(png()[:-5000]), 422, "broken-image"),
    "only a JPEG's first bytes": (form(b"\xff\xd8\xff\xe0"), 422, "broken-image"),
    "only a PNG's signature": (form(b"\x89PNG\r\n\x1a\n"), 422, "broken-image"),
    "30 MB": (form(jpeg() + bytes(30 * 1024 * 1024)), 413, "payload-too-large"),
    "PNG of 20,000 by 20,000": (form(huge_png()), 422, "too-many-pixels"),
    "wrong content type": ({"json": {"file": "none"}}, 415, "unsupported-media-type"),
    "no content type": ({"content": jpeg()}, 415, "unsupported-media-type"),
    "form without its boundary": (
        {"content": jpeg(), "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "invalid-request",
    ),
    "form that ends early": (
        {
            "content": b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\n" + jpeg(),
            "headers": {"Content-Type": "multipart/form-data; boundary=b"},
        },
        400,
        "invalid-request",
    ),
    "raw empty body": ({"content": b"", "headers": {"Content-Type": "image/png"}}, 422, "validation-failed"),
}


def assert_problem(response: httpx.Response, status: int, slug: str) -> None:
    """Assert that *response* is this problem, whole, and repeats nothing."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
    body = response.json()
    assert (body["type"], body["status"]) == (f"urn:healthguard:problem:{slug}", status)
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert "Erika" not in response.text
    assert "doctor," not in response.text


@pytest.mark.parametrize("case", CASES)
async def test_bad_upload_is_a_clear_problem(door: Door, case: str) -> None:
    """Each is refused for what it is, before the model hears of it."""
    sent, status, slug = CASES[case]
    headers = door.authorization() | sent.get("headers", {})
    response = await door.client.post(PATH, **(sent | {"headers": headers}))
    assert_problem(response, status, slug)
    assert door.cancer.predict_calls == 0


def test_huge_png_is_small_as_a_file() -> None:
    """The case is the one that the limit is for: few bytes, very many pixels."""
    assert len(huge_png()) < 100_000


async def test_pixel_limit_is_what_stops_a_huge_png(building: Building) -> None:
    """The same kind of file under the limit is decoded: the refusal above is the limit's."""
    door = await building.door(image_pixels_max=2_000 * 2_000)
    assert (await door.predict(huge_png(2_000))).status_code == 201
    assert (await door.predict(huge_png(2_008))).status_code == 422


async def test_body_without_length_is_cut_at_the_limit(building: Building) -> None:
    """A chunked body announces no length; reading stops when it is too long, not when it ends."""
    door = await building.door(image_bytes_max=100_000)
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield bytes(10_000)

    response = await door.client.post(
        PATH, content=endless(), headers=door.authorization() | {"Content-Type": "image/jpeg"}
    )
    assert_problem(response, 413, "payload-too-large")
    assert response.json()["limit_bytes"] == 100_000


async def first_line_of_the_answer(door: Door, framing: str, body: bytes) -> bytes:
    """Send *body* and leave it without its end; return the answer's first line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    token = door.authorization()["Authorization"]
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: image/png\r\n{framing}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    return line


async def test_announced_length_is_refused_before_the_body_comes(building: Building) -> None:
    """Nothing of the body is needed to know that it is too long."""
    door = await building.door(image_bytes_max=100_000)
    assert b" 413 " in await first_line_of_the_answer(door, "Content-Length: 100001", b"")


async def test_unannounced_length_is_refused_before_the_body_ends(building: Building) -> None:
    """A chunked body is refused as soon as it is too long; its end never comes here."""
    door = await building.door(image_bytes_max=100_000)
    chunk = b"186a1\r\n" + bytes(0x186A1) + b"\r\n"
    assert b" 413 " in await first_line_of_the_answer(door, "Transfer-Encoding: chunked", chunk)


async def test_slow_body_is_cut_off(building: Building) -> None:
    """A client that never ends its body is answered and disconnected."""
    door = await building.door(upload_timeout_s=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    token = door.authorization()["Authorization"]
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: image/png\r\nContent-Length: 1000"
    )
    writer.write(head.encode() + b"\r\n\r\n" + b"\x89PNG")
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_bodies_together_are_bounded(building: Building) -> None:
    """What would not fit beside the bodies that are being read is refused early."""
    door = await building.door(uploads_bytes_max=len(jpeg()))
    assert (await door.predict(jpeg(seed=1) + bytes(4096))).status_code == 503
    assert (await door.predict(jpeg()[:1000])).status_code == 422


@pytest.mark.parametrize("name", ["Authorization missing", "expired", "of another issuer", "of another scheme"])
async def test_bad_token_is_a_401(door: Door, name: str) -> None:
    """Without a token that holds nothing is read and nothing is told."""
    headers = {
        "Authorization missing": {},
        "expired": door.authorization(exp=int(time.time()) - 60),
        "of another issuer": Issuer().authorization(),
        "of another scheme": {"Authorization": "Basic YWRhOmFkYQ=="},
    }[name]
    for path in (PATH, "/api/predict", "/api/inference/predict", "/api/workflow/predict-and-save"):
        response = await door.client.post(path, files={"file": ("a.jpg", jpeg())}, headers=headers)
        assert_problem(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    for path in ("/api/predictions", "/api/v1/predictions", "/api/results", "/api/v1/models"):
        assert_problem(await door.client.get(path, headers=headers), 401, "unauthorized")
    assert door.cancer.predict_calls == 0


@pytest.mark.parametrize("model", ["nose", "%2e%2e%2fcancer", "CANCER"])
async def test_unknown_model_is_a_404(door: Door, model: str) -> None:
    """A name that nobody declared, whatever it looks like."""
    response = await door.client.post(
        httpx.URL(door.url + f"/api/v1/models/{model}/predictions"),
        files={"file": ("a.jpg", jpeg())},
        headers=door.authorization(),
    )
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"


async def test_other_users_record_is_a_404(door: Door) -> None:
    """Another's record is as absent as one that never was, to read, to change and to remove."""
    made = (await door.predict(jpeg())).json()
    other = door.authorization()
    for path in (f"/api/v1/predictions/{made['id']}", f"/api/predictions/{made['number']}"):
        for method in ("GET", "PUT", "DELETE"):
            body = {"filename": "x.png"} if method == "PUT" else None
            response = await door.client.request(method, path, headers=other, json=body)
            assert_problem(response, 404, "not-found")


async def test_small_image_limit_of_the_anemia_path(door: Door) -> None:
    """POST /api/predict takes less than 5 MB; the same picture goes through the other path."""
    padded = jpeg() + bytes(5 * 1024 * 1024)
    response = await door.client.post("/api/predict", files={"file": ("a.jpg", padded)}, headers=door.authorization())
    assert_problem(response, 413, "payload-too-large")
    assert io.BytesIO(padded).getbuffer().nbytes < door.settings.image_bytes_max
    assert (await door.predict(padded, model="anemia")).status_code in (201, 422)
