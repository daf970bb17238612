"""
What a ServedModel may not say, and the sentence with which it is refused.

One table for both who refuse: the API server, which runs the CRD's rules, and the operator's own reading of a spec.
"""

from typing import Any

import pytest

from tests.unit.serving.operator import served

THREE = [{"version": n, "storageUri": f"pvc://models/cancer/{n}", "digest": served.DIGEST} for n in (1, 2, 3)]
CANARY = {"stable": 1, "canary": {"version": 2, "percent": 10}}
KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ==\n-----END PUBLIC KEY-----\n"


def _case(name: str, sentence: str, **changes: Any) -> Any:
    return pytest.param({"versions": THREE} | changes, sentence, id=name)


SENTENCES = [
    _case("a stable version that is not there", "traffic.stable names a version", traffic={"stable": 9}),
    _case(
        "a canary that is not there",
        "traffic.canary names a version that is not in versions: add it there",
        traffic={"stable": 1, "canary": {"version": 9, "percent": 10}},
    ),
    _case(
        "a shadow that is not there",
        "traffic.shadow names a version that is not in versions: add it there",
        traffic={"stable": 1, "shadow": {"version": 9}},
    ),
    _case(
        "a canary that is the stable version",
        "traffic.canary is the stable version: remove traffic.canary, or name another version in it",
        traffic={"stable": 1, "canary": {"version": 1, "percent": 10}},
    ),
    _case(
        "a shadow that is the stable version",
        "traffic.shadow is the stable version: remove traffic.shadow, or name another version in it",
        traffic={"stable": 1, "shadow": {"version": 1}},
    ),
    _case(
        "a canary without a share",
        "traffic.canary has no share: set traffic.canary.percent, or rollout, whose steps decide it",
        traffic={"stable": 1, "canary": {"version": 2}},
    ),
    _case(
        "a canary by hand that may go nowhere",
        "rollout.automatic is false: set traffic.canary.percent, up to which the canary may go",
        traffic={"stable": 1, "canary": {"version": 2}},
        rollout={"automatic": False},
    ),
    _case(
        "steps that fall",
        "rollout.steps must rise, each share once: such as [5, 25, 50]; 100 follows by itself",
        traffic=CANARY,
        rollout={"steps": [25, 5]},
    ),
    _case("a step twice", "rollout.steps must rise", traffic=CANARY, rollout={"steps": [5, 5]}),
    _case(
        "fewer pods at most than at least",
        "maxReplicas is less than minReplicas: raise the one or lower the other",
        minReplicas=3,
        maxReplicas=2,
        autoscaling={},
    ),
    _case("a bound that nothing reaches", "maxReplicas and autoscaling need each other", maxReplicas=2),
    _case("autoscaling without a bound", "maxReplicas and autoscaling need each other", autoscaling={}),
    _case(
        "approval by nobody",
        "approval.required",
        approval={"required": True},
    ),
    _case(
        "approval of an image",
        "oci://",
        versions=[{"version": 1, "storageUri": "oci://registry.test/cancer@sha256:00", "digest": served.DIGEST}],
        approval={"required": True, "trustedKeys": [KEY]},
    ),
]
"""Specs that break a rule across fields, and a part of what the person is told."""


def _field(name: str, field: str, **changes: Any) -> Any:
    return pytest.param({"versions": THREE} | changes, field, id=name)


FIELDS = [
    _field("a field that there is not", "canary", canary={}),
    _field("no replicas", "minReplicas", minReplicas=0),
    _field("a step of all requests", "steps", traffic=CANARY, rollout={"steps": [5, 100]}),
    _field("no step", "steps", traffic=CANARY, rollout={"steps": []}),
    _field("a share above all", "percent", traffic={"stable": 1, "canary": {"version": 2, "percent": 101}}),
    _field("a gate that nothing can pass", "errorRate", traffic=CANARY, rollout={"gates": {"errorRate": 2}}),
    _field("a gate that there is not", "sensitivity", traffic=CANARY, rollout={"gates": {"sensitivity": 0.9}}),
    _field("another metric", "metric", autoscaling={"metric": "gpu"}, maxReplicas=2),
    _field("a key that is none", "trustedKeys", approval={"trustedKeys": ["secret"]}),
    _field(
        "a store of an unknown kind",
        "storageUri",
        versions=[{"version": 1, "storageUri": "ftp://x/y", "digest": served.DIGEST}],
    ),
    _field(
        "a digest that is none",
        "digest",
        versions=[{"version": 1, "storageUri": "pvc://m/1", "digest": "sha256:secret"}],
    ),
]
"""Specs in which a field is not as the schema has it, and the field's name."""

WHOLE = [
    pytest.param({"versions": THREE, "traffic": CANARY}, id="a canary with a share"),
    pytest.param(
        {
            "versions": THREE,
            "traffic": {"stable": 1, "canary": {"version": 2, "sticky": True}, "shadow": {"version": 3, "percent": 50}},
            "rollout": {
                "steps": [1, 5, 50, 99],
                "gates": {"errorRate": 0.01, "p99Ms": 500, "agreement": 0.98},
                "whenNoDevice": "Recreate",
            },
            "approval": {"required": True, "trustedKeys": [KEY] * 8},
            "minReplicas": 2,
            "maxReplicas": 8,
            "autoscaling": {
                "target": 4,
                "behavior": {
                    "scaleDown": {
                        "stabilizationWindowSeconds": 300,
                        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
                    }
                },
            },
        },
        id="all that there is",
    ),
]
"""Specs with which nothing is wrong."""
