"""Bad input through the whole product, as the command tells it to a person and as HTTP tells it to a program."""

import base64
import io
import json
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from auth import signing
from auth.tables import SigningKey
from healthguard.client import Client
from healthguard.local import keys
from healthguard.local.postgres import Cluster
from healthguard.tokens import Role
from models import artifact
from tests import committed
from tests.integration.local.product import Up
from tests.issuer import Issuer
from tests.pictures import jpeg

pytestmark = pytest.mark.timeout(240)

CANARY = "Erika-Mustermann-1964"


def _flat_png(side: int) -> bytes:
    """Return a PNG of *side* by *side* pixels of one colour: few bytes, many pixels."""
    out = io.BytesIO()
    Image.new("1", (side, side)).save(out, "PNG")
    return out.getvalue()


BAD_FILES = {
    "empty": (b"", "A field is missing or not valid"),
    "text": (b"Dear doctor, this is no image.", "neither a JPEG nor a PNG"),
    "truncated": (jpeg()[:-500], "cannot be decoded|broken|incomplete"),
    "long": (jpeg() + bytes(30 * 1024 * 1024), "longer|larger|too large"),
    "many-pixels": (_flat_png(20_000), "pixels"),
}


def test_predict_says_of_each_bad_file_what_is_wrong(product: Up, tmp_path: Path) -> None:
    """Each bad file is named with a sentence, the good one between them is predicted, and the exit code tells."""
    good = artifact.golden(committed.folder("cancer")).cases[0].path
    files = {name: tmp_path / f"{name}.png" for name in BAD_FILES}
    for name, (content, _) in BAD_FILES.items():
        files[name].write_bytes(content)
    missing = tmp_path / "missing.png"
    order = [*files.values(), missing, good]
    done = product.run("predict", *map(str, order), "--model", "cancer", "--url", product.url, "--json")
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == list(map(str, order))
    assert lines[-1]["outcome"]
    said = {Path(line["file"]).name: line["error"]["message"] for line in lines[:-1]}
    for name, (_, words) in BAD_FILES.items():
        assert any(word in said[f"{name}.png"] for word in words.split("|")), said[f"{name}.png"]
    assert len(BAD_FILES["many-pixels"][0]) < 100_000


def test_predict_says_what_to_do_without_a_login(product: Up, tmp_path: Path) -> None:
    """Where nobody is logged in the command says how to, and sends nothing."""
    done = product.run("predict", "x.png", "--model", "cancer", "--url", product.url.replace("127.0.0.1", "localhost"))
    assert done.returncode == 4
    assert "healthguard login" in done.stderr


def test_login_refuses_a_wrong_password_and_takes_the_right_one(product: Up) -> None:
    """The password comes by standard input; what is kept works, and is gone after `logout`."""
    url = product.url.replace("127.0.0.1", "localhost")
    arguments = ("login", "--email", product.facts["email"], "--url", url)
    wrong = product.run(*arguments, stdin="not the password\n")
    assert wrong.returncode == 1
    assert "not the password" not in wrong.stdout + wrong.stderr
    right = product.run(*arguments, "--json", stdin=f"{product.facts['password']}\n")
    assert (right.returncode, json.loads(right.stdout)["logged_in"]) == (0, True)
    good = artifact.golden(committed.folder("anemia")).cases[0].path
    assert product.run("predict", str(good), "--model", "anemia", "--url", url).returncode == 0
    assert product.run("logout", "--url", url).returncode == 0
    assert product.run("predict", str(good), "--model", "anemia", "--url", url).returncode == 4


def _ring(product: Up) -> signing.KeyRing:
    """Return the real signing keys of the running product."""
    secrets = keys.load_or_make(product.data.secrets, data_exists=True)
    cluster = Cluster(product.data.postgres, secrets.postgres_password)
    rows = json.loads(cluster.run_sql("SELECT json_agg(signing_keys) FROM signing_keys", database="auth"))
    return signing.KeyRing([_row(row) for row in rows], base64.b64decode(secrets.key_encryption_key))


def _row(found: dict[str, Any]) -> SigningKey:
    return SigningKey(
        kid=found["kid"],
        public_jwk=found["public_jwk"],
        private_key_encrypted=bytes.fromhex(found["private_key_encrypted"].removeprefix("\\x")),
        use_from=datetime.fromisoformat(found["use_from"]),
        retired_at=None,
    )


def _signed(ring: signing.KeyRing, **when: float) -> str:
    token = signing.sign(
        ring,
        subject=uuid.uuid4(),
        role=Role.PATIENT,
        method=signing.AuthMethod.PASSWORD,
        life_s=60,
        issuer="healthguard",
        audience="healthguard",
        **when,
    )
    return token.text


def test_tokens_that_do_not_hold_are_refused_everywhere(product: Up) -> None:
    """No token, an expired one of the real key, another issuer's: 401, on the gateway's paths and on passed ones."""
    ring = _ring(product)
    tokens = {
        "none": None,
        "expired": _signed(ring, now_s=time.time() - 3600),
        "other issuer": Issuer().token(Role.DOCTOR),
        "no token at all": CANARY,
    }
    with httpx.Client(base_url=product.url, timeout=20) as http:
        for name, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answers = [
                http.post("/api/v1/models/cancer/predictions", files={"file": ("a.jpg", jpeg())}, headers=headers),
                http.get("/api/v1/predictions", headers=headers),
                http.get("/api/v1/auth/me", headers=headers),
            ]
            assert [answer.status_code for answer in answers] == [401] * 3, name
            assert all(answer.headers["Content-Type"] == "application/problem+json" for answer in answers)
            assert not any(CANARY in answer.text for answer in answers)
        # The same key's token of today is good: it is the expiry that was refused.
        good = {"Authorization": f"Bearer {_signed(ring)}"}
        assert http.get("/api/v1/predictions", headers=good).status_code == 200


def test_another_users_record_is_as_if_it_were_not_there(product: Up) -> None:
    """A patient sees their own record and nobody else's; the answers for another's and for none are the same."""
    with httpx.Client(base_url=product.url, timeout=30) as http:
        first, second = (_patient(http) for _ in range(2))
        with Client(product.url, first) as client:
            stored = client.predict("anemia", artifact.golden(committed.folder("anemia")).cases[0].path)
            assert client.prediction(stored.id) == stored
        asked = [stored.id, str(uuid.uuid4())]
        headers = {"Authorization": f"Bearer {second}"}
        answers = [http.get(f"/api/v1/predictions/{which}", headers=headers) for which in asked]
        assert [answer.status_code for answer in answers] == [404, 404]
        bodies = [{**answer.json(), "request_id": None} for answer in answers]
        assert bodies[0] == bodies[1]


def _patient(http: httpx.Client) -> str:
    """Register a new patient; return their token."""
    who = {"email": f"{uuid.uuid4().hex}@example.org", "password": uuid.uuid4().hex}
    assert http.post("/api/v1/auth/register", json=who).status_code == 201
    token: str = http.post("/api/v1/auth/login", json=who).json()["access_token"]
    return token
