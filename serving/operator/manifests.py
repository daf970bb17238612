"""Map a ServedModel to the objects that serve one of its versions: pure, a dict in Kubernetes' own words each."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from serving.operator import hpa, server_config, storage
from serving.operator.drift import stamped
from serving.operator.pod import GRPC, PROBER, REST, pod_spec
from serving.operator.settings import OperatorSettings
from serving.operator.spec import API_VERSION, GROUP, KIND, ServedModelSpec, Version

Manifest = dict[str, Any]

MANAGER = "healthguard-operator"
MODEL_LABEL = f"{GROUP}/model"
VERSION_LABEL = f"{GROUP}/version"
MANAGED_BY = {"app.kubernetes.io/managed-by": MANAGER}
REVISION = f"{GROUP}/revision"
"""Annotation of pods: the digest of the template that they were made from."""

CONNECTED_S = 3
"""How long a pod is ready before it counts as available."""

CHILD_KINDS = ("ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment")
"""What a version has one of each, in the order in which they are applied: pods come last."""

_API_VERSIONS = {
    "ConfigMap": "v1",
    "Service": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "Deployment": "apps/v1",
}


@dataclass(frozen=True)
class Owner:
    """The ServedModel to which the objects belong; when it goes, Kubernetes removes them."""

    name: str
    namespace: str
    uid: str


def child_name(model: str, version: int) -> str:
    """Return the name that all objects of one version have."""
    return f"model-{model}-v{version}"


def endpoint(owner: Owner, version: int) -> str:
    """Return where a version's gRPC API answers: a headless Service, which names every ready pod."""
    return f"{child_name(owner.name, version)}.{owner.namespace}.svc:{GRPC}"


def labels(model: str, version: int) -> dict[str, str]:
    """Return the labels by which the objects and pods of one version are selected; they never change."""
    return {MODEL_LABEL: model, VERSION_LABEL: str(version), **MANAGED_BY}


@dataclass(frozen=True)
class Size:
    """How many pods a version is to have, and how they are replaced."""

    pods: int | None = 1
    """None: what an autoscaler has decided stays."""
    scaled: bool = False
    """Whether an autoscaler goes with it."""
    surge: bool = True
    """Whether a new pod comes before an old one goes; else the old one goes first, whose device the new one needs."""


def children(
    owner: Owner,
    spec: ServedModelSpec,
    settings: OperatorSettings,
    certificate: str = "",
    *,
    version: Version | None = None,
    size: Size | None = None,
) -> list[Manifest]:
    """
    Return all objects of one version, in the order in which they are applied.

    Args:
        certificate: what tells the model servers' certificate from the one before.
        version: which one; without one the stable.
        size: without one as many pods as the spec asks for at least.
    """
    version = version or spec.stable
    size = size or Size(spec.min_replicas)
    files = server_config.files(owner.name, spec, version)
    template = _template(owner, spec, version, settings, files | {"certificate": certificate})
    made = {
        "ConfigMap": {"data": files},
        "Service": _service(owner, version),
        "NetworkPolicy": {"spec": _network_policy(owner, spec, version, settings)},
        "PodDisruptionBudget": {"spec": _disruption_budget(owner, version)},
        "Deployment": {"spec": _deployment(owner, spec, version, size, template)},
    }
    found = [_child(owner, version, kind, _API_VERSIONS[kind]) | made[kind] for kind in CHILD_KINDS]
    return [stamped(manifest) for manifest in [*found, *_autoscaler(owner, spec, version, size, settings)]]


def _autoscaler(
    owner: Owner, spec: ServedModelSpec, version: Version, size: Size, settings: OperatorSettings
) -> list[Manifest]:
    name = child_name(owner.name, version.version)
    made = hpa.autoscaler(name, owner.name, owner.namespace, spec, settings) if size.scaled else None
    return [_child(owner, version, made["kind"], made["apiVersion"]) | {"spec": made["spec"]}] if made else []


def _child(owner: Owner, version: Version, kind: str, api_version: str) -> Manifest:
    reference = {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": KIND,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {
        "name": child_name(owner.name, version.version),
        "namespace": owner.namespace,
        "labels": {
            **labels(owner.name, version.version),
            "app.kubernetes.io/name": owner.name,
            "app.kubernetes.io/component": "model-server",
            "app.kubernetes.io/part-of": "healthguard",
        },
        "ownerReferences": [reference],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _service(owner: Owner, version: Version) -> Manifest:
    # Headless: gRPC would pin a client to one pod behind a cluster address, so the gateway must see them all.
    spec = {
        "clusterIP": "None",
        "selector": labels(owner.name, version.version),
        "ports": [
            {"name": "grpc", "port": GRPC, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
            {"name": "prober", "port": PROBER, "targetPort": "prober", "protocol": "TCP"},
        ],
    }
    return {"spec": spec}


def _network_policy(owner: Owner, spec: ServedModelSpec, version: Version, settings: OperatorSettings) -> Manifest:
    """Let in the gateways (and scrapers, to the metrics), and out nothing but what the stager has to reach."""
    ingress: list[Manifest] = [
        {"from": [{"podSelector": {"matchLabels": settings.gateway_labels}}], "ports": [_port(GRPC)]}
    ]
    if settings.scraper_labels is not None:
        scrapers = {"namespaceSelector": {"matchLabels": settings.scraper_labels}}
        ingress.append({"from": [scrapers], "ports": [_port(PROBER), _port(REST)]})
    return {
        "podSelector": {"matchLabels": labels(owner.name, version.version)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": _egress(spec, version, settings),
    }


def _egress(spec: ServedModelSpec, version: Version, settings: OperatorSettings) -> list[Manifest]:
    address = storage.parse(version.storage_uri)
    if not address.remote:
        return []
    ports = sorted({storage.port_of(address) if address.scheme == "https" else 443, *spec.storage.ports})
    names = [_port(port, protocol) for port in settings.dns_ports for protocol in ("UDP", "TCP")]
    return [{"ports": names}, {"ports": [_port(port) for port in ports]}]


def _port(number: int, protocol: str = "TCP") -> Manifest:
    return {"port": number, "protocol": protocol}


def _disruption_budget(owner: Owner, version: Version) -> Manifest:
    return {
        "maxUnavailable": 1,
        "selector": {"matchLabels": labels(owner.name, version.version)},
        # A pod that never gets ready must not keep its node from being emptied.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def _deployment(owner: Owner, spec: ServedModelSpec, version: Version, size: Size, template: Manifest) -> Manifest:
    # Surge needs room for one pod more; nothing that serves leaves before its successor is ready.
    pods = {"maxSurge": 1, "maxUnavailable": 0} if size.surge else {"maxSurge": 0, "maxUnavailable": 1}
    made: Manifest = {
        "revisionHistoryLimit": 2,
        # So long gateways have to hear of a new pod and to ask it for its contract, before one that serves may go.
        "minReadySeconds": CONNECTED_S,
        "progressDeadlineSeconds": spec.load_timeout_seconds + spec.storage.timeout_seconds,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": pods},
        "selector": {"matchLabels": labels(owner.name, version.version)},
        "template": template,
    }
    return made if size.pods is None else made | {"replicas": size.pods}


def _template(
    owner: Owner, spec: ServedModelSpec, version: Version, settings: OperatorSettings, read: dict[str, str]
) -> Manifest:
    selector = labels(owner.name, version.version)
    name = child_name(owner.name, version.version)
    pod = pod_spec(owner.name, spec, settings, config_map=name, version=version)
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    return {
        "metadata": {
            "labels": {
                **selector,
                "app.kubernetes.io/name": owner.name,
                "app.kubernetes.io/component": "model-server",
                "app.kubernetes.io/part-of": "healthguard",
            },
            # Servers read their files and certificate once, at the start: changed ones mean new pods.
            "annotations": {REVISION: _revision(pod, read)},
        },
        "spec": pod,
    }


def _revision(pod: Manifest, read: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([pod, read], sort_keys=True).encode()).hexdigest()[:16]


def revision_of(manifests: list[Manifest]) -> str:
    """Return the revision that the pods of *manifests* carry."""
    deployment = next(manifest for manifest in manifests if manifest["kind"] == "Deployment")
    return str(deployment["spec"]["template"]["metadata"]["annotations"][REVISION])
