"""
Autoscaling of the version that answers: the object that scales its Deployment, and what that object says back. Pure.

The first signal is what the gateways have in flight, for one pod on average; the second, where the server asks for
CPUs, is their use. An autoscaler that lacks any of its signals adds pods by the others and removes none: with two, the
loss of one can freeze the number of pods, and never shrink it.
"""

from dataclasses import dataclass
from typing import Any, Literal

from serving.operator.pod import SERVER_NAME
from serving.operator.scaling import Autoscaling, ScalingRules
from serving.operator.settings import OperatorSettings
from serving.operator.spec import ServedModelSpec

Manifest = dict[str, Any]

METRIC = "healthguard_predictions_in_flight"
"""The gateways' gauge, under which the external metrics API has the sum of it."""
MODEL_SELECTOR = "model"
"""The label by which an autoscaler asks for one model's."""

_UP = ScalingRules.model_validate(
    {
        "stabilizationWindowSeconds": 0,
        "policies": [
            {"type": "Pods", "value": 2, "periodSeconds": 60},
            {"type": "Percent", "value": 100, "periodSeconds": 60},
        ],
    }
)
"""Up at once, and at most twice as many in a minute: a pod takes so long to load."""
_DOWN = ScalingRules.model_validate(
    {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
)
"""Down slowly: a lull of a minute is not the end of a clinic's day."""
_LOADS_IN_WINDOW = 3
_WINDOW_MAX_S = 3600


def kinds(settings: OperatorSettings) -> tuple[str, ...]:
    """Return the kinds of objects that scale here."""
    return ("ScaledObject",) if settings.metrics_provider == "keda" else ("HorizontalPodAutoscaler",)


def autoscaler(
    target: str, model: str, namespace: str, spec: ServedModelSpec, settings: OperatorSettings
) -> Manifest | None:
    """
    Return what scales the Deployment *target*, without its metadata; None where nothing does.

    Without autoscaling in the spec nothing does, and neither where there is not one signal to go by.
    """
    if spec.autoscaling is None or spec.max_replicas is None:
        return None
    if settings.metrics_provider == "keda":
        in_flight = f'sum({METRIC}{{namespace="{namespace}",model="{model}"}})'
        return _scaled_object(target, in_flight, spec, spec.autoscaling, settings)
    metrics = _metrics(model, spec, spec.autoscaling, settings)
    if not metrics:
        return None
    made = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "minReplicas": spec.min_replicas,
        "maxReplicas": spec.max_replicas,
        "metrics": metrics,
        "behavior": _behavior(spec.autoscaling),
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": made}


def _metrics(model: str, spec: ServedModelSpec, asked: Autoscaling, settings: OperatorSettings) -> list[Manifest]:
    metrics: list[Manifest] = []
    if settings.metrics_provider != "none":
        metric = {"name": METRIC, "selector": {"matchLabels": {MODEL_SELECTOR: model}}}
        # For one pod on average: the gateways spread what is in flight over all pods.
        target = {"type": "AverageValue", "averageValue": str(asked.target)}
        metrics.append({"type": "External", "external": {"metric": metric, "target": target}})
    if _asks_for_cpus(spec):
        # Of the server alone: the prober beside it idles, and would hide what the server does.
        resource = {"name": "cpu", "container": SERVER_NAME}
        resource["target"] = {"type": "Utilization", "averageUtilization": asked.cpu_percent}  # type: ignore[assignment]
        metrics.append({"type": "ContainerResource", "containerResource": resource})
    return metrics


def _asks_for_cpus(spec: ServedModelSpec) -> bool:
    # A share of nothing is no number: without a request the signal would be lost for ever, and nothing ever shrink.
    return "cpu" in spec.resources.requests or "cpu" in spec.resources.limits


def _behavior(asked: Autoscaling) -> Manifest:
    given = asked.behavior
    return {"scaleUp": _rules(given.scale_up, _UP), "scaleDown": _rules(given.scale_down, _DOWN)}


def _rules(given: ScalingRules | None, otherwise: ScalingRules) -> Manifest:
    """Return the rules of one direction; what a person leaves out is ours, never Kubernetes' own."""
    rules = given or otherwise
    window = rules.stabilization_window_seconds
    policies = rules.policies or otherwise.policies
    return {
        "stabilizationWindowSeconds": otherwise.stabilization_window_seconds if window is None else window,
        "selectPolicy": rules.select_policy,
        "policies": [policy.model_dump(by_alias=True) for policy in policies],
    }


def _scaled_object(
    target: str, query: str, spec: ServedModelSpec, asked: Autoscaling, settings: OperatorSettings
) -> Manifest:
    in_flight = {
        "serverAddress": settings.prometheus_url,
        # One number: KEDA refuses several. And none is a loss, which freezes, where KEDA would take it for 0.
        "query": query,
        "threshold": str(asked.target),
        "ignoreNullValues": "false",
    }
    triggers: list[Manifest] = [{"type": "prometheus", "metricType": "AverageValue", "metadata": in_flight}]
    if _asks_for_cpus(spec):
        cpus = {"value": str(asked.cpu_percent), "containerName": SERVER_NAME}
        triggers.append({"type": "cpu", "metricType": "Utilization", "metadata": cpus})
    made = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "minReplicaCount": spec.min_replicas,
        "maxReplicaCount": spec.max_replicas,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(asked)}},
        "triggers": triggers,
    }
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "spec": made}


