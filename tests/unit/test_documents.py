"""What the documents name exists: files, tests, make targets."""

import base64
import re
from pathlib import Path

import pytest
from fastapi import FastAPI

from gateway.app import create_app
from gateway.settings import GatewaySettings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """A relative link in a document is a file of the project."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_invariants_name_tests_that_exist() -> None:
    """Each test that docs/architecture.md names for an invariant is there, by file and by name."""
    text = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    missing = [
        (path, test)
        for path, test in named
        if not (ROOT / path).is_file() or (test and f"def {test}(" not in (ROOT / path).read_text())
    ]
    assert named
    assert missing == []


@pytest.fixture(scope="module")
def gateway() -> FastAPI:
    """Return the public door, which is never entered here."""
    needed = {
        "auth_url": "http://auth",
        "records_url": "http://records",
        "models_file": "/none",
        "records_secret": "s" * 32,
        "image_hmac_key": base64.b64encode(bytes(32)).decode(),
    }
    return create_app(GatewaySettings.model_validate(needed))


@pytest.mark.parametrize(
    ("document", "lines"), [("README.md", ".*"), ("docs/existing-api.md", r"\|.*")], ids=["README", "old names"]
)
def test_urls_in_documents_exist(gateway: FastAPI, document: str, lines: str) -> None:
    """Each path of the API that README names, or a table of the old names, is one that the gateway answers."""
    text = "\n".join(re.findall(rf"^{lines}$", (ROOT / document).read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:(?<=[`\s])|(?<=127\.0\.0\.1:8004))/[a-z][\w./{}-]*", text))
    answered = [re.sub(r"\{\w+\}", "[^/]+", path) for path in (*gateway.openapi()["paths"], gateway.openapi_url)]
    assert len(named) > 2
    assert {path for path in named if not any(re.fullmatch(pattern, path) for pattern in answered)} == set()


def test_targets_in_documents_exist() -> None:
    """`make something` in a document is a target of the Makefile."""
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named = {name for path in DOCUMENTS for name in re.findall(r"`make ([a-z-]+)", path.read_text())}
    assert named - targets == set()
