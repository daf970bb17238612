"""
What is decided about a ServedModel with several versions: who answers, who has pods, and what may go.

Each test is a moment in a model's life; together they tell how one version follows another.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from serving.operator.gates import Measured
from serving.operator.gateways import Look
from serving.operator.hpa import Autoscaler
from serving.operator.observe import Child, Container, Observed
from serving.operator.plan import refused
from serving.operator.rollout import LOOK_MEASURING_S
from tests.unit.serving.operator import served
from tests.unit.serving.operator.refusals import KEY
from tests.unit.serving.operator.test_plan import ended
from tests.unit.serving.operator.worlds import (
    DONE,
    GPU,
    LATER,
    NOW,
    RUNNING,
    again,
    conditions,
    decided,
    gpus,
    leaving,
    pods_of,
    running,
    seen,
    spec,
    states,
)

# Well measured: 200 requests, none bad.
GOOD = Look(Measured(200, 0, {0.1: 200, float("inf"): 200}, agreed=200), {1: 90.0, 2: 10.0})
BAD = Look(Measured(200, 150, {0.1: 200, float("inf"): 200}), {1: 90.0, 2: 10.0})


def rollout(phase: str, percent: int, *, step: int = 0, since: str = NOW, **more: Any) -> dict[str, Any]:
    """Return the status of a model whose version 2 is on trial beside version 1."""
    told = {"version": 2, "stable": 1, "phase": phase, "step": step, "canaryPercent": percent}
    told |= {"startedAt": NOW, "stepStartedAt": since, "reason": "Measuring", "message": "."}
    return {"answering": 1, "rollout": told | more}


# ---- one version after another, without a canary


def test_successor_is_made_while_the_version_before_answers() -> None:
    """The stable version moves from 1 to 2: gateways are told of 1 until 2 is complete, and nothing of 1 is touched."""
    made = decided(seen(spec(2), {"answering": 1}, v1=running(1)))
    assert (pods_of(made), leaving(made), made.status["answering"]) == ({2: 1}, set(), 1)
    assert (states(made)[1], states(made)[2]) == ("Serving", "Waiting")
    assert conditions(made)["Ready"] == ("False", "NoPods")
    assert conditions(made)["TrafficReady"] == ("True", "EndpointsReady")


def test_successor_answers_once_it_is_complete_and_then_the_version_before_goes() -> None:
    """First the gateways are told, then, with that written, the objects of version 1 are removed; pods last."""
    observed = seen(spec(2), {"answering": 1}, v1=running(1), v2=running(1))
    first = decided(observed)
    assert (first.status["answering"], leaving(first)) == (2, set())
    assert first.again_s is not None
    second = again(observed, first)
    assert (second.status["answering"], leaving(second)) == (2, {1})
    assert second.delete[-1].kind == "Deployment"
    assert conditions(second)["Ready"] == ("True", "Serving")


def test_successor_that_fails_never_answers() -> None:
    """Version 1 goes on, for as long as it takes a person to read why."""
    broken = running(1, ready=0, prober=ended("GoldenTestFailed", "probability is 0.2 away"))
    made = decided(seen(spec(2), {"answering": 1}, v1=running(1), v2=broken))
    assert (made.status["answering"], leaving(made)) == (1, set())
    assert conditions(made)["Stalled"] == ("True", "GoldenTestFailed")
    assert made.status["lastFailure"] == {
        "reason": "GoldenTestFailed",
        "message": "Version 2 gets no requests: probability is 0.2 away.",
        "time": NOW,
        "pod": "model-cancer-v2-0",
        "version": 2,
    }


def test_version_before_is_found_where_no_status_names_it() -> None:
    """An operator of an older release wrote none: who has ready pods, and is not on trial, answers."""
    made = decided(seen(spec(2), {}, v1=running(1), v2=running(1, ready=0)))
    assert (made.status["answering"], leaving(made)) == (1, set())
    beside = decided(seen(spec(1, canary=2), {}, v1=running(1, ready=0), v2=running(1)))
    assert beside.status["answering"] == 1


def test_version_before_that_is_away_is_not_waited_for() -> None:
    """Where it is gone, or its successor has the only ready pod, the stable version is named at once."""
    gone = decided(seen(spec(2), {"answering": 1}))
    assert gone.status["answering"] == 2
    broken = decided(seen(spec(2, minReplicas=2), {"answering": 1}, v1=running(2, ready=0), v2=running(2, ready=1)))
    assert broken.status["answering"] == 2


def test_version_before_that_is_not_ready_for_a_moment_is_kept() -> None:
    """Its successor never loads: named by the status of one moment, it would cost the only pods that answer."""
    observed = seen(spec(2), {"answering": 1}, v1=running(1, ready=0), v2=running(1, ready=0))
    blinks = decided(observed)
    assert (blinks.status["answering"], leaving(again(observed, blinks))) == (1, set())
    assert conditions(blinks)["TrafficReady"] == ("False", "NoReadyPods")


def test_what_is_left_of_a_version_long_gone_is_removed() -> None:
    """An operator that died in the middle left objects without a Deployment: they are found, and go."""
    observed = seen(spec(1), {"answering": 1}, v1=running(1), v3=running(1))
    orphans = tuple(child for child in observed.children if child.kind != "Deployment" or child.version == 1)
    deployments = tuple(each for each in observed.deployments if each.version == 1)
    made = decided(replace(observed, children=orphans, deployments=deployments))
    assert {child.version for child in made.delete} == {3}


# ---- a canary, step by step


def test_canary_gets_no_requests_before_its_pods_are_right() -> None:
    """Its pods are made beside the stable version's, and gateways are told 0 %."""
    made = decided(seen(spec(1, canary=2), {"answering": 1}, v1=running(1)))
    assert pods_of(made)[2] == 1
    assert (made.status["rollout"]["phase"], made.status["rollout"]["canaryPercent"]) == ("Preparing", 0)
    assert made.status["answering"] == 1
    assert conditions(made)["Ready"] == ("False", "Preparing")
    assert conditions(made)["VersionsServed"] == ("False", "NotAllServed")


