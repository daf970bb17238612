"""The API's reference: there where an installation says whence its assets come, and open to nothing else."""

import base64
import re
from hashlib import sha256
from html.parser import HTMLParser

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import GatewaySettings

ASSETS_URL = "https://cdn.example/swagger-ui-dist@5.29.0"
NEEDED = {
    "auth_url": "http://auth:8000/",
    "records_url": "http://records:8002",
    "models_file": "/models.json",
    "records_secret": "s" * 32,
    "image_hmac_key": base64.b64encode(bytes(32)).decode(),
}


async def answer(path: str, assets_url: str | None) -> httpx.Response:
    """Return what the gateway answers; none of its long-lived objects is needed."""
    app = create_app(GatewaySettings.model_validate(NEEDED | {"assets_url": assets_url}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client:
        return await client.get(path)


def directives(found: httpx.Response) -> dict[str, list[str]]:
    """Return the answer's Content-Security-Policy: what is let in, by kind."""
    (policy,) = found.headers.get_list("content-security-policy")
    parts = (part.split() for part in policy.split(";"))
    return {name: sources for name, *sources in parts}


class Page(HTMLParser):
    """What a page loads, and the scripts that stand in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element loads."""
        found = dict(attrs)
        source = found.get("src") or (found.get("href") if tag == "link" else None)
        self.loaded += [source] if source else []
        self._in_script = tag == "script" and not source

    def handle_data(self, data: str) -> None:
        """Note a script."""
        if self._in_script:
            self.inline.append(data)
            self._in_script = False


async def test_reference_loads_what_its_policy_lets_in_and_no_more() -> None:
    """Assets from below the address alone, the one script that stands in the page by its hash, calls to this origin."""
    found = await answer("/docs", ASSETS_URL)
    page, allowed = Page(found.text), directives(found)

    assert (found.status_code, found.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.loaded == [f"{ASSETS_URL}/swagger-ui.css", f"{ASSETS_URL}/swagger-ui-bundle.js"]
    (script,) = page.inline
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert allowed["script-src"] == [f"{ASSETS_URL}/", f"'sha256-{digest}'"]
    assert allowed["style-src"] == [f"{ASSETS_URL}/", "'unsafe-inline'"]
    assert (allowed["default-src"], allowed["connect-src"]) == (["'none'"], ["'self'"])
    assert (allowed["frame-ancestors"], allowed["base-uri"], allowed["form-action"]) == (["'none'"],) * 3
    (document,) = re.findall(r'url: "([^"]+)"', script)
    assert (await answer(document, ASSETS_URL)).json()["openapi"].startswith("3.1")


@pytest.mark.parametrize(("path", "assets_url"), [("/docs", None), ("/openapi.json", ASSETS_URL), ("/x", ASSETS_URL)])
async def test_other_answers_may_load_nothing(path: str, assets_url: str | None) -> None:
    """Without the address there is no page; and with it nothing changes for what is none."""
    found = await answer(path, assets_url)
    assert found.status_code == (200 if path == "/openapi.json" else 404)
    assert directives(found) == {"default-src": ["'none'"], "frame-ancestors": ["'none'"]}


async def test_reference_is_kept_by_nobody_unasked() -> None:
    """A page of yesterday would load yesterday's assets."""
    assert (await answer("/docs", ASSETS_URL)).headers.get_list("cache-control") == ["no-cache"]
