"""The Open Inference Protocol's tensors: what a model takes, and nothing else, reaches a model server."""

import asyncio
from typing import Any

import numpy as np
import pytest

from gateway.contracts import InputSpec
from gateway.open_inference import BATCH_MAX, Inferred, SentTensor, pictures_of, version_named
from gateway.open_inference_grpc import address_in, answer_of, question_of
from gateway.open_inference_json import InferRequest, encode, parse
from gateway.open_inference_pb2 import ModelInferRequest
from gateway.problems import BadTensor, UnknownVersion
from healthguard.problems import PayloadTooLarge

SPEC = InputSpec(height=2, width=3, channels="RGB", resize="area", fit="stretch")
VALUES = list(range(18))
SHAPE = (1, 2, 3, 3)


def sent(content: Any = VALUES, **changes: Any) -> list[SentTensor]:
    """Return the inputs of a request."""
    members = {"name": "image", "datatype": "UINT8", "shape": SHAPE, "content": content} | changes
    return [SentTensor(**members)]


@pytest.mark.parametrize(
    "content", [VALUES, np.reshape(VALUES, SHAPE).tolist(), bytes(VALUES), memoryview(bytes(VALUES))], ids=type
)
def test_pictures_come_flat_nested_or_raw(content: Any) -> None:
    """All mean the same."""
    found = pictures_of(sent(content), SPEC)
    np.testing.assert_array_equal(found, np.reshape(VALUES, SHAPE))
    assert found.dtype == np.uint8


BAD = {
    "no input": [],
    "two inputs": sent() * 2,
    "another name": sent(name="picture"),
    "another type": sent(datatype="FP32"),
    "another rank": sent(shape=(2, 3, 3)),
    "another size": sent(shape=(1, 3, 2, 3)),
    "no picture": sent([], shape=(0, 2, 3, 3)),
    "too many pictures": sent(bytes(18 * (BATCH_MAX + 1)), shape=(BATCH_MAX + 1, 2, 3, 3)),
    "too few bytes": sent(bytes(17)),
    "too many bytes": sent(bytes(19)),
    "too few numbers": sent(VALUES[1:]),
    "other nesting": sent(np.reshape(VALUES, (2, 9)).tolist()),
    "ragged": sent([[0], [0, 1]]),
    "fractions": sent([0.0] * 18),
    "truth values": sent([False] * 18),
    "text": sent(["0"] * 18),
    "nothing": sent([None] * 18),
    "negative": sent([-1] * 18),
    "above 255": sent([256] * 18),
    "beyond any type": sent([10**30] * 18),
}


@pytest.mark.parametrize("name", BAD)
def test_other_tensors_are_refused(name: str) -> None:
    """Before a model server sees them."""
    with pytest.raises(BadTensor):
        pictures_of(BAD[name], SPEC)


def test_versions_are_numbers() -> None:
    """An empty one, as gRPC's clients send where they name none, is none."""
    assert version_named("") is None
    assert version_named("12") == 12
    for version in ("x", "-1", "1.0", "9" * 19, "²"):
        with pytest.raises(UnknownVersion):
            version_named(version)


def test_json_answers_as_it_was_asked() -> None:
    """Binary where that was said for the output, or for all; the id is the client's."""
    scores = {"probability": np.array([0.5], np.float32), "ood_score": np.array([2.0], np.float32)}
    request = InferRequest.model_validate(
        {
            "id": "q",
            "inputs": [{"name": "image", "shape": [1], "datatype": "UINT8"}],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "probability"}, {"name": "ood_score", "parameters": {"binary_data": False}}],
        }
    )
    body, length = encode(request, Inferred("cancer", 3, scores))
    assert length is not None
    assert body[length:] == np.float32(0.5).tobytes()
    assert b'"id":"q"' in body[:length]
    assert b'"data":[2.0]' in body[:length]
    assert encode(InferRequest(inputs=request.inputs), Inferred("cancer", 3, scores))[1] is None


def test_json_is_bounded() -> None:
    """As text, a tensor takes much more memory than as bytes."""
    with pytest.raises(PayloadTooLarge):
        asyncio.run(parse(bytes(9_000_000), None))


def test_grpc_takes_raw_or_typed_contents_and_not_both() -> None:
    """And answers in the same form."""
    raw = ModelInferRequest(raw_input_contents=[bytes(18)])
    raw.inputs.add(name="image", datatype="UINT8", shape=SHAPE)
    typed = ModelInferRequest(model_version="2", id="q")
    typed.inputs.add(name="image", datatype="UINT8", shape=SHAPE).contents.uint_contents.extend(VALUES)
    assert pictures_of(question_of(raw).inputs, SPEC).max() == 0
    assert pictures_of(question_of(typed).inputs, SPEC).max() == 17
    assert question_of(typed).version == 2
    inferred = Inferred("cancer", 3, {"probability": np.array([0.5], np.float32)})
    assert answer_of(raw, inferred).raw_output_contents == [np.float32(0.5).tobytes()]
    assert list(answer_of(typed, inferred).outputs[0].contents.fp32_contents) == [0.5]
    typed.raw_input_contents.append(bytes(18))
    raw.raw_input_contents.append(bytes(18))
    for both in (typed, raw):
        with pytest.raises(BadTensor):
            question_of(both)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:4711", "192.0.2.7"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"),
        ("unix:", "unknown"),
        ("", "unknown"),
    ],
)
def test_peers_address_is_read(peer: str, address: str) -> None:
    """API keys that nobody has seen yet are counted by it."""
    assert address_in(peer) == address
