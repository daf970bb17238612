"""Map a ServedModel to the objects that serve one of its versions: pure, a dict in Kubernetes' own words each."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from serving.operator import server_config, storage
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


def children(owner: Owner, spec: ServedModelSpec, settings: OperatorSettings, certificate: str = "") -> list[Manifest]:
    """
    Return all objects of the stable version, in the order in which they are applied.

    Args:
        certificate: what tells the model servers' certificate from the one before.
    """
    version = spec.stable
    files = server_config.files(owner.name, spec)
    made = {
        "ConfigMap": {"data": files},
        "Service": _service(owner, version),
        "NetworkPolicy": {"spec": _network_policy(owner, spec, settings)},
        "PodDisruptionBudget": {"spec": _disruption_budget(owner, version)},
        "Deployment": {"spec": _deployment(owner, spec, settings, files | {"certificate": certificate})},
    }
    return [_child(owner, version, kind) | made[kind] for kind in CHILD_KINDS]


def _child(owner: Owner, version: Version, kind: str) -> Manifest:
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
    return {"apiVersion": _API_VERSIONS[kind], "kind": kind, "metadata": metadata}


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


def _network_policy(owner: Owner, spec: ServedModelSpec, settings: OperatorSettings) -> Manifest:
    """Let in the gateways (and scrapers, to the metrics), and out nothing but what the stager has to reach."""
    ingress: list[Manifest] = [
        {"from": [{"podSelector": {"matchLabels": settings.gateway_labels}}], "ports": [_port(GRPC)]}
    ]
    if settings.scraper_labels is not None:
        scrapers = {"namespaceSelector": {"matchLabels": settings.scraper_labels}}
        ingress.append({"from": [scrapers], "ports": [_port(PROBER), _port(REST)]})
    return {
        "podSelector": {"matchLabels": labels(owner.name, spec.stable.version)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": _egress(spec, settings),
    }


def _egress(spec: ServedModelSpec, settings: OperatorSettings) -> list[Manifest]:
    address = storage.parse(spec.stable.storage_uri)
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


def _deployment(owner: Owner, spec: ServedModelSpec, settings: OperatorSettings, read: dict[str, str]) -> Manifest:
    selector = labels(owner.name, spec.stable.version)
    pod = pod_spec(owner.name, spec, settings, config_map=child_name(owner.name, spec.stable.version))
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
        "replicas": spec.min_replicas,
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": spec.load_timeout_seconds + spec.storage.timeout_seconds,
        # Surge needs room for one pod more; nothing that serves leaves before its successor is ready.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": selector},
        "template": {
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
        },
    }


def _revision(pod: Manifest, read: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([pod, read], sort_keys=True).encode()).hexdigest()[:16]


def revision_of(manifests: list[Manifest]) -> str:
    """Return the revision that the pods of *manifests* carry."""
    deployment = next(manifest for manifest in manifests if manifest["kind"] == "Deployment")
    return str(deployment["spec"]["template"]["metadata"]["annotations"][REVISION])
