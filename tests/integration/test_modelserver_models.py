"""The models of this repository, served by the model server: golden cases, contract, heat maps."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest

from serving.tfs.client import Client
from tests import committed
from tests.contract.tfs.harness import BACKENDS, QUICK, Server, folder, request, running

MODELS = Path(__file__).parents[2] / "models"
VERSIONS = [(model, committed.version(model)) for model in ("cancer", "anemia")]


pytestmark = pytest.mark.parametrize("backend", BACKENDS, scope="module")


@pytest.fixture(scope="module")
def server(backend: str) -> Iterator[Server]:
    """Run a server with both models, as `make up` does, or as TensorFlow serves them."""
    entries = "".join(
        f'config {{ name: "{model}" base_path: "{MODELS / model}" model_platform: "tensorflow" }}'
        for model, _ in VERSIONS
    )
    with folder() as home:
        config = home / "models.config"
        config.write_text(f"model_config_list {{ {entries} }}")
        with running(f"--model_config_file={config}", *QUICK, backend=backend) as started:
            yield started


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """Connect to the server."""
    async with Client(server.address) as connected:
        yield connected


def extra(model: str, version: int, name: str) -> Path:
    """Return a file that the version carries beside its graph."""
    return MODELS / model / str(version) / "assets.extra" / name


def picture(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a golden image as both contracts want it: RGB, 224 by 224, stretched by area; a batch of one."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert bgr is not None
    fitted = cv2.resize(bgr, (224, 224), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(fitted[None, :, :, ::-1], dtype=np.uint8)


@pytest.mark.parametrize(("model", "version"), VERSIONS)
async def test_served_models_answer_their_golden_cases(client: Client, model: str, version: int) -> None:
    """Every golden case gets the probability and the out-of-distribution score that the version promises."""
    golden = json.loads(extra(model, version, "golden/cases.json").read_text())
    assert golden["cases"]
    for case in golden["cases"]:
        image = picture(extra(model, version, "golden") / case["file"])
        answer = await client.predict(model, version, "", {"image": image}, timeout_s=20)
        for output in ("probability", "ood_score"):
            assert answer.outputs[output][0] == pytest.approx(case[output], abs=golden["tolerance"]), case["file"]


@pytest.mark.parametrize(("model", "version"), VERSIONS)
async def test_served_models_tell_their_contract(client: Client, model: str, version: int) -> None:
    """The `contract` signature answers the document that lies in the version folder, and only about this version."""
    answer = await client.predict(model, None, "contract", {"n": np.zeros(1, np.int32)}, timeout_s=20)
    told = json.loads(answer.outputs["json"][0])
    assert told == json.loads(extra(model, version, "contract.json").read_text())
    assert (told["model"], told["version"], answer.version) == (model, version, version)


@pytest.mark.parametrize(("model", "version"), VERSIONS)
async def test_served_models_explain(client: Client, model: str, version: int) -> None:
    """The heat map has the contract's grid, within 0 and 1, for each image of a batch."""
    golden = json.loads(extra(model, version, "golden/cases.json").read_text())
    images = np.concatenate([picture(extra(model, version, "golden") / case["file"]) for case in golden["cases"][:3]])
    answer = await client.predict(model, None, "explain", {"image": images}, timeout_s=20)
    heat = answer.outputs["heatmap"]
    grid = json.loads(extra(model, version, "contract.json").read_text())["explain"]["grid"]
    assert heat.shape == (3, *grid)
    assert heat.min() >= 0
    assert 0 < heat.max() <= 1 + 1e-6


def test_served_models_refuse_an_image_without_its_batch(server: Server) -> None:
    """
    A tensor of rank 3 is refused, and the server lives.

    TensorFlow 2.21 would not: its convolution ends the process (tensorflow#111453).
    """
    image = np.zeros((224, 224, 3), np.uint8)
    for model, _ in VERSIONS:
        with pytest.raises(grpc.RpcError) as caught:
            server.predict(request({"image": image}, model=model))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert server.predict(request({"image": image[None]}, model=model)).outputs["probability"].float_val
    assert server.process.poll() is None
