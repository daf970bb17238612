"""The Open Inference Protocol: other people's clients as they are, and everything that they may get wrong."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.contracts import InputSpec
from gateway.images import check, decode
from tests import committed
from tests.clients import run_client
from tests.integration.gateway.stack import Stack

CLIENTS = Path(__file__).with_name("clients")
STABLE = str(committed.version("cancer"))
GOLDEN = committed.folder("cancer") / "assets.extra/golden"
TOLERANCE = 1e-3
SPEC = InputSpec(height=224, width=224, channels="RGB", resize="area", fit="stretch")


@pytest.fixture(scope="module")
def given(stack: Stack) -> dict[str, Any]:
    """Return what a client is told: where to ask, as whom, and what."""
    cases = golden()[:2]
    pixels = [decode(check((GOLDEN / case["file"]).read_bytes(), pixels_max=10**7), SPEC).tolist() for case in cases]
    return {
        "http": stack.gateway_url.removeprefix("http://"),
        "grpc": stack.grpc_address,
        "token": stack.token(),
        "pixels": pixels,
        "version": STABLE,
    }


def golden() -> list[dict[str, Any]]:
    """Return the cases that the version carries, with the answers that it must give."""
    found: list[dict[str, Any]] = json.loads((GOLDEN / "cases.json").read_text())["cases"]
    return found


def assert_golden(found: dict[str, Any]) -> None:
    """Assert that these are the numbers that the version itself promises."""
    wanted = golden()[:2]
    np.testing.assert_allclose(found["probability"], [case["probability"] for case in wanted], atol=TOLERANCE)
    np.testing.assert_allclose(found["ood_score"], [case["ood_score"] for case in wanted], rtol=0.01)


def test_tritonclient_works_unchanged(given: dict[str, Any], stack: Stack) -> None:
    """Over HTTP (JSON and binary) and gRPC; what it gets wrong it is told in its own exception; nothing is stored."""
    found = run_client(CLIENTS / "triton.py", **given)
    for kind in ("http", "grpc"):
        told = found[kind]
        assert (told["live"], told["ready"], told["model"], told["version"]) == (True, True, True, True)
        assert told["server"]["name"] == "healthguard"
        assert told["metadata"]["inputs"][0]["datatype"] == "UINT8"
        assert [int(side) for side in told["metadata"]["inputs"][0]["shape"]] == [-1, 224, 224, 3]
    answers = ["http binary=True", "http binary=False", "http all", "http version", "grpc all", "grpc version"]
    for name in answers:
        assert_golden(found[name])
    assert {found[name].get("id", "q-1") for name in answers} == {"q-1"}
    bad = {what: told[0] for what, told in found["http refused"].items()}
    tensors = dict.fromkeys(("rank", "shape", "batch", "type", "name", "output"), "400")
    assert bad == tensors | {"model": "404", "version": "404", "token": "401", "no token": "401"}
    bad = {what: told[0] for what, told in found["grpc refused"].items()}
    tensors = dict.fromkeys(tensors, "StatusCode.INVALID_ARGUMENT")
    codes = {"model": "NOT_FOUND", "version": "NOT_FOUND", "token": "UNAUTHENTICATED", "no token": "UNAUTHENTICATED"}
    assert bad == tensors | {what: f"StatusCode.{code}" for what, code in codes.items()}
    assert "UINT8 of shape [-1, 224, 224, 3]" in found["http refused"]["shape"][1]
    with stack.client(given["token"]) as client:
        assert client.get("/api/v1/predictions").json()["items"] == []


def test_kserves_client_works_unchanged(given: dict[str, Any]) -> None:
    """Over HTTP (JSON and binary) and gRPC (values and raw)."""
    found = run_client(CLIENTS / "kserve_client.py", **given)
    for kind in ("http", "grpc"):
        assert found[kind] == {"live": True, "ready": True, "model": True}
        for binary in (True, False):
            answer = found[f"{kind} binary={binary}"]
            assert_golden(answer)
            assert answer["id"] == "q-1"


def test_messages_are_the_protocols() -> None:
    """Every field that a client knows of our messages has our number and kind; none of ours is unknown to it."""
    from gateway import open_inference_pb2

    theirs = run_client(CLIENTS / "descriptors.py")
    for message in open_inference_pb2.DESCRIPTOR.message_types_by_name.values():
        for found in (message, *message.nested_types):
            ours = {field.name: [field.number, field.type, field.is_repeated] for field in found.fields}
            assert theirs[found.full_name] == ours, found.full_name


BODY = {"inputs": [{"name": "image", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [0] * (224 * 224 * 3)}]}


def changed(**members: Any) -> bytes:
    """Return a question with other members of its input."""
    return json.dumps({"inputs": [BODY["inputs"][0] | members]}).encode()


JSON_CASES = {
    "no JSON": b"{",
    "no inputs": b"{}",
    "deep nesting": b'{"inputs":' + b"[" * 100_000,
    "two inputs": json.dumps({"inputs": BODY["inputs"] * 2}).encode(),
    "no data": changed(data=None),
    "too few data": changed(data=[0] * 7),
    "fractions": changed(data=[0.5] * (224 * 224 * 3)),
    "truth values": changed(data=[True] * (224 * 224 * 3)),
    "text": changed(data=["0"] * (224 * 224 * 3)),
    "negative": changed(data=[-1] * (224 * 224 * 3)),
    "above 255": changed(data=[256] * (224 * 224 * 3)),
    "huge numbers": changed(data=[10**400] * 4, shape=[1, 1, 1, 4]),
    "ragged": changed(data=[[0], [0, 0]]),
    "huge shape": changed(shape=[2**31, 2**31, 2**31, 3]),
    "negative shape": changed(shape=[-1, 224, 224, 3]),
    "no pictures": changed(shape=[0, 224, 224, 3], data=[]),
    "other type": changed(datatype="INT64"),
    "unknown type": changed(datatype="PICTURE"),
    "binary size and data": changed(parameters={"binary_data_size": 3}),
    "binary size beyond the body": changed(parameters={"binary_data_size": 10**9}, data=None),
    "binary size no number": changed(parameters={"binary_data_size": "all"}, data=None),
}


@pytest.mark.parametrize("name", JSON_CASES)
def test_bad_question_is_a_400(given: dict[str, Any], stack: Stack, name: str) -> None:
    """A problem that also has the protocol's member `error`; it repeats nothing."""
    with stack.client(given["token"]) as client:
        response = client.post("/v2/models/cancer/infer", content=JSON_CASES[name])
    assert_refused(response, 400, "bad-tensor")