@pytest.mark.parametrize(
    ("percent", "step", "pods"),
    [
        pytest.param(10, 0, 1, id="10 % of four pods' requests: one pod"),
        pytest.param(50, 1, 2, id="50 %: two pods"),
    ],
)
def test_canary_has_pods_for_its_share(percent: int, step: int, pods: int) -> None:
    """The stable version keeps all of its own meanwhile."""
    wanted = spec(1, canary=2, minReplicas=4)
    made = decided(seen(wanted, rollout("Progressing", percent, step=step), v1=running(4)), look=GOOD)
    assert pods_of(made) == {1: 4, 2: pods}


def test_canary_gets_its_share_once_its_pods_are_ready() -> None:
    """Verified, loaded and tested: the first step begins."""
    observed = seen(spec(1, canary=2), rollout("Preparing", 0), v1=running(1), v2=running(1))
    made = decided(observed, look=GOOD)
    assert (made.status["rollout"]["phase"], made.status["rollout"]["canaryPercent"]) == ("Progressing", 10)
    assert made.again_s == LOOK_MEASURING_S
    assert conditions(made)["Reconciling"][0] == "True"


def test_canary_that_does_well_is_promoted_and_answers() -> None:
    """After the last step all requests go to it, and the version before keeps its pods for a person's abort."""
    observed = seen(spec(1, canary=2), rollout("Progressing", 100, step=2), v1=running(1), v2=running(1))
    made = decided(observed, now=LATER, look=GOOD)
    assert (made.status["rollout"]["phase"], made.status["answering"]) == ("Promoted", 2)
    assert leaving(made) == set()
    assert pods_of(made).keys() == {1, 2}
    assert conditions(made)["Ready"] == ("True", "Promoted")
    assert conditions(made)["Stalled"][0] == "False"


def test_promoted_canary_that_becomes_stable_goes_on_answering() -> None:
    """The person, or GitOps, moves traffic.stable: nothing flips back meanwhile, and version 1 goes."""
    status = {"answering": 2, "rollout": rollout("Promoted", 100)["rollout"]}
    observed = seen(spec(2), status, v1=running(1), v2=running(1))
    first = decided(observed)
    assert (first.status["answering"], leaving(first), "rollout" in first.status) == (2, {1}, False)


