"""
The API's reference as a page: Swagger UI over our own document, its assets from a place that the installation names.

There is none unless such a place is named: what it serves runs in this origin, with the token that a person puts in.
"""

import base64
from hashlib import sha256
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PATH = "/docs"
ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js")
"""Files of the npm package swagger-ui-dist; beyond these two the page loads nothing."""

# No validator: Swagger UI would else send the document's address to one of its makers'.
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#reference", validatorUrl: null});'


def reference(assets_url: str) -> APIRouter:
    """Return the route of the page, whose assets lie below *assets_url*."""
    router = APIRouter()
    html = page(assets_url)
    headers = {"Content-Security-Policy": policy(assets_url), "Cache-Control": "no-cache"}

    @router.get(PATH, include_in_schema=False)
    async def show_reference() -> HTMLResponse:
        """Show the API's reference."""
        return HTMLResponse(html, headers=headers)

    return router


def page(assets_url: str) -> str:
    """Return the page."""
    style, script = (escape(f"{assets_url}/{name}") for name in ASSETS)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>HealthGuard API</title>
<link rel="stylesheet" href="{style}">
</head>
<body>
<div id="reference"></div>
<script src="{script}"></script>
<script>{_START}</script>
</body>
</html>
"""


def policy(assets_url: str) -> str:
    """
    Return the page's Content-Security-Policy: assets from below *assets_url*, calls to this origin, nothing else.

    A path that ends in a slash stands for all below it (CSP level 3, §6.7.2.12): of a CDN that serves everybody's files
    only this package's are let in. Swagger UI sets styles in elements, and has its icons in data URLs.
    """
    below = f"{assets_url}/"
    start = base64.b64encode(sha256(_START.encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {below} 'sha256-{start}'",
            f"style-src {below} 'unsafe-inline'",
            f"img-src {below} data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
