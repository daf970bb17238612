"""What every backend promises, over the fake that other tests use and over the real one."""

import threading
from pathlib import Path

import numpy as np
import pytest

from serving.modelserver import litert
from serving.modelserver.backend import LoadedModel
from serving.modelserver.refusals import Refused
from serving.tfs.tensors import Array
from tests.unit.serving.modelserver.fakes import FakeModel

ARITHMETIC = Path(__file__).parents[3] / "contract" / "tfs" / "fixtures" / "arithmetic.tflite"
INSTANCES = 2


@pytest.fixture(params=["fake", "litert"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    """Return a model whose default signature doubles `x` into `y`, with two instances."""
    if request.param == "fake":
        return FakeModel()
    (tmp_path / "model.tflite").write_bytes(ARITHMETIC.read_bytes())
    return litert.load(tmp_path, INSTANCES)


def rows(model: LoadedModel, count: int) -> Array:
    """Return an input of *count* different rows, of the row shape that the model takes."""
    shape = model.signatures["serving_default"].inputs["x"].shape or ()
    return np.arange(count * int(np.prod(shape[1:])), dtype=np.float32).reshape(count, *shape[1:])


@pytest.mark.parametrize("count", [1, 2, 7, 50_000])
def test_backend_answers_any_number_of_rows(model: LoadedModel, count: int) -> None:
    """Each row gets its answer, in its place, with the type that the signature says."""
    x = rows(model, count)
    for _ in range(2):
        answer = model.run(0, "serving_default", {"x": x})["y"]
        assert answer.dtype == model.signatures["serving_default"].outputs["y"].dtype
        np.testing.assert_array_equal(answer, x * 2)


def test_backend_runs_its_instances_at_the_same_time(model: LoadedModel) -> None:
    """Two workers that run at once do not disturb each other."""
    wrong: list[int] = []

    def work(worker: int) -> None:
        for count in range(1, 60):
            x = rows(model, count) + worker
            if not np.array_equal(model.run(worker, "serving_default", {"x": x})["y"], x * 2):
                wrong.append(count)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(INSTANCES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_litert_bounds_the_memory_of_a_large_batch() -> None:
    """Rows run in slices of bounded bytes, at least one row each, and none is lost."""
    images = np.zeros((5, 400, 400, 3), np.uint8)
    parts = litert._slices({"image": images})
    assert [len(part["image"]) for part in parts] == [1] * 5
    small = np.zeros((litert.SLICE_BYTES // 4 * 2 + 1, 1), np.float32)
    assert [len(part["x"]) for part in litert._slices({"x": small})] == [litert.SLICE_BYTES // 4] * 2 + [1]


@pytest.mark.parametrize("content", [None, b"", b"not a model"], ids=["no file", "an empty file", "another file"])
def test_litert_refuses_what_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    """A folder without a usable model is refused, never crashed on."""
    if content is not None:
        (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(Refused):
        litert.load(tmp_path, 1)


def test_litert_refuses_flipped_bits_or_serves_them_without_a_crash(tmp_path: Path) -> None:
    """A file whose structure is damaged is refused by its check, wherever the damage is."""
    whole = ARITHMETIC.read_bytes()
    random = np.random.default_rng(7)
    refused = 0
    for _ in range(20):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), 200):
            damaged[at] ^= 0xFF
        (tmp_path / "model.tflite").write_bytes(bytes(damaged))
        try:
            litert.load(tmp_path, 1)
        except Refused:
            refused += 1
    assert refused > 15