def test_bad_binary_framing_is_a_400(given: dict[str, Any], stack: Stack) -> None:
    """The JSON longer than the body; more or fewer bytes after it than it says."""
    head = changed(data=None, parameters={"binary_data_size": 224 * 224 * 3})
    pixels = bytes(224 * 224 * 3)
    with stack.client(given["token"]) as client:
        for length, body in (
            (10**6, head + pixels),
            (len(head), head + pixels[:-1]),
            (len(head), head + pixels + b"0"),
            (len(head) - 1, head + pixels),
        ):
            headers = {"Inference-Header-Content-Length": str(length)}
            response = client.post("/v2/models/cancer/infer", content=body, headers=headers)
            assert_refused(response, 400, "bad-tensor")
        response = client.post("/v2/models/cancer/infer", content=b"", headers={"Content-Encoding": "gzip"})
        assert_refused(response, 415, "unsupported-media-type")
        too_long = client.post("/v2/models/cancer/infer", content=b" " * (9 * 1024 * 1024))
        assert_refused(too_long, 413, "payload-too-large")


def test_paths_need_a_token_but_for_health(given: dict[str, Any], stack: Stack) -> None:
    """Liveness, readiness and the server's name are for probes; models are for people with a token."""
    with stack.client() as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
        for path in ("/v2/models/cancer", "/v2/models/cancer/ready", f"/v2/models/cancer/versions/{STABLE}/ready"):
            assert_refused(client.get(path), 401, "unauthorized")
        assert_refused(client.post("/v2/models/cancer/infer", json=BODY), 401, "unauthorized")
    with stack.client(given["token"]) as client:
        assert client.get(f"/v2/models/cancer/versions/{STABLE}").json()["versions"] == [STABLE]
        assert client.get(f"/v2/models/cancer/versions/{STABLE}/ready").json() == {"ready": True, "name": "cancer"}
        for version in ("99", "one", "-1", "1" * 40):
            assert_refused(client.get(f"/v2/models/cancer/versions/{version}/ready"), 404, "unknown-version")


def assert_refused(response: httpx.Response, status: int, slug: str) -> None:
    """Assert that *response* is this problem, with the member that the protocol's clients read."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body["type"] == f"urn:healthguard:problem:{slug}"
    assert body["error"] == body.get("detail", body["title"])
