"""Classify, Regress and MultiInference on `tf.Example`s, as TensorFlow Serving answers and refuses them."""

import shutil
from collections.abc import Iterator

import grpc
import httpx
import pytest

from serving.tfs.protos import (
    ClassificationRequest,
    Example,
    Input,
    ModelSpec,
    MultiInferenceRequest,
    RegressionRequest,
)
from tests.contract.tfs.harness import (
    FIXTURES,
    FOREIGN,
    OFFICIAL,
    QUICK,
    TENSORFLOW,
    Server,
    folder,
    running,
)
from tests.training import needs_training

pytestmark = needs_training

SAVED_MODEL = FIXTURES / "examples" / "saved_model.pb"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server with the model whose signatures take examples."""
    with folder() as home:
        version = home / "examples" / "1"
        version.mkdir(parents=True)
        shutil.copy(SAVED_MODEL, version)
        flags = (f"--model_base_path={home / 'examples'}", "--model_name=examples", *QUICK)
        with running(*flags, backend=OFFICIAL if FOREIGN else TENSORFLOW, rest=True) as started:
            yield started


def examples(*values: float, base: float | None = None) -> Input:
    """Return examples of one feature, with a context if *base* is given."""
    given = Input()
    target = given.example_list
    if base is not None:
        target = given.example_list_with_context  # type: ignore[assignment]  # alike in what is used here
        given.example_list_with_context.context.CopyFrom(_example("base", base))
    target.examples.extend(_example("x", value) for value in values)
    return given


def _example(name: str, value: float) -> Example:
    example = Example()
    example.features.feature[name].float_list.value.append(value)
    return example


def spec(signature: str) -> ModelSpec:
    """Name the model and a signature."""
    return ModelSpec(name="examples", signature_name=signature)


def test_regress_answers_a_number_for_each_example(server: Server) -> None:
    """Each example gets its number; the response says what answered."""
    request = RegressionRequest(model_spec=spec("regress"), input=examples(1, 2, 3))
    response = server.predictions.Regress(request, timeout=20)
    assert [each.value for each in response.result.regressions] == [2.5, 3.0, 3.5]
    assert (response.model_spec.name, response.model_spec.version.value) == ("examples", 1)
    assert response.model_spec.signature_name == "regress"


def test_regress_joins_the_context_to_each_example(server: Server) -> None:
    """A feature of the context is a feature of every example."""
    request = RegressionRequest(model_spec=spec("regress"), input=examples(1, 2, base=10))
    response = server.predictions.Regress(request, timeout=20)
    assert [each.value for each in response.result.regressions] == [7.5, 8.0]


def test_classify_answers_classes_with_scores(server: Server) -> None:
    """Each example gets all classes, in the model's order; without labels only scores."""
    request = ClassificationRequest(model_spec=spec("classify"), input=examples(0, 100))
    rows = server.predictions.Classify(request, timeout=20).result.classifications
    assert [[(each.label, each.score) for each in row.classes] for row in rows] == [
        [("low", 0.5), ("high", 0.5)],
        [("low", 0.0), ("high", 1.0)],
    ]
    request = ClassificationRequest(model_spec=spec("scores"), input=examples(0))
    rows = server.predictions.Classify(request, timeout=20).result.classifications
    assert [[(each.label, each.score) for each in row.classes] for row in rows] == [[("", 0.5)]]


def multi(*tasks: tuple[str, str], model: str = "examples") -> MultiInferenceRequest:
    """Return a MultiInference of (signature, method)s."""
    request = MultiInferenceRequest(input=examples(1, 2))
    for at, (signature, method) in enumerate(tasks):
        name = "examples" if at == 0 else model
        request.tasks.add(model_spec=ModelSpec(name=name, signature_name=signature), method_name=method)
    return request


