"""What Kubernetes' objects mean to the gateway."""

from typing import Any

import pytest

from gateway.cluster import BadObject, endpoints_of, read, traffic_of
from gateway.discovery import Endpoint
from gateway.kubernetes import Collection, Expired, Refused
from gateway.traffic import Canary, Shadow, Traffic


def served_model(name: str = "cancer", *, status: dict[str, Any] | None = None, **traffic: Any) -> dict[str, Any]:
    """Return a ServedModel."""
    return {
        "metadata": {"name": name, "resourceVersion": "7"},
        "spec": {"traffic": {"stable": 1} | traffic},
        "status": status or {},
    }


def entry(address: str, **conditions: bool) -> dict[str, Any]:
    """Return an endpoint of a slice."""
    return {"addresses": [address], "conditions": conditions}


def endpoint_slice(*endpoints: dict[str, Any], version: int = 1, family: str = "IPv4") -> dict[str, Any]:
    """Return an EndpointSlice of the operator's Service for a version of the model cancer."""
    labels = {
        "kubernetes.io/service-name": f"model-cancer-v{version}",
        "serving.healthguard.io/model": "cancer",
        "serving.healthguard.io/version": str(version),
    }
    return {
        "metadata": {"name": "x", "namespace": "clinic", "labels": labels},
        "addressType": family,
        "ports": [{"name": "prober", "port": 8080}, {"name": "grpc", "port": 8500}],
        "endpoints": list(endpoints),
    }


def addresses(*slices: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return the addresses found, and whether each is leaving."""
    return [(found.address, found.leaving) for found in endpoints_of(slices)]


def test_models_are_declared_with_the_endpoints_of_each_version() -> None:
    """The name that a certificate must have is the Service's."""
    model = served_model(canary={"version": 2, "percent": 10}, shadow={"version": 3})
    slices = [endpoint_slice(entry("10.0.0.1")), endpoint_slice(entry("10.0.0.2"), version=2)]
    (declared,) = read([model], slices).models
    assert declared.traffic == Traffic(1, Canary(2, 10.0), Shadow(3, 100.0))
    assert declared.endpoints == {
        1: (Endpoint("10.0.0.1:8500", "model-cancer-v1.clinic.svc"),),
        2: (Endpoint("10.0.0.2:8500", "model-cancer-v2.clinic.svc"),),
        3: (),
    }


def test_rollout_says_the_canarys_share_of_the_moment() -> None:
    """Also that it is none, once it was taken back."""
    canary = {"version": 2, "percent": 50, "sticky": True}
    for percent in (5, 0):
        model = served_model(canary=canary, status={"rollout": {"version": 2, "canaryPercent": percent}})
        assert traffic_of(model).canary == Canary(2, percent, sticky=True)
    assert traffic_of(served_model(canary=canary)).canary == Canary(2, 50, sticky=True)


def test_rollout_of_another_canary_says_nothing() -> None:
    """The share of the canary before does not fall to the next one, which gets none until the operator says so."""
    promoted = {"rollout": {"version": 2, "canaryPercent": 100}}
    model = served_model(canary={"version": 3, "percent": 50}, status=promoted)
    model["spec"]["rollout"] = {"steps": [5]}
    assert traffic_of(model).canary == Canary(3, 0)


def test_version_that_is_to_answer_next_is_connected_to_before() -> None:
    """When the operator says that it answers, there must be no moment in which nobody does."""
    slices = [endpoint_slice(entry("10.0.0.1")), endpoint_slice(entry("10.0.0.7"), version=7)]
    (declared,) = read([served_model(status={"answering": 7})], slices).models
    assert declared.traffic == Traffic(7)
    assert declared.endpoints.keys() == {1, 7}


def test_version_before_answers_until_the_operator_says_otherwise() -> None:
    """A new stable version has no servers yet; a canary that was promoted is the one that answers, and none beside."""
    model = served_model(canary={"version": 2, "percent": 50}, status={"answering": 2})
    assert traffic_of(model) == Traffic(2)
    assert traffic_of(served_model(status={"answering": 7})).stable == 7


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [("10.0.0.1:8500", False)]),
        ({"ready": True}, [("10.0.0.1:8500", False)]),
        ({"ready": False}, []),
        ({"ready": False, "serving": True, "terminating": True}, [("10.0.0.1:8500", True)]),
        ({"ready": False, "serving": False, "terminating": True}, []),
        ({"ready": False, "serving": False, "terminating": False}, []),
    ],
    ids=["unknown", "ready", "not ready", "leaving", "gone", "starting"],
)
def test_conditions_say_what_may_be_sent(conditions: dict[str, bool], expected: list[tuple[str, bool]]) -> None:
    """A pod that is about to end still answers what is in flight."""
    assert addresses(endpoint_slice(entry("10.0.0.1", **conditions))) == expected


