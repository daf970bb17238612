"""Response headers: what keeps browsers from guessing, framing and keeping answers; and where a rate stands."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Source: OWASP REST Security Cheat Sheet, "Security headers".
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
UNLESS_SAID = (
    (b"cache-control", b"no-store"),
    # All but one answer is no page: a browser that opens it may load nothing and show it in no frame.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

CALLER, STANDING = "healthguard.caller", "healthguard.standing"
"""Where a request's scope says who asks, and how they stand with their rate limit."""


class SecurityHeaders:
    """Add the headers to each answer; what it says of caches and of pages' policy itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                standing = scope.get(STANDING)
                limits = standing.headers() if standing is not None else ()
                unsaid = (header for header in UNLESS_SAID if header[0] not in said)
                message["headers"] = [*message["headers"], *HEADERS, *limits, *unsaid]
            await send(message)

        await self.app(scope, receive, send_with_headers)