def test_canary_by_hand_waits_for_a_person_and_is_ready() -> None:
    """It has the share that it may have, well measured: nothing is under way, and `helm --wait` ends."""
    wanted = spec(1, canary=2, rollout={"steps": [10], "automatic": False, "intervalSeconds": 60})
    wanted["traffic"] = {"stable": 1, "canary": {"version": 2, "percent": 10}}
    made = decided(seen(wanted, rollout("Progressing", 10), v1=running(1), v2=running(1)), now=LATER, look=GOOD)
    assert conditions(made)["Ready"] == ("True", "WaitingForPromotion")
    assert made.status["rollout"]["canaryPercent"] == 10


def test_canary_that_fails_a_gate_is_taken_back() -> None:
    """Gateways are told 0 % first; with that written, its pods go, and the reason stays."""
    observed = seen(spec(1, canary=2), rollout("Progressing", 10), v1=running(1), v2=running(1))
    wanted = {**observed.spec, "rollout": observed.spec["rollout"] | {"gates": {"errorRate": 0.01}}}
    first = decided(replace(observed, spec=wanted), look=BAD)
    assert (first.status["rollout"]["phase"], first.status["rollout"]["canaryPercent"]) == ("RolledBack", 0)
    assert (leaving(first), first.again_s) == (set(), 1.0)
    second = again(replace(observed, spec=wanted), first)
    assert leaving(second) == {2}
    assert conditions(second)["Ready"] == ("False", "ErrorRate")
    assert conditions(second)["Stalled"] == ("True", "ErrorRate")
    assert conditions(second)["TrafficReady"] == ("True", "EndpointsReady")
    assert states(second) == {1: "Serving", 2: "Failed", 3: "NotServed"}
    assert (second.status["lastFailure"]["reason"], second.status["lastFailure"]["version"]) == ("ErrorRate", 2)


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        pytest.param({"stager": ended("DigestMismatch", "other bytes", restarts=3)}, "DigestMismatch", id="a byte"),
        pytest.param({"stager": ended("SignatureMissing", "unsigned", restarts=3)}, "SignatureMissing", id="unsigned"),
        pytest.param({"stager": ended("ApprovalExpired", "too old", restarts=3)}, "ApprovalExpired", id="expired"),
        pytest.param(
            {"stager": DONE, "server": RUNNING, "prober": ended("LoadFailed", "no op")}, "LoadFailed", id="op"
        ),
        pytest.param(
            {"stager": DONE, "server": RUNNING, "prober": ended("GoldenTestFailed", "0.2 away")},
            "GoldenTestFailed",
            id="a golden case",
        ),
    ],
)
def test_canary_that_cannot_be_right_is_taken_back_before_any_request(pod: dict[str, Any], reason: str) -> None:
    """What its pods say is the reason, word for word, and no pod of it stays."""
    observed = seen(spec(1, canary=2), rollout("Preparing", 0), v1=running(1), v2=running(1, ready=0, **pod))
    made = decided(observed)
    assert (made.status["rollout"]["phase"], made.status["rollout"]["reason"]) == ("RolledBack", reason)
    assert leaving(again(observed, made)) == {2}
    assert conditions(made)["Stalled"] == ("True", reason)


def test_canary_taken_back_stays_so_until_the_spec_names_another() -> None:
    """Nothing is tried again by itself; another canary begins anew."""
    status = rollout("RolledBack", 0, reason="ErrorRate")
    still = decided(seen(spec(1, canary=2), status, v1=running(1)), look=GOOD)
    assert (still.status["rollout"]["phase"], set(pods_of(still))) == ("RolledBack", {1})
    other = decided(seen(spec(1, canary=3), status, v1=running(1)), look=GOOD)
    assert (other.status["rollout"]["version"], other.status["rollout"]["phase"]) == (3, "Preparing")
    assert 3 in pods_of(other)


