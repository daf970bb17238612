"""Secrets are made once, completed, and never changed."""

import base64
import datetime
import json
from typing import Any

import httpx
import pytest

from healthguard.install import secrets
from healthguard.install.kubernetes import CallFailed, Kubernetes
from healthguard.install.leave import leave
from healthguard.install.plan import BadPlan, KeysLost, Plan, missing

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
PLAN = Plan.model_validate(
    {
        "namespace": "clinic",
        "labels": {"app": "hg"},
        "secrets": {
            # The first refers to one that is made later.
            "address": {"data": {"dsn": "postgresql://auth:${database/password}@host/auth"}},
            "database": {"data": {"password": "make:password"}},
            "keys": {"type": "Opaque", "data": {"key": "make:key"}},
        },
        "claims": {"data-0": ["database", "keys"]},
    }
)


class ApiServer:
    """As much of the API server as the Jobs use: objects by path."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []

    def client(self) -> Kubernetes:
        """Return a connection to it."""
        return Kubernetes(httpx.Client(base_url="https://api.test", transport=httpx.MockTransport(self.answer)))

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one call."""
        path = request.url.path
        self.calls.append(f"{request.method} {path}")
        body = json.loads(request.content) if request.content else {}
        if request.method == "POST":
            self.objects[f"{path}/{body['metadata']['name']}"] = body
            return httpx.Response(201, json=body)
        if path.endswith("/servedmodels"):
            items = [found for key, found in self.objects.items() if key.startswith(f"{path}/")]
            return httpx.Response(200, json={"items": items})
        if path not in self.objects:
            return httpx.Response(404, json={})
        return self._change(request.method, path, body)

    def _change(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        found = self.objects[path]
        if method == "PATCH" and "metadata" in body:
            del self.objects[path]
        elif method == "PATCH":
            found["data"] = found.get("data", {}) | body["data"]
        elif method == "DELETE" and not found["metadata"].get("finalizers"):
            del self.objects[path]
        return httpx.Response(200, json=found)

    def values(self, name: str) -> dict[str, str]:
        """Return a Secret's values, decoded."""
        data = self.objects[f"/api/v1/namespaces/clinic/secrets/{name}"]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


def test_secrets_are_made_with_what_refers_to_them() -> None:
    """An address holds the password that was made for it; a key has 32 bytes."""
    server = ApiServer()
    assert set(secrets.make(server.client(), PLAN, NOW)) == {"address", "database", "keys"}
    password = server.values("database")["password"]
    assert server.values("address")["dsn"] == f"postgresql://auth:{password}@host/auth"
    assert len(base64.b64decode(server.values("keys")["key"])) == 32
    assert password.replace("-", "").replace("_", "").isalnum()


def test_secrets_are_never_made_twice() -> None:
    """The second run, of an upgrade, changes nothing and writes nothing."""
    server = ApiServer()
    secrets.make(server.client(), PLAN, NOW)
    before = json.dumps(server.objects)
    server.calls.clear()
    assert secrets.make(server.client(), PLAN, NOW) == []
    assert json.dumps(server.objects) == before
    assert {call.split()[0] for call in server.calls} == {"GET"}


def test_two_installations_share_no_secret() -> None:
    """Nothing has a default."""
    one, other = ApiServer(), ApiServer()
    for server in (one, other):
        secrets.make(server.client(), PLAN, NOW)
    assert one.values("keys") != other.values("keys")
    assert one.values("database") != other.values("database")


def test_a_holder_that_becomes_a_client_has_a_new_certificate() -> None:
    """An upgrade that makes it call others is no use with a certificate that they refuse; then it is kept."""
    server = ApiServer()
    changed = []
    for client in (False, False, True, True):
        plan = {"authority": "root", "certificates": {"web": {"names": ["hg-web"], "client": client}}}
        asked = Plan.model_validate({"namespace": "clinic", "secrets": {}} | plan)
        changed.append(secrets.make(server.client(), asked, NOW))
    assert changed == [["web"], [], ["web"], []]


def test_a_key_that_is_missing_is_added_beside_the_others() -> None:
    """A later chart wants one value more of a Secret that is there."""
    existing = {"database": {"password": "kept"}, "keys": {}}
    made = missing(PLAN.secrets, existing)
    assert made.keys() == {"address", "keys"}
    assert made["address"]["dsn"] == "postgresql://auth:kept@host/auth"


def test_a_reference_to_nothing_is_refused() -> None:
    """An address without its password would fail much later, far from the cause."""
    plan = Plan.model_validate({"namespace": "n", "secrets": {"a": {"data": {"dsn": "x${b/c}"}}}})
    with pytest.raises(BadPlan, match=r"\$\{b/c\}"):
        missing(plan.secrets, {})


def test_lost_secrets_stop_the_installation() -> None:
    """A volume is there and the key to it is not: a new key would lock it for good."""
    server = ApiServer()
    server.objects["/api/v1/namespaces/clinic/persistentvolumeclaims/data-0"] = {}
    with pytest.raises(KeysLost, match=r"data-0.*database, keys"):
        secrets.make(server.client(), PLAN, NOW)
    assert not [call for call in server.calls if not call.startswith("GET")]


def test_lost_secrets_stop_an_upgrade() -> None:
    """Where the database is elsewhere no claim tells that there is data: that the release was there must do."""
    server = ApiServer()
    secrets.make(server.client(), PLAN, NOW)
    upgrade = PLAN.model_copy(update={"claims": {}, "made_before": ["keys"]})
    assert secrets.make(server.client(), upgrade, NOW) == []
    del server.objects["/api/v1/namespaces/clinic/secrets/keys"]
    server.calls.clear()
    with pytest.raises(KeysLost, match=r"the Secret keys of its data is not: restore"):
        secrets.make(server.client(), upgrade, NOW)
    assert not [call for call in server.calls if not call.startswith("GET")]


def test_secrets_are_not_pruned_by_argo_cd() -> None:
    """They have the release's labels, and are not in the rendered chart."""
    server = ApiServer()
    secrets.make(server.client(), PLAN, NOW)
    for made in server.objects.values():
        assert made["metadata"]["annotations"] == {"argocd.argoproj.io/sync-options": "Prune=false,Delete=false"}


def test_a_refusal_names_the_status_and_nothing_of_the_object() -> None:
    """The text goes into a log."""

    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(403, text="secrets is forbidden: user x cannot …")

    http = httpx.Client(base_url="https://api.test", transport=httpx.MockTransport(refuse))
    with pytest.raises(CallFailed, match=r"^the API server answered 403 Forbidden$"):
        secrets.make(Kubernetes(http), PLAN, NOW)


def test_models_that_something_holds_are_freed_in_the_end() -> None:
    """One goes by itself, one has a finalizer that nobody removes: an uninstall must not hang on it."""
    server = ApiServer()
    where = "/apis/serving.healthguard.io/v1alpha1/namespaces/clinic/servedmodels"
    for name, finalizers in (("cancer", []), ("anemia", ["example.org/held"])):
        server.objects[f"{where}/{name}"] = {"metadata": {"name": name, "finalizers": finalizers}}
    times = iter(range(100))
    held = leave(server.client(), "clinic", "app=hg", wait_s=5, clock=lambda: float(next(times)), sleep=lambda _: None)
    assert held == ["anemia"]
    assert server.objects == {}
