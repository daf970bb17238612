"""Compress long answers: JSON, CSV, metrics and the page; never those that hold a secret."""

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Receive, Scope, Send

BYTES_MIN = 2048
"""An answer to a prediction is shorter: to compress it would cost more than it spares."""
LEVEL = 4

# Their answers hold tokens and keys. Whoever can have a browser ask with text of their own, and see how long the answer
# is, could guess a secret in a compressed one letter by letter (BREACH).
# Source: Y. Gluck, N. Harris, A. Prado, "BREACH: Reviving the CRIME attack", 2013.
SECRET = ("/api/auth/", "/api/v1/auth/")


class Compression(GZipMiddleware):
    """Starlette's compression, which leaves out pictures and event streams; and here whatever holds a secret."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"].startswith(SECRET):
            await self.app(scope, receive, send)
            return
        await super().__call__(scope, receive, send)