def test_promoted_canary_that_is_aborted_answers_no_more() -> None:
    """A person's word: version 1 is whole, and answers again at once."""
    word = {"serving.healthguard.io/rollout": "abort", "serving.healthguard.io/rollout-version": "2"}
    status = {"answering": 2, "rollout": rollout("Promoted", 100)["rollout"]}
    observed = seen(spec(1, canary=2), status, word, v1=running(1), v2=running(1))
    first = decided(observed)
    assert (first.status["answering"], first.status["rollout"]["phase"]) == (1, "RolledBack")
    assert leaving(first) == set()
    assert leaving(again(observed, first)) == {2}


def test_canary_without_a_rollout_has_the_share_that_the_spec_says() -> None:
    """Nobody decides anything about it: gateways read the spec, and its pods are sized for the share."""
    wanted = served.spec(
        versions=spec()["versions"], traffic={"stable": 1, "canary": {"version": 2, "percent": 50}}, minReplicas=4
    )
    made = decided(seen(wanted, {"answering": 1}, v1=running(4), v2=running(2)))
    assert "rollout" not in made.status
    assert pods_of(made) == {1: 4, 2: 2}
    assert conditions(made)["Ready"] == ("True", "Serving")


def test_shadow_has_pods_and_no_requests() -> None:
    """It is served beside, and the stable version answers."""
    made = decided(seen(spec(1, shadow=3), {"answering": 1}, v1=running(1)))
    assert (pods_of(made), made.status["answering"]) == ({1: 1, 3: 1}, 1)


def test_measured_split_is_told_when_it_moves() -> None:
    """What the gateways measured, not what was wished; small movements are no news, which every watcher would hear."""
    observed = seen(spec(1, canary=2), rollout("Progressing", 10), v1=running(1), v2=running(1))
    first = decided(observed, look=Look(None, {1: 90.4, 2: 9.6}))
    assert first.status["traffic"] == [{"version": 1, "percent": 90.4}, {"version": 2, "percent": 9.6}]
    observed = replace(observed, status=first.status)
    assert decided(observed, look=Look(None, {1: 89.0, 2: 11.0})).status["traffic"] == first.status["traffic"]
    assert decided(observed, look=Look(None, None)).status["traffic"] == first.status["traffic"]
    moved = decided(observed, look=Look(None, {1: 60.0, 2: 40.0})).status["traffic"]
    assert moved == [{"version": 1, "percent": 60.0}, {"version": 2, "percent": 40.0}]


def test_refusal_of_the_api_server_gives_nobody_more_requests() -> None:
    """Where not all could be done, who answers stays; a canary may lose its share, and never get one."""
    observed = seen(spec(2), {"answering": 1}, v1=running(1), v2=running(1))
    made = decided(observed)
    assert made.status["answering"] == 2
    assert refused(observed, made, "Service model-cancer-v2", "quota", now=NOW)["answering"] == 1
    ready = seen(spec(1, canary=2), rollout("Preparing", 0), v1=running(1), v2=running(1))
    raised = decided(ready, look=GOOD)
    assert raised.status["rollout"]["canaryPercent"] == 10
    assert refused(ready, raised, "Service", "quota", now=NOW)["rollout"]["canaryPercent"] == 0
    taken = replace(ready, status=rollout("Progressing", 10), annotations={
        "serving.healthguard.io/rollout": "abort", "serving.healthguard.io/rollout-version": "2"
    })  # fmt: skip
    assert refused(taken, decided(taken), "Service", "quota", now=NOW)["rollout"]["canaryPercent"] == 0


# ---- autoscaling


SCALED: dict[str, Any] = {"autoscaling": {"target": 4}, "maxReplicas": 8, "resources": {"requests": {"cpu": "1"}}}
BUILTIN = served.settings(metrics_provider="builtin", metrics_service="m", own_namespace="clinic")


def test_autoscaler_goes_with_the_version_that_answers() -> None:
    """Neither a canary nor the version before has one; the number that it has decided is never written over."""
    observed = seen(spec(1, canary=2, **SCALED), rollout("Progressing", 50, step=1), v1=running(6, ours=False))
    made = decided(observed, operator=BUILTIN, look=GOOD)
    scaled = [each["metadata"]["name"] for each in made.apply if each["kind"] == "HorizontalPodAutoscaler"]
    assert scaled == ["model-cancer-v1"]
    assert pods_of(made) == {1: None, 2: 3}


