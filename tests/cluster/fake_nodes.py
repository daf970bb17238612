"""Nodes without machines, by KWOK: for placement, autoscaling and an operator at the size of a real fleet."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from tests.cluster import network, tools
from tests.cluster.cluster import Cluster

_TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
"""So that only pods which ask for it land where nothing runs."""
_READY_S = 600


@contextmanager
def fake_nodes(cluster: Cluster, count: int, *, gpus: int = 0) -> Iterator[list[str]]:
    """
    Add *count* nodes with *gpus* GPUs each, labelled `type: kwok`, and yield their names; they go with the context.

    Pods on them become Running and Ready at once, and do nothing.
    """
    names = [f"kwok-{number}" for number in range(count)]
    command = [
        str(tools.program("kwok")),
        f"--kubeconfig={cluster.kubeconfig}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        # Its own defaults are private addresses; nothing answers at these.
        *(f"--config={stage}" for stage in tools.manifests("kwok")),
        f"--cidr={network.FAKE_PODS}",
        f"--node-ip={network.FAKE_NODE_ADDRESS}",
        # Without leases the nodes would be given up after 50 seconds, and the pods on them be ready no more.
        "--node-lease-duration-seconds=40",
    ]
    # A folder without settings: it would read those in the home folder.
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            command, env={**os.environ, "KWOK_WORKDIR": folder}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as kwok,
    ):
        try:
            cluster.apply(
                json.dumps({"apiVersion": "v1", "kind": "List", "items": [_node(name, gpus) for name in names]})
            )
            cluster.kubectl("wait", "node", "--selector=type=kwok", "--for=condition=Ready", f"--timeout={_READY_S}s")
            yield names
        finally:
            cluster.kubectl("delete", "node", "--selector=type=kwok", "--wait=true")
            kwok.terminate()


def _node(name: str, gpus: int) -> dict[str, Any]:
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "250", "ephemeral-storage": "1Ti"}
    if gpus:
        capacity["nvidia.com/gpu"] = str(gpus)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
        },
        "spec": {"taints": [_TAINT]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }
