"""
The life of a ServedModel on fake nodes: made, served, moved to its next version; and what is there of it in the end.

What is there is compared without what every life has of its own: names, identities, times, and the digests of these.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from serving.operator import crd, rbac
from serving.operator.annotations import meaning
from serving.operator.kubernetes import path_of
from serving.operator.manifests import CHILD_KINDS, MANAGED_BY, MODEL_LABEL, VERSION_LABEL
from serving.operator.spec import API_VERSION, GROUP, KIND
from tests.cluster.bad_days import trusted, upstream
from tests.cluster.cluster import Cluster
from tests.cluster.runs import wait_until

Object = dict[str, Any]

_GONE_S = 90.0
_CALL_S = 30.0


def a_model(name: str, **changes: Any) -> Object:
    """Return a ServedModel of two versions, the first of them stable, whose pods take fake nodes only."""
    versions = [
        {"version": number, "storageUri": f"https://models.test/{number}.tar", "digest": f"sha256:{number:064x}"}
        for number in (1, 2)
    ]
    spec = {
        "versions": versions,
        "traffic": {"stable": 1},
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": KIND,
        "metadata": {"name": name},
        "spec": spec | changes,
    }


@dataclass(frozen=True)
class Place:
    """A namespace, seen by the cluster's administrator."""

    client: httpx.Client
    namespace: str

    @property
    def account(self) -> str:
        """The user that the operator of this namespace is."""
        return f"system:serviceaccount:{self.namespace}:{rbac.NAME}"

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None where there is none."""
        answer = self.client.get(path_of(kind, self.namespace, name))
        return None if answer.status_code == 404 else _body(answer)

    def all(self, kind: str, **labels: str) -> list[Object]:
        """Return all objects of a kind, or those of them that carry *labels*."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found = _body(self.client.get(path_of(kind, self.namespace), params={"labelSelector": selector}))
        return list(found["items"])

    def make(self, manifest: Object) -> None:
        """Make a ServedModel."""
        _body(self.client.post(path_of(KIND, self.namespace), json=manifest))

    def change(self, name: str, **spec: Any) -> None:
        """Change fields of a ServedModel's spec."""
        self._merge(name, {"spec": spec})

    def say(self, name: str, **words: str) -> None:
        """Say something to the operator, in the annotations of a ServedModel."""
        annotations = {f"{GROUP}/{key.replace('_', '-')}": word for key, word in words.items()}
        self._merge(name, {"metadata": {"annotations": annotations}})

    def _merge(self, name: str, change: Object) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        _body(self.client.patch(path_of(KIND, self.namespace, name), content=json.dumps(change), headers=headers))

    def remove(self, name: str) -> None:
        """Remove a ServedModel, and return at once."""
        _body(self.client.delete(path_of(KIND, self.namespace, name)))

    def children(self, name: str) -> list[Object]:
        """Return what belongs to a model, its pods among it."""
        return [one for kind in (*CHILD_KINDS, "Pod") for one in self._of(kind, name)]

    def _of(self, kind: str, name: str) -> list[Object]:
        return [{"kind": kind, **one} for one in self.all(kind, **{MODEL_LABEL: name})]

    def serves(self, name: str, version: int) -> bool:
        """Tell whether the newest spec is acted on, and nothing but *version* is there."""
        model = self.get(KIND, name)
        assert model is not None
        status = model.get("status", {})
        ready = condition(model, "Ready")
        if (ready.get("status"), ready.get("observedGeneration")) != ("True", model["metadata"]["generation"]):
            return False
        assert status["observedGeneration"] == model["metadata"]["generation"]
        if {one["version"] for one in status["versions"] if one["state"] != "NotServed"} != {version}:
            return False
        return {one["metadata"]["labels"][VERSION_LABEL] for one in self.children(name)} == {str(version)}

    def promoted(self, name: str, version: int) -> bool:
        """Tell whether a version on trial answers all requests."""
        status = (self.get(KIND, name) or {}).get("status", {})
        decided = status.get("rollout", {})
        return (decided.get("phase"), decided.get("version"), status.get("answering")) == ("Promoted", version, version)

    def promote(self, name: str, version: int) -> None:
        """Promote a version on trial, once its rollout has begun: a word is for that rollout and no other."""
        decided = (self.get(KIND, name) or {}).get("status", {}).get("rollout", {})
        if decided.get("version") == version:
            self.say(name, rollout="promote", rollout_version=meaning(version, decided["startedAt"]))

    def state(self, name: str) -> list[str]:
        """Return what is there of a model, and what its status says, without what this life has of its own."""
        model = self.get(KIND, name)
        assert model is not None
        said = [
            f"{one['type']}={one['status']} {one['reason']}: {one['message']}" for one in model["status"]["conditions"]
        ]
        said.append(json.dumps(model["status"]["versions"], sort_keys=True))
        there = [_wish(one, model["metadata"]["uid"]) for one in self.children(name)]
        return [line.replace(name, "MODEL") for line in (*said, *there)]

    def orphans(self) -> set[str]:
        """Return the operator's objects whose ServedModel is not there."""
        alive = {one["metadata"]["uid"] for one in self.all(KIND)}
        return {
            f"{kind} {one['metadata']['name']}"
            for kind in CHILD_KINDS
            for one in self.all(kind, **MANAGED_BY)
            if not alive & {owner["uid"] for owner in one["metadata"].get("ownerReferences", [])}
        }

    def wait_until_empty(self) -> None:
        """Return when nothing of the operator's, and none of its pods, is there any more."""
        kinds = (*CHILD_KINDS, "Pod")
        wait_until(
            lambda: not any(self.all(kind, **MANAGED_BY) for kind in kinds), "the models' objects to go", _GONE_S
        )