def hpas_leaving(observed: Observed, **more: Any) -> set[int]:
    """Return the versions that lose their autoscaler, where versions 1 and 2 have one."""
    scalers = [Child("HorizontalPodAutoscaler", f"model-cancer-v{n}", f"hpa-{n}", n) for n in (1, 2)]
    observed = replace(observed, children=(*observed.children, *scalers))
    made = decided(observed, operator=BUILTIN, **more)
    return {child.version for child in made.delete if child.kind == "HorizontalPodAutoscaler"}


CROWDED: dict[str, Any] = SCALED | {"resources": SCALED["resources"] | GPU}


@pytest.mark.parametrize(
    ("observed", "more", "expected"),
    [
        pytest.param(seen(spec(2, **SCALED), {"answering": 1}, v1=running(3)), {}, {2}, id="its successor is made"),
        pytest.param(
            seen(spec(1, **CROWDED), {"answering": 1}, v1=running(1, old=True)),
            {"devices": gpus(1, taken=1)},
            {2},
            id="its newer form is blocked",
        ),
        pytest.param(
            seen(spec(2, **SCALED), {"answering": 1}, v1=running(1), v2=running(1)), {}, {1}, id="its successor answers"
        ),
        pytest.param(seen(spec(1), {"answering": 1}, v1=running(1)), {}, {1, 2}, id="nothing is to be scaled any more"),
        pytest.param(
            seen(spec(2, **CROWDED, rollout={"whenNoDevice": "Recreate"}), {"answering": 1}, v1=running(3)),
            {"devices": gpus(3, taken=3)},
            {1, 2},
            id="it makes room for its successor",
        ),
    ],
)
def test_autoscaler_stays_with_the_version_that_answers(
    observed: Observed, more: dict[str, Any], expected: set[int]
) -> None:
    """Also where nothing of that version is written: without it the pods could not follow the requests."""
    assert hpas_leaving(observed, **more) == expected


@pytest.mark.parametrize("word", [pytest.param("", id="no word yet"), pytest.param("abort", id="abort")])
def test_version_before_grows_with_the_promoted_one(word: str) -> None:
    """Version 2 was scaled to eight pods: a person's abort finds version 1 as large, or makes it so at once."""
    words = {"serving.healthguard.io/rollout": word, "serving.healthguard.io/rollout-version": "2"} if word else {}
    status = {"answering": 2, "rollout": rollout("Promoted", 100)["rollout"]}
    wanted = spec(1, canary=2, **SCALED)
    made = decided(seen(wanted, status, words, v1=running(3), v2=running(8, ours=False)), operator=BUILTIN)
    assert (pods_of(made)[1], made.status["answering"]) == (8, 1 if word else 2)


def test_number_of_pods_is_kept_until_the_autoscaler_has_written_it() -> None:
    """Left out by its only owner it would fall back to one."""
    made = decided(seen(spec(1, **SCALED), {"answering": 1}, v1=running(3)), operator=BUILTIN)
    assert pods_of(made) == {1: 3}


def test_successor_begins_with_as_many_pods_as_answer_now() -> None:
    """Six pods were needed a moment ago."""
    made = decided(seen(spec(2, **SCALED), {"answering": 1}, v1=running(6, ours=False)), operator=BUILTIN)
    assert pods_of(made)[2] == 6


def test_autoscaler_that_lost_its_signal_is_told() -> None:
    """The number is frozen, and a condition says so for whoever is alerted by it."""
    lost = Autoscaler({"ScalingActive": ("False", "FailedGetExternalMetric", "no metrics")}, 3, 1, 8, 1, 1)
    observed = replace(seen(spec(1, **SCALED), {"answering": 1}, v1=running(3)), autoscalers={1: lost})
    assert conditions(decided(observed, operator=BUILTIN))["Autoscaled"] == ("False", "MetricsLost")


def test_autoscaling_without_any_signal_is_told() -> None:
    """Nothing scales: the least number of pods serves, and the condition says why."""
    wanted = spec(1, autoscaling={}, maxReplicas=8, minReplicas=2)
    made = decided(seen(wanted, {"answering": 1}, v1=running(2)))
    assert (pods_of(made), conditions(made)["Autoscaled"]) == ({1: 2}, ("False", "NoSignal"))


