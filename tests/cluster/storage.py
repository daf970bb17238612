"""
Give the cluster its default storage class: folders of the node, made for the claim of a pod that is placed on it.

They are volumes of type `local`, which the kubelet gives to a pod's fsGroup like any disk; a provisioner that makes
hostPath volumes, as most small ones do, would hide whether the product asks for the right group.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.cluster import api
from tests.cluster.api import Object
from tests.cluster.network import NODE

CLASS = "folders"
PROVISIONER = "healthguard.test/folders"
_EVERY_S = 0.5
_SELECTED = "volume.kubernetes.io/selected-node"
_VOLUMES = "api/v1/persistentvolumes"


def wanted(claims: Sequence[Object], volumes: Sequence[Object], folder: Path) -> list[Object]:
    """Return the volumes that are to be made now: for claims of our class whose pod the scheduler has placed here."""
    known = {volume["metadata"]["name"] for volume in volumes}
    fresh = [
        _volume(claim, folder)
        for claim in claims
        if claim["spec"].get("storageClassName") == CLASS
        and claim["status"].get("phase") == "Pending"
        and claim["metadata"].get("annotations", {}).get(_SELECTED) == NODE
    ]
    return [volume for volume in fresh if volume["metadata"]["name"] not in known]


def finished(volumes: Sequence[Object]) -> list[str]:
    """Return the names of our volumes whose claim is gone."""
    return [
        volume["metadata"]["name"]
        for volume in volumes
        if volume["spec"].get("storageClassName") == CLASS and volume["status"].get("phase") == "Released"
    ]


def run(pki: Path, folder: Path) -> None:
    """Make and remove volumes in *folder* until killed, as the user whose certificate is in *pki*."""
    with api.connect(pki, "storage") as client:
        while True:
            try:
                _step(client, folder)
            except httpx.HTTPError:
                # The next step reads everything again, so there is nothing to remember of one that failed.
                continue
            finally:
                time.sleep(_EVERY_S)


def _step(client: httpx.Client, folder: Path) -> None:
    volumes = api.items(client, _VOLUMES)
    for volume in wanted(api.items(client, "api/v1/persistentvolumeclaims"), volumes, folder):
        path = Path(volume["spec"]["local"]["path"])
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o770)
        client.post(f"/{_VOLUMES}", json=volume)
    for name in finished(volumes):
        shutil.rmtree(folder / name, ignore_errors=True)
        client.delete(f"/{_VOLUMES}/{name}")


def _volume(claim: Object, folder: Path) -> Object:
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{metadata['uid']}"
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        # Kubernetes would try to remove the volume itself, and fail, were it not told whose it is.
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "storageClassName": CLASS,
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "local": {"path": str(folder / name)},
        },
    }
