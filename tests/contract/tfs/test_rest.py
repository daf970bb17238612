"""The REST API, as TensorFlow Serving answers and refuses it."""

import base64
import gzip
import http.client
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.contract.tfs.harness import QUICK, Server, add_version, both_backends, folder, ours, running

pytestmark = both_backends


@pytest.fixture(scope="module")
def server(backend: str) -> Iterator[Server]:
    """Run a server with versions 1 and 2, a label, and a REST port."""
    with folder() as home:
        base_path = home / "arithmetic"
        for version in (1, 2):
            add_version(base_path, version)
        config = home / "models.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "arithmetic" base_path: "{base_path}" model_platform: "tensorflow" '
            'model_version_policy { all {} } version_labels { key: "canary" value: 2 } } }'
        )
        flags = (f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models", *QUICK)
        with running(*flags, backend=backend, rest=True) as started:
            yield started


@pytest.fixture(scope="module")
def rest(server: Server) -> Iterator[httpx.Client]:
    """Speak to its REST API."""
    with httpx.Client(base_url=server.rest_url, timeout=20, trust_env=False) as client:
        yield client


MODEL = "/v1/models/arithmetic"


def predict(rest: httpx.Client, body: object, path: str = MODEL) -> httpx.Response:
    """Post a document, or a text as it is."""
    content = body if isinstance(body, str) else json.dumps(body)
    return rest.post(f"{path}:predict", content=content)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [[1, 2], [3.5, 4]]}, {"predictions": [[2.0, 4.0], [7.0, 8.0]]}),
        ({"instances": [{"x": [1, 2]}]}, {"predictions": [[2.0, 4.0]]}),
        ({"inputs": [[1, 2]]}, {"outputs": [[2.0, 4.0]]}),
        ({"inputs": {"x": [[1, 2]]}}, {"outputs": [[2.0, 4.0]]}),
        (
            {"signature_name": "pair", "instances": [{"a": 1, "b": 2}, {"a": 5, "b": 1}]},
            {"predictions": [{"total": 3.0, "difference": -1.0}, {"total": 6.0, "difference": 4.0}]},
        ),
        (
            {"signature_name": "pair", "inputs": {"a": [1, 5], "b": [2, 1]}},
            {"outputs": {"total": [3.0, 6.0], "difference": [-1.0, 4.0]}},
        ),
        (
            {"signature_name": "text", "instances": [1, 2]},
            {"predictions": ['{"schema": "test"}', '{"schema": "test"}']},
        ),
        ({"signature_name": "brightness", "instances": [np.full((4, 4, 3), 7).tolist()]}, {"predictions": [7.0]}),
        ({"instances": [[0.1, 1e30]]}, {"predictions": [[0.2, 2e30]]}),
    ],
    ids=[
        "rows",
        "named rows of one input",
        "a column",
        "a named column",
        "rows of two inputs and outputs",
        "columns of two inputs and outputs",
        "strings",
        "an image",
        "floats in as few digits as say them",
    ],
)
def test_rest_predict_answers_in_the_form_of_the_question(
    rest: httpx.Client, body: dict[str, object], answer: object
) -> None:
    """Rows go out for rows, columns for columns; one output stands bare, several by name."""
    response = predict(rest, body)
    assert (response.status_code, response.json()) == (200, answer)
    assert response.headers["content-type"] == "application/json"


def test_rest_predict_takes_and_gives_numbers_that_json_has_not(rest: httpx.Client) -> None:
    """NaN and the infinities go in and come out as bare words."""
    response = predict(rest, '{"instances": [[NaN, Infinity], [-Infinity, 0]]}')
    assert response.status_code == 200
    assert [str(value) for row in response.json()["predictions"] for value in row] == ["nan", "inf", "-inf", "0.0"]
    assert "Infinity" in response.text


@pytest.mark.parametrize("path", [f"{MODEL}/versions/1", f"{MODEL}/labels/canary", "/V1/Models/arithmetic"])
def test_rest_predict_finds_versions_and_labels(rest: httpx.Client, path: str) -> None:
    """A version by number, by label, or the newest; the fixed words in any case."""
    assert predict(rest, {"instances": [[1, 2]]}, path).json() == {"predictions": [[2.0, 4.0]]}