# ---- devices


def test_canary_without_a_free_device_is_refused_before_it_starts() -> None:
    """Nothing of it is made, and the reason says what to do."""
    observed = seen(spec(1, canary=2, resources=GPU), {"answering": 1}, v1=running(1))
    made = decided(observed, devices=gpus(1, taken=1))
    assert pods_of(made).keys() == {1}
    assert states(made)[2] == "Blocked"
    assert made.status["rollout"]["phase"] == "Blocked"
    assert conditions(made)["RolloutBlocked"] == ("True", "NoDeviceFree")
    assert conditions(made)["Ready"] == ("False", "NoDeviceFree")
    assert made.again_s == 30.0
    (message,) = {each["message"] for each in made.status["conditions"] if each["type"] == "RolloutBlocked"}
    assert message == (
        "Version 2 is not begun, and nothing was changed: it needs 1 more pod with nvidia.com/gpu: 1 each, and none "
        "finds that free on a node. Free some, add a node, or set spec.rollout.whenNoDevice to Recreate, which takes "
        "pods of the version before away first when traffic.stable moves."
    )


def test_canary_with_a_free_device_is_begun() -> None:
    """One GPU is enough for it beside the stable version."""
    observed = seen(spec(1, canary=2, resources=GPU), {"answering": 1}, v1=running(1))
    assert pods_of(decided(observed, devices=gpus(2, taken=1))) == {1: 1, 2: 1}


def test_successor_without_a_free_device_is_refused() -> None:
    """Version 1 answers, untouched, until a device is free or a person decides otherwise."""
    made = decided(seen(spec(2, resources=GPU), {"answering": 1}, v1=running(1)), devices=gpus(1, taken=1))
    assert (pods_of(made), made.shrink, leaving(made)) == ({}, {}, set())
    assert conditions(made)["Stalled"] == ("True", "NoDeviceFree")


def test_successor_takes_the_place_of_the_version_before_pod_by_pod() -> None:
    """With Recreate and no device free: one pod goes, one comes, and never more than one is missing."""
    wanted = spec(2, resources=GPU, minReplicas=3, rollout={"whenNoDevice": "Recreate"})
    told = {"answering": 1}
    begun = decided(seen(wanted, told, v1=running(3)), devices=gpus(3, taken=3))
    assert (pods_of(begun), begun.shrink, begun.status["answering"]) == ({2: 0}, {"model-cancer-v1": 2}, 1)
    leaves = seen(wanted, told, v1=running(2), v2=running(0))
    waits = decided(leaves, devices=gpus(3, taken=3))
    assert (pods_of(waits), waits.shrink) == ({2: 0}, {"model-cancer-v1": 2})
    freed = decided(leaves, devices=gpus(3, taken=2))
    assert (pods_of(freed), freed.shrink) == ({2: 1}, {"model-cancer-v1": 2})
    loads = decided(seen(wanted, told, v1=running(2), v2=running(1, ready=0)), devices=gpus(3, taken=3))
    assert (pods_of(loads), loads.shrink) == ({2: 1}, {"model-cancer-v1": 2})
    serves = decided(seen(wanted, told, v1=running(2), v2=running(1)), devices=gpus(3, taken=3))
    assert (serves.shrink, serves.status["answering"]) == ({"model-cancer-v1": 1}, 1)
    larger = decided(seen(wanted, told, v1=running(1), v2=running(2)), devices=gpus(3, taken=3))
    assert larger.status["answering"] == 2


OUT_OF_MEMORY = Container(ended="OOMKilled", restarts=1)
OVER = Container(succeeded=True, told=json.dumps({"approvalExpires": "2026-11-22T09:00:00Z"}))


