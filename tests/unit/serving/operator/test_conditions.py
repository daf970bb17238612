"""
Everything that a condition can say: its status, its reason, and the sentence, word for word.

The table is the documentation; docs/rollouts.md has it for people. A reason that the code can write and that is in
neither of them fails a test.
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from serving.operator import conditions
from serving.operator.gates import Measured
from serving.operator.gateways import Look
from serving.operator.hpa import Autoscaler
from serving.operator.observe import Child, Container, Observed
from serving.operator.plan import Plan, refused
from tests.unit.serving.operator import served
from tests.unit.serving.operator.refusals import KEY
from tests.unit.serving.operator.test_plan import ended
from tests.unit.serving.operator.test_plan_versions import BUILTIN, rollout
from tests.unit.serving.operator.worlds import GPU, LATER, NOW, decided, gpus, running, seen, spec

ROOT = Path(__file__).parents[4]
OPERATOR, PAGE = ROOT / "serving" / "operator", ROOT / "docs" / "rollouts.md"
SAYS = "it says why"
"""What a container leaves behind; its own tests have its words."""
APPROVAL: dict[str, Any] = {"approval": {"required": True, "trustedKeys": [KEY]}}
SCALED: dict[str, Any] = {"autoscaling": {}, "maxReplicas": 8, "resources": {"requests": {"cpu": "1"}}}


@dataclass(frozen=True)
class Row:
    """A moment, and what one condition says then."""

    kind: str
    status: str
    reason: str
    message: str
    plan: Plan
    moment: str

    @property
    def found(self) -> dict[str, Any]:
        """What the condition says."""
        told: list[dict[str, Any]] = self.plan.status["conditions"]
        return next(each for each in told if each["type"] == self.kind)


def one(ready: int = 0, wanted: Mapping[str, Any] | None = None, **pod: Any) -> Plan:
    """Return the plan for version 1 with one pod; *pod* is what is so of it."""
    return decided(seen(spec(1, **(wanted or {})), {"answering": 1}, v1=running(1, ready=ready, **pod)))


def stager(reason: str, *, ready: int = 0) -> Plan:
    """Return the plan where the stager refused the version."""
    return one(ready, APPROVAL, stager=ended(reason, SAYS))


def expired(stable: int = 1) -> Plan:
    """Return the plan where version *stable* was approved until an hour before now, and version 1 answers."""
    until = Container(succeeded=True, told=json.dumps({"approvalExpires": "2026-11-22T09:00:00Z"}))
    there = {"v1": running(1), f"v{stable}": running(1, stager=until)}
    return decided(seen(spec(stable, **APPROVAL), {"answering": 1}, **there))


def followed() -> Plan:
    """Return the plan where version 1, which was approved until an hour before now, is kept beside promoted 2."""
    until = Container(succeeded=True, told=json.dumps({"approvalExpires": "2026-11-22T09:00:00Z"}))
    told = rollout("Promoted", 100, reason="Promoted", message="Version 2 answers all requests.") | {"answering": 2}
    observed = seen(spec(1, canary=2, **APPROVAL), told, v1=running(1, stager=until), v2=running(1))
    return decided(observed)


def tried(
    phase: str,
    percent: int,
    measured: Measured | None = None,
    *,
    step: int = 0,
    since: str = NOW,
    word: str = "",
    ready: int = 1,
    pods: Mapping[str, Any] | None = None,
    automatic: bool = True,
) -> Plan:
    """Return the plan for version 2 on trial beside version 1."""
    gates = {"errorRate": 0.01, "p99Ms": 500, "agreement": 0.98}
    wish: Any = {"steps": [10, 50], "intervalSeconds": 60, "gates": gates, "automatic": automatic}
    wanted = spec(1, canary=2, rollout=wish)
    wanted["traffic"]["canary"]["percent"] = 50
    before = rollout(phase, percent, step=step, since=since)
    words = {"serving.healthguard.io/rollout": word, "serving.healthguard.io/rollout-version": f"2@{NOW}"}
    trial = running(1, ready=ready, **(pods or {}))
    observed = seen(wanted, before, words if word else {}, v1=running(1), v2=trial)
    now = LATER if since != NOW else NOW
    return decided(observed, now=now, look=Look(measured, {1: 90.0, 2: 10.0}))


def measured(requests: int, errors: int = 0, slow: int = 0, differed: int = 0, compared: int | None = None) -> Measured:
    """Return what the gateways measured of version 2."""
    of = requests if compared is None else compared
    durations = {0.1: requests - slow, float("inf"): requests}
    return Measured(requests, errors, durations, agreed=of - differed, differed=differed)


def scaled(*conditions: tuple[str, str, str, str], lost: int = 0) -> Plan:
    """Return the plan for a model whose autoscaler says *conditions*: type, status, reason and message."""
    told = {kind: (status, reason, message) for kind, status, reason, message in conditions}
    observed = seen(spec(1, **SCALED), {"answering": 1}, v1=running(3))
    return decided(replace(observed, autoscalers={1: Autoscaler(told, 3, 1, 8, 2, lost)}), operator=BUILTIN)


def refused_by_the_quota() -> Plan:
    """Return the plan where no pod may be made."""
    observed = seen(spec(1), {"answering": 1}, v1=running(0))
    (deployment,) = observed.deployments
    return decided(replace(observed, deployments=(replace(deployment, refused="exceeded quota: pods"),)))


def refused_by_the_api_server() -> Plan:
    """Return the plan with the status that is written where it could not be carried out."""
    observed = seen(spec(1), {"answering": 1}, v1=running(1))
    made = decided(observed)
    return replace(made, status=refused(observed, made, "Service model-cancer-v1", "quota exceeded", now=NOW))


def changed(**changes: Any) -> Plan:
    """Return the plan for a model that serves, of which something else was observed."""
    observed: Observed = seen(spec(1), {"answering": 1}, v1=running(1))
    return decided(replace(observed, **changes))


NEW = decided(seen(spec(1)))
STAGES = one(stager=Container(running=True))
LOADS = one()
SERVES = one(1)
CROWDED = seen(spec(1, canary=2, resources=GPU), {"answering": 1}, v1=running(1))
NO_DEVICE = decided(CROWDED, devices=gpus(1, taken=1))
NEEDS = (
    "Version 2 is not begun, and nothing was changed: it needs 1 more pod with nvidia.com/gpu: 1 each, and none finds "
    "that free on a node. Free some, add a node, or set spec.rollout.whenNoDevice to Recreate, which takes pods of the "
    "version before away first when traffic.stable moves."
)
FULL = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
LONG_AGO = "2026-11-22T08:00:00Z"
BACK = "Version 2 was taken back while it answered 10 % of the requests"
AGAIN = "Version 1 answers all requests."
SOME = "Version 2 answers 10 % of the requests"

TABLE = [
    # ---- Scheduled: nodes take the pods
    Row("Scheduled", "Unknown", "NoPods", "No pod of version 1 was made yet.", NEW, "a model that was just made"),
    Row(
        "Scheduled",
        "False",
        "PodsRefused",
        "Pods of version 1 may not be made: exceeded quota: pods",
        refused_by_the_quota(),
        "pods that a quota forbids",
    ),
    Row(
        "Scheduled",
        "False",
        "InsufficientGPU",
        f"No node takes a pod of version 1. The scheduler says: {FULL} Each pod asks for nvidia.com/gpu: 1. Add a node "
        "that has it free (its device plugin must run there), free one, or ask for less in spec.resources.limits.",
        one(wanted={"resources": GPU}, unschedulable=FULL),
        "a GPU that no node has free",
    ),
    Row(
        "Scheduled",
        "False",
        "Unschedulable",
        "No node takes a pod of version 1. The scheduler says: 3 Insufficient cpu. Look at spec.resources, "
        "spec.nodeSelector and spec.tolerations, and at the claim that storageUri names.",
        one(unschedulable="3 Insufficient cpu."),
        "a pod that lacks something else",
    ),
    Row("Scheduled", "True", "Scheduled", "All pods of version 1 have a node.", STAGES, "pods with a node"),
    # ---- ArtifactVerified: every byte is as the digest says
    Row("ArtifactVerified", "Unknown", "Staging", "Version 1 is not fetched and checked yet.", STAGES, "fetching"),
    *(
        Row("ArtifactVerified", "False", reason, f"Version 1 is not served: {SAYS}.", stager(reason), moment)
        for reason, moment in {
            "BadAddress": "an address that cannot be one",
            "NotFound": "nothing at the address, which may be filled yet",
            "FetchFailed": "a store that refuses, or does not answer",
            "TooLarge": "more than was agreed, or than the node has room for",
            "Malformed": "no version folder",
            "DigestMismatch": "a flipped byte",
            "StorageFailed": "a disk that fails",
            "TimedOut": "a store that is too slow",
            "CertificateUnusable": "the model servers' certificate is not as it should be",
        }.items()
    ),
    Row(
        "ArtifactVerified",
        "False",
        "StagerFailed",
        "Version 1 is not served: its container left no message.",
        one(stager=Container(ended="OOMKilled")),
        "a stager that was killed",
    ),
    Row(
        "ArtifactVerified",
        "False",
        "ImageNotPulled",
        "The image of the stager cannot be pulled (ErrImagePull): look at its name and the pull secrets.",
        one(stager=Container(waiting="ErrImagePull")),
        "an operator's image that is not there",
    ),
    Row(
        "ArtifactVerified",
        "False",
        "ContainerNotStarted",
        "The stager cannot be started (CreateContainerConfigError): `kubectl describe pod model-cancer-v1-0` says why.",
        one(stager=Container(waiting="CreateContainerConfigError")),
        "a Secret for the store that is not there",
    ),
    Row(
        "ArtifactVerified",
        "True",
        "Verified",
        f"Every byte of version 1 is as {served.DIGEST} says.",
        LOADS,
        "a version in place",
    ),
    # ---- Approved: somebody who may has signed that it may be used; only where that is asked for
    Row(
        "Approved",
        "Unknown",
        "NotChecked",
        "The approval of version 1 was not looked at yet.",
        one(wanted=APPROVAL, stager=Container(running=True)),
        "not looked at yet",
    ),
    *(
        Row("Approved", "False", reason, f"Version 1 is not served: {SAYS}.", stager(reason), moment)
        for reason, moment in {
            "ApprovalMissing": "no approval beside the version",
            "ApprovalInvalid": "an approval of other bytes, or of another name",
            "ApprovalExpired": "an approval that was over before the pod began",
            "SignatureMissing": "signed by nobody",
            "SignatureInvalid": "signed by a stranger, or other files",
            "KeyUnusable": "a trusted key that is none",
        }.items()
    ),
    Row(
        "Approved",
        "False",
        "ApprovalExpired",
        f"A pod of version 1 is not started: {SAYS}.",
        stager("ApprovalExpired", ready=1),
        "a pod that cannot start again, while others serve",
    ),
    Row(
        "Approved",
        "False",
        "ApprovalExpired",
        "The approval of version 1 expired at 2026-11-22T09:00:00Z: it still answers, since nobody else would, but no "
        "pod of it can start any more. Serve another version, or approve it again and start its pods anew: kubectl "
        "rollout restart deployment model-cancer-v1.",
        expired(),
        "an approval that ended while its version answers",
    ),
    Row(
        "Approved",
        "False",
        "ApprovalExpired",
        "The approval of version 2 expired at 2026-11-22T09:00:00Z: it may not be used any more. Serve another "
        "version, or approve it again and start its pods anew: kubectl rollout restart deployment model-cancer-v2.",
        expired(2),
        "an approval that ended before its version began to answer",
    ),
    Row(
        "Approved",
        "False",
        "ApprovalExpired",
        "The approval of version 1 expired at 2026-11-22T09:00:00Z: it may not be used any more. Serve another "
        "version, or approve it again and start its pods anew: kubectl rollout restart deployment model-cancer-v1.",
        followed(),
        "an approval that ended after its version was followed by a promoted one",
    ),
    Row(
        "Approved",
        "True",
        "Approved",
        "Version 1 is signed by a key of spec.approval.trustedKeys.",
        one(wanted=APPROVAL),
        "an approval in force",
    ),
    # ---- Loaded: the server has the version available
    Row("Loaded", "Unknown", "Loading", "No server has version 1 available yet.", LOADS, "a server that loads"),
    Row(
        "Loaded",
        "False",
        "LoadFailed",
        "The server of version 1 ended by itself, once; its last words: no such op",
        one(server=Container(ended="Error", message="no such op", restarts=1)),
        "a server that ended",
    ),
    Row(
        "Loaded",
        "False",
        "LoadFailed",
        f"Version 1 gets no requests: {SAYS}.",
        one(prober=ended("LoadFailed", SAYS)),
        "a version that the server refuses",
    ),
    Row(
        "Loaded",
        "False",
        "OutOfMemory",
        "The server of version 1 needed more memory than it may have: raise spec.resources.limits.memory.",
        one(server=Container(ended="OOMKilled", restarts=1)),
        "a server that needs more memory",
    ),
    Row(
        "Loaded",
        "False",
        "ImageNotPulled",
        "The image of the server cannot be pulled (ImagePullBackOff): look at its name and the pull secrets.",
        one(server=Container(waiting="ImagePullBackOff")),
        "a server's image that is not there",
    ),
    Row(
        "Loaded",
        "False",
        "ContainerNotStarted",
        "The prober cannot be started (CreateContainerError): `kubectl describe pod model-cancer-v1-0` says why.",
        one(prober=Container(waiting="CreateContainerError")),
        "a container that the kubelet cannot start",
    ),
    Row("Loaded", "True", "Available", "The server has version 1 available.", SERVES, "a version that is loaded"),
    # ---- GoldenTestPassed: it answers the golden cases as measured
    Row(
        "GoldenTestPassed",
        "Unknown",
        "NotTested",
        "Version 1 was not asked its golden cases yet.",
        LOADS,
        "not asked yet",
    ),
    *(
        Row("GoldenTestPassed", "False", reason, f"Version 1 gets no requests: {SAYS}.", one(prober=left), moment)
        for reason, left, moment in [
            ("GoldenTestFailed", ended("GoldenTestFailed", SAYS), "an answer that differs"),
            ("NoGoldenCases", ended("NoGoldenCases", SAYS), "a version without golden cases"),
            ("GoldenCasesUnusable", ended("GoldenCasesUnusable", SAYS), "golden cases that cannot be read"),
            ("CertificateUnusable", ended("CertificateUnusable", SAYS), "the prober's certificate is not as it should"),
            ("ProberFailed", Container(ended="OOMKilled", message=SAYS), "a prober that was killed"),
        ]
    ),
    Row(
        "GoldenTestPassed",
        "True",
        "Passed",
        "Version 1 answers its golden cases as they were measured.",
        SERVES,
        "a version that answers rightly",
    ),
    # ---- TrafficReady, VersionsServed: who takes requests
    Row(
        "TrafficReady",
        "True",
        "EndpointsReady",
        "1 pod takes requests for version 1 at model-cancer-v1.clinic.svc:8500.",
        SERVES,
        "a pod that takes requests",
    ),
    Row("TrafficReady", "False", "NoReadyPods", "No pod takes requests for version 1.", LOADS, "nobody who takes any"),
    Row(
        "VersionsServed",
        "True",
        "AllServed",
        "All versions in traffic take requests: 1, 2.",
        tried("Progressing", 10, measured(10)),
        "both versions take requests",
    ),
    Row(
        "VersionsServed",
        "False",
        "NotAllServed",
        "In traffic are versions 1, 2; these take no requests: 2.",
        tried("Preparing", 0, ready=0),
        "a version that takes none yet",
    ),
    # ---- RolloutBlocked: no device is free for a new version
    Row("RolloutBlocked", "True", "NoDeviceFree", NEEDS, NO_DEVICE, "a canary, and every GPU is taken"),
    Row(
        "RolloutBlocked",
        "False",
        "NotBlocked",
        "No version waits for a device to become free.",
        decided(CROWDED, devices=gpus(2, taken=1)),
        "a canary, and a GPU is free",
    ),
    Row(
        "RolloutBlocked",
        "Unknown",
        "DevicesNotSeen",
        "Whether devices are free is not looked at: the operator may not list nodes and pods of the whole cluster. A "
        "new version is begun, and waits where none is free. The chart's operator.seeDevices lets it look.",
        decided(CROWDED),
        "nobody may look",
    ),
    # ---- Autoscaled: an autoscaler decides how many pods there are; only where that is asked for
    Row("Autoscaled", "Unknown", "NotScaledYet", "The autoscaler has not looked yet.", scaled(), "a new autoscaler"),
    Row(
        "Autoscaled",
        "False",
        "NoSignal",
        "There is no signal to scale by: the operator was installed without a source of metrics, and the pods ask for "
        "no CPUs. There are as many pods as spec.minReplicas says: 1.",
        one(1, {"autoscaling": {}, "maxReplicas": 8}),
        "nothing to scale by",
    ),
    Row(
        "Autoscaled",
        "False",
        "MetricsLost",
        "1 of 2 signals for autoscaling has no value: pods may be added, and none is removed until it is back; 3 pods "
        "are wanted now. Look at the gateways, at the operator and at the metrics server.",
        scaled(("ScalingActive", "True", "ValidMetricFound", "."), lost=1),
        "one signal is lost",
    ),
    Row(
        "Autoscaled",
        "False",
        "NotScaling",
        "The number of pods is not changed: no reason given.",
        scaled(("AbleToScale", "False", "", "no reason given")),
        "an autoscaler that does nothing, and has no word of its own for that",
    ),
    Row(
        "Autoscaled",
        "True",
        "Scaling",
        "3 pods are wanted, 1 to 8 there may be; 2 of 2 signals are there.",
        scaled(("ScalingActive", "True", "ValidMetricFound", ".")),
        "an autoscaler at work",
    ),
    # ---- Ready: the newest spec is served, and no version on trial is under way; else the first step that is not done
    Row("Ready", "True", "Serving", "1 pod serves version 1.", SERVES, "a model that is served"),
    Row(
        "Ready",
        "False",
        "RollingOut",
        "0 of 1 pods of version 1 are available in their newest form.",
        decided(seen(spec(1), {"answering": 1}, v1=running(2))),
        "pods that are being replaced",
    ),
    Row("Ready", "False", "Loading", "No server has version 1 available yet.", LOADS, "a step that is not done yet"),
    Row(
        "Ready",
        "False",
        "InvalidSpec",
        "Nothing was changed: these fields are not as the CRD has them: versions.",
        changed(spec=spec(1) | {"versions": []}),
        "a spec that an older CRD let in",
    ),
    Row(
        "Ready",
        "False",
        "NameTaken",
        "Nothing was changed: Service model-cancer-v1 exists and belongs to somebody else. Remove it, or name the "
        "model otherwise.",
        changed(foreign=(Child("Service", "model-cancer-v1", "u"),)),
        "a name that somebody else has",
    ),
    Row(
        "Ready",
        "False",
        "ApplyRefused",
        "The API server refused Service model-cancer-v1: quota exceeded. The operator tries again by itself.",
        refused_by_the_api_server(),
        "an object that may not be made",
    ),
    # ---- Ready, while a version is on trial: in the words of status.rollout
    Row("Ready", "False", "NoDeviceFree", NEEDS, NO_DEVICE, "a canary that is not begun"),
    Row(
        "Ready",
        "False",
        "Preparing",
        "Version 2 answers 0 % of the requests: 0 of 1 pods ready (No server has version 2 available yet).",
        tried("Preparing", 0, ready=0),
        "its pods are made",
    ),
    Row(
        "Ready",
        "False",
        "Scaling",
        "Version 2 answers 10 % of the requests: 0 pods ready, too few for the next share (No server has version 2 "
        "available yet).",
        tried("Progressing", 10, step=1, ready=0),
        "more pods are made for the next step",
    ),
    Row(
        "Ready",
        "False",
        "TooFewRequests",
        f"{SOME}: 10 of 50 requests measured.",
        tried("Progressing", 10, measured(10)),
        "a step that begins",
    ),
    Row(
        "Ready",
        "False",
        "TooFewComparisons",
        f"{SOME}: 5 of 50 answers compared with the stable version's.",
        tried("Progressing", 10, measured(100, compared=5)),
        "answers that are not compared yet",
    ),
    Row(
        "Ready",
        "False",
        "GatewaysUnseen",
        f"{SOME}: no gateway could be asked what it measured.",
        tried("Progressing", 10),
        "gateways that do not answer",
    ),
    Row(
        "Ready",
        "False",
        "Measuring",
        f"{SOME}: 100 requests measured, all gates passed; the step lasts 60 s.",
        tried("Progressing", 10, measured(100)),
        "a step that goes well, and is not over",
    ),
    Row(
        "Ready",
        "False",
        "Promoting",
        "Version 2 answers 10 % of the requests: a person asked for it, and more pods are made first (No server has "
        "version 2 available yet).",
        tried("Progressing", 10, word="promote", ready=0),
        "a person's promotion, which waits for pods",
    ),
    Row(
        "Ready",
        "False",
        "Paused",
        f"{SOME}: a person asked for it.",
        tried("Progressing", 10, measured(100), word="pause"),
        "a person's pause",
    ),
    Row(
        "Ready",
        "True",
        "WaitingForPromotion",
        "Version 2 answers 50 % of the requests: 100 requests measured, all gates passed; a person may promote or "
        "abort it.",
        tried("Progressing", 50, measured(100), step=1, since=LONG_AGO, automatic=False),
        "the greatest share that it may take by itself",
    ),
    Row(
        "Ready",
        "True",
        "Promoted",
        "Version 2 answers all requests: a person asked for it. Set spec.traffic.stable to it to end the rollout.",
        tried("Progressing", 10, measured(100), word="promote"),
        "a promotion",
    ),
    Row(
        "Ready",
        "True",
        "Promoted",
        "Version 2 answers all requests.",
        followed(),
        "the version before it, kept for an abort, whose approval ended",
    ),
    # ---- Ready, after a version was taken back
    Row(
        "Ready",
        "False",
        "ErrorRate",
        f"{BACK}: 75 of 100 calls failed, 1.00% may. {AGAIN}",
        tried("Progressing", 10, measured(100, errors=75)),
        "calls that fail",
    ),
    Row(
        "Ready",
        "False",
        "Latency",
        f"{BACK}: 75 of 100 calls took longer than 500 ms, 1% may. {AGAIN}",
        tried("Progressing", 10, measured(100, slow=75)),
        "calls that are slow",
    ),
    Row(
        "Ready",
        "False",
        "Agreement",
        f"{BACK}: 75 of 100 answers differ from the stable version's, 2.00% may. {AGAIN}",
        tried("Progressing", 10, measured(100, differed=75)),
        "answers that differ",
    ),
    Row(
        "Ready",
        "False",
        "NoTraffic",
        f"{BACK}: no step forward within 1800 s: 10 of 50 requests measured. {AGAIN}",
        tried("Progressing", 10, measured(10), since=LONG_AGO),
        "too few requests for too long",
    ),
    Row(
        "Ready",
        "False",
        "TooSlow",
        "Version 2 was taken back: no step forward within 1800 s: 0 of 1 pods ready (No server has version 2 available "
        f"yet). {AGAIN}",
        tried("Preparing", 0, since=LONG_AGO, ready=0),
        "pods that do not get ready",
    ),
    Row(
        "Ready",
        "False",
        "Aborted",
        f"{BACK}: a person asked for it. {AGAIN}",
        tried("Progressing", 10, measured(100), word="abort"),
        "a person's abort",
    ),
    Row(
        "Ready",
        "False",
        "GoldenTestFailed",
        f"Version 2 was taken back: Version 2 gets no requests: {SAYS}. {AGAIN}",
        tried("Preparing", 0, ready=0, pods={"prober": ended("GoldenTestFailed", SAYS)}),
        "its pods failed: in the words of their own conditions",
    ),
    # ---- Reconciling and Stalled, for kstatus: what Ready says, or that there is nothing to say
    Row("Reconciling", "True", "Loading", "No server has version 1 available yet.", LOADS, "wait"),
    Row("Reconciling", "False", "Idle", "Nothing is being changed.", SERVES, "nothing is done"),
    Row("Stalled", "True", "NoDeviceFree", NEEDS, NO_DEVICE, "waiting will not help"),
    Row("Stalled", "False", "NotStalled", "Nothing is wrong that waiting cannot mend.", LOADS, "all is on its way"),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.kind} {row.reason}: {row.moment}") for row in TABLE])
def test_condition_says(row: Row) -> None:
    """Status, reason and message."""
    found = row.found
    assert (found["status"], found["reason"], found["message"]) == (row.status, row.reason, row.message)


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.kind} {row.reason}: {row.moment}") for row in TABLE])
def test_one_of_ready_reconciling_stalled_is_true(row: Row) -> None:
    """kstatus, and so `helm --wait`, never sees two of them, nor none."""
    told = {each["type"]: each["status"] for each in row.plan.status["conditions"]}
    assert [told[kind] for kind in ("Ready", "Reconciling", "Stalled")].count("True") == 1


TELLING = (
    "approving",
    "conditions",
    "findings",
    "gates",
    "golden",
    "hpa",
    "plan",
    "prober",
    "rollout",
    "sizes",
    "sources",
    "stager",
    "telling",
)
"""The modules in which reasons are written."""

KINDS = frozenset(row.kind for row in TABLE)
OTHER_WORDS = KINDS | frozenset(
    {
        # The conditions' own words, and those of status.versions and status.rollout.
        *("True", "False", "Unknown"),
        *("NotServed", "Waiting", "Testing", "Failed", "Blocked", "Shadowing", "Progressing", "RolledBack"),
        # How reasons of a kind begin.
        *("Approval", "Signature", "FailedGet"),
        # A verdict that is never told as a reason: the step goes on, or ends.
        "GatesPassed",
        # Kubernetes' words: of containers, of autoscalers, and of ours that the spec has.
        *("ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "OOMKilled"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
        *("AbleToScale", "Active", "AverageValue", "ContainerResource", "Deployment", "External", "Percent", "Pods"),
        *("HorizontalPodAutoscaler", "ScaledObject", "ScalingActive", "Utilization", "Recreate"),
        # Codes of other things.
        *("END", "PNG", "RGB", "UNAVAILABLE"),
    }
)
"""Words in capitals that those modules have beside reasons."""


def words() -> set[str]:
    """Return every word in capitals that stands for itself in the code of those modules."""
    trees = (ast.parse((OPERATOR / f"{name}.py").read_text()) for name in TELLING)
    texts = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and re.fullmatch(r"[A-Z][A-Za-z]+", text)}


def test_conditions_are_named_in_full() -> None:
    """The names that the operator counts by."""
    assert set(conditions.KINDS) == KINDS


def test_every_reason_is_in_the_table() -> None:
    """A new word is a reason, with a row and a sentence in the manual, or it is named as something else."""
    told = {row.reason for row in TABLE}
    assert words() - OTHER_WORDS - told == set()
    assert told - words() == set(), "the table has a reason that the code does not write"
    assert OTHER_WORDS - words() - KINDS == set(), "a word that the code does not have any more"


def test_every_condition_and_reason_is_in_the_manual() -> None:
    """In a table's row, which says what it means; a condition's own row names all of its own reasons."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    told = set(re.findall(r"\w+", "\n".join(rows)))
    assert {row.reason for row in TABLE} - told == set()
    of_kind = {row.split("|")[1].strip(): set(re.findall(r"\w+", row)) for row in rows}
    missing = {(row.kind, row.reason) for row in TABLE if row.kind not in _OF_OTHERS}
    assert {(kind, reason) for kind, reason in missing if reason not in of_kind.get(kind, set())} == set()
    assert of_kind.keys() >= KINDS


_OF_OTHERS = frozenset({"Ready", "Reconciling", "Stalled"})
"""Conditions that repeat what others say."""


def test_modules_that_write_reasons_are_all_looked_at() -> None:
    """Findings, failures, verdicts and refusals are made nowhere else."""
    makers = {"Finding", "Failure", "Verdict", "CannotStage", "CannotFetch", "NotApproved"}
    for path in OPERATOR.glob("*.py"):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        named = {call.id for call in calls if isinstance(call, ast.Name)}
        assert not named & makers or path.stem in TELLING or path.stem == "failures", path.stem
