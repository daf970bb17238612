"""How requests are written: as protobuf would, whatever is in the picture."""

import numpy as np
import pytest

from serving.tfs.client import FRAMES_MAX, Client
from serving.tfs.protos import PredictRequest
from serving.tfs.tensors import Array, to_array

SHAPE = (1, 64, 64, 3)


@pytest.fixture
async def client() -> Client:
    """Return a client of nobody: nothing is sent."""
    return Client("unix:/nowhere")


def asked(request: bytes) -> tuple[str, int, str, dict[str, Array]]:
    """Return what a server reads."""
    read = PredictRequest.FromString(request)
    spec = read.model_spec
    return spec.name, spec.version.value, spec.signature_name, {name: to_array(t) for name, t in read.inputs.items()}


@pytest.mark.parametrize("first", range(0, 256, 9))
async def test_request_holds_the_picture_that_it_was_written_for(client: Client, first: int) -> None:
    """Plain pictures too, whose bytes could be taken for the message around them; and what was there before is gone."""
    for fill in (first, 255 - first):
        picture = np.full(SHAPE, fill, np.uint8)
        *spec, inputs = asked(client._written("cancer", 3, "serving_default", {"image": picture}))
        assert spec == ["cancer", 3, "serving_default"]
        np.testing.assert_array_equal(inputs["image"], picture)


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": np.zeros(SHAPE, np.uint8)[:, ::2]},
        {"image": np.zeros(SHAPE, np.float32)},
        {"n": np.zeros(1, np.int32)},
        {"one": np.ones(SHAPE, np.uint8), "other": np.zeros(SHAPE, np.uint8)},
    ],
    ids=["not in one piece", "other numbers", "small", "two inputs"],
)
async def test_request_of_another_form_is_written_as_ever(client: Client, inputs: dict[str, Array]) -> None:
    """Each arrives as it is."""
    *_, read = asked(client._written("cancer", None, "", inputs))
    assert read.keys() == inputs.keys()
    for name, array in inputs.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


async def test_forms_that_are_remembered_are_few(client: Client) -> None:
    """A caller who asks for ever other shapes does not fill the memory, and is still understood."""
    for side in range(40, 40 + FRAMES_MAX + 5):
        picture = np.full((1, side, side, 3), side, np.uint8)
        *_, read = asked(client._written("cancer", 1, "", {"image": picture}))
        np.testing.assert_array_equal(read["image"], picture)
    assert len(client._frames) == FRAMES_MAX
