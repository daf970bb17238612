"""Auth's keys over HTTP: read to the end, however they arrive, and bounded."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from healthguard.jwks import JWKS_BYTES_MAX, fetch_from
from healthguard.tokens import KeysNotFetched
from tests.issuer import Issuer


async def answered(*parts: bytes) -> object:
    """Fetch from a server that sends its body in these parts, each when the client has had time to take the last."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            for _ in range(20):
                await asyncio.sleep(0)
        return response

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as session:
            return await fetch_from(session, f"http://127.0.0.1:{port}/")()
    finally:
        await runner.cleanup()


async def test_keys_that_arrive_in_parts_are_read_whole() -> None:
    """A part of the document is none."""
    issuer = Issuer()
    body = json.dumps(issuer.jwks()).encode()
    found = await answered(body[:50], body[50:100], body[100:])
    assert isinstance(found, dict)
    assert [key["kid"] for key in found["keys"]] == [issuer.kid]


async def test_keys_without_end_are_not_read() -> None:
    """Whoever answers at that address takes no more memory than agreed."""
    with pytest.raises(KeysNotFetched):
        await answered(json.dumps(Issuer().jwks()).encode() + b" " * JWKS_BYTES_MAX)