@pytest.mark.parametrize(
    ("before", "well", "failing"),
    [
        pytest.param(1, 1, {"server": OUT_OF_MEMORY}, id="one that could go: the larger half is the successor"),
        pytest.param(2, 1, {"stager": OVER}, id="one that could go: no pod would be missing"),
        pytest.param(1, 1, {"server": replace(OUT_OF_MEMORY, restarts=3)}, id="for good"),
    ],
)
def test_successor_that_fails_halfway_takes_no_further_place(before: int, well: int, failing: dict[str, Any]) -> None:
    """Neither a pod of the version before goes, nor is it another one that answers."""
    key = {"required": True, "trustedKeys": [KEY]}
    wanted = spec(2, resources=GPU, minReplicas=3, rollout={"whenNoDevice": "Recreate"}, approval=key)
    observed = seen(wanted, {"answering": 1}, v1=running(before), v2=running(3 - before, ready=well))
    last = observed.pods[-1]
    made = decided(replace(observed, pods=(*observed.pods[:-1], replace(last, **failing))), devices=gpus(3, taken=3))
    assert (made.shrink, made.status["answering"], leaving(made)) == ({"model-cancer-v1": before}, 1, set())
    mended = decided(observed, devices=gpus(3, taken=3))
    assert (mended.shrink, mended.status["answering"]) != (made.shrink, 1)


def test_single_pod_that_made_room_is_kept_until_its_successor_is_ready() -> None:
    """Nobody answers meanwhile, and version 1 with all its objects is there should a person want it back."""
    wanted = spec(2, resources=GPU, rollout={"whenNoDevice": "Recreate"})
    loads = decided(seen(wanted, {"answering": 1}, v1=running(0), v2=running(1, ready=0)), devices=gpus(1, taken=1))
    assert (loads.status["answering"], leaving(loads)) == (1, set())
    waits = decided(seen(wanted, {"answering": 1}, v1=running(0), v2=running(0)), devices=gpus(1, taken=1))
    assert (waits.status["answering"], waits.shrink, leaving(waits)) == (1, {"model-cancer-v1": 0}, set())


def test_device_of_a_pod_that_is_not_made_yet_is_counted_once() -> None:
    """The Deployment asks for the pod, and its device is still free: no second pod is begun for the same device."""
    wanted = spec(2, resources=GPU, minReplicas=2, rollout={"whenNoDevice": "Recreate"})
    observed = seen(wanted, {"answering": 1}, v1=running(1), v2=running(1))
    unmade = replace(observed, pods=tuple(pod for pod in observed.pods if pod.version == 1))
    made = decided(unmade, devices=gpus(2, taken=1))
    assert (pods_of(made), made.shrink) == ({2: 1}, {"model-cancer-v1": 1})


