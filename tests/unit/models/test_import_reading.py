"""What an imported network's numbers stand for, and how its pixels were scaled."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.importing import reading, scaling
from models.importing.request import CannotImport, Request


def request(**wishes: Any) -> Request:
    """Return a request of which only what is asked differs."""
    usual: dict[str, Any] = {
        "source": "a.h5",
        "task": "binary",
        "labels": ("No", "Yes"),
        "name": "m",
        "version": 1,
        "title": "M",
        "intended_use": "Tests.",
    }
    return Request(**usual | wishes)


RISK = {"task": "risk", "labels": ("LOW", "MEDIUM", "HIGH")}


@pytest.mark.parametrize(
    ("wishes", "outputs", "kind", "thresholds"),
    [
        ({}, 1, "score", (0.5,)),
        ({"thresholds": (0.4,)}, 1, "score", (0.4,)),
        ({}, 2, "pair", (0.5,)),
        ({"thresholds": (0.9,)}, 2, "pair", (0.9,)),
        (RISK, 3, "classes", (0.333333, 0.666667)),
        (RISK | {"thresholds": (0.3, 0.7)}, 1, "score", (0.3, 0.7)),
    ],
)
def test_outputs_and_labels_decide_the_reading(
    wishes: dict[str, Any], outputs: int, kind: str, thresholds: tuple[float, ...]
) -> None:
    """One number is a score, two are a pair, and more are classes."""
    found = reading.read(request(**wishes), outputs)
    assert (found.kind, found.thresholds, found.outputs) == (kind, thresholds, outputs)


@pytest.mark.parametrize(
    ("wishes", "outputs", "named"),
    [
        ({}, 3, "3 numbers"),
        (RISK, 2, "2 numbers"),
        (RISK, 1, "--thresholds"),
        (RISK | {"thresholds": (0.5,)}, 1, "--thresholds"),
        (RISK | {"thresholds": (0.3, 0.7)}, 3, "needs none"),
        ({"labels": ("A", "B", "C")}, 1, "--task risk"),
    ],
)
def test_outputs_that_do_not_fit_the_labels_are_refused(wishes: dict[str, Any], outputs: int, named: str) -> None:
    """The sentence says what does not fit, or names the option that is missing."""
    with pytest.raises(CannotImport, match=named):
        reading.read(request(**wishes), outputs)


@pytest.mark.parametrize(
    ("wishes", "named"),
    [
        ({"name": "../up"}, "--name"),
        ({"labels": ("Same", "Same")}, "--labels"),
        ({"labels": ("No", "Indeterminate")}, "--labels"),
        ({"labels": ("One",)}, "--labels"),
        ({"labels": ("No", "<b>")}, "--labels"),
        ({"thresholds": (1.0,)}, "--thresholds"),
        ({"thresholds": (0.7, 0.3)}, "--thresholds"),
        ({"thresholds": (float("nan"),)}, "--thresholds"),
        ({"input_size": (224, 4)}, "--input-size"),
        ({"recommendations": {"Maybe": "Wait."}}, "--recommend"),
        ({"recommendations": {"Yes": "a" * 501}}, "--recommend"),
        ({"intended_use": "a" * 2001}, "--intended-use"),
        ({"intended_use": ""}, "--intended-use"),
        ({"title": ""}, "--title"),
    ],
)
def test_request_that_no_contract_could_hold_is_refused(wishes: dict[str, Any], named: str) -> None:
    """Refused before the file is opened, by the name of the option."""
    with pytest.raises(CannotImport, match=named):
        request(**wishes).check()


def test_request_survives_the_way_to_the_other_process() -> None:
    """What is written is what is read, tuples included."""
    wished = request(thresholds=(0.4,), input_size=(96, 64), recommendations={"Yes": "Go."})
    assert Request.from_json(wished.to_json()) == wished


def test_sigmoid_and_softmax_keep_their_probabilities() -> None:
    """Without a temperature the score is what the source gave."""
    score = reading.Reading("score", (0.5,))
    pair = reading.Reading("pair", (0.5,))
    values = np.array([[0.1], [0.5], [0.999]])
    assert reading.scores(score, "sigmoid", values, 1.0) == pytest.approx(values[:, 0])
    both = np.concatenate([1 - values, values], -1)
    assert reading.scores(pair, "softmax", both, 1.0) == pytest.approx(values[:, 0])
    assert reading.scores(pair, "probability", both, 1.0) == pytest.approx(values[:, 0])
    assert reading.scores(score, "logit", np.log(values / (1 - values)), 1.0) == pytest.approx(values[:, 0])
    assert reading.scores(score, "probability", np.array([[-0.1], [1.2]]), 1.0) == pytest.approx([0, 1])


def test_temperature_draws_scores_towards_one_half() -> None:
    """As calibration of an overconfident network does."""
    score = reading.Reading("score", (0.5,))
    assert reading.scores(score, "sigmoid", np.array([[0.9], [0.1]]), 2.0) == pytest.approx([0.75, 0.25])


@given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=20))
def test_classes_get_the_band_of_the_likeliest(logits: list[list[float]]) -> None:
    """Whatever the network answers, the label by thresholds is its own choice."""
    values = np.array(logits)
    last = np.sort(values, axis=-1)
    clear = values[(last[:, -1] - last[:, -2]) > 1e-6]
    classes = reading.Reading("classes", (1 / 3, 2 / 3))
    score = reading.scores(classes, "logit", clear, 1.0)
    assert ((score >= 0) & (score <= 1)).all()
    assert np.searchsorted([1 / 3, 2 / 3], score, side="right").tolist() == clear.argmax(axis=-1).tolist()


def test_golden_cases_are_clear_ones() -> None:
    """A picture on the threshold would test rounding; without a clear one there is nothing to test with."""
    score = reading.Reading("score", (0.5,))
    answers = np.array([[0.5], [0.505], [0.2], [0.8]])
    assert reading.golden_choice(score, "sigmoid", answers, 1.0).tolist() == [2, 3]
    classes = reading.Reading("classes", (1 / 3, 2 / 3))
    even = np.array([[0.4, 0.4, 0.2], [0.6, 0.2, 0.2]])
    assert reading.golden_choice(classes, "softmax", even, 1.0).tolist() == [1]
    with pytest.raises(CannotImport, match="--golden"):
        reading.golden_choice(score, "sigmoid", answers[:2], 1.0)


def test_scaling_is_asked_for_where_it_cannot_be_known() -> None:
    """A network that begins with a convolution could have been fed anything."""
    with pytest.raises(CannotImport, match="--scaling"):
        scaling.choose(None, inside=False)


@pytest.mark.parametrize(
    ("asked", "inside", "quantised", "expected"),
    [
        ("caffe", True, None, "caffe"),
        (None, True, None, "none"),
        (None, False, (0.0, 1.0), "unit"),
        (None, False, (-1.0, 0.993), "symmetric"),
        (None, False, (0.0, 255.0), "none"),
    ],
)
def test_scaling_is_found_where_the_file_tells(
    asked: str | None, inside: bool, quantised: tuple[float, float] | None, expected: str
) -> None:
    """By what the person says, by the network's first operations, by the range of its first numbers."""
    assert scaling.choose(asked, inside=inside, quantised_range=quantised) == expected


def test_scaling_is_not_guessed_from_an_odd_range() -> None:
    """A range that is no known one's says nothing."""
    with pytest.raises(CannotImport):
        scaling.choose(None, inside=False, quantised_range=(-2.1, 2.6))


def test_scalings_are_those_of_keras_applications() -> None:
    """A white pixel, and red as blue where blue comes first."""
    white = np.full((1, 1, 1, 3), 255, np.uint8)
    applied = {name: scaling.apply(known, white)[0, 0, 0].tolist() for name, known in scaling.SCALINGS.items()}
    assert applied["unit"] == pytest.approx([1, 1, 1])
    assert applied["symmetric"] == pytest.approx([1, 1, 1])
    assert applied["torch"] == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    red = np.array([[[[255, 0, 0]]]], np.uint8)
    turned = scaling.apply(scaling.SCALINGS["caffe"], red)[0, 0, 0].tolist()
    assert turned == pytest.approx([-103.939, -116.779, 131.32])
