"""Fetch auth's public keys over HTTP; a module of its own, since auth verifies tokens too and needs no HTTP client."""

from collections.abc import Mapping
from typing import Any

import aiohttp
import jwt

from healthguard.answers import read_bounded
from healthguard.tokens import Fetch, KeysNotFetched

JWKS_BYTES_MAX = 64 * 1024
JWKS_TIMEOUT_S = 2.0


def fetch_from(session: aiohttp.ClientSession, url: str) -> Fetch:
    """Return a bounded fetch of the JWK set at *url*."""

    async def fetch() -> Mapping[str, Any]:
        timeout = aiohttp.ClientTimeout(total=JWKS_TIMEOUT_S)
        try:
            async with session.get(url, timeout=timeout, allow_redirects=False) as response:
                response.raise_for_status()
                body = await read_bounded(response.content, JWKS_BYTES_MAX)
                found = jwt.PyJWKSet.from_json(body.decode())
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as exc:
            raise KeysNotFetched from exc
        return {"keys": [key._jwk_data for key in found.keys]}

    return fetch
