"""Convolutions in 8 bits: really stored so, nothing else touched, and never in place of a version that is there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from models import __main__ as command
from models import artifact, exam, golden, int8
from models.catalog import PURPOSES
from models.importing.litert_edit import code_of, parse
from models.phantoms import dataset

MODELS = Path(artifact.__file__).parent
OPERATORS = schema.BuiltinOperator


def weights(content: bytes, operator: int) -> list[Any]:
    """Return the tensors that every *operator* of a LiteRT file multiplies with."""
    model = parse(content)
    return [
        subgraph.tensors[operation.inputs[1]]
        for subgraph in model.subgraphs
        for operation in subgraph.operators
        if code_of(model, operation) == operator
    ]


@pytest.fixture(scope="module", params=sorted(PURPOSES))
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Return a model's name, its committed LiteRT file, and that file in 8 bits."""
    whole = exam.newest(MODELS, request.param) / "model.tflite"
    made = tmp_path_factory.mktemp("int8") / "model.tflite"
    made.write_bytes(int8.with_int8_convolutions(whole.read_bytes()))
    return request.param, whole, made


def test_kernels_are_int8_and_the_rest_is_float(files: tuple[str, Path, Path]) -> None:
    """Every large kernel is int8 with a scale for each channel; the matrices that decide refusal stay float."""
    _, whole, made = files
    content = made.read_bytes()
    large = [kernel for kernel in weights(content, OPERATORS.CONV_2D) if np.prod(kernel.shape) >= int8.VALUES_MIN]
    assert len(large) >= 10
    assert {kernel.type for kernel in large} == {schema.TensorType.INT8}
    assert all(len(kernel.quantization.scale) == kernel.shape[0] for kernel in large)
    assert {tensor.type for tensor in weights(content, OPERATORS.FULLY_CONNECTED)} == {schema.TensorType.FLOAT32}
    saved = sum(int(np.prod(kernel.shape)) for kernel in large) // 2 * 3  # both signatures share each kernel
    assert len(content) < whole.stat().st_size - 0.9 * saved


def test_answers_stay_near_and_familiar_images_stay_so(files: tuple[str, Path, Path]) -> None:
    """On fresh phantoms scores hardly move, and not one more in ten is refused; of distances in 8 bits it was seven."""
    model, whole, made = files
    images = dataset(model, 24, seed=exam.SEEDS_FROM + 11, side_px=224).images
    expected, found = (exam.litert(path)("serving_default", images) for path in (whole, made))
    assert found["probability"].dtype == found["ood_score"].dtype == np.float32
    assert np.abs(expected["probability"] - found["probability"]).max() <= int8.TOLERANCE
    assert np.abs(expected["probability"] - found["probability"]).max() > 0
    assert np.median(np.abs(expected["ood_score"] - found["ood_score"])) <= int8.TOLERANCE / 2


def test_rounding_is_by_half_a_step_at_most() -> None:
    """Each channel has its own step; one of zeros stays zero."""
    kernel: NDArray[np.float32] = np.random.default_rng(1).normal(size=(4, 3, 3, 8)).astype(np.float32)
    kernel *= np.array([1e-3, 1, 50, 0], np.float32)[:, None, None, None]
    values, step = int8.quantised(kernel)
    assert values.dtype == np.int8
    assert np.abs(values[:3]).max(axis=(1, 2, 3)).tolist() == [127] * 3
    assert (np.abs(values * step[:, None, None, None] - kernel) <= 0.501 * step[:, None, None, None]).all()
    assert not values[3].any()


def test_golden_cases_keep_their_class_within_the_tolerance() -> None:
    """A case lies farther from every threshold than 8 bits may move it."""
    assert int8.TOLERANCE < golden.MARGIN


@pytest.mark.parametrize("verb", ["make", "export"])
def test_version_that_is_there_is_not_replaced(verb: str, tmp_path: Path) -> None:
    """In 8 bits a version would answer otherwise under the same number: that ends before anything is done."""
    there = exam.newest(tmp_path, "anemia")
    there.mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"anemia: version \d+ is there already"):
        command.main([verb, "--int8", "--home", str(tmp_path), "--build", str(tmp_path / "none")])
    assert list(there.iterdir()) == []
