"""What scales a version, and what the autoscaler says back, as a person reads it."""

from typing import Any

import pytest

from serving.operator import hpa
from serving.operator.spec import read
from tests.unit.serving.operator.served import settings, spec

TARGET = "model-cancer-v1"


def made(provider: str = "builtin", *, cpu: bool = True, **autoscaling: Any) -> Any:
    """Return what scales a model; *autoscaling* is of its spec."""
    resources = {"requests": {"cpu": "500m"}} if cpu else {}
    asked = read(spec(autoscaling=autoscaling, minReplicas=2, maxReplicas=6, resources=resources))
    given: dict[str, Any] = {"metrics_service": "hg-metrics", "own_namespace": "hg", "prometheus_url": "http://p:9090"}
    return hpa.autoscaler(TARGET, "cancer", "clinic", asked, settings(metrics_provider=provider, **given))


def test_autoscaler_follows_what_is_in_flight_and_the_servers_cpus() -> None:
    """Two signals, each for a pod: requests on average, and the use of the server's CPUs, not the prober's."""
    spec_of = made(target=4, cpuPercent=70)["spec"]
    assert spec_of["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": TARGET}
    assert (spec_of["minReplicas"], spec_of["maxReplicas"]) == (2, 6)
    external, cpu = spec_of["metrics"]
    assert external["external"] == {
        "metric": {
            "name": "healthguard_predictions_in_flight",
            "selector": {"matchLabels": {"model": "cancer"}},
        },
        "target": {"type": "AverageValue", "averageValue": "4"},
    }
    assert cpu["containerResource"]["container"] == "server"
    assert cpu["containerResource"]["target"]["averageUtilization"] == 70


def test_autoscaler_takes_no_signal_that_could_never_come() -> None:
    """Without a request for CPUs there is no use of them, without a provider nothing in flight."""
    assert [one["type"] for one in made(cpu=False)["spec"]["metrics"]] == ["External"]
    assert [one["type"] for one in made("none")["spec"]["metrics"]] == ["ContainerResource"]
    assert made("none", cpu=False) is None
    fixed = read(spec())
    assert hpa.autoscaler(TARGET, "cancer", "clinic", fixed, settings()) is None


def test_autoscaler_goes_up_at_once_and_down_slowly() -> None:
    """What nobody says is ours: no window and a doubling in a minute up, five minutes and one pod a minute down."""
    behavior = made()["spec"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert {policy["type"]: policy["value"] for policy in behavior["scaleUp"]["policies"]} == {
        "Pods": 2,
        "Percent": 100,
    }
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    }


@pytest.mark.parametrize("provider", ["builtin", "prometheus-adapter", "keda"])
def test_autoscaler_behaves_as_the_spec_says(provider: str) -> None:
    """Whoever scales: a window and policies that a person writes are passed on, the rest stays ours."""
    policy = {"type": "Percent", "value": 50, "periodSeconds": 10}
    spec_of = made(provider, behavior={"scaleDown": {"stabilizationWindowSeconds": 5, "policies": [policy]}})["spec"]
    behavior = spec_of.get("behavior") or spec_of["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"] == {"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [policy]}
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0


def test_keda_asks_for_one_number_and_takes_none_for_a_loss() -> None:
    """Several series are an error to it, and silence would be 0, which shrinks."""
    scaled = made("keda", target=4)
    assert scaled["kind"] == "ScaledObject"
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (2, 6)
    in_flight, cpu = scaled["spec"]["triggers"]
    query = 'sum(healthguard_predictions_in_flight{namespace="clinic",model="cancer"})'
    assert in_flight["metadata"] == {
        "serverAddress": "http://p:9090",
        "query": query,
        "threshold": "4",
        "ignoreNullValues": "false",
    }
    assert cpu["metadata"] == {"value": "80", "containerName": "server"}
    assert hpa.kinds(settings(metrics_provider="keda", prometheus_url="http://p:9090")) == ("ScaledObject",)


def condition(kind: str, status: str, reason: str, message: str = "…") -> dict[str, str]:
    """Return a condition as an autoscaler has it."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


WELL = [condition("AbleToScale", "True", "ReadyForNewScale"), condition("ScalingActive", "True", "ValidMetricFound")]
GONE = condition("ScalingActive", "False", "FailedGetExternalMetric", "the HPA was unable to compute: 503")


@pytest.mark.parametrize(
    ("conditions", "signals", "expected"),
    [
        pytest.param(WELL, ["External", "ContainerResource"], ("True", "Scaling"), id="well"),
        pytest.param(WELL, ["", "ContainerResource"], ("False", "MetricsLost"), id="one of two lost, scaling up"),
        pytest.param([GONE], ["", ""], ("False", "MetricsLost"), id="all lost"),
        pytest.param(
            [condition("AbleToScale", "False", "FailedGetScale")],
            None,
            ("False", "FailedGetScale"),
            id="nothing to scale",
        ),
        pytest.param([], None, ("Unknown", "NotScaledYet"), id="not looked yet"),
    ],
)
def test_condition_says_what_the_autoscaler_lacks(
    conditions: list[dict[str, str]], signals: list[str] | None, expected: tuple[str, str]
) -> None:
    """A signal that is lost is told, also while the other one still lets pods be added."""
    told: dict[str, Any] = {"conditions": conditions, "desiredReplicas": 3}
    if signals is not None:
        told["currentMetrics"] = [{"type": kind} for kind in signals]
    status, reason, message = hpa.finding(hpa.read(made() | {"status": told}))
    assert (status, reason) == expected
    if reason == "MetricsLost":
        assert "none is removed until it is back; 3 pods are wanted now" in message


def test_condition_of_no_autoscaler_is_unknown() -> None:
    """Before it is made nothing is known."""
    assert hpa.finding(None)[:2] == ("Unknown", "NotScaledYet")


def test_replicas_are_ours_until_the_autoscaler_changes_them() -> None:
    """Managed fields tell who wrote the number last: ours would fall to 1 if we left it out."""

    def deployment(*owners: tuple[str, str]) -> dict[str, Any]:
        fields: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
        entries = [{"manager": name, "subresource": sub, "fieldsV1": fields} for name, sub in owners]
        return {"metadata": {"managedFields": entries}}

    assert hpa.owns_replicas(deployment(("us", "")), "us")
    assert not hpa.owns_replicas(deployment(("kube-controller-manager", "scale")), "us")
    assert not hpa.owns_replicas({"metadata": {}}, "us")