PREFIX = "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
REFUSALS = {
    "an unknown model": (
        MODEL + "x",
        {"instances": [[1, 2]]},
        404,
        "Servable not found for request: Latest(arithmeticx)",
    ),
    "an unknown version": (
        MODEL + "/versions/9",
        {"instances": [[1, 2]]},
        404,
        "Servable not found for request: Specific(arithmetic, 9)",
    ),
    "an unknown label": (
        MODEL + "/labels/none",
        {"instances": [[1, 2]]},
        400,
        "Unrecognized servable version label: none",
    ),
    "an unknown signature": (
        MODEL,
        {"instances": [[1, 2]], "signature_name": "x"},
        400,
        'Serving signature name: "x" not found in signature def',
    ),
    "a signature that is no text": (
        MODEL,
        {"instances": [[1, 2]], "signature_name": 1},
        400,
        "'signature_name' key must",
    ),
    "no body": (MODEL, "", 400, "JSON Parse error: The document is empty"),
    "no JSON": (MODEL, "x", 400, "JSON Parse error: "),
    "no object": (MODEL, [1], 400, "Is not object"),
    "nested without end": (MODEL, '{"instances": ' + "[" * 5000 + "]" * 5000 + "}", 400, ""),
    "neither form": (MODEL, {}, 400, "Missing 'inputs' or 'instances' key"),
    "both forms": (
        MODEL,
        {"inputs": [[1, 2]], "instances": [[1, 2]]},
        400,
        "expecting only one of 'inputs' or 'instances'",
    ),
    "no instances": (MODEL, {"instances": []}, 400, "No values in 'instances' array"),
    "instances that are no list": (MODEL, {"instances": 1}, 400, "Excepting 'instances' to be an list/array"),
    "instances of several sizes": (
        MODEL,
        {"instances": [[1, 2], [1]]},
        400,
        PREFIX + "Expecting tensor size: 2 but got: 1",
    ),
    "instances of several shapes": (
        MODEL,
        {"instances": [[1, 2], [[1], [2]]]},
        400,
        PREFIX + "Expecting shape [2] but got: [2,1]",
    ),
    "a plain list for two inputs": (
        MODEL,
        {"instances": [1, 2], "signature_name": "pair"},
        400,
        "instances is a plain list, but expecting list of objects as multiple input tensors required",
    ),
    "a plain column for two inputs": (
        MODEL,
        {"inputs": [1, 2], "signature_name": "pair"},
        400,
        "inputs is a plain value/list, but expecting an object as multiple input tensors required",
    ),
    "a missing column": (
        MODEL,
        {"inputs": {"a": [1]}, "signature_name": "pair"},
        400,
        "Missing named input: b in 'inputs' object.",
    ),
    "a missing key": (MODEL, {"instances": [{"a": 1}], "signature_name": "pair"}, 400, "keys must be equal to: a,b"),
    "an unknown key": (
        MODEL,
        {"instances": [{"z": 1}]},
        400,
        "JSON object: does not have named input: z",
    ),
    "objects and values mixed": (
        MODEL,
        {"instances": [{"x": [1, 2]}, [1, 2]]},
        400,
        "Expecting object but got list at item 1 of input list",
    ),
    "text for a number": (MODEL, {"inputs": [["a", 1]]}, 400, "Type: String is not of expected type: float"),
    "a truth value for a number": (MODEL, {"inputs": [[True, 1]]}, 400, "Type: True is not of expected type: float"),
    "a fraction for an integer": (
        MODEL,
        {"inputs": [1.5], "signature_name": "text"},
        400,
        "Type: Number is not of expected type: int32",
    ),
    "an integer that a float cannot hold": (
        MODEL,
        {"inputs": [[16777217, 1]]},
        400,
        "to float without loss of precision.",
    ),
    "a number beyond floats": (MODEL, {"inputs": [[1e39, 1]]}, 400, "to float without loss of precision."),
    "lists too deep in one place": (
        MODEL,
        {"inputs": [[1, [2]]]},
        400,
        "Encountered list at unexpected level: 2 expected < 2",
    ),
    "a value too high up": (MODEL, {"inputs": [[1, 2], 3]}, 400, "found at incorrect level: 2 in the JSON DOM"),
    "a list of another size": (
        MODEL,
        {"inputs": [[1, 2], [3]]},
        400,
        "Encountered list at unexpected size: 1 at level: 1",
    ),
    "an image without its batch": (
        MODEL,
        {"inputs": np.zeros((4, 4, 3), int).tolist(), "signature_name": "brightness"},
        400,
        "",
    ),
}


