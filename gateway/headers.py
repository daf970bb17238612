"""Response headers: what keeps browsers from guessing, framing and keeping answers; and where a rate stands."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing here is a page: a browser that opens an answer may load nothing and show it in no frame.
# Source: OWASP REST Security Cheat Sheet, "Security headers".
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE = (b"cache-control", b"no-store")

CALLER, STANDING = "healthguard.caller", "healthguard.standing"
"""Where a request's scope says who asks, and how they stand with their rate limit."""


class SecurityHeaders:
    """Add the headers to each answer; `Cache-Control: no-store` only where nothing else was said."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = any(name == NO_STORE[0] for name, _ in message["headers"])
                standing = scope.get(STANDING)
                limits = standing.headers() if standing is not None else ()
                message["headers"] = [*message["headers"], *HEADERS, *limits, *(() if said else (NO_STORE,))]
            await send(message)

        await self.app(scope, receive, send_with_headers)
