"""Classify, Regress and MultiInference where the version runs on LiteRT: a clear no."""

from collections.abc import Iterator

import grpc
import pytest

from serving.tfs.protos import ClassificationRequest, Input, ModelSpec, MultiInferenceRequest, RegressionRequest
from tests.contract.tfs.harness import LITERT, QUICK, Server, add_version, folder, ours, running

pytestmark = ours("the original has no other runtime")


@pytest.fixture(scope="module")
def litert() -> Iterator[Server]:
    """Run a server with a LiteRT model."""
    with folder() as home:
        add_version(home / "arithmetic", 1)
        flags = (f"--model_base_path={home / 'arithmetic'}", "--model_name=arithmetic", *QUICK)
        with running(*flags, backend=LITERT) as started:
            yield started


GIVEN = Input()
GIVEN.example_list.examples.add()


@pytest.mark.parametrize("method", ["Classify", "Regress", "MultiInference"])
def test_examples_need_tensorflow(litert: Server, method: str) -> None:
    """A version on LiteRT says that it cannot, and what could."""
    requests = {
        "Classify": ClassificationRequest(model_spec=ModelSpec(name="arithmetic"), input=GIVEN),
        "Regress": RegressionRequest(model_spec=ModelSpec(name="arithmetic"), input=GIVEN),
    }
    both = MultiInferenceRequest(input=GIVEN)
    both.tasks.add(model_spec=ModelSpec(name="arithmetic"), method_name="tensorflow/serving/classify")
    with pytest.raises(grpc.RpcError) as caught:
        getattr(litert.predictions, method)(requests.get(method, both), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "needs the TensorFlow backend" in (caught.value.details() or "")
