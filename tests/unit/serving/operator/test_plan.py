"""
What is decided about a ServedModel, and what its conditions say: readable as documentation.

Each case is what was observed of the one pod of version 1, and the condition that tells of it.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from serving.operator.manifests import children, revision_of
from serving.operator.observe import Child, Container, Deployment, Observed, Pod, read_container
from serving.operator.plan import Plan, plan, refused
from serving.operator.spec import read
from tests.unit.serving.operator import served

NOW = "2026-11-22T10:00:00Z"
DONE = Container(succeeded=True)
RUNNING = Container(running=True)


def ended(reason: str, message: str, *, restarts: int = 0) -> Container:
    """Return a container of ours that ended and said why."""
    return Container(ended="Error", message=json.dumps({"reason": reason, "message": message}), restarts=restarts)


def observed(pod: Pod | None = None, deployment: dict[str, Any] | None = None, **changes: Any) -> Observed:
    """Return what is observed of a ServedModel with one pod; *changes* are of its spec."""
    spec = served.spec(**changes)
    revision = revision_of(children(served.OWNER, read(spec), served.settings()))
    pods = (replace(pod, revision=pod.revision or revision),) if pod else ()
    known: dict[str, Any] = {"version": 1, "revision": revision, "wanted": 1, "settled": True}
    deployments = () if deployment is None else (Deployment(**(known | deployment)),)
    return Observed(served.OWNER, 7, spec, {}, pods=pods, deployments=deployments)


def pod(**parts: Any) -> Pod:
    """Return a pod of version 1, in its newest form unless *parts* name another revision."""
    return Pod("model-cancer-v1-abc", 1, **({"revision": ""} | parts))


def serving(**parts: Any) -> Observed:
    """Return what is observed when all is well."""
    good = pod(ready=True, stager=DONE, server=RUNNING, prober=RUNNING)
    return observed(replace(good, **parts), {"updated": 1, "available": 1, "total": 1})


def decided(seen: Observed) -> Plan:
    """Return the plan for what was seen."""
    return plan(seen, served.settings(), now=NOW)


def conditions(seen: Observed) -> dict[str, dict[str, Any]]:
    """Return the conditions that are decided for what was seen, by type."""
    return {condition["type"]: condition for condition in decided(seen).status["conditions"]}


TABLE = [
    pytest.param(
        observed(),
        {"Scheduled": "Unknown", "ArtifactVerified": "Unknown", "Loaded": "Unknown", "GoldenTestPassed": "Unknown"},
        ("Ready", "NoPods", "No pod of version 1 was made yet."),
        id="a model that was just made",
    ),
    pytest.param(
        observed(None, {"refused": "exceeded quota: pods"}),
        {"Scheduled": "False", "Stalled": "True"},
        ("Ready", "PodsRefused", "Pods of version 1 may not be made: exceeded quota: pods"),
        id="pods that a quota forbids",
    ),
    pytest.param(
        observed(
            pod(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            resources={"limits": {"nvidia.com/gpu": 1}},
        ),
        {"Scheduled": "False", "Reconciling": "True", "Stalled": "False"},
        (
            "Ready",
            "InsufficientGPU",
            "No node takes a pod of version 1. The scheduler says: 0/3 nodes are available: 3 Insufficient "
            "nvidia.com/gpu. Each pod asks for nvidia.com/gpu: 1. Add a node that has it free (its device plugin must "
            "run there), free one, or ask for less in spec.resources.limits.",
        ),
        id="a GPU that no node has free",
    ),
    pytest.param(
        observed(
            pod(unschedulable="0/3 nodes are available: 3 Insufficient cpu."),
            resources={"limits": {"nvidia.com/gpu": 1}},
        ),
        {"Scheduled": "False"},
        (
            "Scheduled",
            "Unschedulable",
            "No node takes a pod of version 1. The scheduler says: 0/3 nodes are available: 3 Insufficient cpu. Look "
            "at spec.resources, spec.nodeSelector and spec.tolerations, and at the claim that storageUri names.",
        ),
        id="a pod with a GPU that lacks something else",
    ),
    pytest.param(
        observed(pod(stager=RUNNING)),
        {"Scheduled": "True", "ArtifactVerified": "Unknown", "Reconciling": "True"},
        ("Ready", "Staging", "Version 1 is not fetched and checked yet."),
        id="a version that is being fetched",
    ),
    pytest.param(
        observed(pod(stager=ended("DigestMismatch", "the files have another digest", restarts=3))),
        {"ArtifactVerified": "False", "Loaded": "Unknown", "Stalled": "True", "Reconciling": "False"},
        ("ArtifactVerified", "DigestMismatch", "Version 1 is not served: the files have another digest."),
        id="a version with a flipped byte",
    ),
    pytest.param(
        observed(pod(stager=ended("NotFound", "there is nothing yet"))),
        {"ArtifactVerified": "False", "Stalled": "False", "Reconciling": "True"},
        ("Ready", "NotFound", "Version 1 is not served: there is nothing yet."),
        id="a claim that is still being filled",
    ),
    pytest.param(
        observed(pod(stager=Container(waiting="ErrImagePull"))),
        {"ArtifactVerified": "False", "Stalled": "False"},
        (
            "Ready",
            "ImageNotPulled",
            "The image of the stager cannot be pulled (ErrImagePull): look at its name and the pull secrets.",
        ),
        id="an operator's image that is not there",
    ),
    pytest.param(
        observed(pod(stager=DONE, server=RUNNING, prober=RUNNING)),
        {"ArtifactVerified": "True", "Loaded": "Unknown"},
        ("Ready", "Loading", "No server has version 1 available yet."),
        id="a server that is loading",
    ),
    pytest.param(
        observed(pod(stager=DONE, server=Container(waiting="CreateContainerConfigError"))),
        {"Loaded": "False"},
        (
            "Loaded",
            "ContainerNotStarted",
            "The server cannot be started (CreateContainerConfigError): `kubectl describe pod "
            "model-cancer-v1-abc` says why.",
        ),
        id="a server that the kubelet cannot start",
    ),
    pytest.param(
        observed(pod(stager=DONE, server=Container(ended="Error", message="line 1\nno such op", restarts=1))),
        {"Loaded": "False", "Stalled": "False", "Reconciling": "True"},
        ("Loaded", "LoadFailed", "The server of version 1 ended by itself, once; its last words: line 1 no such op"),
        id="a server that ended once",
    ),
    pytest.param(
        observed(pod(stager=DONE, server=Container(ended="Error", message="no such op", restarts=3))),
        {"Loaded": "False", "Stalled": "True"},
        ("Ready", "LoadFailed", "The server of version 1 ended by itself, 3 times; its last words: no such op"),
        id="a server that ends again and again",
    ),
    pytest.param(
        observed(pod(stager=DONE, server=Container(ended="OOMKilled", restarts=1))),
        {"Loaded": "False"},
        (
            "Loaded",
            "OutOfMemory",
            "The server of version 1 needed more memory than it may have: raise spec.resources.limits.memory.",
        ),
        id="a server that needs more memory",
    ),
    pytest.param(
        observed(
            pod(
                stager=DONE,
                server=RUNNING,
                prober=ended("LoadFailed", "the server could not load the version: bad graph"),
            )
        ),
        {"Loaded": "False", "GoldenTestPassed": "Unknown", "Stalled": "True"},
        ("Loaded", "LoadFailed", "Version 1 gets no requests: the server could not load the version: bad graph."),
        id="a version that the server refuses",
    ),
    pytest.param(
        observed(pod(stager=DONE, server=RUNNING, prober=ended("GoldenTestFailed", "probability is 0.2 away"))),
        {"Loaded": "True", "GoldenTestPassed": "False", "TrafficReady": "False", "Stalled": "True"},
        ("GoldenTestPassed", "GoldenTestFailed", "Version 1 gets no requests: probability is 0.2 away."),
        id="a server that answers a golden case wrongly",
    ),
    pytest.param(
        observed(pod(stager=DONE, server=RUNNING, prober=Container(running=True, ended="OOMKilled"))),
        {"GoldenTestPassed": "False", "Stalled": "False", "Reconciling": "True"},
        ("GoldenTestPassed", "ProberFailed", "Version 1 gets no requests: its container left no message."),
        id="a prober that was killed",
    ),
    pytest.param(
        observed(pod(ready=True, stager=DONE), {"wanted": 1, "updated": 1, "total": 2, "available": 2}),
        {"TrafficReady": "True", "Ready": "False", "Reconciling": "True"},
        ("Ready", "RollingOut", "2 of 1 pods of version 1 are available in their newest form."),
        id="an old pod that is still there",
    ),
    pytest.param(
        observed(pod(ready=True, stager=DONE), {"wanted": 3, "updated": 3, "total": 3, "available": 3}),
        {"Ready": "False"},
        ("Ready", "RollingOut", "0 of 1 pods of version 1 are available in their newest form."),
        id="a Deployment that has not heard of the newest spec",
    ),
    pytest.param(
        observed(pod(ready=True, revision="before"), {"revision": "before", "updated": 1, "total": 1, "available": 1}),
        {"TrafficReady": "True", "Ready": "False", "Reconciling": "True", "Stalled": "False"},
        ("Ready", "NoPods", "No pod of version 1 was made yet."),
        id="a Deployment of the form before, complete as such",
    ),
    pytest.param(
        observed(pod(ready=True, stager=DONE), {"revision": "before", "updated": 1, "total": 1, "available": 1}),
        {"Ready": "False", "Reconciling": "True"},
        ("Ready", "RollingOut", "0 of 1 pods of version 1 are available in their newest form."),
        id="a Deployment whose numbers are of the form before",
    ),
    pytest.param(
        serving(),
        {
            "Scheduled": "True",
            "ArtifactVerified": "True",
            "Loaded": "True",
            "GoldenTestPassed": "True",
            "TrafficReady": "True",
            "VersionsServed": "True",
            "Ready": "True",
            "Reconciling": "False",
            "Stalled": "False",
        },
        ("Ready", "Serving", "1 pod serves version 1."),
        id="a model that is served",
    ),
    pytest.param(
        serving(server=Container(running=True, ended="Error", restarts=4)),
        {"Ready": "True", "Loaded": "True"},
        ("TrafficReady", "EndpointsReady", "1 pod takes requests for version 1 at model-cancer-v1.clinic.svc:8500."),
        id="a server that died and is well again",
    ),
]


@pytest.mark.parametrize(("seen", "statuses", "words"), TABLE)
def test_plan_tells(seen: Observed, statuses: dict[str, str], words: tuple[str, str, str]) -> None:
    """Each condition's status, and one condition's reason and message word for word."""
    found = conditions(seen)
    assert {kind: found[kind]["status"] for kind in statuses} == statuses
    kind, reason, message = words
    assert (found[kind]["reason"], found[kind]["message"]) == (reason, message)


@pytest.mark.parametrize("seen", [case.values[0] for case in TABLE], ids=[case.id for case in TABLE])
def test_plan_says_exactly_one_of_ready_reconciling_stalled(seen: Observed) -> None:
    """kstatus, and so `helm --wait`, never sees two of them, nor none; every condition tells its generation."""
    found = conditions(seen)
    assert [found[kind]["status"] for kind in ("Ready", "Reconciling", "Stalled")].count("True") == 1
    assert {condition["observedGeneration"] for condition in found.values()} == {7}


def test_plan_applies_all_objects_pods_last() -> None:
    """Whatever is seen, all objects of the stable version are to be there."""
    kinds = [manifest["kind"] for manifest in decided(observed()).apply]
    assert kinds == ["ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment"]


def test_plan_is_idempotent() -> None:
    """Deciding again about what was decided changes nothing, not even a time."""
    first = decided(serving())
    again = plan(replace(serving(), status=first.status), served.settings(), now="2030-01-01T00:00:00Z")
    assert again == first


def test_plan_keeps_the_time_of_a_condition_that_stays() -> None:
    """lastTransitionTime moves with the status only."""
    before = decided(observed()).status
    seen = replace(serving(), status=before)
    later = plan(seen, served.settings(), now="2030-01-01T00:00:00Z").status["conditions"]
    times = {condition["type"]: condition["lastTransitionTime"] for condition in later}
    assert times["Ready"] == "2030-01-01T00:00:00Z"
    assert times["Stalled"] == NOW


def test_plan_touches_nothing_that_belongs_to_somebody_else() -> None:
    """A name that is taken is told, and nothing is applied."""
    made = decided(replace(serving(), foreign=(Child("Service", "model-cancer-v1", "u"),)))
    assert (made.apply, made.delete) == ((), ())
    ready = made.status["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "NameTaken")
    assert made.again_s is not None


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"versions": []}, id="no version"),
        pytest.param(None, id="no spec"),
        pytest.param(
            served.spec(versions=[{"version": 1, "storageUri": "pvc://models/../x", "digest": served.DIGEST}]),
            id="a path that leads out",
        ),
    ],
)
def test_plan_changes_nothing_for_a_spec_that_it_does_not_understand(spec: Any) -> None:
    """What the API server should have refused is told, and what runs goes on."""
    made = decided(replace(serving(), spec=spec))
    assert (made.apply, made.delete) == ((), ())
    assert {c["type"]: c["status"] for c in made.status["conditions"]} == {
        "Ready": "False",
        "Reconciling": "False",
        "Stalled": "True",
    }


def test_plan_tells_versions_that_are_not_in_traffic() -> None:
    """More versions may be listed than are served; those have no pods, and that is as it should be."""
    more = [{"version": n, "storageUri": f"pvc://models/cancer/{n}", "digest": served.DIGEST} for n in (1, 2, 3)]
    seen = observed(pod(stager=RUNNING), versions=more)
    states = {entry["version"]: entry["state"] for entry in decided(seen).status["versions"]}
    assert states == {1: "Staging", 2: "NotServed", 3: "NotServed"}


def test_plan_remembers_the_last_failure() -> None:
    """A failure stays in the status when all is well again, with the time at which it was first seen."""
    failing = observed(pod(stager=ended("DigestMismatch", "changed")))
    first = decided(failing).status
    assert first["lastFailure"] == {
        "reason": "DigestMismatch",
        "message": "Version 1 is not served: changed.",
        "time": NOW,
        "pod": "model-cancer-v1-abc",
        "version": 1,
    }
    again = plan(replace(failing, status=first), served.settings(), now="2030-01-01T00:00:00Z").status
    assert again["lastFailure"] == first["lastFailure"]
    assert decided(replace(serving(), status=first)).status["lastFailure"] == first["lastFailure"]


def test_plan_counts_old_pods_as_traffic_but_not_as_news() -> None:
    """A pod of the form before still answers; what the newest pods failed at is told all the same."""
    old = pod(ready=True, revision="before")
    new = pod(stager=ended("NotFound", "nothing there"))
    seen = observed(new, {})
    found = conditions(replace(seen, pods=(*seen.pods, old)))
    assert (found["TrafficReady"]["status"], found["ArtifactVerified"]["reason"]) == ("True", "NotFound")


def test_refusals_of_the_api_server_are_told() -> None:
    """What could not be applied is named, with the API server's reason."""
    seen = serving()
    status = refused(seen, decided(seen), "Service model-cancer-v1", "quota exceeded", now=NOW)
    ready = {condition["type"]: condition for condition in status["conditions"]}["Ready"]
    assert ready["reason"] == "ApplyRefused"
    assert "Service model-cancer-v1: quota exceeded" in ready["message"]


def test_a_container_between_two_starts_tells_how_it_ended() -> None:
    """The kubelet moves the end to lastState while the container waits to be started again."""
    entry = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "why"}},
        "restartCount": 2,
    }
    assert read_container(entry) == Container(waiting="CrashLoopBackOff", ended="Error", message="why", restarts=2)
