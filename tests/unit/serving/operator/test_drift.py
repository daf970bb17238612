"""An object is written again where it is not as it was applied, and only there."""

import copy
from typing import Any

import pytest

from serving.operator.drift import stamped, stands

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "a", "labels": {"model": "cancer"}},
    "spec": {"selector": {"model": "cancer"}, "ports": [{"name": "grpc", "port": 8500}], "egress": []},
}


def kept(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest as the API server lists it: with defaults, without kind and what is empty."""
    found = copy.deepcopy(stamped(manifest))
    del found["apiVersion"], found["kind"]
    found["metadata"] |= {"uid": "1", "managedFields": []}
    found["spec"]["ports"][0]["protocol"] = "TCP"
    found["spec"]["type"] = "ClusterIP"
    del found["spec"]["egress"]
    return found


def test_object_with_defaults_stands() -> None:
    """What the API server adds is its own business."""
    assert stands(stamped(SERVICE), kept(SERVICE))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("metadata", "labels", "model"), "other", id="a label"),
        pytest.param(("spec", "ports", 0, "port"), 80, id="a port"),
        pytest.param(("spec", "selector"), {}, id="a selector that is gone"),
        pytest.param(("spec", "ports"), [], id="a list that is shorter"),
        pytest.param(("spec", "selector"), "text", id="something else altogether"),
    ],
)
def test_object_that_somebody_changed_does_not_stand(path: tuple[Any, ...], value: Any) -> None:
    """Whatever of ours is otherwise is set right."""
    found = kept(SERVICE)
    inner: Any = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not stands(stamped(SERVICE), found)


def test_object_with_a_field_that_we_no_longer_name_does_not_stand() -> None:
    """All that we name stands, and yet there is more of ours than we want: the digest tells."""
    fewer = copy.deepcopy(SERVICE)
    del fewer["spec"]["selector"]
    assert not stands(stamped(fewer), kept(SERVICE))


def test_object_that_is_not_there_does_not_stand() -> None:
    """It is made."""
    assert not stands(stamped(SERVICE), {})


def test_quantities_are_the_same_as_text() -> None:
    """The API server writes a number of devices as text."""
    assert stands({"spec": {"gpu": 1}}, {"spec": {"gpu": "1"}})
