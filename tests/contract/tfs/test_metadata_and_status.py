"""GetModelMetadata and GetModelStatus, as TensorFlow Serving answers and refuses them."""

import grpc
import pytest

from serving.tfs.protos import DataType, GetModelMetadataRequest, GetModelStatusRequest, ModelSpec, SignatureDefMap
from tests.contract.tfs.harness import Server, both_backends

pytestmark = both_backends

SPEC = ModelSpec(name="arithmetic")


def test_metadata_describes_every_signature(server: Server) -> None:
    """The answer holds the model, its version, and each signature's names, types and shapes."""
    asked = GetModelMetadataRequest(model_spec=SPEC, metadata_field=["signature_def"])
    answer = server.predictions.GetModelMetadata(asked, timeout=20)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("arithmetic", 2)
    found = SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    assert set(found.signature_def) == {"serving_default", "pair", "brightness", "text", "fixed", "slow"}
    brightness = found.signature_def["brightness"]
    assert brightness.method_name == "tensorflow/serving/predict"
    assert brightness.inputs["image"].dtype == DataType.DT_UINT8
    assert [dim.size for dim in brightness.inputs["image"].tensor_shape.dim] == [-1, 4, 4, 3]
    assert found.signature_def["text"].outputs["json"].dtype == DataType.DT_STRING


METADATA_REFUSALS = {
    "no model_spec": (
        GetModelMetadataRequest(metadata_field=["signature_def"]),
        "INVALID_ARGUMENT",
        "Missing ModelSpec",
    ),
    "no field": (
        GetModelMetadataRequest(model_spec=SPEC),
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    "an unknown field": (
        GetModelMetadataRequest(model_spec=SPEC, metadata_field=["graph"]),
        "INVALID_ARGUMENT",
        "Metadata field graph is not supported",
    ),
    "an unknown model": (
        GetModelMetadataRequest(model_spec=ModelSpec(name="other"), metadata_field=["signature_def"]),
        "NOT_FOUND",
        "Servable not found for request: Latest(other)",
    ),
}


@pytest.mark.parametrize(("refused", "code", "details"), METADATA_REFUSALS.values(), ids=METADATA_REFUSALS.keys())
def test_metadata_refuses(server: Server, refused: GetModelMetadataRequest, code: str, details: str) -> None:
    """Each wrong request gets TensorFlow Serving's code and text."""
    with pytest.raises(grpc.RpcError) as caught:
        server.predictions.GetModelMetadata(refused, timeout=20)
    assert (caught.value.code().name, caught.value.details()) == (code, details)


def test_status_lists_every_version(server: Server) -> None:
    """Both versions are AVAILABLE, without an error."""
    assert server.states() == {1: ("AVAILABLE", 0), 2: ("AVAILABLE", 0)}


def test_status_of_one_version_is_alone(server: Server) -> None:
    """A version in the request narrows the answer to it."""
    asked = GetModelStatusRequest(model_spec=SPEC)
    asked.model_spec.version.value = 1
    answer = server.models.GetModelStatus(asked, timeout=20)
    assert [each.version for each in answer.model_version_status] == [1]


@pytest.mark.parametrize(
    ("name", "version", "details"),
    [
        ("other", None, "Could not find any versions of model other"),
        ("arithmetic", 7, "Could not find version 7 of model arithmetic"),
    ],
    ids=["an unknown model", "an unknown version"],
)
def test_status_refuses(server: Server, name: str, version: int | None, details: str) -> None:
    """What was never there is NOT_FOUND, in TensorFlow Serving's words."""
    asked = GetModelStatusRequest(model_spec=ModelSpec(name=name))
    if version is not None:
        asked.model_spec.version.value = version
    with pytest.raises(grpc.RpcError) as caught:
        server.models.GetModelStatus(asked, timeout=20)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, details)