@pytest.mark.parametrize(("path", "body", "status", "text"), REFUSALS.values(), ids=REFUSALS)
def test_rest_predict_refuses(rest: httpx.Client, path: str, body: object, status: int, text: str) -> None:
    """What is wrong is said in TensorFlow Serving's words, as `error` in a JSON object."""
    response = predict(rest, body, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert text in response.json()["error"]


@ours("the original repeats the value that it refuses")
def test_rest_refusals_repeat_no_value(rest: httpx.Client) -> None:
    """A value of the request, which may be a pixel of somebody's image, is in no refusal."""
    response = predict(rest, {"inputs": [["a-secret-value", 1]]})
    assert response.status_code == 400
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/arithmetic:predict", 400, "Malformed request: GET /v1/models/arithmetic:predict"),
        ("POST", "/v1/models/arithmetic", 400, "Malformed request: POST /v1/models/arithmetic"),
        ("POST", "/v1/models/arithmetic:guess", 400, "Malformed request: POST /v1/models/arithmetic:guess"),
        ("PUT", "/v1/models/arithmetic:predict", 400, "Malformed request: PUT /v1/models/arithmetic:predict"),
        ("GET", "/v1/nothing", 400, "Malformed request: GET /v1/nothing"),
        ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
        ("GET", "/v1/models/arithmetic/versions/9", 404, "Could not find version 9 of model arithmetic"),
        ("GET", f"/v1/models/arithmetic/versions/{'9' * 30}", 400, "to numeric."),
    ],
)
def test_rest_refuses_paths(rest: httpx.Client, method: str, path: str, status: int, text: str) -> None:
    """Below /v1/ a path that is none of the API's is malformed; a model that is not there is not found."""
    response = rest.request(method, path)
    assert response.status_code == status
    assert text in response.json()["error"]


def test_rest_knows_nothing_outside_its_prefix(rest: httpx.Client) -> None:
    """Elsewhere there is nothing at all."""
    assert rest.get("/elsewhere").status_code == 404


def test_rest_tells_the_status_of_every_version(rest: httpx.Client) -> None:
    """Numbers of 64 bits are text, codes and states are words."""
    ok = {"error_code": "OK", "error_message": ""}
    one, two = ({"version": str(number), "state": "AVAILABLE", "status": ok} for number in (1, 2))
    key = lambda each: each["version"]  # noqa: E731 - the order is nobody's promise
    assert sorted(rest.get(MODEL).json()["model_version_status"], key=key) == [one, two]
    assert rest.get(f"{MODEL}/versions/1").json() == {"model_version_status": [one]}
    assert rest.get(f"{MODEL}/labels/canary").json() == {"model_version_status": [two]}


def test_rest_tells_the_signatures(rest: httpx.Client) -> None:
    """Metadata has the model's name and version, and the signatures as their message prints."""
    found = rest.get(f"{MODEL}/versions/1/metadata").json()
    assert found["model_spec"] == {"name": "arithmetic", "signature_name": "", "version": "1"}
    default = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    given = default["inputs"]["x"]
    assert given["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in given["tensor_shape"]["dim"]] == ["-1", "2"]


def test_rest_reads_gzip(rest: httpx.Client) -> None:
    """A compressed body is read as what is in it."""
    body = gzip.compress(json.dumps({"instances": [[1, 2]]}).encode())
    response = rest.post(f"{MODEL}:predict", content=body, headers={"content-encoding": "gzip"})
    assert response.json() == {"predictions": [[2.0, 4.0]]}


@ours("the original has other limits")
def test_rest_bounds_bodies(rest: httpx.Client) -> None:
    """A body is refused by its length before it is sent, and by its size once unpacked; nothing is made of it."""
    bomb = gzip.compress(b" " * (33 * 1024 * 1024), compresslevel=1)
    response = rest.post(f"{MODEL}:predict", content=bomb, headers={"content-encoding": "gzip"})
    assert response.status_code == 413
    cut = gzip.compress(b"{}")[:-4]
    assert rest.post(f"{MODEL}:predict", content=cut, headers={"content-encoding": "gzip"}).status_code == 400
    long = http.client.HTTPConnection("127.0.0.1", rest.base_url.port or 0, timeout=20)
    long.request("POST", f"{MODEL}:predict", headers={"content-length": str(2**40)})
    assert long.getresponse().status == 413
    long.close()
    assert predict(rest, {"instances": [[1, 2]]}).status_code == 200


def test_rest_classify_needs_tensorflow(rest: httpx.Client, backend: str) -> None:
    """LiteRT parses no examples and says so; with TensorFlow, this model has no signature for it."""
    response = rest.post(f"{MODEL}:classify", json={"examples": [{"x": 1.0}]})
    assert response.status_code == (501 if backend == "litert" else 400)


def test_rest_decodes_base64(rest: httpx.Client) -> None:
    """Where a number is expected, binary data is of the wrong type; it is no named input either."""
    response = predict(rest, {"instances": [{"b64": base64.b64encode(b"a").decode()}]})
    assert response.status_code == 400
    assert "Type: Object is not of expected type: float" in response.json()["error"]
