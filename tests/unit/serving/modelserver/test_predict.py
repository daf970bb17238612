"""Which tensors reach a runtime: all that fit exactly with LiteRT, all that cannot end the process with TensorFlow."""

import numpy as np
import pytest

from serving.modelserver.predict import is_heavy, question
from serving.modelserver.refusals import Refused
from serving.tfs.protos import PredictRequest, TensorProto, TensorShapeProto
from serving.tfs.signatures import Signature, TensorSpec
from serving.tfs.tensors import Array
from tests.unit.serving.modelserver.fakes import FakeModel

F4 = np.dtype("f4")


def model(*shapes: tuple[int, ...] | None, exact: bool) -> FakeModel:
    """Return a model with one input for each shape."""
    inputs = {f"x{number}": TensorSpec("", F4, shape) for number, shape in enumerate(shapes)}
    return FakeModel(
        signatures={"serving_default": Signature(inputs, {"y": TensorSpec("", F4, (-1,))})}, exact_shapes=exact
    )


def zeros(*shape: int) -> Array:
    """Return zeros."""
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("declared", "sent", "exact", "inexact"),
    [
        ((-1, 4, 4, 3), (2, 4, 4, 3), True, True),
        ((-1, 4, 4, 3), (4, 4, 3), False, False),
        ((-1, 4, 4, 3), (1, 1, 4, 4, 3), False, False),
        ((-1, 4, 4, 3), (1, 4, 4, 5), False, True),
        ((-1, 4, 3), (4, 3), False, False),
        ((-1, 1), (1,), False, True),
        ((-1,), (), False, True),
        ((-1, 2), (0, 2), False, True),
        (None, (1, 2, 3), True, True),
    ],
    ids=[
        "as declared",
        "an image without its batch: a convolution of TensorFlow's would end the process",
        "an image with a dimension too many",
        "another number of channels: the graph's to refuse",
        "three declared dimensions are held too",
        "a vector for a matrix, which the original's own tests send",
        "a scalar for a vector",
        "no rows",
        "any rank was declared",
    ],
)
def test_question_holds_shapes_as_the_runtime_needs(
    declared: tuple[int, ...] | None, sent: tuple[int, ...], exact: bool, inexact: bool
) -> None:
    """An exact runtime gets only declared shapes; another one everything but a wrong rank of three and more."""
    for held, passes in ((True, exact), (False, inexact)):
        asked = {"x0": zeros(*sent)}
        if passes:
            assert question(model(declared, exact=held), "", asked).inputs == asked
        else:
            with pytest.raises(Refused, match=r"Shape mismatch|no elements"):
                question(model(declared, exact=held), "", asked)


def test_question_counts_the_rows_that_all_inputs_share() -> None:
    """Inputs of one size make a batch; of several sizes they are refused, or run alone if the graph may take them."""
    equal, unequal = {"x0": zeros(3), "x1": zeros(3)}, {"x0": zeros(3), "x1": zeros(1)}
    exact, inexact = model((-1,), (-1,), exact=True), model((-1,), (-1,), exact=False)
    for runtime in (exact, inexact):
        found = question(runtime, "", equal)
        assert (found.rows, found.batched) == (3, True)
    alone = question(inexact, "", unequal)
    assert (alone.rows, alone.batched) == (1, False)
    with pytest.raises(Refused, match="equal 0th-dimension size"):
        question(exact, "", unequal)


def test_question_of_no_rows_has_none() -> None:
    """An empty batch counts as no rows, so that it shifts nobody's answer in a batch that it shares."""
    assert question(model((-1, 2), exact=False), "", {"x0": zeros(0, 2)}).rows == 0


def test_is_heavy_counts_no_shape_that_is_refused_anyway() -> None:
    """A shape of many huge sizes is not multiplied out, which would stop the event loop for hours."""
    dims = [TensorShapeProto.Dim(size=2**62)]
    ranked = TensorProto(dtype="DT_FLOAT", tensor_shape=TensorShapeProto(dim=dims * 64))
    beyond = TensorProto(dtype="DT_FLOAT", tensor_shape=TensorShapeProto(dim=dims * 65))
    assert is_heavy(PredictRequest(inputs={"x": ranked}))
    assert not is_heavy(PredictRequest(inputs={"x": beyond}))
