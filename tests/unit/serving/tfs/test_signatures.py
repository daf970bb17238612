"""Signatures survive the wire, and know what does not fit them."""

import numpy as np
import pytest

from serving.tfs.signatures import Signature, TensorSpec, from_proto, to_proto
from serving.tfs.tensors import Array

IMAGE = TensorSpec("image:0", np.dtype("u1"), (-1, 4, 4, 3))
TEXT = TensorSpec("text:0", np.dtype("O"), (-1,))
ANY_RANK = TensorSpec("any:0", np.dtype("f4"), None)
SCALAR = TensorSpec("scalar:0", np.dtype("f4"), ())


def test_signatures_return_as_they_went() -> None:
    """Names, types, shapes, open dimensions and open ranks come back from a SignatureDef."""
    signature = Signature(inputs={"image": IMAGE, "any": ANY_RANK}, outputs={"text": TEXT, "scalar": SCALAR})
    assert from_proto(to_proto(signature)) == signature


@pytest.mark.parametrize(
    ("array", "type_wrong", "shape_wrong"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), False, False),
        (np.zeros((2, 4, 4, 3), np.float32), True, False),
        (np.zeros((4, 4, 3), np.uint8), False, True),
        (np.zeros((2, 4, 5, 3), np.uint8), False, True),
    ],
    ids=["what fits", "another type", "another rank", "another size"],
)
def test_signatures_say_what_does_not_fit(array: Array, type_wrong: bool, shape_wrong: bool) -> None:
    """Type and shape are told apart."""
    assert (IMAGE.wrong_type(array) is not None, IMAGE.wrong_shape(array) is not None) == (type_wrong, shape_wrong)


def test_signatures_take_any_bytes_for_strings() -> None:
    """Fixed-length bytes fit a string input."""
    assert TEXT.wrong_type(np.array([b"ab"])) is None


def test_signatures_of_open_rank_take_any_shape() -> None:
    """An input of unknown rank refuses no shape."""
    assert ANY_RANK.wrong_shape(np.zeros((1, 2, 3), np.float32)) is None


def test_signatures_are_batched_only_if_everything_is() -> None:
    """One input or output without a batch dimension keeps rows from being run apart."""
    assert Signature({"image": IMAGE}, {"text": TEXT}).batched
    assert not Signature({"image": IMAGE}, {"scalar": SCALAR}).batched
    assert not Signature({"any": ANY_RANK}, {"text": TEXT}).batched
    assert not Signature({}, {"text": TEXT}).batched
