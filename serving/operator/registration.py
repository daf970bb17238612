"""
The APIService by which the API server finds our external metrics API: kept ours, and withdrawn in time.

The chart makes it, so that an uninstall removes it first and Helm refuses to take another provider's. The operator only
adds the authority of its certificate, which nobody else knows. An APIService that nobody answers fails the discovery of
the whole cluster, and so the end of every namespace: where our own namespace is about to go, the operator takes it
back. Kubernetes leaves five seconds for that before it removes the namespace's accounts and pods.
"""

import base64
import binascii
from typing import Any

import structlog

from serving.operator.kubernetes import Api

log = structlog.get_logger()

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
NAME = f"{VERSION}.{GROUP}"
AUTHORITIES_MAX = 4
"""Ours, and those of operators that were there before or are there beside us: each has its own."""

_END = b"-----END CERTIFICATE-----\n"


class Registration:
    """The APIService, as far as it is ours."""

    def __init__(self, api: Api, *, namespace: str, service: str, authority: bytes) -> None:
        """Keep *authority*, a PEM certificate, in the APIService that names the Service in the namespace."""
        self._api = api
        self._namespace = namespace
        self._service = service
        self._authority = authority
        self.holds = False
        """Whether the API server was told of us the last time."""

    async def uphold(self) -> None:
        """
        Have our authority in the APIService; leave one that names another Service, and one that is not there.

        Raises:
            CallFailed: the API server refused, or did not answer.
        """
        found = await self._api.get("APIService", None, NAME)
        if found is None or not self._ours(found):
            log.warning("external_metrics_api_not_ours", there=found is not None)
            self.holds = False
            return
        bundle = bundled(found["spec"].get("caBundle", ""), self._authority)
        if bundle != found["spec"].get("caBundle"):
            # With its uid: one that was removed meanwhile is not made again.
            metadata = {"name": NAME, "uid": found["metadata"]["uid"]}
            changed = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata}
            await self._api.apply(changed | {"spec": {"caBundle": bundle}})
        self.holds = True

    async def withdraw_if_leaving(self) -> bool:
        """
        Remove the APIService if our namespace is about to go; return whether it is.

        Raises:
            CallFailed: the API server refused, or did not answer.
        """
        namespace = await self._api.get("Namespace", None, self._namespace)
        if namespace is not None and "deletionTimestamp" not in namespace["metadata"]:
            return False
        found = await self._api.get("APIService", None, NAME)
        if found is not None and self._ours(found):
            await self._api.delete("APIService", None, NAME, uid=found["metadata"]["uid"])
            log.info("external_metrics_api_withdrawn")
        self.holds = False
        return True

    def _ours(self, found: dict[str, Any]) -> bool:
        service = found["spec"].get("service") or {}
        return (service.get("namespace"), service.get("name")) == (self._namespace, self._service)


def bundled(bundle: str, authority: bytes) -> str:
    """Return a caBundle, base64, that holds *authority*: as it is where it does, else with it in the first place."""
    try:
        held = base64.b64decode(bundle, validate=True)
    except binascii.Error:
        held = b""
    if authority.strip() in held:
        return bundle
    others = [part + _END for part in held.split(_END) if part.strip()]
    return base64.b64encode(b"".join([authority, *others][:AUTHORITIES_MAX])).decode()