def condition(model: Object, kind: str) -> Object:
    """Return a condition of a ServedModel, empty where it has none of that type."""
    found = model.get("status", {}).get("conditions", [])
    return next((dict(one) for one in found if one["type"] == kind), {})


def _wish(found: Object, owner: str) -> str:
    """Return an object as it was asked for, as text."""
    metadata = found["metadata"]
    if found["kind"] == "Pod":
        return f"Pod of version {metadata['labels'][VERSION_LABEL]}"
    assert [one["uid"] for one in metadata["ownerReferences"]] == [owner]
    kept = {"name": metadata["name"], "labels": metadata["labels"]}
    wish = {key: found[key] for key in ("spec", "data") if key in found}
    if found["kind"] == "Deployment":
        # It is made from all that the pod is made from, the model's name too.
        wish["spec"]["template"]["metadata"].pop("annotations")
    return json.dumps([found["kind"], kept, wish], sort_keys=True)


ROLLOUT: Object = {"steps": [50], "intervalSeconds": 5, "minRequests": 1, "timeoutSeconds": 600}


@dataclass
class Life:
    """A model on its way: version 1 served, version 2 on trial, promoted by a word, and then the stable one."""

    place: Place
    name: str
    done: int = 0

    def go_on(self) -> bool:
        """Take the next step if the last one has come about; tell whether life is over."""
        if self.done == 0:
            self.place.make(a_model(self.name))
        elif self.done == 1 and self.place.serves(self.name, 1):
            self.place.change(self.name, traffic={"canary": {"version": 2}}, rollout=ROLLOUT)
        elif self.done == 2 and self.place.promoted(self.name, 2):
            self.place.change(self.name, traffic={"stable": 2, "canary": None})
        elif self.done == 2:
            self.place.promote(self.name, 2)
            return False
        else:
            return self.done == 3 and self.place.serves(self.name, 2)
        self.done += 1
        return False


def live(lives: Iterable[Life], keep_running: Iterable[Any] = (), *, timeout_s: float) -> None:
    """
    Lead models through their lives, side by side, while the operators are started again wherever they end.

    Raises:
        TimeoutError: one did not come to its end.
    """
    waiting = list(lives)

    def all_over() -> bool:
        for operator in keep_running:
            operator.keep_running()
        waiting[:] = [life for life in waiting if not life.go_on()]
        return not waiting

    try:
        wait_until(all_over, "the models' lives to be over", timeout_s)
    except TimeoutError as late:
        told = {life.name: (life.done, (life.place.get(KIND, life.name) or {}).get("status")) for life in waiting}
        raise TimeoutError(f"{late}: {json.dumps(told, indent=1)[:4000]}") from late


@contextmanager
def settled(cluster: Cluster, namespace: str) -> Iterator[Place]:
    """Have the CRD, and in *namespace* the account and rights of an operator; yield the namespace."""
    cluster.apply(crd.text(), "--force-conflicts")
    cluster.kubectl("wait", "crd/servedmodels.serving.healthguard.io", "--for=condition=Established", "--timeout=60s")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": rbac.NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": rbac.NAME},
        "subjects": [{"kind": "ServiceAccount", "name": rbac.NAME, "namespace": namespace}],
    }
    rights = {"apiVersion": "v1", "kind": "List", "items": [rbac.role(cluster_wide=False), binding]}
    cluster.apply(json.dumps(rights), f"--namespace={namespace}")
    found = upstream(cluster)
    with httpx.Client(
        base_url=found.server, headers=dict(found.headers), verify=trusted(found), timeout=_CALL_S, trust_env=False
    ) as client:
        yield Place(client, namespace)


def _body(answer: httpx.Response) -> Object:
    assert answer.is_success, answer.text
    found: Object = answer.json()
    return found