def test_pod_that_waits_for_a_device_does_not_end_the_change_of_places() -> None:
    """Somebody else took the device that was meant for it: the version before makes room all the same."""
    wanted = spec(2, resources=GPU, minReplicas=2, rollout={"whenNoDevice": "Recreate"})
    observed = seen(wanted, {"answering": 1}, v1=running(1), v2=running(2, ready=1))
    first, second = (pod for pod in observed.pods if pod.version == 2)
    waits = replace(second, unschedulable="0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    before = tuple(pod for pod in observed.pods if pod.version == 1)
    made = decided(replace(observed, pods=(*before, first, waits)), devices=gpus(2, taken=2))
    assert (pods_of(made), made.shrink) == ({2: 2}, {"model-cancer-v1": 0})


@pytest.mark.parametrize("late", [False, True], ids=["made at once", "made a look later"])
@pytest.mark.parametrize("pods", [1, 2, 3, 5])
def test_change_of_places_ends_and_half_of_the_pods_answer_throughout(pods: int, late: bool) -> None:
    """Look by look, on as many GPUs as pods; half is rounded down: one of three, and none of a single one."""
    wanted = spec(2, resources=GPU, minReplicas=pods, rollout={"whenNoDevice": "Recreate"})
    before, named, there, ready, answering = pods, 0, 0, 0, 1
    for _ in range(5 * pods):
        old = {"v1": running(before)} if before else {}
        observed = seen(wanted, {"answering": answering}, v2=running(named, ready=ready), **old)
        placed = [pod for pod in observed.pods if pod.version == 1 or int(pod.name[-1]) < there]
        made = decided(replace(observed, pods=tuple(placed)), devices=gpus(pods, taken=before + there))
        asked, ready = pods_of(made)[2] or 0, there
        there = min(pods - before, named if late else asked)
        named, answering = asked, made.status["answering"]
        before = 0 if leaving(made) else made.shrink.get("model-cancer-v1", before)
        assert (before if answering == 1 else ready) >= pods // 2
    assert (answering, ready, before) == (2, pods, 0)


def test_newer_form_without_a_free_device_is_refused_or_recreated() -> None:
    """A changed flag needs new pods of the same version: the same choice."""
    blocked = decided(seen(spec(1, resources=GPU), {"answering": 1}, v1=running(1, old=True)), devices=gpus(1, taken=1))
    assert (pods_of(blocked), conditions(blocked)["RolloutBlocked"]) == ({}, ("True", "NoDeviceFree"))
    wanted = spec(1, resources=GPU, rollout={"whenNoDevice": "Recreate"})
    made = decided(seen(wanted, {"answering": 1}, v1=running(1, old=True)), devices=gpus(1, taken=1))
    (deployment,) = [each for each in made.apply if each["kind"] == "Deployment"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_pods_that_serve_nobody_give_their_device_to_their_successors() -> None:
    """A form that never gets ready must not keep the one that mends it from its GPU."""
    observed = seen(spec(1, resources=GPU), {"answering": 1}, v1=running(1, ready=0, old=True))
    (deployment,) = [each for each in decided(observed, devices=gpus(1, taken=1)).apply if each["kind"] == "Deployment"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_first_version_is_begun_without_a_free_device() -> None:
    """There is nothing to protect: the scheduler says what is missing, and the pods wait."""
    made = decided(seen(spec(1, resources=GPU)), devices=gpus(0, taken=0))
    assert pods_of(made) == {1: 1}


def test_devices_that_nobody_may_look_at_are_told() -> None:
    """The rollout is begun, and the condition says that nobody has looked."""
    made = decided(seen(spec(1, canary=2, resources=GPU), {"answering": 1}, v1=running(1)))
    assert (set(pods_of(made)), conditions(made)["RolloutBlocked"]) == ({1, 2}, ("Unknown", "DevicesNotSeen"))


# ---- always


MOMENTS = [
    pytest.param(seen(spec(1)), id="a new model"),
    pytest.param(seen(spec(2), {"answering": 1}, v1=running(1)), id="a successor is made"),
    pytest.param(seen(spec(1, canary=2), {"answering": 1}, v1=running(1)), id="a canary is made"),
    pytest.param(
        seen(spec(1, canary=2), rollout("Progressing", 10), v1=running(1), v2=running(1)), id="a canary is measured"
    ),
    pytest.param(seen(spec(1, canary=2), rollout("RolledBack", 0), v1=running(1)), id="a canary was taken back"),
    pytest.param(
        seen(spec(1, canary=2), rollout("Promoted", 100), v1=running(1), v2=running(1)), id="a canary was promoted"
    ),
    pytest.param(seen(spec(1, canary=2, shadow=3), {"answering": 1}, v1=running(1), v2=running(1)), id="all three"),
]


@pytest.mark.parametrize("observed", MOMENTS)
def test_plan_of_what_was_planned_is_the_same(observed: Any) -> None:
    """With the status written and nothing else changed nothing changes, however often it is decided."""
    first = again(observed, decided(observed), now=NOW)
    assert again(observed, first, now=NOW).status == first.status


@pytest.mark.parametrize("observed", MOMENTS)
def test_one_of_ready_reconciling_stalled_is_true(observed: Any) -> None:
    """kstatus, and so `helm --wait`, never sees two of them, nor none."""
    told = conditions(decided(observed))
    assert [told[kind][0] for kind in ("Ready", "Reconciling", "Stalled")].count("True") == 1


@pytest.mark.parametrize("observed", MOMENTS)
def test_nothing_goes_that_gateways_were_told_to_use(observed: Any) -> None:
    """What the written status sends requests to stays, whatever the spec says now."""
    told = observed.status.get("rollout") or {}
    used = {observed.status.get("answering")} | ({told["version"]} if told.get("canaryPercent") else set())
    assert not {child.version for child in decided(observed).delete} & used
