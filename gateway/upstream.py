"""
Pass requests on to a service behind the gateway, and its answers back.

Only declared routes come here, so this is no open proxy. Headers pass by allow-list in both directions: hop-by-hop
headers, and those that only we may set (`X-HealthGuard-…`, `X-Forwarded-…`), can then not be forgotten. Bodies are
bounded both ways, and every call has a deadline.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import structlog
from starlette.datastructures import Headers
from yarl import URL

from gateway.problems import BadUpstream, UpstreamUnavailable
from healthguard.answers import AnswerTooLong, read_bounded
from healthguard.http import REQUEST_ID_HEADER
from healthguard.telemetry import headers_for_call

log = structlog.get_logger()

ANSWER_BYTES_MAX = 4 * 1024 * 1024

REQUEST_HEADERS = frozenset(
    {"accept", "accept-language", "authorization", "content-type", "idempotency-key", "if-match"}
)
ANSWER_HEADERS = frozenset(
    {
        "allow",
        "cache-control",
        "content-language",
        "content-type",
        "etag",
        "link",
        "location",
        "retry-after",
        "www-authenticate",
        "x-total-count",
    }
)


@dataclass(frozen=True)
class Answer:
    """What a service answered."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Upstream:
    """A service behind the gateway: a pool of connections of its own, and one deadline."""

    name: str
    base_url: str
    session: aiohttp.ClientSession
    timeout_s: float

    async def call(
        self,
        method: str,
        path: str,
        *,
        request_id: str,
        query: str = "",
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout_s: float | None = None,
    ) -> Answer:
        """
        Make one call.

        Args:
            path: of the service, without the query; already percent-encoded.
            query: as the client wrote it, percent-encoded.
            headers: what the service gets beside request id and trace.
            timeout_s: a shorter deadline than the service's own.

        Raises:
            UpstreamUnavailable: it is away or did not answer in time.
            BadUpstream: it answered more than can be passed on.
        """
        url = URL(self.base_url + path + ("?" + query if query else ""), encoded=True)
        sent = {REQUEST_ID_HEADER: request_id, **headers_for_call(), **headers}
        try:
            async with (
                asyncio.timeout(min(timeout_s or self.timeout_s, self.timeout_s)),
                self.session.request(method, url, headers=sent, data=body, allow_redirects=False) as response,
            ):
                content = await read_bounded(response.content, ANSWER_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError) as exc:
            log.warning("upstream_call_failed", upstream=self.name, exception=type(exc).__qualname__)
            raise UpstreamUnavailable from exc
        except AnswerTooLong as exc:
            raise BadUpstream from exc
        return Answer(response.status, passed(response.headers, ANSWER_HEADERS), content)

    async def ready(self) -> None:
        """
        Return when the service says that it and all that it needs are well.

        Raises:
            UpstreamUnavailable: it does not.
        """
        answer = await self.call("GET", "/health/ready", request_id="readiness", headers={})
        if answer.status != 200:
            raise UpstreamUnavailable


def passed(headers: Mapping[str, str] | Headers, allowed: frozenset[str]) -> dict[str, str]:
    """Return those of *headers* that may pass."""
    return {name.lower(): value for name, value in headers.items() if name.lower() in allowed}


def session(connections_max: int, trusted: ssl.SSLContext) -> aiohttp.ClientSession:
    """Return a pool of connections to whom *trusted* trusts; what waits for one is under the caller's deadline."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections_max, ssl=trusted),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
        trust_env=False,
    )
