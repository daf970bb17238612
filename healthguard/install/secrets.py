"""Make the Secrets that a plan asks for: once, and never again."""

import base64
import binascii
import datetime
from collections.abc import Mapping

from healthguard.install import certificates
from healthguard.install.certificates import Pair
from healthguard.install.kubernetes import Kubernetes, Object
from healthguard.install.plan import Data, Plan, WantedCertificate, check_keys_are_not_lost, missing

KEPT = {"argocd.argoproj.io/sync-options": "Prune=false,Delete=false"}
"""Argo CD takes what has the release's labels for its own, and what is not in the rendered chart for superfluous."""


def make(kubernetes: Kubernetes, plan: Plan, now: datetime.datetime) -> list[str]:
    """
    Make what is missing, and return the names of the Secrets that were changed.

    Raises:
        KeysLost: something is locked with a secret that is gone.
        BadPlan, BadAuthority: the plan, or the stored authority, cannot be worked with.
        CallFailed: the API server refused.
    """
    existing = {name: data for name in plan.secrets if (data := _read(kubernetes, plan, name)) is not None}
    claims = [name for name in plan.claims if kubernetes.get(_claim(plan, name)) is not None]
    check_keys_are_not_lost(plan, existing, claims)
    made = missing(plan.secrets, existing)
    for name, data in made.items():
        _write(kubernetes, plan, name, plan.secrets[name].type, data, exists=name in existing)
    return [*made, *_make_certificates(kubernetes, plan, now)]


def _make_certificates(kubernetes: Kubernetes, plan: Plan, now: datetime.datetime) -> list[str]:
    if plan.authority is None:
        return []
    authority = _authority(kubernetes, plan, plan.authority, now)
    wanted = plan.certificates.items()
    return [name for name, certificate in wanted if _certify(kubernetes, plan, authority, name, certificate, now=now)]


def _authority(kubernetes: Kubernetes, plan: Plan, name: str, now: datetime.datetime) -> Pair:
    stored = _read(kubernetes, plan, name)
    if stored:
        return Pair(stored.get("tls.crt", "").encode(), stored.get("tls.key", "").encode())
    made = certificates.make_authority(now)
    data = {"tls.crt": made.certificate.decode(), "tls.key": made.key.decode()}
    _write(kubernetes, plan, name, "kubernetes.io/tls", data, exists=False)
    return made


def _certify(
    kubernetes: Kubernetes,
    plan: Plan,
    authority: Pair,
    name: str,
    wanted: WantedCertificate,
    *,
    now: datetime.datetime,
) -> bool:
    """Give a server its certificate, and tell whether it is a new one."""
    stored = _read(kubernetes, plan, name)
    held = stored.get("tls.crt", "").encode() if stored else b""
    if held and not certificates.is_due(held, authority, wanted.names, now, client=wanted.client):
        return False
    made = certificates.issue(authority, wanted.names, now, client=wanted.client)
    data = {
        "tls.crt": made.certificate.decode(),
        "tls.key": made.key.decode(),
        "ca.crt": authority.certificate.decode(),
    }
    _write(kubernetes, plan, name, "kubernetes.io/tls", data, exists=stored is not None)
    return True


def _read(kubernetes: Kubernetes, plan: Plan, name: str) -> Data | None:
    found = kubernetes.get(f"{_secrets(plan)}/{name}")
    return None if found is None else _decoded(found.get("data") or {})


def _decoded(data: Mapping[str, str]) -> Data:
    values = {}
    for key, value in data.items():
        try:
            values[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            # Not ours, and so nothing that another value refers to; it is there, and is left alone.
            values[key] = ""
    return values


def _write(kubernetes: Kubernetes, plan: Plan, name: str, kind: str, data: Data, *, exists: bool) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    if exists:
        kubernetes.merge(f"{_secrets(plan)}/{name}", {"data": encoded})
        return
    metadata: Object = {"name": name, "namespace": plan.namespace, "labels": plan.labels, "annotations": KEPT}
    manifest = {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": encoded}
    kubernetes.create(_secrets(plan), manifest)


def _secrets(plan: Plan) -> str:
    return f"/api/v1/namespaces/{plan.namespace}/secrets"


def _claim(plan: Plan, name: str) -> str:
    return f"/api/v1/namespaces/{plan.namespace}/persistentvolumeclaims/{name}"