def test_multi_inference_does_several_tasks_on_the_same_examples(server: Server) -> None:
    """Each task has its result, in its order, with the signature that gave it."""
    response = server.predictions.MultiInference(multi(("regress", REGRESS), ("classify", CLASSIFY)), timeout=20)
    first, second = response.results
    assert [each.value for each in first.regression_result.regressions] == [2.5, 3.0]
    assert [len(row.classes) for row in second.classification_result.classifications] == [2, 2]
    assert [each.model_spec.signature_name for each in response.results] == ["regress", "classify"]


REFUSALS = {
    "no example": (
        "Classify",
        ClassificationRequest(model_spec=spec("classify")),
        "INVALID_ARGUMENT",
        "Input is empty.",
    ),
    "an unknown signature for Classify": (
        "Classify",
        ClassificationRequest(model_spec=spec("nope"), input=examples(1)),
        "INVALID_ARGUMENT",
        "No signature was found with the name: nope",
    ),
    "an unknown signature for Regress": (
        "Regress",
        RegressionRequest(model_spec=spec("nope"), input=examples(1)),
        "INVALID_ARGUMENT",
        "No signature was found with the name: nope",
    ),
    "a signature without examples": (
        "Classify",
        ClassificationRequest(model_spec=spec(""), input=examples(1)),
        "FAILED_PRECONDITION",
        "No classification inputs found in SignatureDef",
    ),
    "a signature without numbers": (
        "Regress",
        RegressionRequest(model_spec=spec("scores"), input=examples(1)),
        "FAILED_PRECONDITION",
        "No regression outputs found in SignatureDef",
    ),
    "two outputs for Regress": (
        "Regress",
        RegressionRequest(model_spec=spec("classify"), input=examples(1)),
        "INVALID_ARGUMENT",
        "Expected one output Tensor.",
    ),
    "no model": ("Classify", ClassificationRequest(input=examples(1)), "INVALID_ARGUMENT", "Missing ModelSpec"),
    "one signature twice": (
        "MultiInference",
        multi(("regress", REGRESS), ("regress", REGRESS)),
        "INVALID_ARGUMENT",
        "Duplicate evaluation of signature: regress",
    ),
    "two models": (
        "MultiInference",
        multi(("regress", REGRESS), ("classify", CLASSIFY), model="other"),
        "INVALID_ARGUMENT",
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    ),
    "an odd method": (
        "MultiInference",
        multi(("regress", "tensorflow/serving/predict")),
        "UNIMPLEMENTED",
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
}


@pytest.mark.parametrize(("method", "request_", "code", "text"), REFUSALS.values(), ids=REFUSALS)
def test_examples_are_refused(server: Server, method: str, request_: object, code: str, text: str) -> None:
    """What is wrong is said with TensorFlow Serving's codes and words."""
    with pytest.raises(grpc.RpcError) as caught:
        getattr(server.predictions, method)(request_, timeout=20)
    assert caught.value.code().name == code
    assert (caught.value.details() or "").startswith(text)


def test_rest_classifies_and_regresses(server: Server) -> None:
    """Objects are examples; classes come as pairs of label and score, numbers bare."""
    url = f"{server.rest_url}/v1/models/examples"
    with httpx.Client(timeout=20, trust_env=False) as rest:
        body = {"signature_name": "regress", "context": {"base": 10.0}, "examples": [{"x": 1.0}, {"x": [2.0]}]}
        assert rest.post(f"{url}:regress", json=body).json() == {"results": [7.5, 8.0]}
        body = {"signature_name": "classify", "examples": [{"x": 0.0}]}
        assert rest.post(f"{url}:classify", json=body).json() == {"results": [[["low", 0.5], ["high", 0.5]]]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": 1}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [1.0, "a"]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64 element. Only int64 is supported."),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
    ],
)
def test_rest_refuses_examples(server: Server, body: dict[str, object], text: str) -> None:
    """What is no example is refused before it gets near the model."""
    url = f"{server.rest_url}/v1/models/examples:classify"
    response = httpx.post(url, json={"signature_name": "classify", **body}, timeout=20, trust_env=False)
    assert response.status_code == 400
    assert text in response.json()["error"]
