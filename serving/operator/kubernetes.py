"""The few calls of the Kubernetes API that the operator makes, each with a deadline and a bounded number of tries."""

import asyncio
import base64
import binascii
import random
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kopf

Object = dict[str, Any]

FIELD_MANAGER = "healthguard-operator"
TRIES = 6
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
_RETRIED = frozenset({409, 429, 500, 502, 503, 504})
_BACKOFF_S = 0.25
_BACKOFF_MAX_S = 10.0
_LIST_MAX = 500

_PATHS = {
    "ServedModel": ("apis/serving.healthguard.io/v1alpha1", "servedmodels"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "Service": ("api/v1", "services"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Pod": ("api/v1", "pods"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices"),
    "Event": ("apis/events.k8s.io/v1", "events"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "ScaledObject": ("apis/keda.sh/v1alpha1", "scaledobjects"),
    "Namespace": ("api/v1", "namespaces"),
    "Node": ("api/v1", "nodes"),
    "APIService": ("apis/apiregistration.k8s.io/v1", "apiservices"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
}

Sleep = Callable[[float], Awaitable[None]]


class CallFailed(Exception):
    """A call that was refused, or not answered in all its tries; `status` is 0 where nothing answered."""

    def __init__(self, status: int, reason: str, *, after_s: float = 0.0) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.after_s = after_s
        """How long the server asked to be left alone, seconds."""


class NoAccess(Exception):
    """Neither a service account nor a kubeconfig says where the Kubernetes API is."""


@dataclass(frozen=True)
class Access:
    """Where the Kubernetes API is, and how to be let in."""

    server: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None


def path_of(kind: str, namespace: str | None, name: str | None = None) -> str:
    """Return the path of a collection, or of one object in it; no namespace means all of them."""
    prefix, plural = _PATHS[kind]
    parts = [prefix, *(["namespaces", namespace] if namespace else []), plural, *([name] if name else [])]
    return "/" + "/".join(parts)


def access() -> Access:
    """
    Find the way in as kopf does: the pod's service account, else KUBECONFIG. It is read anew, since tokens expire.

    Raises:
        NoAccess: there is none.
    """
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise NoAccess
    return Access(found.server.rstrip("/"), found.as_http_headers(), _tls(found))


def _tls(found: Any) -> ssl.SSLContext | None:
    if found.server.startswith("http://"):
        return None
    context = ssl.create_default_context(cafile=found.ca_path, cadata=_pem(found.ca_data))
    certificate = found.certificate_path or _pem(found.certificate_data)
    if not certificate:
        return context
    # Python loads client certificates from files only.
    with tempfile.TemporaryDirectory() as folder:
        files: list[str] = []
        for name, path, data in (
            ("certificate", found.certificate_path, found.certificate_data),
            ("key", found.private_key_path, found.private_key_data),
        ):
            file = Path(path) if path else Path(folder, name)
            if not path:
                file.write_text(_pem(data) or "")
            files.append(str(file))
        context.load_cert_chain(*files)
    return context


def _pem(data: str | bytes | None) -> str | None:
    """Return PEM text that may be in base64, as kubeconfigs have it."""
    if not data:
        return None
    text = data.decode() if isinstance(data, bytes) else data
    try:
        return text if "-----" in text else base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


class Api:
    """The Kubernetes API; safe to share between tasks of one event loop."""

    def __init__(self, session: aiohttp.ClientSession, find_access: Callable[[], Access], sleep: Sleep) -> None:
        """Use `connect` to make one."""
        self._session = session
        self._find_access = find_access
        self._sleep = sleep
        self._access: Access | None = None

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """
        Return an object, or None where there is none.

        Raises:
            CallFailed: refused, or not answered.
        """
        try:
            return await self._call("GET", path_of(kind, namespace, name))
        except CallFailed as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None) -> list[Object]:
        """
        Return all objects of a kind, in one namespace or in all, that carry *labels*.

        Raises:
            CallFailed: refused, or not answered.
        """
        query = {"limit": str(_LIST_MAX)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[Object] = []
        while True:
            page = await self._call("GET", path_of(kind, namespace), query=query)
            found += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return found
            query["continue"] = more

    async def apply(self, manifest: Object) -> Object:
        """
        Make the object be as *manifest* says, on the server's side; fields that it does not name stay as they are.

        Raises:
            CallFailed: refused, or not answered.
        """
        metadata = manifest["metadata"]
        path = path_of(manifest["kind"], metadata.get("namespace"), metadata["name"])
        # Forced: whoever changed a field that is ours is set right. That the object is ours was checked before.
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, query=query, body=manifest, content_type="application/apply-patch+yaml")

    async def write_status(self, kind: str, metadata: Object, status: Object) -> None:
        """
        Make the object's status be *status*.

        Not by server-side apply, which refuses all of it for one field that the definition in the cluster does not
        know; Helm leaves definitions older than this code. Here such a field is left out.

        Args:
            metadata: namespace, name, the uid without which it would be another object, and the resourceVersion that
                the status was decided by.

        Raises:
            CallFailed: refused, or not answered; 422 where the object is another one, or changed since.
        """
        path = path_of(kind, metadata["namespace"], metadata["name"]) + "/status"
        same = [
            {"op": "test", "path": f"/metadata/{key}", "value": metadata[key]} for key in ("uid", "resourceVersion")
        ]
        body = [*same, {"op": "add", "path": "/status", "value": status}]
        query = {"fieldManager": FIELD_MANAGER}
        await self._call("PATCH", path, query=query, body=body, content_type="application/json-patch+json")

    async def scale(self, namespace: str, name: str, replicas: int) -> None:
        """
        Set how many pods a Deployment has, and nothing else of it; one that is gone needs none.

        Raises:
            CallFailed: refused, or not answered.
        """
        path, body = path_of("Deployment", namespace, name), {"spec": {"replicas": replicas}}
        try:
            await self._call("PATCH", path, body=body, content_type="application/merge-patch+json")
        except CallFailed as error:
            if error.status != 404:
                raise

    async def delete(self, kind: str, namespace: str | None, name: str, *, uid: str) -> None:
        """
        Remove an object, if it is still the one with *uid*; one that is gone or another is none of our business.

        Raises:
            CallFailed: refused, or not answered.
        """
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._call("DELETE", path_of(kind, namespace, name), body=body, retried=_RETRIED - {409})
        except CallFailed as error:
            if error.status not in (404, 409):
                raise

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | Sequence[Object] | None = None,
        content_type: str = "application/json",
        retried: frozenset[int] = _RETRIED,
    ) -> Object:
        """
        Make one call, and again where that may help.

        Raises:
            CallFailed: refused, or not answered in all its tries.
        """
        failure = CallFailed(0, "the API server was not asked")
        for attempt in range(TRIES):
            if attempt:
                await self._sleep(_pause_s(attempt, failure))
            try:
                return await self._once(method, path, query, body, content_type)
            except CallFailed as error:
                failure = error
                if error.status == 401:
                    self._access = None
                elif error.status and error.status not in retried:
                    break
        raise failure

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Object | Sequence[Object] | None,
        content_type: str,
    ) -> Object:
        self._access = self._access or self._find_access()
        headers = {**self._access.headers, "Accept": "application/json", "Content-Type": content_type}
        tls = self._access.tls
        try:
            async with self._session.request(
                method, self._access.server + path, params=query, json=body, headers=headers, ssl=tls if tls else True
            ) as response:
                if response.status < 300:
                    answer: Object = await response.json()
                    return answer
                raise await _failure(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CallFailed(0, type(error).__name__) from error


@asynccontextmanager
async def connect(find_access: Callable[[], Access] = access, sleep: Sleep = asyncio.sleep) -> AsyncIterator[Api]:
    """Yield the API; its connections close with the block."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session:
        yield Api(session, find_access, sleep)


async def _failure(response: aiohttp.ClientResponse) -> CallFailed:
    """Return why a call was refused: the API server's own sentence, which names fields and never secrets' values."""
    try:
        reason = str((await response.json())["message"])[:500]
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        reason = response.reason or "refused"
    after = response.headers.get("Retry-After", "")
    return CallFailed(response.status, reason, after_s=float(after) if after.isdigit() else 0.0)


def _pause_s(attempt: int, failure: CallFailed) -> float:
    """Return how long to wait: doubled each time, with jitter so that two of us part, or as long as the server says."""
    doubled = _BACKOFF_S * 2.0**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    return min(max(doubled, failure.after_s), _BACKOFF_MAX_S)