# ---- what it says back


@dataclass(frozen=True)
class Autoscaler:
    """What a HorizontalPodAutoscaler says; KEDA's object says less, and its own autoscaler is not looked at."""

    conditions: dict[str, tuple[str, str, str]]
    """Status, reason and message by type."""
    pods: int
    pods_min: int
    pods_max: int
    signals: int
    lost: int
    """How many of the signals had no value the last time."""


def read(found: Manifest) -> Autoscaler:
    """Read a HorizontalPodAutoscaler or a ScaledObject."""
    spec, status = found["spec"], found.get("status", {})
    signals = len(spec.get("metrics", spec.get("triggers", [])))
    # Of a signal without a value the controller leaves an entry that says nothing.
    told = status.get("currentMetrics")
    return Autoscaler(
        conditions={
            condition["type"]: (condition["status"], condition.get("reason", ""), condition.get("message", ""))
            for condition in status.get("conditions") or []
        },
        pods=status.get("desiredReplicas", 0),
        pods_min=spec.get("minReplicas", spec.get("minReplicaCount", 1)),
        pods_max=spec.get("maxReplicas", spec.get("maxReplicaCount", 1)),
        signals=signals,
        lost=0 if told is None else sum(not entry.get("type") for entry in told),
    )


def finding(found: Autoscaler | None) -> tuple[Literal["True", "False", "Unknown"], str, str]:
    """Return status, reason and message of the condition about scaling."""
    if found is None or not found.conditions:
        return "Unknown", "NotScaledYet", "The autoscaler has not looked yet."
    status, reason, message = found.conditions.get("ScalingActive", ("Unknown", "", ""))
    if status == "False" and reason.startswith("FailedGet"):
        return "False", "MetricsLost", f"{_frozen(found)} The autoscaler says: {message.rstrip('.')}."
    for kind in ("ScalingActive", "AbleToScale", "Active", "Ready"):
        status, reason, message = found.conditions.get(kind, ("", "", ""))
        if status == "False" and kind != "Active":
            return "False", reason or "NotScaling", f"The number of pods is not changed: {message.rstrip('.')}."
    if found.lost:
        return "False", "MetricsLost", _frozen(found)
    bounds = f"{found.pods_min} to {found.pods_max} there may be"
    return (
        "True",
        "Scaling",
        f"{_pods(found.pods)} wanted, {bounds}; {found.signals} of {found.signals} signals are there.",
    )


def _frozen(found: Autoscaler) -> str:
    lost = f"{found.lost} of {found.signals} signals" if found.lost else "A signal"
    return (
        f"{lost} for autoscaling {'have' if found.lost > 1 else 'has'} no value: pods may be added, and none is "
        f"removed until it is back; {_pods(found.pods)} wanted now. Look at the gateways, at the operator and at the "
        "metrics server."
    )


def _pods(number: int) -> str:
    return "1 pod is" if number == 1 else f"{number} pods are"


def owns_replicas(deployment: Manifest, manager: str) -> bool:
    """
    Tell whether *manager* has applied the number of replicas of a Deployment, and nobody changed it since.

    Left out of the next apply, the number of such a one would fall back to 1; one that an autoscaler has changed stays.
    """
    entries = deployment.get("metadata", {}).get("managedFields") or []
    return any(
        entry.get("manager") == manager
        and not entry.get("subresource")
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in entries
    )