def test_pod_of_two_families_counts_once() -> None:
    """IPv4 first; IPv6 alone is bracketed."""
    four, six = endpoint_slice(entry("10.0.0.1")), endpoint_slice(entry("fd00::1"), family="IPv6")
    assert addresses(four, six) == [("10.0.0.1:8500", False)]
    assert addresses(six) == [("[fd00::1]:8500", False)]
    assert endpoints_of([six])[0].verified_name == "model-cancer-v1.clinic.svc"


def test_address_in_two_slices_counts_once() -> None:
    """Who says that it is well is believed, in whatever order they come."""
    old = endpoint_slice(entry("10.0.0.1", ready=False, serving=True, terminating=True))
    new = endpoint_slice(entry("10.0.0.1", ready=True))
    assert addresses(old, new) == addresses(new, old) == [("10.0.0.1:8500", False)]


def test_slice_without_endpoints_is_empty() -> None:
    """As the API server writes it: null."""
    nothing = endpoint_slice() | {"endpoints": None}
    assert addresses(nothing) == []


@pytest.mark.parametrize(
    "wrong",
    [{"metadata": {"name": "x"}}, {"metadata": {"name": "x"}, "spec": {"traffic": {"stable": "one"}}}],
    ids=["no spec", "no number"],
)
def test_model_of_another_form_stays_as_it_was(wrong: dict[str, Any]) -> None:
    """And keeps none of the others from changing; one that was never known is not served."""
    before = read([served_model("x"), served_model()], []).models
    after = read([wrong, served_model()], [endpoint_slice(entry("10.0.0.1"))], before)
    assert after.models[0] is before[0]
    assert after.models[1].endpoints[1] != ()
    assert after.refused == ["x"]
    assert [model.name for model in read([wrong, served_model()], []).models] == ["cancer"]


@pytest.mark.parametrize("part", ["ports", "metadata", "addressType"])
def test_slice_of_another_form_names_nobody(part: str) -> None:
    """Whoever makes a slice by hand and forgets a label takes no model down."""
    wrong = endpoint_slice(entry("10.0.0.9"))
    wrong[part] = [] if part == "ports" else {} if part == "metadata" else None
    found = read([served_model()], [wrong, endpoint_slice(entry("10.0.0.1"))])
    assert [one.address for one in found.models[0].endpoints[1]] == ["10.0.0.1:8500"]


def event(kind: str, name: str = "cancer", version: str = "8", **more: Any) -> dict[str, Any]:
    """Return an event of a watch."""
    return {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}} | more}


def test_watch_events_change_what_is_known() -> None:
    """Added, changed, removed; a bookmark only moves the place from which to be told."""
    collection = Collection("/x")
    assert collection.take(event("ADDED"))
    assert collection.take(event("MODIFIED", version="9", spec=1))
    assert collection.objects["cancer"]["spec"] == 1
    assert not collection.take({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "12"}}})
    assert collection.version == "12"
    assert collection.take(event("DELETED", version="13"))
    assert (collection.objects, collection.version) == ({}, "13")


@pytest.mark.parametrize(("code", "error"), [(410, Expired), (500, Refused)])
def test_watch_error_ends_the_watch(code: int, error: type[Exception]) -> None:
    """A place that is no longer known is told apart: a list is due then, and no alarm."""
    with pytest.raises(error):
        Collection("/x").take({"type": "ERROR", "object": {"code": code}})


@pytest.mark.parametrize("line", [{}, [], {"type": "ADDED"}, {"type": "ADDED", "object": {"metadata": {}}}], ids=str)
def test_watch_line_that_is_no_event_is_refused(line: Any) -> None:
    """What is not understood is not skipped: something may have been missed."""
    with pytest.raises(BadObject):
        Collection("/x").take(line)
