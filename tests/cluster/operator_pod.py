"""The operator in a pod of the cluster, in its own image, with the rights of its Role and no other."""

import json
from typing import Any

import yaml

from serving.operator import crd, rbac
from serving.operator.pod import USER
from tests.cluster.cluster import Cluster

Manifest = dict[str, Any]


def run(cluster: Cluster, namespace: str, images: dict[str, str]) -> None:
    """
    Run the operator in *namespace*, for that namespace only, and return when it is ready.

    Args:
        images: the product's, by service.
    """
    cluster.apply(crd.text())
    cluster.kubectl("wait", "crd/servedmodels.serving.healthguard.io", "--for=condition=Established", "--timeout=60s")
    environment = {
        "OPERATOR_HOST": "0.0.0.0",
        "OPERATOR_NAMESPACES": json.dumps([namespace]),
        "OPERATOR_IMAGE": images["operator"],
        "OPERATOR_MODELSERVER_IMAGE": images["modelserver"],
        "OPERATOR_TENSORFLOW_SERVING_IMAGE": "tensorflow/serving:none",
        "OPERATOR_TENSORFLOW_SERVING_GPU_IMAGE": "tensorflow/serving:none-gpu",
        "OPERATOR_IMAGE_PULL_POLICY": "Never",
        "OPERATOR_DRAIN_PODS_S": "1",
    }
    container = a_container("operator", images["operator"]) | {
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/livez", "port": 8080}},
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": rbac.NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": rbac.NAME},
        "subjects": [{"kind": "ServiceAccount", "name": rbac.NAME, "namespace": namespace}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": rbac.NAME}}
    pod = a_pod("operator", container) | {}
    pod["spec"]["serviceAccountName"] = rbac.NAME
    apply(cluster, namespace, account, rbac.role(cluster_wide=False), binding, pod)
    cluster.kubectl("wait", "pod", "operator", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=120s")


def a_container(name: str, image: str) -> Manifest:
    """Return a container that passes *restricted*."""
    locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return {"name": name, "image": image, "imagePullPolicy": "Never", "securityContext": locked}


def a_pod(name: str, container: Manifest) -> Manifest:
    """Return a pod of one container that passes *restricted*."""
    security = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {"securityContext": security, "containers": [container], "terminationGracePeriodSeconds": 2}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def apply(cluster: Cluster, namespace: str, *manifests: Manifest) -> None:
    """Apply objects to the namespace."""
    cluster.apply(yaml.safe_dump_all(manifests), f"--namespace={namespace}")
