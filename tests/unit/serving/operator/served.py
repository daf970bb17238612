"""ServedModels for the operator's tests: whole and valid, each part replaceable."""

from typing import Any

from serving.operator.manifests import Owner
from serving.operator.settings import OperatorSettings

DIGEST = "sha256:" + "ab" * 32
OWNER = Owner("cancer", "clinic", "0d9f3c1e-0000-4000-8000-000000000001")


def settings(**changes: Any) -> OperatorSettings:
    """Return the settings of an operator."""
    images: dict[str, Any] = {
        "image": "registry.test/operator:1",
        "modelserver_image": "registry.test/modelserver:1",
        "tensorflow_serving_image": "registry.test/serving:1",
        "tensorflow_serving_gpu_image": "registry.test/serving:1-gpu",
    }
    return OperatorSettings(**(images | changes))


def spec(**changes: Any) -> dict[str, Any]:
    """Return the spec of a ServedModel with version 1."""
    version = {"version": 1, "storageUri": "pvc://models/cancer/1", "digest": DIGEST}
    return {"versions": [version], "traffic": {"stable": 1}} | changes
