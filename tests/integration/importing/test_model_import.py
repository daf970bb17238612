"""Models of other people, imported and served by real processes: they answer what their own frameworks answer."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from healthguard.client import Client
from models import artifact, verification
from models.importing.importer import Imported
from tests.integration.importing.conftest import Foreign
from tests.integration.local.product import Up
from tests.training import needs_training

pytestmark = [*needs_training, pytest.mark.xdist_group("importing")]

BOUND = 1e-4
"""How far an imported version may be from its source, in score, on pictures that the import has not seen."""

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BINARY = ("vgg", "saved", "float", "int8")
HEAT_BOUND = 1.5 / 255
"""The gateway rounds heat to whole levels of 255."""


@pytest.fixture(scope="module")
def token(product: Up) -> str:
    """Log the demonstration user in."""
    with Client(product.url) as client:
        return client.login(product.facts["email"], product.facts["password"]).access_token


def contract(found: Imported) -> Any:
    """Return the contract of a version."""
    return json.loads((found.folder / "assets.extra" / "contract.json").read_text())


@pytest.mark.parametrize("name", BINARY)
def test_imported_model_answers_as_its_source_through_gateway_and_model_server(
    product: Up, foreign: Foreign, token: str, name: str
) -> None:
    """Image in, stored prediction out: the score is the source's, decoded and scaled by us instead of its caller."""
    with Client(product.url, token) as client:
        found = [client.predict(name, path) for path in foreign.pictures(32)]
    expected = foreign.expected[name]["scores"]
    assert [each.score for each in found] == pytest.approx(expected, abs=BOUND)
    assert [each.outcome for each in found] == [("Negative", "Positive")[score >= 0.5] for score in expected]


def test_imported_model_with_three_classes_names_the_likeliest(product: Up, foreign: Foreign, token: str) -> None:
    """The outcome is the source's most likely class, and the score lies in the band of that class."""
    with Client(product.url, token) as client:
        found = [client.predict("mobile", path) for path in foreign.pictures(48)]
    best = np.argmax(foreign.expected["mobile"]["classes"], axis=-1)
    assert len(set(best)) > 1, "the pictures show only one class"
    assert [each.outcome for each in found] == [("LOW", "MEDIUM", "HIGH")[number] for number in best]
    assert [int((each.score or 0) * 3) for each in found] == best.tolist()


@pytest.mark.parametrize(("name", "side"), [("vgg", 32), ("saved", 32), ("mobile", 48)])
def test_imported_model_explains_as_its_own_derivative_does(
    product: Up, foreign: Foreign, token: str, name: str, side: int
) -> None:
    """The heat map through the gateway is Grad-CAM by TensorFlow's own gradient tape."""
    for path, expected in zip(foreign.pictures(side), foreign.expected[name]["heat"], strict=True):
        answer = explained(product, token, name, path)
        assert answer.status_code == 201, answer.text
        heat = np.array(answer.json()["explanation"]["heat"]) / 255
        assert heat.shape == np.array(expected).shape
        assert np.abs(heat - np.array(expected)).max() <= HEAT_BOUND


def explained(product: Up, token: str, name: str, path: Path) -> httpx.Response:
    """Ask the gateway for a prediction with its heat map."""
    return httpx.post(
        f"{product.url}/api/v1/models/{name}/predictions",
        params={"explain": "true"},
        headers={"Authorization": f"Bearer {token}", "Content-Type": "image/png"},
        content=path.read_bytes(),
        timeout=30,
    )


@pytest.mark.parametrize("name", ["float", "int8"])
def test_version_from_litert_says_what_it_cannot_do(imported: dict[str, Imported], name: str) -> None:
    """No heat map, no SavedModel, one image a run: in the contract, on the card and to whoever imported it."""
    found = imported[name]
    told = contract(found)
    assert told["explain"]["method"] == "none"
    assert told["explain"]["reason"]
    for words in ("No heat map", "LiteRT only", "One image a run"):
        assert any(words in sentence for sentence in told["limitations"])
    card = (found.folder / "assets.extra" / "card.md").read_text()
    assert all(sentence in card for sentence in told["limitations"])
    assert found.limitations == told["limitations"]
    assert not (found.folder / "saved_model.pb").exists()


def test_version_without_a_heat_map_refuses_to_explain(product: Up, foreign: Foreign, token: str) -> None:
    """The gateway knows it from the contract; without `explain` the same request gives a prediction."""
    answer = explained(product, token, "int8", foreign.pictures(32)[0])
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("name", ["vgg", "mobile", "saved", "float", "int8", "calibrated"])
def test_imported_version_is_whole(imported: dict[str, Imported], name: str) -> None:
    """It has the digest that its manifest names, a contract by the schema, and golden cases that it answers."""
    found = imported[name]
    asked = verification.Asked(verification.vouched(found.folder))
    assert asked.digest == found.digest
    checks = {check.name: check for check in verification.verify(found.folder, asked, now=NOW)}
    assert {name for name, check in checks.items() if check.passed} == {"digest", "contract", "golden"}
    assert found.difference <= BOUND
    assert found.between_files is None or found.between_files <= BOUND
    assert len(artifact.golden(found.folder).cases) >= 8


def test_calibration_makes_strange_pictures_indeterminate(
    product: Up, imported: dict[str, Imported], token: str
) -> None:
    """With labelled pictures there is a temperature, a limit, and an answer to what the model never saw."""
    told = contract(imported["calibrated"])
    assert told["calibration"]["method"] == "temperature"
    assert told["calibration"]["temperature"] != 1.0
    assert told["out_of_distribution"]["method"] == "mahalanobis"
    with Client(product.url, token) as client:
        black = client.predict("calibrated", _png(np.zeros((32, 32, 3), np.uint8)), filename="black.png")
    assert black.outcome == "Indeterminate"


def test_calibration_keeps_familiar_pictures(product: Up, foreign: Foreign, token: str) -> None:
    """The labelled pictures themselves get a finding, at least nineteen of twenty."""
    paths = sorted((foreign.folder / "labelled").glob("*/*.png"))[::3]
    with Client(product.url, token) as client:
        found = [client.predict("calibrated", path).outcome for path in paths]
    assert found.count("Indeterminate") <= len(found) / 20


def test_occlusion_is_explained_through_the_gateway(product: Up, foreign: Foreign, token: str) -> None:
    """A heat map of 7 by 7 comes back, with a hottest cell."""
    answer = explained(product, token, "calibrated", foreign.pictures(32)[0])
    assert answer.status_code == 201, answer.text
    heat = np.array(answer.json()["explanation"]["heat"])
    assert heat.shape == (7, 7)
    assert heat.max() == 255


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
